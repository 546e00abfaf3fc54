"""Gao's forms fitted to a curve of gold over the distance from the start, with a test of whether they describe it.

Gao, Schulman and Hilton 2023 (arXiv 2210.10760) describe the gold reward above its start by the distance
d = sqrt(KL): d (alpha - beta ln d) under reinforcement learning, d (alpha - beta d) under best-of-n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, stdtrit

from truing.diagnose.curve import Array, Curve, Form
from truing.evaluate.intervals import FEWEST, Interval, student
from truing.objectives.closed_form import gold_after_best_of, gold_after_rl

LOOKS = 5
"""The fewest evaluations of a curve that is fitted: a start, two parameters, and a remainder to test the misfit."""
LINE = 80  # points of the fitted line
LIKELY = 0.05  # the level of the test: a rarer misfit counts against the form
FAR = 100.0  # alpha/beta beyond which the maximum of the form is at no distance that means anything
GAIN: Mapping[Form, Callable[[float, float, float], float]] = {"rl": gold_after_rl, "best_of": gold_after_best_of}


@dataclass(frozen=True)
class Fit:
    """start + d (alpha - beta ln d), or start + d (alpha - beta d), by least squares; intervals are 95 %.

    `misfit` is how much more a richer form explains, as an F statistic: about 1 where this one describes the curve;
    `chance` how often such a form comes to that by noise alone. None where that cannot be told. `peak` is the
    distance of the form's maximum, None where it has none; its interval stands only where the form `describes`.
    """

    form: Form
    start: float
    alpha: float
    beta: float
    alpha_interval: Interval | None
    beta_interval: Interval | None
    misfit: float | None
    chance: float | None
    peak: float | None
    peak_interval: Interval | None

    @property
    def describes(self) -> bool:
        """True if the form is not rejected."""
        return self.chance is not None and self.chance >= LIKELY

    def gold(self, distance: float) -> float:
        """The fitted gold reward at a distance."""
        return self.start + GAIN[self.form](distance, self.alpha, self.beta)

    def line(self, furthest: float) -> list[list[float]]:
        """Points [d, gold] of the fitted form from the start to the furthest evaluation."""
        return [[d, self.gold(d)] for d in np.linspace(0, furthest, LINE).tolist()]


def fitted(curve: Curve) -> Fit | None:
    """Gao's form fitted to a curve, its start with it; None where evaluations lie at fewer than `LOOKS` distances.

    Evaluations weigh by their standard errors (equally if any has none). The form is linear in its parameters, so
    every prompt has a fit of its own, and intervals are Student's by the spread of these: none below 10 prompts, and
    none where evaluations are not paired by prompt: their standard errors say little of the noise between them.
    """
    if len(set(curve.distance.round(6).tolist())) < LOOKS:
        return None
    weight = _weights(curve)
    solve = np.asarray(np.linalg.pinv(design_of(curve.distance, curve.form) * weight[:, None]), dtype=np.float64)
    values = solve @ (curve.gold.mean * weight)
    start, alpha, beta = values.tolist()
    top = float(peak(values[1:2], values[2:], curve.form)[0])
    statistic, chance = misfit(curve) or (None, None)
    of_alpha, of_beta, of_peak = _intervals(curve, solve, weight, values)
    return Fit(
        form=curve.form,
        start=start,
        alpha=alpha,
        beta=beta,
        alpha_interval=of_alpha,
        beta_interval=of_beta,
        misfit=statistic,
        chance=chance,
        peak=top if math.isfinite(top) else None,
        peak_interval=None if chance is None or chance < LIKELY else of_peak,
    )


def misfit(curve: Curve) -> tuple[float, float] | None:
    """Test of two further terms, a smooth departure from the form, against noise: Hotelling's T squared over prompts as
    an F statistic, and how often chance alone reaches it.

    A chi square by the evaluations' standard errors cannot tell it: all evaluations use the same prompts, so most of
    these errors is common to all and no noise between them. None where evaluations are not paired, or too few.
    """
    rows, weight = curve.gold.rows, _weights(curve)[:, None]
    if rows is None:
        return None
    d = curve.distance / curve.distance.max()
    distances = len(set(curve.distance.round(6).tolist()))
    powers = ((2, 3) if curve.form == "rl" else (3, 4))[: distances - 3]
    extra = np.stack([d**power for power in powers], axis=1) * weight
    base, _ = np.linalg.qr(design_of(curve.distance, curve.form) * weight)
    beyond, _ = np.linalg.qr(extra - base @ (base.T @ extra))  # what the further terms have beyond the form
    return _hotelling((rows * weight[:, 0]) @ beyond)


def design_of(distance: Array, form: Form) -> Array:
    """The columns of start, alpha and beta: the form is linear in them."""
    falls = distance * (distance if form == "best_of" else np.log(np.where(distance > 0, distance, 1.0)))
    return np.stack([np.ones_like(distance), distance, -falls], axis=1)


def peak(alpha: Array, beta: Array, form: Form) -> Array:
    """The distance at which the form is largest: exp(alpha/beta - 1), or alpha/(2 beta); infinite where it only rises.

    >>> peak(np.array([1.2]), np.array([0.15]), "best_of").tolist()
    [4.0]
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        place = np.exp(alpha / beta - 1) if form == "rl" else np.maximum(alpha, 0) / (2 * beta)
    out: Array = np.where(beta > 0, place, math.inf)
    return out


