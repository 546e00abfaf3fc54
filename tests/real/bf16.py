"""Every objective for three steps in bf16 on a real language model, and how exact its readings are.

    make bf16                     # all of them, and the tables in docs/models.md
    make bf16 ONLY="dpo grpo"

Every line is a run of its own. `share` is the share of rows that have a gradient at the first update of a round, and
beside it what it would be if the sampler's log-probabilities stood for the policy's; `gap` how far these two are apart
there, nats a token (the mean over responses).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import sys
import tempfile
import time
from pathlib import Path

import torch

from real import runs
from real.models import smollm
from small_trees import trainable
from truing import registry
from truing.errors import TruingError
from truing.policy.load import load
from truing.policy.plain import own_logp
from truing.policy.precision import Gap
from truing.records import OWED


def online() -> list[str]:
    """Every built-in objective that learns from a policy's own answers alone."""
    parts = registry.parts("objective")
    return sorted(
        {n for n, p in parts.items() if not OWED & set(p.needs)} - set(trainable()) - {"value_clipped", "ptx"}
    )


def main(only: list[str]) -> int:
    """Print a line an objective; 1 where one failed."""
    folder, failed = str(smollm()), 0
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} thread")
    exactness(folder)
    names = [name for name in (*trainable(), *online()) if not only or name in only]
    for name in names:
        begun = time.process_time()
        try:
            print(f"{name:14} {told(folder, name)}  {time.process_time() - begun:.0f} s", flush=True)
        except TruingError as error:
            failed += 1
            print(f"{name:14} FAILED: {error}", flush=True)
    print(f"{len(names) - failed} of {len(names)} objectives trained")
    return int(failed > 0)


def told(folder: str, name: str) -> str:
    """One objective's run in a line."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        if name in trainable():
            rows = runs.given(folder, name, out, "bf16")
            assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
            return f"loss {rows[0]['loss']:.4f} to {rows[-1]['loss']:.4f}"
        shares = [
            runs.share_with_gradient(runs.source_of(folder, name, out / str(fresh), "bf16"), fresh=fresh)
            for fresh in (True, False)
        ]
        share = "no ratio" if math.isnan(shares[0]) else f"share {shares[0]:.2f} (sampler's {shares[1]:.2f})"
        rows = runs.online(folder, name, out, "bf16")
        assert all(math.isfinite(row["loss"]) for row in rows)
        kl = f", kl {rows[0]['kl']:.4f} to {rows[-1]['kl']:.4f}" if "kl" in rows[0] else ""
        gap = f", gap {rows[0]['sampler_gap']:.4f}" if "sampler_gap" in rows[0] else ""
        equal = f", equal groups {rows[0]['equal_groups']:.2f}"
        return f"{share}{equal}{gap}{kl}"


def exactness(folder: str) -> None:
    """How far trees and rows are from the model's own rows in fp32."""
    batch, policy = runs.asked(folder), load(folder)
    with torch.no_grad():
        rows, trees = own_logp(policy, batch), policy.logp(batch)
        policy.compute_in("bf16")
        low_rows, low_trees = own_logp(policy, batch), policy.logp(batch)
    for what, reading in (("fp32 trees", trees), ("bf16 rows", low_rows), ("bf16 trees", low_trees)):
        gap = Gap.between(reading, rows)
        print(f"{what}: rms {gap.rms:.1e}, largest {gap.largest:.1e} nats a token off fp32 rows ({len(rows)} tokens)")
    assert policy.rounding is not None
    print(
        f"allowed: fp32 {policy.rounding.allowed(torch.float32):.1e}, bf16 {policy.rounding.allowed(torch.bfloat16):.1e}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
