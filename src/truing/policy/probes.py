"""Parts of a batch that a model is tried on, and the forming and grouping of plain rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from truing.data.batch import Batch


def uneven_probe(batch: Batch) -> Batch:
    """The longest tree, and the shortest with one token of response: rows of which one needs padding."""
    by_size = sorted(batch.trees, key=lambda t: t.tokens)
    first = by_size[0].branches[0]
    short = dataclasses.replace(first, ids=first.ids[:1], loss=first.loss[:1])
    return Batch((by_size[-1], dataclasses.replace(by_size[0], branches=(short,))))


def probe(batch: Batch, window: int | None) -> Batch:
    """Two trees of this batch, packed: the smallest, and the smallest beyond the sliding window (or the next one).

    A tree of one branch alone is a plain row; only a second tree shows whether the first is kept out of its sight.
    """
    by_size = sorted(batch.trees, key=lambda t: t.tokens)
    longer = [t for t in by_size[1:] if window is not None and t.tokens > window]
    return Batch((by_size[0], (longer or by_size[1:] or by_size)[0]))


def plain_rows(batch: Batch) -> list[list[int]]:
    """One full sequence per branch, as a model without trees would read it."""
    return [[*tree.prompt, *branch.ids] for tree in batch.trees for branch in tree.branches]


def alike(lengths: list[int], tokens: int) -> Iterator[list[int]]:
    """Groups of rows of like length, the longest first, that hold with padding at most so many tokens.

    >>> list(alike([5, 2, 6, 2], 12)), list(alike([5, 2], 1))
    ([[2, 0], [1, 3]], [[0], [1]])
    """
    group: list[int] = []
    for m in sorted(range(len(lengths)), key=lambda m: -lengths[m]):
        if group and (len(group) + 1) * lengths[group[0]] > tokens:
            yield group
            group = []
        group.append(m)
    if group:
        yield group
