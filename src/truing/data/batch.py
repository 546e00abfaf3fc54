"""Trees of tokens: one prompt and its continuations, packed into a row without padding.

    row:        [ prompt ][ answer 1 ][ answer 2 ]   [ prompt ][ answer 1 ][ answer 2 ] ...
    positions:    0..P-1    P..P+a-1    P..P+b-1       restart
    sees:         itself    prompt+own  prompt+own     never another tree, never a sibling

A tree is never split over two rows, and the prompt's tokens are computed once for all of its branches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation of a prompt. `loss[t]` says whether token t is learned from and counted."""

    role: str
    ids: tuple[int, ...]
    loss: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt and its continuations: 1 for SFT, 2 for a pair, K for a ranking, G for a sampled group.

    `index` is the tree's place in its data set (reference log-probabilities are found by it), `row` its row in the
    data file, `values` what the data says of it by signal name (`margin_B`, `preference_B`).
    """

    prompt: tuple[int, ...]
    branches: tuple[Branch, ...]
    index: int
    row: int
    values: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """Tokens computed: the prompt once, and every branch."""
        return len(self.prompt) + sum(len(b.ids) for b in self.branches)

    @property
    def data_tokens(self) -> int:
        """Real tokens as a padded trainer would count them: the prompt once per branch."""
        return sum(len(self.prompt) + len(b.ids) for b in self.branches)


@dataclass(frozen=True)
class Batch:
    """Trees laid out in one packed row of N tokens, with R response tokens in M branches."""

    trees: tuple[Tree, ...]

    @cached_property
    def ids_N(self) -> Tensor:
        """Token ids of the packed row."""
        return torch.tensor([i for t in self.trees for i in chain(t.prompt, *(b.ids for b in t.branches))])

    @cached_property
    def positions_N(self) -> Tensor:
        """Position ids: every branch goes on where its prompt ended."""
        out: list[int] = []
        for tree in self.trees:
            start = len(tree.prompt)
            out.extend(range(start))
            for branch in tree.branches:
                out.extend(range(start, start + len(branch.ids)))
        return torch.tensor(out)

    @cached_property
    def source_R(self) -> Tensor:
        """Where each response token is predicted: the last prompt token predicts the first of every branch."""
        out: list[int] = []
        for tree, first in zip(self.trees, self._starts, strict=True):
            last_of_prompt, at = first + len(tree.prompt) - 1, first + len(tree.prompt)
            for branch in tree.branches:
                out.append(last_of_prompt)
                out.extend(range(at, at + len(branch.ids) - 1))
                at += len(branch.ids)
        return torch.tensor(out)

    @cached_property
    def target_R(self) -> Tensor:
        """The response tokens themselves."""
        return torch.tensor([i for b in self.branches for i in b.ids])

    @cached_property
    def learned_R(self) -> Tensor:
        """Which response tokens are learned from."""
        return torch.tensor([flag for b in self.branches for flag in b.loss])

    @cached_property
    def branch_R(self) -> Tensor:
        """Which branch each response token belongs to."""
        lengths = torch.tensor([len(b.ids) for b in self.branches])
        return torch.repeat_interleave(torch.arange(len(lengths)), lengths)

    @cached_property
    def ends_M(self) -> Tensor:
        """Where in the row each branch ends: the token a reward is read from."""
        out: list[int] = []
        for tree, first in zip(self.trees, self._starts, strict=True):
            at = first + len(tree.prompt)
            for branch in tree.branches:
                at += len(branch.ids)
                out.append(at - 1)
        return torch.tensor(out)

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """All M branches in order."""
        return tuple(b for t in self.trees for b in t.branches)

    @cached_property
    def _starts(self) -> list[int]:
        starts, at = [], 0
        for tree in self.trees:
            starts.append(at)
            at += tree.tokens
        return starts

    @property
    def tokens(self) -> int:
        """Tokens computed."""
        return sum(t.tokens for t in self.trees)

    @property
    def data_tokens(self) -> int:
        """Real tokens of the data, comparable across systems."""
        return sum(t.data_tokens for t in self.trees)

    def rows(self, role: str) -> list[int]:
        """The branches with this role, one per tree and in the order of the trees."""
        return [m for m, b in enumerate(self.branches) if b.role == role]

    def split(self, tokens_per_device: int) -> Iterator[Batch]:
        """Parts that hold at most so many computed tokens (a larger tree stands alone). Changes no result."""
        for part in pack(self.trees, tokens_per_device):
            yield Batch(part)


def pack(trees: Sequence[Tree], tokens: int) -> Iterator[tuple[Tree, ...]]:
    """Trees in order, in groups of at most `tokens` computed tokens; a tree larger than that stands alone.

    >>> [[t.index for t in group] for group in pack([Tree((1, 2), (), i, i) for i in range(5)], 4)]
    [[0, 1], [2, 3], [4]]
    """
    group: list[Tree] = []
    held = 0
    for tree in trees:
        if group and held + tree.tokens > tokens:
            yield tuple(group)
            group, held = [], 0
        group.append(tree)
        held += tree.tokens
    if group:
        yield tuple(group)


def trees_digest(trees: Sequence[Tree]) -> str:
    """A content hash of the token ids of trees: what reference log-probabilities depend on besides the weights."""
    out = hashlib.sha256()
    for tree in trees:
        for ids in (tree.prompt, *(b.ids for b in tree.branches)):
            out.update(len(ids).to_bytes(8, "little") + b"".join(i.to_bytes(4, "little") for i in ids))
        out.update(b"|")
    return out.hexdigest()[:16]
