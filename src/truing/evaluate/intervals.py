"""Confidence intervals of shares, means and other statistics. Failed values raise and never become numbers.

docs/coverage.md has how often each of them covers the truth, and where none does (`make coverage`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

from truing.errors import UserError

Interval = tuple[float, float]
Array = NDArray[np.float64]
FEWEST = 10  # independent items below which nothing has an interval: 5 % cannot be kept there
APART = 5  # items away from the commonest value below which a mean has none: no spread among few is no certainty
ALIKE = 1e-12  # a width below this share of the value is rounding, not spread
GROUPS = 100  # the most groups of clusters that a jackknife leaves out: the statistic is computed once for each


@dataclass(frozen=True)
class Scale:
    """A scale on which a statistic's error hardly depends on its value, and the way back."""

    to: Callable[[float], float]
    back: Callable[[float], float]


def _fisher(x: float) -> float:
    return math.atanh(x) if abs(x) < 1 else math.nan


def _logit(x: float) -> float:
    return math.log(x / (1 - x)) if 0 < x < 1 else math.nan


CORRELATION = Scale(_fisher, math.tanh)
SHARE = Scale(_logit, lambda z: 1 / (1 + math.exp(-z)) if abs(z) < 700 else float(z > 0))


@dataclass(frozen=True)
class Items:
    """Independent items (values, or whole clusters of them) as one number each: the mean of `values` is the estimate,
    their spread its error. `means` has each item's own mean; `effective` is how many of equal size they are worth."""

    values: Array
    means: Array
    effective: float

    def apart(self) -> int:
        """Count the items that differ, beyond rounding, from the commonest."""
        size = float(np.abs(self.means).max())
        _, counts = np.unique(np.round(self.means / size, 12) if size else self.means, return_counts=True)
        return len(self.means) - int(counts.max())

    def error(self) -> float:
        """The standard error of the mean; over G clusters the cluster-robust one of a ratio, times G/(G - 1)."""
        return float(self.values.std(ddof=1)) / math.sqrt(len(self.values))

    def quantile(self, level: float) -> float:
        """Student's quantile, by the effective number of items (Carter, Schnepel & Steigerwald 2017)."""
        return float(stdtrit(self.effective - 1, 0.5 + _checked(level) / 2))


def exact(successes: float, n: float, level: float = 0.95) -> Interval:
    """The interval of a share by Clopper & Pearson (1934), which misses on neither side more often than its level
    allows. Both may be fractions: an effective number of items, a tie that counts half.

    >>> low, high = exact(53, 88)
    >>> round(low, 4), round(high, 4)
    (0.4923, 0.7051)
    """
    if not n > 0:
        raise UserError("a share of no items has no interval")
    if not (math.isfinite(successes) and 0 <= successes <= n):
        raise UserError(f"{successes} successes of {n} items is not a share")
    tail = (1 - _checked(level)) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return low, high


def student(mean: float, error: float, items: float, level: float = 0.95) -> Interval:
    """Student's interval of a mean over so many items, by its standard error.

    >>> [round(x, 3) for x in student(2.0, 3**-0.5, 3)]
    [-0.484, 4.484]
    """
    half = float(stdtrit(items - 1, 0.5 + _checked(level) / 2)) * error
    return mean - half, mean + half


def mean_interval(
    values: Sequence[float], clusters: Sequence[Any] | None = None, level: float = 0.95
) -> Interval | None:
    """The interval of a mean, in the unit of `values`: at either end the wider of Student's and of Hall's (1992), which
    allows for skewness. With `clusters` (one label per value, such as its prompt) whole clusters are the items, because
    responses to one prompt are not independent.

    None below 10 independent items, and where fewer than 5 of them differ from the commonest value.

    >>> low, high = mean_interval([float(i) for i in range(10)])
    >>> round(low, 3), round(high, 3)
    (2.334, 6.666)
    >>> mean_interval([0.1] * 40), mean_interval([0.1, 0.4, 0.2])
    (None, None)
    """
    items = items_of(finite(values, "value"), clusters)
    return _of_mean(items, level) if _vary(items) else None


def share_interval(
    points: Sequence[float], clusters: Sequence[Any] | None = None, level: float = 0.95
) -> Interval | None:
    """The interval of a mean of points in [0, 1] (1, half, 0): `exact` where each is 0 or 1 and independent, else with
    the effective number of items, by the spread between them (Korn & Graubard 1998, Survey Methodology 24).

    Where fewer than 10 items differ from the commonest, that spread is no certainty: each cluster then counts as one
    item. None below 10 independent items.

    >>> share_interval([1.0] * 12 + [0.0] * 8) == exact(12, 20), share_interval([1.0] * 9)
    (True, None)
    """
    x = finite(points, "point")
    wrong = np.flatnonzero((x < 0) | (x > 1))
    if len(wrong):
        raise UserError(f"row {wrong[0] + 1}: point is {x[wrong[0]]}, and a share is of points from 0 to 1")
    items = items_of(x, clusters)
    count, whole = len(items.values), bool(np.isin(x, (0.0, 1.0)).all())
    if count < FEWEST:
        return None
    share = min(1.0, max(0.0, float(x.mean())))
    if count == len(x) and whole:
        return exact(float(x.sum()), len(x), level)
    effective = _effective(items, share, level)
    if count == len(x):  # no points in [0, 1] spread further than zeros and ones of the same mean
        effective = max(effective, float(count))
    if whole:
        effective = min(effective, float(len(x)))
    if items.apart() < FEWEST:
        effective = min(effective, items.effective)
    return exact(share * effective, effective, level)


