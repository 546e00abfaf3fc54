"""Trees of tokens: one prompt and its continuations, packed into a row without padding.

    row:        [ prompt ][ response 1 ][ response 2 ]   [ prompt ][ response 1 ][ response 2 ] ...
    positions:    0..P-1    P..P+a-1      P..P+b-1         restart
    sees:         itself    prompt, itself                 never another tree, never a sibling

A tree is never split over two rows, and the prompt's tokens are computed once for all of its branches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain

import torch
from torch import Tensor

from truing.data.kinds import Comparison


@dataclass(frozen=True, slots=True)
class Branch:
    """One continuation of a prompt. `loss[t]` says whether token t is learned from and counted.

    `role` is `response`, `chosen`, `rejected`, `desirable`, `undesirable`, or `compared` (one of several that are
    compared in pairs). `targets` are the scores that raters gave it, by the name of the head that is to learn them
    (the only one has an empty name), `steps` the tokens that end its labelled steps, each with its label. `facts`
    are a rollout's signals by name: a number a token (`old_logp_BT`), or one (`score_B`).
    """

    role: str
    ids: tuple[int, ...]
    loss: tuple[bool, ...]
    targets: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[tuple[int, float], ...] = ()
    facts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tree:
    """A prompt and its continuations: 1 for SFT, 2 for a pair, K for a ranking, G for a sampled group.

    `index` is the tree's place in its data set (reference log-probabilities are found by it), `row` its row in the
    data file, `values` what the data says of a pair by signal name (`margin_B`, `preference_B`). Where several
    responses are compared, `comparisons` lists the verdicts, each of them a row. `shadow` is the same prompt with
    responses that belong to another one, or a text to learn beside responses, for the objectives that read such.
    """

    prompt: tuple[int, ...]
    branches: tuple[Branch, ...]
    index: int
    row: int
    values: Mapping[str, float] = field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
    shadow: Tree | None = None

    @property
    def pairs(self) -> tuple[Comparison, ...]:
        """Its rows where they are pairs: the comparisons, or the chosen branch and the first rejected one."""
        roles = [branch.role for branch in self.branches]
        if self.comparisons or "chosen" not in roles or "rejected" not in roles:
            return self.comparisons
        return (Comparison(roles.index("chosen"), roles.index("rejected"), self.values),)

    @property
    def rows(self) -> int:
        """Number of rows: its comparisons, 1 for a pair or a ranking, or its responses."""
        return len(self.pairs) or len(self.branches)

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
        """The position that predicts each response token; the last prompt token predicts the first token of every
        branch."""
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
        """Mask of the response tokens that are learned from."""
        return torch.tensor([flag for b in self.branches for flag in b.loss])

    @cached_property
    def branch_R(self) -> Tensor:
        """Index of the branch that each response token belongs to."""
        lengths = torch.tensor([len(b.ids) for b in self.branches])
        return torch.repeat_interleave(torch.arange(len(lengths)), lengths)

    @cached_property
    def ends_M(self) -> Tensor:
        """Position of each branch's last token, from which a reward is read."""
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

    @property
    def rows(self) -> int:
        """Number of rows: pairs, rankings, or single responses."""
        return sum(tree.rows for tree in self.trees)

    @cached_property
    def singles(self) -> list[int]:
        """The branches that single-response signals are read from: every response, but of a pair the chosen one."""
        return [m for m, b in enumerate(self.branches) if b.role not in ("rejected", "compared")]

    @cached_property
    def pairs(self) -> tuple[Comparison, ...]:
        """The rows that are pairs, each with the places of its branches in the whole batch."""
        return tuple(
            Comparison(first + pair.better, first + pair.worse, pair.values)
            for tree, first in zip(self.trees, self._branch_starts, strict=True)
            for pair in tree.pairs
        )

    @property
    def taught(self) -> tuple[bool, ...]:
        """Mask of the tokens a likelihood term raises: the learned ones of every single that is not undesirable."""
        singles = set(self.singles)
        return tuple(
            flag and m in singles and b.role != "undesirable" for m, b in enumerate(self.branches) for flag in b.loss
        )

    def sums(self, logp_R: Tensor) -> Tensor:
        """Sum over the learned tokens of each branch, accumulated in fp64, shape [M]."""
        device = logp_R.device
        out = torch.zeros(len(self.branches), dtype=torch.float64, device=device)
        return out.index_add(0, self.branch_R.to(device), logp_R.double() * self.learned_R.to(device))

    def shadows(self) -> Batch:
        """The same prompts with responses that belong to others."""
        return Batch(tuple(tree.shadow for tree in self.trees if tree.shadow is not None))

    def prompts(self) -> Batch:
        """Its prompts, each as the response to its own first token; one of a single token is left out."""
        return Batch(
            tuple(
                Tree(tree.prompt[:1], (Branch("response", rest, (True,) * len(rest)),), tree.index, tree.row)
                for tree in self.trees
                if (rest := tree.prompt[1:])
            )
        )

    @cached_property
    def _branch_starts(self) -> list[int]:
        return [0, *accumulate(len(tree.branches) for tree in self.trees)][:-1]

    def split(self, tokens_per_device: int) -> Iterator[Batch]:
        """Parts that hold at most so many computed tokens (a larger tree stands alone). Changes no result."""
        for part in pack(self.trees, tokens_per_device):
            yield Batch(part)


def pack(trees: Sequence[Tree], tokens: int) -> Iterator[tuple[Tree, ...]]:
    """Trees in order, in groups of at most `tokens` computed tokens, and so their shadows, which are read in a pass of
    their own; a tree larger than that stands alone.

    >>> [[t.index for t in group] for group in pack([Tree((1, 2), (), i, i) for i in range(5)], 4)]
    [[0, 1], [2, 3], [4]]
    """
    group: list[Tree] = []
    held = shaded = 0
    for tree in trees:
        shade = tree.shadow.tokens if tree.shadow is not None else 0
        if group and max(held + tree.tokens, shaded + shade) > tokens:
            yield tuple(group)
            group, held, shaded = [], 0, 0
        group.append(tree)
        held, shaded = held + tree.tokens, shaded + shade
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
