"""The intervals as they were at commit b0883d8, before any of this was measured: what `make coverage` compares with.

Copied and shortened, without their errors and options; nothing of the product uses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from truing.diagnose.curve import Curve
from truing.diagnose.form import design_of, peak
from truing.evaluate.intervals import Array, Interval

FEWEST, FEW = 3, 30
Z = 1.959963984540054


def wilson(successes: float, n: int) -> Interval:
    """Wilson's interval of a share; a tie is half a success."""
    share, spread = successes / n, Z * Z / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return 0.0 if successes == 0 else max(0.0, middle - half), 1.0 if successes == n else min(1.0, middle + half)


def mean_interval(values: Sequence[float], clusters: Sequence[Any] | None = None) -> Interval | None:
    """Student's below 30 items, from there on the percentile bootstrap of 2,000 draws."""
    x = np.asarray(values, dtype=np.float64)
    index = np.arange(len(x)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    sums, counts = np.bincount(index, weights=x), np.bincount(index).astype(np.float64)
    items = len(sums)
    if items < FEWEST:
        return None
    if items >= FEW:
        picked = np.random.default_rng(0).integers(0, items, size=(2000, items))
        low, high = np.quantile(sums[picked].sum(axis=1) / counts[picked].sum(axis=1), [0.025, 0.975])
        return float(low), float(high)
    mean = float(sums.sum() / counts.sum())
    error = math.sqrt(items / (items - 1) * float(((sums - mean * counts) ** 2).sum())) / float(counts.sum())
    half = float(stdtrit(items - 1, 0.975)) * error
    return (mean - half, mean + half) if half > 1e-12 * abs(mean) else None


def share_interval(points: Sequence[float], clusters: Sequence[Any] | None = None) -> Interval:
    """Wilson's where items are independent or all alike; over clusters that of a mean, cut at 0 and 1."""
    items = len(points) if clusters is None else len(set(clusters))
    spread = mean_interval(points, clusters) if items < len(points) else None
    if spread is None or spread[0] == spread[1]:
        return wilson(float(np.mean(points)) * items, items)
    return max(0.0, spread[0]), min(1.0, spread[1])


def pass_interval(values: Sequence[float]) -> Interval:
    """Interval of a mean, cut at 0 and 1; Wilson's where values are zeros and ones, or all alike."""
    spread = None if set(values) <= {0.0, 1.0} else mean_interval(values)
    if spread is None or spread[0] == spread[1]:
        return wilson(math.fsum(values), len(values))
    return max(0.0, spread[0]), min(1.0, spread[1])


def bootstrap(statistic: Callable[[Any], float], clusters: Sequence[Any]) -> Interval | None:
    """Percentiles of 1,000 draws of clusters from 30 on, below that Student's with their deviation."""
    index = np.unique(np.asarray(clusters), return_inverse=True)[1]
    rows = [np.flatnonzero(index == number) for number in range(int(index.max()) + 1)]
    picked = np.random.default_rng(0).integers(0, len(rows), size=(1000, len(rows)))
    values = np.array([statistic(np.concatenate([rows[i] for i in draw])) for draw in picked])
    finite = values[np.isfinite(values)]
    if len(rows) < FEWEST or len(finite) < 950:
        return None
    if len(rows) >= FEW:
        low, high = np.quantile(finite, [0.025, 0.975])
        return float(low), float(high)
    half, middle = float(stdtrit(len(rows) - 1, 0.975) * finite.std(ddof=1)), statistic(np.arange(len(index)))
    return (middle - half, middle + half) if half > 1e-12 else None


def peak_kl(curve: Curve) -> Interval | None:
    """The KL of the look of highest gold, by the error of that KL alone."""
    best = int(curve.gold.mean.argmax())
    if curve.kl_error is None:
        return None
    half = float(stdtrit(curve.prompts - 1, 0.975)) * float(curve.kl_error[best])
    return float(curve.kl[best]) - half, float(curve.kl[best]) + half


def fitted_peak_kl(curve: Curve) -> Interval | None:
    """The peak of Gao's form, from draws of its parameters, whether the form fits or not."""
    x, scale = curve.distance, 1 / curve.gold.error
    design = design_of(x, curve.form) * scale[:, None]
    solve = np.linalg.pinv(design)
    values, free = solve @ (curve.gold.mean * scale), len(x) - 3
    squares = float(((design @ values - curve.gold.mean * scale) ** 2).sum()) / free
    spread: Array = solve @ solve.T * max(1.0, squares)
    draws = np.random.default_rng(0).multivariate_normal(values, spread, size=2000, method="svd")
    ends = np.quantile(peak(draws[:, 1], draws[:, 2], curve.form), [0.025, 0.975], method="nearest")
    return (float(ends[0]) ** 2, float(ends[1]) ** 2) if np.isfinite(ends).all() else None
