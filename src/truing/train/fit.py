"""The loop. SFT, reward models and the DPO family run through it; online methods differ only in their source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch

from truing.data.batch import Batch
from truing.policy.policy import Policy
from truing.policy.reference import Reference
from truing.train import parallel
from truing.train.observe import observe
from truing.train.optim import Optim
from truing.train.record import Record
from truing.train.shard import forward
from truing.train.source import Source, share
from truing.train.stopping import Stopping
from truing.train.survey import Look, Parts, Survey
from truing.train.terms import Sum

Observe: TypeAlias = Callable[..., dict[str, torch.Tensor]]
STEP_ZERO_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1}


def fit(
    policy: Policy, source: Source, objective: Sum, optim: Optim, record: Record, reference: Reference | None = None
) -> None:
    """Train `policy` in place until the source ends.

    Every rank has the whole step and reads its share of it. Every term's sum is divided once, by its count over the
    whole step, and gradients are summed over parts and ranks; a step that is not finite on one rank stops all before
    the update. SIGTERM or SIGINT ends the run after the step in hand, with a checkpoint of it.
    """
    look, survey = forward(policy.model, observe), Survey(objective)
    with parallel.reaching(), flushing(), Stopping() as stopping:
        record.begin(policy, optim, source.steps, survey.state)
        for step, batch in source.since(record.step):
            counts, problem = objective.counts(batch), ""
            parts = list(share(batch, source.training.tokens_per_device, parallel.rank(), parallel.world()))
            read = reading(look, policy, reference, objective, parts)
            survey.take(batch, parts, read)
            for part, weight in parts:
                signals = read(part, objective.signals)
                loss, shares = objective.total(signals, counts, survey.of(part))
                alike = reference is None or not reference.left
                problem = problem or trouble(step, part, policy, signals, loss.item(), source.fresh(step), alike)
                (weight * loss).backward()
                record.note(signals, loss.item(), shares, weight)
            parallel.agree(problem)
            record.close(step, batch, optim, optim.step(step) | dict(source.after(step)))
            if number := stopping.asked():
                record.keep(optim)
                stopping.obey(number)


@contextmanager
def flushing() -> Iterator[None]:
    """Within this block numbers too small to be normal are 0: a backward pass full of them is five times slower."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def reading(look: Observe, policy: Policy, reference: Reference | None, objective: Sum, parts: Parts) -> Look:
    """How the signals of a part are computed. A step that is one part is looked at once, for its statistics too."""
    if len(parts) > 1 or parallel.world() > 1:
        return lambda part, names: look(policy, part, names, reference)
    seen = look(policy, parts[0][0], objective.all_signals, reference)
    return lambda part, names: seen


def trouble(
    step: int, part: Batch, policy: Policy, signals: dict[str, torch.Tensor], loss: float, fresh: bool, alike: bool
) -> str:
    """Why the model must not be updated by this part, or an empty string. `fresh`: it gave the part's rollouts itself,
    just now; `alike`: before the first update it is its own reference."""
    off = apart(signals, "ref_") if step == 1 and alike else 0.0
    if not off <= STEP_ZERO_TOLERANCE[policy.dtype]:
        return (
            f"step {step}: the policy's log-probabilities differ from its reference's by {off:.2e} nats before any "
            "update; the reference belongs to other weights, or something in the forward pass is random"
        )
    off = apart(signals, "old_") if fresh else 0.0
    if not off <= STEP_ZERO_TOLERANCE[policy.dtype]:
        return (
            f"step {step}: the sampler's log-probabilities differ from the trainer's by {off:.2e} nats before any "
            "update, and their ratio must begin at 1; nothing was updated"
        )
    return "" if math.isfinite(loss) else not_finite(step, part, loss)


def apart(signals: dict[str, torch.Tensor], other: str) -> float:
    """How far the policy is from another (its reference, `ref_`, or the one that gave the rollouts, `old_`), nats."""
    names = ("logp_B", "chosen_logp_B", "rejected_logp_B", "logp_BK", "logp_BT")
    pairs = [(signals.get(name), signals.get(f"{other}{name}")) for name in names]
    found = [(now - then).abs().max() for now, then in pairs if now is not None and then is not None]
    return torch.stack(found).max().item() if found else 0.0


def not_finite(step: int, part: Batch, loss: float) -> str:
    """What to say of a loss that is not a number: where it came from, and that nothing was updated."""
    rows = [tree.row for tree in part.trees]
    told = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
    what = "not a number" if math.isnan(loss) else "infinite"
    return f"step {step}: the loss is {what} on data rows {told}; the model was not updated. Try a lower learning_rate."
