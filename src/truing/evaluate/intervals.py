"""Intervals: how far a measured share or mean can be trusted. Nothing that failed becomes a number here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from truing.errors import UserError

Interval = tuple[float, float]
FEWEST, FEW = 3, 30  # below FEWEST independent items a mean has no interval; below FEW it is Student's, not a bootstrap
ALIKE = 1e-12  # a width below this share of the value is rounding, not spread
_HELD_AT_ONCE = 4_000_000  # drawn indices in memory at a time


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """The Wilson score interval of a share. `successes` may hold halves: a tie is half a win.

    >>> low, high = wilson(53, 88)
    >>> round(low, 4), round(high, 4)
    (0.4978, 0.6982)
    """
    if n <= 0:
        raise UserError("a share of no items has no interval")
    if not (math.isfinite(successes) and 0 <= successes <= n):
        raise UserError(f"{successes} successes of {n} items is not a share")
    z = NormalDist().inv_cdf(0.5 + _checked(level) / 2)
    share, spread = successes / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    # At 0 and 1 the formula meets the edge exactly; rounding must not step over it.
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == n else min(1.0, middle + half)
    return low, high


def bootstrap_mean(
    values: Sequence[float],
    clusters: Sequence[Any] | None = None,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """The percentile bootstrap interval of a mean, in the unit of `values`. Too narrow for few items: see `t_mean`.

    With `clusters` (one label per value, such as its prompt) whole clusters are drawn, because answers to one prompt
    are not independent. One cluster alone says nothing of the spread between clusters, and is refused.

    >>> bootstrap_mean([2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    x = finite(values, "value")
    sums, counts = (x, np.ones_like(x)) if clusters is None else _by_cluster(x, clusters)
    if len(sums) < 2:
        raise UserError("one item (or one prompt) has no interval: at least two are needed")
    if resamples < 1:
        raise UserError(f"resamples is {resamples}; at least 1 is needed")
    tail = (1 - _checked(level)) / 2
    draws = np.random.default_rng(seed)
    means: list[NDArray[np.float64]] = []
    rows = max(1, _HELD_AT_ONCE // len(sums))
    for start in range(0, resamples, rows):
        drawn = draws.integers(0, len(sums), size=(min(rows, resamples - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def t_mean(values: Sequence[float], clusters: Sequence[Any] | None = None, level: float = 0.95) -> Interval:
    """Student's interval of a mean, which holds its level where items are few. With `clusters` whole clusters count as
    items, and the spread is that of their sums about the mean.

    >>> low, high = t_mean([1.0, 2.0, 3.0])
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    x = finite(values, "value")
    sums, counts = (x, np.ones_like(x)) if clusters is None else _by_cluster(x, clusters)
    items = len(sums)
    if items < 2:
        raise UserError("one item (or one prompt) has no interval: at least two are needed")
    mean = sums.sum() / counts.sum()
    error = math.sqrt(items / (items - 1) * float(((sums - mean * counts) ** 2).sum())) / counts.sum()
    return student(float(mean), float(error), items, level)


def student(mean: float, error: float, items: int, level: float = 0.95) -> Interval:
    """Student's interval of a mean over so many items, by its standard error.

    >>> [round(x, 3) for x in student(2.0, 3**-0.5, 3)]
    [-0.484, 4.484]
    """
    half = float(stdtrit(items - 1, 0.5 + _checked(level) / 2)) * error
    return mean - half, mean + half


def mean_interval(values: Sequence[float], clusters: Sequence[Any] | None, seed: int = 0) -> Interval | None:
    """The interval of a mean at 95 %: Student's below 30 independent items, a bootstrap from there on.

    None below 3 items, and where few items are all alike: no spread among few is no certainty.

    >>> mean_interval([0.1, 0.1], None), mean_interval([0.1] * 12, None)
    (None, None)
    """
    items = independent(values, clusters)
    if items < FEWEST:
        return None
    if items >= FEW:
        return bootstrap_mean(values, clusters, seed=seed)
    low, high = t_mean(values, clusters)
    return (low, high) if high - low > ALIKE * max(abs(low), abs(high)) else None


def bootstrap(
    statistic: Callable[[NDArray[np.intp]], float], clusters: Sequence[Any], seed: int = 0, resamples: int = 1000
) -> Interval | None:
    """The 95 % interval of a statistic of rows, given as a function of their numbers; whole clusters are drawn (one
    label a row). The percentiles of the draws from 30 clusters on, Student's with their deviation below.

    None below 3 clusters, where the draws of few clusters are all alike, and where more than one draw in twenty has no
    value (it is not a number): what is often undefined has no interval.
    """
    labels = list(dict.fromkeys(clusters))
    if len(labels) < FEWEST:
        return None
    places = {label: number for number, label in enumerate(labels)}
    numbers = np.array([places[label] for label in clusters])
    rows = [np.flatnonzero(numbers == number) for number in range(len(labels))]
    draws = np.random.default_rng(seed).integers(0, len(rows), size=(resamples, len(rows)))
    values = np.array([statistic(np.concatenate([rows[i] for i in drawn])) for drawn in draws])
    known = values[np.isfinite(values)]
    if len(known) < 0.95 * resamples:
        return None
    if len(rows) >= FEW:
        low, high = np.quantile(known, [0.025, 0.975])
        return float(low), float(high)
    half, middle = stdtrit(len(rows) - 1, 0.975) * known.std(ddof=1), statistic(np.arange(len(numbers)))
    return (float(middle - half), float(middle + half)) if half > ALIKE else None


def independent(values: Sequence[Any], clusters: Sequence[Any] | None) -> int:
    """How many independent items there are: values, or clusters of them.

    >>> independent([1, 2, 3], ["a", "a", "b"])
    2
    """
    return len(values) if clusters is None else len(set(clusters))


def finite(values: Sequence[float], what: str) -> NDArray[np.float64]:
    """The values as an array; an error that names the row (counted from 1) where one is not a number."""
    try:
        x = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise UserError(f"a {what} is not a number: {e}") from e
    if x.ndim != 1 or not len(x):
        raise UserError(f"there is no {what} to measure")
    wrong = np.flatnonzero(~np.isfinite(x))
    if len(wrong):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(
            f"row {wrong[0] + 1}: {what} is {x[wrong[0]]}, not a number{more}. Drop failed rows before measuring"
        )
    return x


def same_length(**columns: Sequence[Any] | None) -> None:
    """An error unless every column given has the same number of rows."""
    sizes = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(sizes.values())) > 1:
        raise UserError("rows do not match: " + ", ".join(f"{size} of {name}" for name, size in sizes.items()))


def _by_cluster(x: NDArray[np.float64], clusters: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    same_length(values=x.tolist(), clusters=clusters)
    places: dict[Any, int] = {}
    index = np.array([places.setdefault(label, len(places)) for label in clusters])
    return np.bincount(index, weights=x).astype(np.float64), np.bincount(index).astype(np.float64)


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; give a number between 0 and 1, such as 0.95")
    return level


def settled(difference: NDArray[np.float64], within: float | Sequence[float]) -> NDArray[np.float64]:
    """Differences with those that are within rounding of 0 at 0.

    >>> settled(np.array([0.5, -1e-7]), 1e-6).tolist()
    [0.5, 0.0]
    """
    return np.where(np.abs(difference) <= np.asarray(within), 0.0, difference)
