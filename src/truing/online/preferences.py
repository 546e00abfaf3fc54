"""Answers to one prompt, sorted by their scores: what a group is to a method that learns from preferences."""

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


def kept(tree: Tree, passing: float | None) -> Tree | None:
    """The answers to imitate, each wording once: those whose score is at least `passing`, or else the best alone."""
    order = descending(tree.branches, score)
    found = order[:1] if passing is None else [b for b in order if score(b) >= passing]
    distinct = tuple({b.ids: b for b in found}.values())
    return replace(tree, branches=distinct) if distinct else None


def best_and_worst(tree: Tree) -> Tree | None:
    """The answer with the highest score as chosen, one with the lowest as rejected; None where all are equal."""
    order = descending(tree.branches, score)
    if alike([score(order[0]), score(order[-1])]):
        return None
    return replace(tree, branches=(replace(order[0], role="chosen"), replace(order[-1], role="rejected")))


def ranked(tree: Tree) -> Tree | None:
    """The answers from the best on, of equal ones the first; None where all are equal."""
    distinct = steps_down(tree.branches, score)
    if len(distinct) < 2:
        return None
    roles = ["chosen", *["rejected"] * (len(distinct) - 1)]
    return replace(tree, branches=tuple(replace(b, role=r) for b, r in zip(distinct, roles, strict=True)))


def labelled(tree: Tree) -> Tree | None:
    """Answers above their group's mean as desirable, those below as undesirable; None where all are equal."""
    if alike(list(map(score, tree.branches))):
        return None
    mean = math.fsum(map(score, tree.branches)) / len(tree.branches)
    kept = [b for b in tree.branches if not alike([score(b), mean])]
    roles = ["desirable" if score(b) > mean else "undesirable" for b in kept]
    return replace(tree, branches=tuple(replace(b, role=r) for b, r in zip(kept, roles, strict=True))) if kept else None


def score(branch: Branch) -> float:
    """What the reward said of an answer."""
    return branch.facts["score_B"][0]


SORTED: Mapping[Shape, Callable[[Tree], Tree | None]] = {
    "single": rollouts,
    "pairs": best_and_worst,
    "ranked": ranked,
    "labelled": labelled,
}
"""What a group of scored answers is for an objective of each shape; of a group that teaches it nothing, None."""
