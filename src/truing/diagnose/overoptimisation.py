"""Does the truth turn down while the proxy still rises, and where? Gao's forms fitted, and the measured curve itself.

Gao, Schulman and Hilton 2023 (arXiv 2210.10760) describe the gold reward above its start by the distance
d = sqrt(KL): d (alpha - beta ln d) under reinforcement learning, d (alpha - beta d) under best-of-n.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from truing.diagnose.curve import Array, Curve, Form
from truing.objectives.closed_form import gold_after_best_of, gold_after_rl
from truing.types import Finding

FEWEST = 5
"""Looks below which nothing is said of a curve: a start, two parameters, and something left to see the misfit by."""
DRAWS, LINE = 2000, 80  # draws for intervals; points of the fitted line
GAIN: Mapping[Form, Callable[[float, float, float], float]] = {"rl": gold_after_rl, "best_of": gold_after_best_of}
Interval = tuple[float, float]


@dataclass(frozen=True)
class Fit:
    """start + d (alpha - beta ln d), or start + d (alpha - beta d), by least squares; intervals are 95 %.

    `misfit` is chi square by its degrees of freedom: about 1 where the form describes the curve; None where looks
    have no standard errors. `peak` is the distance of the form's maximum, None where it has none.
    """

    form: Form
    start: float
    alpha: float
    beta: float
    alpha_interval: Interval
    beta_interval: Interval
    misfit: float | None
    peak: float | None
    peak_interval: Interval | None

    def gold(self, distance: float) -> float:
        """The fitted gold reward at a distance."""
        return self.start + GAIN[self.form](distance, self.alpha, self.beta)

    def line(self, furthest: float) -> list[list[float]]:
        """Points [d, gold] of the fitted form from the start to the furthest look."""
        return [[d, self.gold(d)] for d in np.linspace(0, furthest, LINE).tolist()]


@dataclass(frozen=True)
class Diagnosis:
    """What is said of one curve. `word` is `turns`, `falls`, `rises` or `unclear`; one too short has no findings."""

    curve: Curve
    fit: Fit | None
    word: str
    best: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The curve as plain data: what a report draws."""
        curve, fit = self.curve, self.fit
        distance = curve.distance
        fitted = None
        if fit is not None:
            names = ("start", "alpha", "beta", "alpha_interval", "beta_interval", "misfit", "peak", "peak_interval")
            fitted = {name: getattr(fit, name) for name in names} | {"line": fit.line(float(distance.max()))}
        return {
            "name": curve.name,
            "against": curve.against,
            "form": curve.form,
            "at": list(curve.at),
            "distance": distance.tolist(),
            "kl": curve.kl.tolist(),
            "proxy": curve.proxy.mean.tolist(),
            "proxy_error": _numbers(curve.proxy.error),
            "gold": curve.gold.mean.tolist(),
            "gold_error": _numbers(curve.gold.error),
            "prompts": curve.prompts,
            "word": self.word,
            "best": self.best,
            "fit": fitted,
        }


def diagnose(curve: Curve) -> Diagnosis:
    """All that a curve says. Looks are in the order in which the policy went (`best`, `last`); the fitted form knows
    distances only, so where the KL falls on the way a note says so."""
    if len(curve.at) < FEWEST:
        few = f"{curve.name}: {len(curve.at)} looks are too few to say anything ({FEWEST} at least); look more often"
        return Diagnosis(curve, None, "unclear", 0, (), (*curve.notes, few))
    best = int(curve.gold.mean.argmax())
    fit = fitted(curve)
    word = turn(curve)
    notes = [*curve.notes, *_odd(curve)]
    if fit is None:
        notes.append(f"{curve.name}: its looks lie at too few distances to fit a form")
    return Diagnosis(curve, fit, word, best, tuple(findings(curve, best, word, fit)), tuple(notes))


def fitted(curve: Curve) -> Fit | None:
    """Gao's form fitted to a curve, its start with it; None where looks lie at fewer than `FEWEST` distances.

    Looks weigh by their standard errors (all alike where one has none). Intervals come from the covariance of the
    parameters, widened by the misfit where that is above 1; of curves whose looks are paired by prompt, from fits to
    prompts drawn again.
    """
    x, y, error = curve.distance, curve.gold.mean, curve.gold.error
    if len(set(x.round(6).tolist())) < FEWEST:
        return None
    known = bool((np.isfinite(error) & (error > 0)).all())
    design = design_of(x, curve.form) / (error[:, None] if known else 1.0)
    solve = np.linalg.pinv(design)
    scale = 1 / error if known else np.ones_like(y)
    found = solve @ (y * scale)
    free = len(y) - 3
    squares = float(((design @ found - y * scale) ** 2).sum()) / free
    if curve.gold.rows is not None and len(curve.gold.rows) > 1:
        rows = curve.gold.rows
        picked = np.random.default_rng(0).integers(0, len(rows), size=(DRAWS, len(rows)))
        draws = np.stack([solve @ (rows[drawn].mean(0) * scale) for drawn in picked])
        width = np.quantile(draws, [0.025, 0.975], axis=0)
    else:
        spread = solve @ solve.T * (max(1.0, squares) if known else squares)
        half = stdtrit(free, 0.975) * np.sqrt(spread.diagonal())
        width = np.stack([found - half, found + half])
        draws = np.random.default_rng(0).multivariate_normal(found, spread, size=DRAWS, method="svd")
    start, alpha, beta = found.tolist()
    peaks = np.quantile(peak(draws[:, 1], draws[:, 2], curve.form), [0.025, 0.975], method="nearest")
    own = float(peak(np.array([alpha]), np.array([beta]), curve.form)[0])
    between = (float(peaks[0]), float(peaks[1])) if np.isfinite(peaks).all() else None
    a, b = ((float(width[0, i]), float(width[1, i])) for i in (1, 2))
    there = own if math.isfinite(own) else None
    return Fit(curve.form, start, alpha, beta, a, b, squares if known else None, there, between)


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
    out: NDArray[np.float64] = np.where(beta > 0, place, math.inf)
    return out


