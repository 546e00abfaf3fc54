"""The loop. SFT, reward models and the DPO family run through it; online methods differ only in their source."""

from __future__ import annotations

import math

import torch

from truing.data.batch import Batch
from truing.errors import RunFailed
from truing.policy.policy import Policy
from truing.policy.reference import Reference
from truing.train import parallel
from truing.train.observe import observe
from truing.train.optim import Optim
from truing.train.record import Record
from truing.train.source import DataSource
from truing.train.terms import Sum

STEP_ZERO_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1}


def fit(
    policy: Policy, source: DataSource, objective: Sum, optim: Optim, record: Record, reference: Reference | None = None
) -> None:
    """Train `policy` in place until the source ends.

    Every term's sum is divided once, by its count over the whole step on all ranks; a step that is not finite stops
    the run before the update.
    """
    torch.set_flush_denormal(True)
    record.begin(policy, optim, source.steps)
    for step, batch in source.since(record.step):
        counts = parallel.total(objective.counts(batch))
        for part in batch.split(source.training.tokens_per_device):
            signals = observe(policy, part, objective.signals, reference)
            if step == 1:
                check_start(policy, signals)
            loss, shares = objective.total(signals, counts)
            if not torch.isfinite(loss):
                raise RunFailed(not_finite(step, part, loss.item()))
            loss.backward()
            record.note(signals, loss.item(), shares)
        record.close(step, batch, optim, policy, optim.step(step))


def check_start(policy: Policy, signals: dict[str, torch.Tensor]) -> None:
    """Before the first update the policy is its own reference: every log-ratio is 0, so DPO's loss is ln 2."""
    for role in ("", "chosen_", "rejected_"):
        now, then = signals.get(f"{role}logp_B"), signals.get(f"ref_{role}logp_B")
        if now is None or then is None:
            continue
        off = (now - then).abs().max().item()
        if not off <= STEP_ZERO_TOLERANCE[policy.model.dtype]:
            raise RunFailed(
                f"step 1: the policy's log-probabilities differ from its reference's by {off:.2e} nats before any "
                "update; the reference belongs to other weights, or something in the forward pass is random"
            )


def not_finite(step: int, part: Batch, loss: float) -> str:
    """What to say of a loss that is not a number: where it came from, and that nothing was updated."""
    rows = [tree.row for tree in part.trees]
    told = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
    what = "not a number" if math.isnan(loss) else "infinite"
    return f"step {step}: the loss is {what} on data rows {told}; the model was not updated. Try a lower learning_rate."