def jackknife(
    statistic: Callable[[NDArray[np.intp]], float],
    clusters: Sequence[Any],
    scale: Scale,
    level: float = 0.95,
) -> Interval | None:
    """The interval of a statistic of rows, given as a function of their numbers, by leaving out one cluster at a time
    (one label a row; of more than 100 clusters so many random groups of them): Student's, by Tukey's standard error on
    a scale that keeps it steady.

    None below 10 clusters, where the statistic, of all clusters or without some, has no value (it is not a number, or
    lies at the end of its scale), and where they are all alike.
    """
    groups = _left_out(clusters)
    if len(groups) < FEWEST:
        return None
    masks = np.ones((len(groups), len(clusters)), dtype=bool)
    for row, rows in zip(masks, groups, strict=True):
        row[rows] = False
    whole = scale.to(statistic(np.arange(len(clusters))))
    without = np.array([scale.to(statistic(np.flatnonzero(row))) for row in masks])
    if not (math.isfinite(whole) and np.isfinite(without).all()):
        return None
    error = math.sqrt((len(groups) - 1) / len(groups) * float(((without - without.mean()) ** 2).sum()))
    low, high = student(whole, error, len(groups), level)
    return (scale.back(low), scale.back(high)) if error > ALIKE else None


def not_below(least: float, interval: Interval | None) -> Interval | None:
    """An interval cut at the least possible value of its quantity.

    >>> not_below(0.0, (-0.1, 0.4))
    (0.0, 0.4)
    """
    return interval and (max(least, interval[0]), interval[1])


def vary(values: Sequence[float], clusters: Sequence[Any] | None = None) -> bool:
    """True if there are at least 10 independent items, of which 5 or more differ from the commonest value.

    >>> vary([1.0] * 95 + [2.0] * 5), vary([1.0] * 96 + [2.0] * 4)
    (True, False)
    """
    return _vary(items_of(finite(values, "value"), clusters))


def independent(values: Sequence[Any], clusters: Sequence[Any] | None) -> int:
    """The number of independent items: values, or clusters of them.

    >>> independent([1, 2, 3], ["a", "a", "b"])
    2
    """
    return len(values) if clusters is None else len(set(clusters))


def finite(values: Sequence[float], what: str) -> Array:
    """The values as an array; UserError, with the row (counted from 1), where one is not a number."""
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
    """Raise UserError unless every column has the same number of rows."""
    sizes = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(sizes.values())) > 1:
        raise UserError("rows do not match: " + ", ".join(f"{size} of {name}" for name, size in sizes.items()))


def settled(difference: Array, within: float | Sequence[float]) -> Array:
    """Differences with those that are within rounding of 0 at 0.

    >>> settled(np.array([0.5, -1e-7]), 1e-6).tolist()
    [0.5, 0.0]
    """
    return np.where(np.abs(difference) <= np.asarray(within), 0.0, difference)


def items_of(x: Array, clusters: Sequence[Any] | None) -> Items:
    """The independent items of some values. A cluster stands for its sum about the common mean, linearised, so that
    larger ones weigh more, as they do in the mean of all values.

    >>> items_of(np.array([1.0, 3.0, 5.0]), ["a", "a", "b"]).means.tolist()
    [2.0, 5.0]
    """
    if clusters is None:
        return Items(x, x, float(len(x)))
    same_length(values=x.tolist(), clusters=clusters)
    index = _numbered(clusters)
    sums, counts = np.bincount(index, weights=x), np.bincount(index).astype(np.float64)
    if len(sums) == len(x):
        return Items(x, x, float(len(x)))
    mean = float(x.mean())
    values = mean + (sums - mean * counts) * len(sums) / len(x)
    return Items(values, sums / counts, len(x) ** 2 / float((counts**2).sum()))


def _vary(items: Items) -> bool:
    return len(items.values) >= FEWEST and items.apart() >= APART


def _of_mean(items: Items, level: float) -> Interval | None:
    mean, error, reach = float(items.values.mean()), items.error(), items.quantile(level)
    skew = _skewness(items.values) / math.sqrt(len(items.values))
    low = mean - error * max(reach, _hall(reach, skew))
    high = mean - error * min(-reach, _hall(-reach, skew))
    spread = math.isfinite(low) and math.isfinite(high) and high - low > ALIKE * max(abs(low), abs(high))
    return (low, high) if spread else None


def _hall(t: float, skew: float) -> float:
    """Student's t for skewed values: the inverse of Hall's cubic transformation."""
    return t if abs(skew) < 1e-6 else 3 / skew * (math.cbrt(1 + skew * (t - skew / 6)) - 1)


def _skewness(x: Array) -> float:
    n, d = len(x), x - x.mean()
    square = float((d**2).mean())
    return math.sqrt(n * (n - 1)) / (n - 2) * float((d**3).mean()) / square**1.5 if square > 0 else 0.0


def _effective(items: Items, share: float, level: float) -> float:
    """The number of independent zeros and ones that determine a share as well, at a normal quantile instead of
    Student's."""
    variance = items.error() ** 2
    if variance <= ALIKE * share * (1 - share):
        return items.effective
    reach = NormalDist().inv_cdf(0.5 + _checked(level) / 2) / items.quantile(level)
    return share * (1 - share) / variance * reach**2


def _left_out(clusters: Sequence[Any]) -> list[NDArray[np.intp]]:
    """The rows of each cluster; of many clusters those of random groups of them, always the same."""
    index = _numbered(clusters)
    count = int(index.max()) + 1
    if count > GROUPS:
        index = np.random.default_rng(0).permutation(count)[index] % GROUPS
    order = np.argsort(index, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(index[order])) + 1)


def _numbered(clusters: Sequence[Any]) -> NDArray[np.intp]:
    places: dict[Any, int] = {}
    return np.array([places.setdefault(label, len(places)) for label in clusters], dtype=np.intp)


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; give a number between 0 and 1, such as 0.95")
    return level