def errors(curve: Curve, tail: float) -> float:
    """How many standard errors an interval reaches to either side, with so much beyond each end: Student's, by the
    number of prompts; the normal's where that is not known."""
    known = curve.prompts > 1
    return float(stdtrit(curve.prompts - 1, 1 - tail)) if known else NormalDist().inv_cdf(1 - tail)


def loss(curve: Curve) -> tuple[float, Interval | None]:
    """How far gold lies at its best look above the last, and the 95 % interval of that; both at least 0.

    The best look is chosen by its own measurement, so the interval holds for every look at once (Bonferroni's: each
    at 1 - 0.05/looks). No interval where looks have no standard errors.
    """
    last = len(curve.at) - 1
    apart = [curve.gold.above(i, last) for i in range(last)]
    value = max(0.0, *(difference for difference, _ in apart))
    z = errors(curve, 0.025 / last)
    if not all(math.isfinite(error) for _, error in apart):
        return value, None
    return value, (max(0.0, *(d - z * e for d, e in apart)), max(0.0, *(d + z * e for d, e in apart)))


def gained(curve: Curve, quantity: str, one: int, other: int) -> tuple[float, Interval | None]:
    """How far `proxy` or `gold` lies at look `one` above look `other`, with its 95 % interval."""
    value, error = getattr(curve, quantity).above(one, other)
    half = errors(curve, 0.025) * error
    return value, (value - half, value + half) if math.isfinite(error) else None


def turn(curve: Curve) -> str:
    """What gold does: `turns` (a look lies above the last beyond noise), `falls` (the first look is that), `rises`
    (none does, and the last lies above the first), or `unclear`."""
    _, lost = loss(curve)
    _, up = gained(curve, "gold", len(curve.at) - 1, 0)
    if lost is None or up is None:
        return "unclear"
    if lost[0] > 0:
        return "turns" if curve.gold.mean.argmax() > 0 else "falls"
    return "rises" if up[0] > 0 else "unclear"


def findings(curve: Curve, best: int, word: str, fit: Fit | None) -> list[Finding]:
    """The findings of a curve. `overoptimised` is 1 where gold turns or falls while the proxy goes on rising, 0 where
    gold rises, and not given where it cannot be told."""
    last, distance = len(curve.at) - 1, curve.distance
    said = f"{len(curve.at)} looks, {curve.prompts} prompts; best at {curve.look(best)}, last at {curve.look(last)}"
    found = []

    def add(check: str, value: float, interval: Interval | None = None, verdict: str = "", more: str = "") -> None:
        text = f"{said}; {more}" if more else said
        found.append(
            Finding(check, curve.name, value, curve.against, "all", interval, curve.prompts, None, verdict, text)
        )

    add("gold_peak_kl_nats", float(curve.kl[best]), _about(curve, best))
    if fit is not None and fit.peak is not None and 0 < fit.peak <= distance.max():
        between = (fit.peak_interval[0] ** 2, fit.peak_interval[1] ** 2) if fit.peak_interval else None
        add("gold_fitted_peak_kl_nats", fit.peak**2, between, more=f"alpha {fit.alpha:.3g}, beta {fit.beta:.3g}")
    add("last_kl_nats", float(curve.kl[last]), _about(curve, last))
    add("gold_gained", *gained(curve, "gold", last, 0), more="last less first")
    lost, interval = loss(curve)
    add("gold_lost_after_peak", lost, interval, word, "the interval holds for all looks at once")
    value, up = gained(curve, "proxy", last, 0)
    add("proxy_gained", value, up, more="last less first")
    if best < last:
        value, up = gained(curve, "proxy", last, best)
        add("proxy_gained_after_peak", value, up, more="last less best look of gold")
    if word == "rises":
        add("overoptimised", 0.0, verdict="no")
    if word in ("turns", "falls") and up is not None and up[0] > 0:
        add("overoptimised", 1.0, verdict="yes")
    return found


def _about(curve: Curve, i: int) -> Interval | None:
    if curve.kl_error is None or not math.isfinite(curve.kl_error[i]):
        return None
    half = errors(curve, 0.025) * float(curve.kl_error[i])
    return float(curve.kl[i]) - half, float(curve.kl[i]) + half


def _odd(curve: Curve) -> list[str]:
    """What a reader must know of the distances: estimates below 0, and a way that leads back."""
    notes = []
    below = int((curve.kl < 0).sum())
    if below:
        notes.append(f"{curve.name}: {below} estimates of the KL are below 0, which is noise about 0; they count as 0")
    highest = int(curve.kl.argmax())
    error = curve.kl_error if curve.kl_error is not None else np.zeros_like(curve.kl)
    back = curve.kl[highest] - curve.kl[highest:].min()
    lowest = highest + int(curve.kl[highest:].argmin())
    if back > 2 * math.hypot(*np.nan_to_num(error[[highest, lowest]])) and back > 0:
        notes.append(
            f"{curve.name}: its KL falls from {curve.kl[highest]:.3g} nats at {curve.look(highest)} to "
            f"{curve.kl[lowest]:.3g} at {curve.look(lowest)}; the fitted form reads each look at its own distance"
        )
    return notes


def _numbers(values: Sequence[float] | Array) -> list[float | None]:
    return [float(x) if math.isfinite(x) else None for x in values]
