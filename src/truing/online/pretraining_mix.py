"""Texts that are learned from beside a policy's own responses: one a prompt, in every update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from truing.data.batch import Tree
from truing.streams import Stream, generator


class PretrainingMix:
    """Texts as trees; every one comes once before any comes again. Which are read in an update is a function of (seed,
    update) alone, so that a resumed run finds them again."""

    def __init__(self, trees: Sequence[Tree] = (), seed: int = 0) -> None:
        self.trees, self.seed = tuple(trees), seed
        self._orders: dict[int, Any] = {}

    def beside(self, group: tuple[Tree, ...], update: int, most: int) -> tuple[Tree, ...]:
        """The trees of an update (counted from 1; it has at most so many), each with a text as its shadow; as they are
        where there are no texts.

        >>> texts = PretrainingMix([Tree((1,), (), i, i) for i in range(3)])
        >>> group = (Tree((2,), (), 0, 0), Tree((3,), (), 1, 1))
        >>> sorted(t.shadow.row for n in (1, 2, 3) for t in texts.beside(group, n, 2))
        [0, 0, 1, 1, 2, 2]
        """
        if not self.trees:
            return group
        first = (update - 1) * most
        return tuple(replace(tree, shadow=self._at(first + i)) for i, tree in enumerate(group))

    def _at(self, place: int) -> Tree:
        epoch, at = divmod(place, len(self.trees))
        if epoch not in self._orders:
            draws = generator(Stream.PRETRAINING_ORDER, self.seed, 0, epoch)
            self._orders = {epoch: draws.permutation(len(self.trees))}
        return self.trees[int(self._orders[epoch][at])]
