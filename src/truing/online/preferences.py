"""Responses to one prompt, sorted by their scores into what a method that learns from preferences reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from truing.data.batch import Branch, Tree
from truing.data.kinds import Shape
from truing.objectives.equal import alike
from truing.rollout.best import descending, steps_down


def rollouts(tree: Tree) -> Tree:
    """The tree as it is."""
    return tree


def imitated(tree: Tree, passing: float | None) -> Tree | None:
    """The responses to imitate, each wording once: those whose score is at least `passing`, or else the best alone."""
    order = descending(tree.branches, score)
    good = order[:1] if passing is None else [b for b in order if score(b) >= passing]
    distinct = tuple({b.ids: b for b in good}.values())
    return replace(tree, branches=distinct) if distinct else None


def best_and_worst(tree: Tree) -> Tree | None:
    """The response with the highest score as chosen, one with the lowest as rejected; None where all are equal."""
    order = descending(tree.branches, score)
    if alike([score(order[0]), score(order[-1])]):
        return None
    return replace(tree, branches=(replace(order[0], role="chosen"), replace(order[-1], role="rejected")))


def ranked(tree: Tree) -> Tree | None:
    """The responses from the best on, of equal ones the first; None where all are equal."""
    distinct = steps_down(tree.branches, score)
    if len(distinct) < 2:
        return None
    roles = ["chosen", *["rejected"] * (len(distinct) - 1)]
    return replace(tree, branches=tuple(replace(b, role=r) for b, r in zip(distinct, roles, strict=True)))


def labelled(tree: Tree) -> Tree | None:
    """Responses above their group's mean as desirable, those below as undesirable; None where all are equal."""
    if alike(list(map(score, tree.branches))):
        return None
    mean = math.fsum(map(score, tree.branches)) / len(tree.branches)
    unequal = [b for b in tree.branches if not alike([score(b), mean])]
    roles = ["desirable" if score(b) > mean else "undesirable" for b in unequal]
    return (
        replace(tree, branches=tuple(replace(b, role=r) for b, r in zip(unequal, roles, strict=True)))
        if unequal
        else None
    )


def score(branch: Branch) -> float:
    """The score of a response."""
    return branch.facts["score_B"][0]


SORTED: Mapping[Shape, Callable[[Tree], Tree | None]] = {
    "single": rollouts,
    "pairs": best_and_worst,
    "ranked": ranked,
    "labelled": labelled,
}
"""From a group of scored responses to a tree for an objective of each shape; None for a group that teaches nothing."""
