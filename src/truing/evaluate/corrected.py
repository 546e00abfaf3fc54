"""Win rates corrected for the errors of the judge that measured them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from truing.errors import UserError
from truing.evaluate.intervals import FEWEST, Interval, finite, same_length, settled, student


@dataclass(frozen=True)
class Mean:
    """A mean of points in [0, 1] with its standard error, over so many independent items."""

    value: float
    error: float
    items: int

    def interval(self, level: float = 0.95) -> Interval | None:
        """Student's interval, cut at 0 and 1; None for too few items.

        >>> [round(x, 3) for x in Mean(0.6, 0.02, 500).interval()]
        [0.561, 0.639]
        """
        if self.items < FEWEST:
            return None
        low, high = student(self.value, self.error, self.items, level)
        return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Corrected:
    """The true rate that a judge's rate stands for. `interval` is None where the judge's accuracy cannot be
    distinguished from chance, or items are too few; like the value it may reach beyond [0, 1], where no rate is."""

    value: float
    interval: Interval | None

    @property
    def is_rate(self) -> bool:
        """True if the value lies in [0, 1]."""
        return 0 <= self.value <= 1


def points_of(ours: Sequence[float], theirs: Sequence[float], within: float = 0.0) -> list[float]:
    """1 where our score is higher, 0 where it is lower, half where they are `within` so much of each other.

    >>> points_of([2.0, 1.0, 1.0], [1.0, 1.0, 2.0])
    [1.0, 0.5, 0.0]
    """
    same_length(ours=ours, theirs=theirs)
    gap = settled(finite(ours, "score") - finite(theirs, "score"), within)
    points: list[float] = (0.5 + 0.5 * np.sign(gap)).tolist()
    return points


def mean_of(points: Sequence[float], clusters: Sequence[str] | None = None) -> Mean:
    """The mean of points in [0, 1] (1, half, 0). With `clusters` (the prompt of each) whole clusters are the items.

    Where all items are alike their spread is 0, which is no certainty: the error is then that of a share with two more
    items on either side (Agresti and Coull 1998, The American Statistician 52).

    >>> mean_of([1.0, 0.0, 1.0, 0.0])
    Mean(value=0.5, error=0.28867513459481287, items=4)
    """
    x = finite(points, "point")
    same_length(points=points, clusters=clusters)
    _, place = np.unique(np.arange(len(x)) if clusters is None else np.asarray(clusters), return_inverse=True)
    sums, counts = np.bincount(place, weights=x), np.bincount(place)
    items, value = len(sums), float(x.mean())
    if items < 2:
        return Mean(value, math.inf, items)
    spread = float(((sums - value * counts) ** 2).sum())
    if spread > 1e-12 * items:
        return Mean(value, math.sqrt(items / (items - 1) * spread) / float(counts.sum()), items)
    share = (items * value + 2) / (items + 4)
    return Mean(value, math.sqrt(share * (1 - share) / (items + 4)), items)


def corrected_rate(rate: Mean, accuracy: Mean, level: float = 0.95) -> Corrected:
    """The true win rate t behind the rate w of a judge that orders two responses rightly with probability a.

        w = a t + (1 - a)(1 - t)        so        t = 1/2 + (w - 1/2) / (2 a - 1)

    This is the estimator of a test's true rate (Rogan and Gladen 1978, American Journal of Epidemiology 107), for a
    judge that errs alike on both sides; ties count half in w, in a and in t. Both w and a are estimates, so the
    interval is that of a ratio (Fieller 1954, JRSS B 16): all t with

        (w - 1/2 - (2 a - 1)(t - 1/2))^2 <= q^2 (var w + 4 (t - 1/2)^2 var a)

    It is finite where a differs significantly from 1/2. Differs from the source: q is Student's at Welch's degrees of
    freedom, for w and a have their own numbers of items.

    >>> found = corrected_rate(Mean(0.58, 0.02, 500), Mean(0.7, 0.03, 200))
    >>> round(found.value, 3), [round(x, 3) for x in found.interval]
    (0.7, [0.598, 0.84])
    >>> round(corrected_rate(Mean(0.664, 0.02, 500), Mean(0.607, 0.026, 350)).value, 3)
    1.266
    """
    gain, edge = rate.value - 0.5, 2 * accuracy.value - 1
    if edge <= 0:
        return Corrected(math.nan, None)
    ratio = gain / edge
    if min(rate.items, accuracy.items) < FEWEST:
        return Corrected(0.5 + ratio, None)
    of_rate, of_edge = rate.error**2, (2 * accuracy.error) ** 2
    quantile = _quantile((of_rate, ratio**2 * of_edge), (rate.items, accuracy.items), level)
    leading = edge**2 - quantile**2 * of_edge
    if leading <= 0:
        return Corrected(0.5 + ratio, None)
    middle = gain * edge / leading
    half = quantile * math.sqrt(of_rate * leading + gain**2 * of_edge) / leading
    return Corrected(0.5 + ratio, (0.5 + middle - half, 0.5 + middle + half))


def _quantile(variances: Sequence[float], items: Sequence[int], level: float) -> float:
    """Student's quantile at Welch's degrees of freedom of a sum of independent means."""
    parts = [(variance, n - 1) for variance, n in zip(variances, items, strict=True) if variance > 0]
    shares = [(variance / sum(v for v, _ in parts), degrees) for variance, degrees in parts]
    degrees = 1 / sum(share**2 / df for share, df in shares) if shares else items[0] - 1
    return float(stdtrit(degrees, 0.5 + level / 2))


def powered_rate(truth: Sequence[float], judged: Sequence[float], rest: Sequence[float]) -> tuple[Mean, float]:
    """The win rate by the truth, known for a part of the prompts, combined with a judge's win rate over all of them.

        m = mean(truth) + lambda (mean(rest) - mean(judged))
        var m = var(truth - lambda judged) / n + lambda^2 var(rest) / N
        lambda = cov(truth, judged) / ((1 + n / N) var(judged and rest)), cut at 0 and 1

    `truth` and `judged` are of the n prompts of the part, `rest` the judge's points of the N others: a point in [0, 1]
    a prompt. Valid whatever the judge's errors, if the part was drawn at random; a judge that is worth nothing gets
    lambda 0, which leaves the truth's own mean. Prediction-powered inference (Angelopoulos et al.
    2023, arXiv 2301.09633), with its tuned lambda (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453).
    Differs from the source: the items of the mean are those of the part, so that Student's interval is no narrower than
    its number allows, and the mean is kept within [0, 1].

    Return the mean and lambda.

    >>> powered_rate([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 1.0])[1]
    0.6222222222222222
    """
    same_length(truth=truth, judged=judged)
    y, f = finite(truth, "point of the truth"), finite(judged, "point of the judge")
    if len(y) < 2 or len(rest) < 2:
        raise UserError("prediction-powered inference needs two prompts with a known truth, and two without")
    others = finite(rest, "point of the judge")
    pooled = float(np.concatenate([f, others]).var(ddof=1))
    tied = float(np.cov(y, f)[0, 1]) / ((1 + len(y) / len(others)) * pooled) if pooled > 0 else 0.0
    weight = min(1.0, max(0.0, tied))
    value = float(y.mean() + weight * (others.mean() - f.mean()))
    variance = _variance(y - weight * f) / len(y) + weight**2 * _variance(others) / len(others)
    # Where nothing varies there is no certainty either: the error is then that of a mean of points all alike.
    least = mean_of([value] * len(y)).error if variance <= 1e-12 else 0.0
    return Mean(min(1.0, max(0.0, value)), max(math.sqrt(variance), least), len(y)), weight


def _variance(x: NDArray[np.float64]) -> float:
    return float(x.var(ddof=1))
