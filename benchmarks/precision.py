"""The cost of logits in fp32 under bf16: CPU seconds of a DPO-like step on the real model, interleaved.

    make bf16 then: PYTHONPATH=tests .venv/bin/python benchmarks/precision.py

`rounded` is the head's product kept in bf16, as a plain linear layer under autocast gives it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import time

import torch

from real.models import smollm
from truing.data.batch import Batch, Branch, Tree
from truing.policy import logp
from truing.policy.load import load
from truing.policy.policy import Policy

ROUNDS, TREES, PROMPT, LENGTH = 5, 2, 96, 48
EXACT = logp.product


def rounded(h: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The product as a linear layer under autocast gives it."""
    return torch.nn.functional.linear(h, weight.to(h.dtype)).float()


def step(policy: Policy, batch: Batch) -> float:
    """CPU seconds of a forward and a backward pass."""
    begun = time.process_time()
    policy.logp(batch).sum().mul(-1e-3).backward()
    policy.model.zero_grad()
    return time.process_time() - begun


def main() -> None:
    """Print the medians of each kind, and their ratios to `rounded`."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    policy = load(str(smollm()))
    generator = torch.Generator().manual_seed(0)

    def branch() -> Branch:
        return Branch(
            "response", tuple(torch.randint(300, 8000, (LENGTH,), generator=generator).tolist()), (True,) * LENGTH
        )

    trees = [Tree(tuple(range(300, 300 + PROMPT)), (branch(), branch()), i, i) for i in range(TREES)]
    batch, seconds = Batch(tuple(trees)), {"fp32": [], "bf16": [], "bf16 rounded": []}
    for _ in range(ROUNDS + 1):
        for kind, times in seconds.items():
            policy.compute_in("fp32" if kind == "fp32" else "bf16")
            policy.verified = True
            logp.product = rounded if kind == "bf16 rounded" else EXACT
            times.append(step(policy, batch))
    for kind, times in seconds.items():
        ratios = [a / b for a, b in zip(times[1:], seconds["bf16 rounded"][1:], strict=True)]
        print(
            f"{kind:14} {statistics.median(times[1:]):.2f} s, {statistics.median(ratios):.2f} of rounded "
            f"({min(ratios):.2f} to {max(ratios):.2f}); {torch.backends.cpu.get_cpu_capability()}"
        )


if __name__ == "__main__":
    main()
