"""Sources of batches. Their order is a function of (seed, epoch) alone, so that a resumed run needs only a counter."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Protocol

from truing.data.batch import Batch, Tree, pack
from truing.errors import UserError
from truing.settings import Training
from truing.streams import Stream, generator


class Source(Protocol):
    """Anything that gives the loop its steps, in an order that a resumed run finds again."""

    training: Training
    corrected: bool
    """True if rollouts are weighed by how far their sampler is off the policy."""

    @property
    def steps(self) -> int:
        """Updates of the whole run."""

    def after(self, step: int) -> Mapping[str, float]:
        """Figures of this update, now that it has been done, for the record."""

    def since(self, step: int) -> Iterator[tuple[int, Batch]]:
        """(number, batch) of every update after `step`, counted from 1."""

    def fresh(self, step: int) -> bool:
        """True if the policy of this update is the one that sampled its data."""


class DataSource:
    """Steps over a fixed data set: shuffled trees, grouped by `tokens_per_step` or `rows_per_step`.

    `seed` is the run's, to which the stage's own is added.
    """

    corrected = False

    def __init__(self, trees: Sequence[Tree], training: Training, seed: int = 0) -> None:
        if not trees:
            raise UserError("there is no row left to train on")
        self.trees, self.training, self.seed = tuple(trees), training, seed + training.seed

    def epoch(self, number: int) -> list[tuple[Tree, ...]]:
        """The steps of one epoch, in order."""
        order = generator(Stream.DATA_ORDER, self.seed, 0, number).permutation(len(self.trees))
        shuffled = [self.trees[i] for i in order]
        if self.training.tokens_per_step is not None:
            return list(pack(shuffled, self.training.tokens_per_step))
        rows = self.training.rows_per_step or 16
        return [tuple(shuffled[i : i + rows]) for i in range(0, len(shuffled), rows)]

    def after(self, step: int) -> Mapping[str, float]:
        """Nothing: data stays as it is."""
        return MappingProxyType({})

    def fresh(self, step: int) -> bool:
        """False: other models, or people, gave this data."""
        return False

    @cached_property
    def steps(self) -> int:
        """Updates of the whole run."""
        if self.training.steps is not None:
            return self.training.steps
        whole, rest = divmod(self.training.epochs, 1.0)
        full = sum(len(self.epoch(e)) for e in range(int(whole)))
        return full + math.ceil(rest * len(self.epoch(int(whole)))) if rest else full

    def since(self, step: int) -> Iterator[tuple[int, Batch]]:
        """(number, batch) of every update after `step`, counted from 1."""
        number, epoch = 0, 0
        while number < self.steps:
            for group in self.epoch(epoch):
                number += 1
                if number > self.steps:
                    return
                if number > step:
                    yield number, Batch(group)
            epoch += 1


def share(batch: Batch, tokens_per_device: int, rank: int, world: int) -> Iterator[tuple[Batch, float]]:
    """This rank's parts of a step, each with its weight.

    Every rank reads as many parts as the one with most, so that all meet in the same collectives: where its own are
    fewer it reads a small one again, of weight 0.
    """
    shares = [list(Batch(trees).split(tokens_per_device)) for trees in balanced(batch.trees, world)]
    for part in shares[rank]:
        yield part, 1.0
    idle = Batch((min(batch.trees, key=lambda tree: tree.tokens),))
    for _ in range(max(map(len, shares)) - len(shares[rank])):
        yield idle, 0.0


def balanced(trees: Sequence[Tree], world: int) -> list[tuple[Tree, ...]]:
    """A step's trees divided over ranks, each in the step's order: the largest first, to whoever has fewest tokens.

    >>> sizes = [[t.tokens for t in s] for s in balanced([Tree((1,) * n, (), n, n) for n in (3, 9, 4, 1)], 2)]
    >>> sizes
    [[9], [3, 4, 1]]
    """
    held, places = [0] * world, [list[int]() for _ in range(world)]
    for place in sorted(range(len(trees)), key=lambda i: -trees[i].tokens):
        least = held.index(min(held))
        held[least] += trees[place].tokens
        places[least].append(place)
    return [tuple(trees[i] for i in sorted(loads)) for loads in places]
