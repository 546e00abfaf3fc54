"""The loop. SFT, reward models and the DPO family run through it; online methods differ only in their source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

from truing.data.batch import Batch
from truing.policy.divided import forward
from truing.policy.policy import Policy
from truing.policy.reference import Reference
from truing.signals.observe import observe
from truing.train.checks import at_sampling, compared, trouble, with_own
from truing.train.distributed import process_group
from truing.train.interrupt import Stopping
from truing.train.objective_sum import WeightedObjectives
from truing.train.optim import Optim
from truing.train.record.metrics import Record
from truing.train.source import Source, share
from truing.train.step_statistics import Look, Parts, Survey

Observe: TypeAlias = Callable[..., dict[str, torch.Tensor]]


def fit(
    policy: Policy,
    source: Source,
    objective: WeightedObjectives,
    optim: Optim,
    record: Record,
    reference: Reference | None = None,
) -> None:
    """Train `policy` in place until the source ends.

    Every rank has the whole step and reads its share of it. Every term's sum is divided once, by its count over the
    whole step, and gradients are summed over parts and ranks; a step that is not finite on one rank stops all before
    the update. SIGTERM or SIGINT ends the run after the step in hand, with a checkpoint of it.
    """
    look, survey = forward(policy.model, observe), Survey(objective)
    with process_group.reaching(), flushing(), Stopping() as stopping:
        record.begin(policy, optim, source.steps, survey.state)
        for step, batch in source.since(record.step):
            counts, problem = objective.counts(batch), ""
            parts = list(share(batch, source.training.tokens_per_device, process_group.rank(), process_group.world()))
            fresh, alike = source.fresh(step), reference is None or not reference.left
            beside = compared(objective, step, fresh, alike)
            read = reading(look, policy, reference, objective.all_signals | beside, parts, fresh)
            survey.take(batch, parts, read)
            for part, weight in parts:
                signals = read(part, objective.signals | beside)
                loss, shares = objective.total(signals, counts, survey.of(part))
                problem = problem or trouble(step, part, policy, signals, loss.item(), source.corrected)
                (weight * loss).backward()
                record.note(signals, loss.item(), shares, weight, objective.lower_is_better)
            process_group.agree(problem)
            record.close(step, batch, optim, optim.step(step) | objective.counted(batch) | dict(source.after(step)))
            if number := stopping.signal_sent():
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


def reading(
    look: Observe, policy: Policy, reference: Reference | None, names: frozenset[str], parts: Parts, fresh: bool
) -> Look:
    """Return the function that computes the signals of a part. A step that is one part is read once, for all of its
    `names`. Where its rollouts are `fresh`, ratios to the policy that gave them are taken to the policy itself."""

    def read(part: Batch, some: frozenset[str]) -> dict[str, Tensor]:
        signals = look(policy, part, with_own(some) if fresh else some, reference)
        return at_sampling(signals) if fresh else signals

    if len(parts) > 1 or process_group.world() > 1:
        return read
    observed = read(parts[0][0], names)
    return lambda part, some: observed