def ratio_interval(above: float, below: float, spread: Array, reach: float) -> Interval | None:
    """The interval of `above` / `below` with the covariance `spread`, `reach` standard errors to either side, by
    Fieller's theorem (1954); None where that is unbounded, because `below` cannot be told from 0.

    >>> [round(x, 3) for x in ratio_interval(6.0, 3.0, np.diag([0.01, 0.01]), 2.0)]
    [1.859, 2.159]
    """
    square = reach**2
    a = below**2 - square * float(spread[1, 1])
    b = above * below - square * float(spread[0, 1])
    c = above**2 - square * float(spread[0, 0])
    root = b * b - a * c
    if not (a > 0 and root >= 0):
        return None
    return (b - math.sqrt(root)) / a, (b + math.sqrt(root)) / a


def _weights(curve: Curve) -> Array:
    error = curve.gold.error
    all_known = bool((np.isfinite(error) & (error > 0)).all())
    weights: Array = 1 / error if all_known else np.ones_like(curve.gold.mean)
    return weights


def _intervals(
    curve: Curve, solve: Array, weight: Array, values: Array
) -> tuple[Interval | None, Interval | None, Interval | None]:
    """The intervals of alpha, of beta and of the peak, by the spread of the prompts' own fits."""
    rows = curve.gold.rows
    if rows is None or len(rows) < FEWEST:
        return None, None, None
    spread = np.cov((rows * weight) @ solve.T, rowvar=False) / len(rows)
    _, alpha, beta = values.tolist()
    of_each = [student(value, math.sqrt(spread[i, i]), len(rows)) for i, value in ((1, alpha), (2, beta))]
    reach = float(stdtrit(len(rows) - 1, 0.975))
    return of_each[0], of_each[1], _peak_interval(alpha, beta, spread[1:, 1:], reach, curve.form)


def _peak_interval(alpha: float, beta: float, spread: Array, reach: float, form: Form) -> Interval | None:
    """The interval of the form's peak: both forms' is a rising function of alpha/beta."""
    ratio = ratio_interval(alpha, beta, spread, reach) if beta > 0 else None
    if ratio is None or (form == "rl" and ratio[1] > FAR):
        return None
    low, high = (math.exp(r - 1) if form == "rl" else max(0.0, r) / 2 for r in ratio)
    return low, high


def _hotelling(rows: Array) -> tuple[float, float] | None:
    """F statistic of the hypothesis that the mean of vectors [items, size] is 0, with its chance (Hotelling 1931)."""
    count, size = rows.shape
    if count < max(FEWEST, size + 2):
        return None
    mean, spread = rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False))
    if np.linalg.matrix_rank(spread) < size:
        return None
    statistic = count * float(mean @ np.linalg.solve(spread, mean)) * (count - size) / (size * (count - 1))
    return statistic, float(fdtrc(size, count - size, statistic))
