"""The rounds of a run, decided before they begin: which prompts are asked, in what order, and in which updates.

Everything here is a function of the seed and a round's number, so that a resumed run finds the same rounds again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from truing.data.batch import Tree
from truing.errors import UserError
from truing.online.generation import Prompt
from truing.rollout.experience import Experience
from truing.settings import Online, Training
from truing.streams import Stream, derived, generator


@dataclass(frozen=True)
class RoundPlan:
    """One round before it begins: its `number` from 0, the updates that were done by then (`version`, which is also the
    policy's), its `prompts` by group, the weight `beta` of the KL to the reference, and the `seed` of its responses."""

    number: int
    version: int
    prompts: tuple[Prompt, ...]
    beta: float
    seed: int


class PromptSchedule:
    """The prompts of every round and the updates in which a round is learned from.

    `rows_per_step` is the prompts of one update; a round has `minibatches` times as many, learned from
    `epochs_per_round` times. The stage's name keeps the responses of several stages of one recipe
    apart; the order of prompts follows from the seed alone."""

    def __init__(
        self, prompts: Sequence[Prompt], online: Online, training: Training, seed: int = 0, stage: str = ""
    ) -> None:
        if not prompts:
            raise UserError("there is no prompt left to answer")
        self.prompts, self.online, self.training = tuple(prompts), online, training
        self.seed, self.stage = seed + training.seed, stage
        self.per_update = training.rows_per_step or 16
        self.per_round = self.per_update * online.minibatches
        self.updates = online.minibatches * online.epochs_per_round

    @cached_property
    def steps(self) -> int:
        """Updates of the whole run; an epoch is every prompt once."""
        if self.training.steps is not None:
            return self.training.steps
        return math.ceil(self.training.epochs * len(self.prompts) / self.per_round) * self.updates

    @property
    def rounds(self) -> int:
        """Rounds of the whole run; the last may be learned from in part."""
        return math.ceil(self.steps / self.updates)

    def plan(self, number: int, beta: float) -> RoundPlan:
        """Round `number` at this weight of the KL."""
        drawn = derived(self.seed, self.stage, number)
        return RoundPlan(number, number * self.updates, self.prompts_of(number), beta, drawn)

    def prompts_of(self, number: int) -> tuple[Prompt, ...]:
        """The prompts of a round: every prompt once before any comes again."""
        orders: dict[int, NDArray[np.int64]] = {}
        chosen = []
        for place in range(number * self.per_round, (number + 1) * self.per_round):
            epoch, position = divmod(place, len(self.prompts))
            if epoch not in orders:
                orders[epoch] = generator(Stream.PROMPT_ORDER, self.seed, 0, epoch).permutation(len(self.prompts))
            chosen.append(self.prompts[orders[epoch][position]])
        return tuple(chosen)

    def replacements(self, plan: RoundPlan) -> Iterator[Prompt]:
        """Prompts that may stand in for those of a round, in the order in which they are taken: all others."""
        taken = {prompt.row for prompt in plan.prompts}
        order = generator(Stream.REPLACEMENTS, self.seed, plan.number).permutation(len(self.prompts))
        return (self.prompts[i] for i in order if self.prompts[i].row not in taken)

    def parts(self, trees: Sequence[Tree], number: int) -> Iterator[tuple[Tree, ...]]:
        """A round's trees by update: in order in its first epoch, then shuffled. Where fewer trees than updates are
        left, some are read twice."""
        for epoch in range(self.online.epochs_per_round):
            order = np.arange(len(trees))
            if epoch:
                order = generator(Stream.MINIBATCH_ORDER, self.seed, number, epoch).permutation(order)
            for places in np.array_split(order, self.online.minibatches):
                yield tuple(trees[i] for i in (places if len(places) else order[:1]))

    def is_first_update(self, step: int) -> bool:
        """True at the first update of a round, whose policy is the one that sampled its responses."""
        return (step - 1) % self.updates == 0


def replaced(prompts: Sequence[Prompt], rows: Iterable[Experience]) -> int:
    """Count the groups of a round whose prompt is not the one that was planned."""
    return sum(prompts[group].row != row for group, row in {(row.group, row.row) for row in rows})
