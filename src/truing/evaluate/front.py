"""The Pareto front of points by several measures."""

from __future__ import annotations

from collections.abc import Sequence


def undominated(points: Sequence[Sequence[float]]) -> list[int]:
    """The Pareto front: the places of the points that no other is at least as good as in every measure, and better in
    one. More is better in each; equal points are on it together, or not at all.

    >>> undominated([(1.0, 0.2), (0.6, 0.7), (0.1, 1.0), (0.5, 0.5)])
    [0, 1, 2]
    """
    return [i for i, point in enumerate(points) if not any(_dominates(other, point) for other in points)]


def _dominates(point: Sequence[float], other: Sequence[float]) -> bool:
    both = list(zip(point, other, strict=True))
    return all(a >= b for a, b in both) and any(a > b for a, b in both)
