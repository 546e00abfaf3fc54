"""The cases of `make coverage`: every interval and every verdict of the product, on data whose truth is known.

To add one, add a `Case` to `cases()`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import coverage_before as before
import numpy as np
from scipy.optimize import brentq
from scipy.special import beta as beta_function
from scipy.stats import norm

from truing.diagnose.curve import Curve, Series
from truing.diagnose.form import fitted
from truing.diagnose.overoptimisation import peak_interval
from truing.evaluate import reward_model
from truing.evaluate.intervals import Interval, mean_interval, share_interval
from truing.evaluate.passes import pass_at
from truing.evaluate.reward_model import spearman, under_curve
from truing.evaluate.winrate import win_rate
from truing.records import Finding

Rng = np.random.Generator
Measure = Callable[[Any], Interval | None]


@dataclass(frozen=True)
class Case:
    """One interval on one kind of data: `draw` gives data of so many independent items, `truth` is what `interval` is
    to hold, `before` the interval as it was at b0883d8. Of a verdict the truth is 0 and the interval that of what it is
    held against, so that a miss is a false verdict. `slow`: fewer trials must do."""

    name: str
    data: str
    draw: Callable[[Rng, int], Any]
    truth: float
    interval: Measure
    before: Measure | None = None
    slow: bool = False


def sized(rng: Rng, items: int) -> Any:
    """The cluster of every row: one to eight rows in each."""
    return np.repeat(np.arange(items), rng.integers(1, 9, items))


def seldom(rng: Rng, items: int) -> Any:
    """Zeros but for one value in twenty, which is about 1."""
    return np.where(rng.random(items) < 0.05, 1 + rng.normal(size=items), 0.0)


def shared(rng: Rng, clusters: Any) -> Any:
    """Standard normal values of which half the variance is the cluster's."""
    parts = rng.normal(size=len(clusters)), rng.normal(size=int(clusters.max()) + 1)[clusters]
    return (parts[0] + parts[1]) / math.sqrt(2)


def means() -> list[Case]:
    """Means of independent values and of values over clusters: scores, lengths, KL, looks at watched prompts."""

    def over_clusters(rng: Rng, items: int, skewed: bool) -> tuple[Any, Any]:
        clusters = sized(rng, items)
        values = shared(rng, clusters)
        return (np.exp(values) if skewed else values), clusters.tolist()

    plain = (lambda x: mean_interval(x)), (lambda x: before.mean_interval(x))
    clustered = (lambda d: mean_interval(*d)), (lambda d: before.mean_interval(*d))
    return [
        Case("mean", "normal", lambda rng, n: rng.normal(size=n), 0.0, *plain),
        Case("mean", "skewed (lognormal)", lambda rng, n: np.exp(rng.normal(size=n)), math.exp(0.5), *plain),
        Case("mean", "skewed (exponential)", lambda rng, n: rng.exponential(size=n), 1.0, *plain),
        Case("mean", "clustered", lambda rng, n: over_clusters(rng, n, False), 0.0, *clustered),
        Case("mean", "clustered, lognormal", lambda rng, n: over_clusters(rng, n, True), math.exp(0.5), *clustered),
        Case("mean", "nearly constant", seldom, 0.05, *plain),
    ]


def shares() -> list[Case]:
    """Shares: win rates, accuracies, cut-off answers, pass@k, agreement on rankings."""

    def wins(rng: Rng, items: int) -> Any:
        return np.where(rng.random(items) < 0.4, 0.5, (rng.random(items) < 0.6).astype(float))

    def clustered(share: float, alike: float) -> Callable[[Rng, int], tuple[Any, Any]]:
        def draw(rng: Rng, items: int) -> tuple[Any, Any]:
            clusters = sized(rng, items)
            rates = rng.beta(share * (1 / alike - 1), (1 - share) * (1 / alike - 1), items)
            return (rng.random(len(clusters)) < rates[clusters]).astype(float), clusters.tolist()

        return draw

    def passes(rng: Rng, items: int) -> list[float]:
        right = rng.binomial(8, rng.beta(0.5, 1.5, items))
        return [pass_at(4, 8, int(r)) for r in right]

    def rankings(rng: Rng, items: int) -> tuple[Any, Any]:
        return rng.normal([3.0, 2.0, 1.0, 0.0], 2.0, (items, 4)).tolist(), [str(i) for i in range(items)]

    def bernoulli(share: float) -> Callable[[Rng, int], Any]:
        return lambda rng, n: (rng.random(n) < share).astype(float)

    plain = (lambda x: share_interval(x)), (lambda x: before.share_interval(x))
    over = (lambda d: share_interval(*d)), (lambda d: before.share_interval(*d))
    passed = 1 - beta_function(0.5, 5.5) / beta_function(0.5, 1.5)
    tau = sum((4 - gap) * (2 * norm.cdf(gap / math.sqrt(8)) - 1) for gap in (1, 2, 3)) / 6

    def taus(d: tuple[Any, Any]) -> list[float]:
        return [float(np.mean([np.sign(r[i] - r[j]) for i in range(4) for j in range(i + 1, 4)])) for r in d[0]]

    return [
        Case("share", "0.6 of independent items", bernoulli(0.6), 0.6, *plain),
        Case("share", "two in five tied", wins, 0.56, *plain),
        Case("share", "0.7, clustered", clustered(0.7, 0.4), 0.7, *over),
        Case("share", "nearly constant (0.97)", bernoulli(0.97), 0.97, *plain),
        Case("share", "0.97, clustered", clustered(0.97, 0.6), 0.97, *over),
        Case("pass@4", "skewed", passes, passed, lambda x: share_interval(x), lambda x: before.pass_interval(x)),
        Case(
            "Kendall's tau",
            "rankings of four",
            rankings,
            tau,
            lambda d: reward_model.rankings("m", *d)[0].interval,
            lambda d: before.mean_interval(taus(d), d[1]),
            slow=True,
        ),
    ]


def ranks() -> list[Case]:
    """Spearman's correlation and the area under the curve."""

    def normal(rng: Rng, items: int, clustered: bool = False) -> tuple[Any, Any, Any]:
        clusters = sized(rng, items) if clustered else np.arange(items)
        x, e = (shared(rng, clusters) if clustered else rng.normal(size=items) for _ in range(2))
        return x, 0.5 * x + math.sqrt(0.75) * e, clusters.tolist()

    def levels(cuts: Sequence[float]) -> Callable[[Rng, int], tuple[Any, Any, Any]]:
        def draw(rng: Rng, items: int) -> tuple[Any, Any, Any]:
            x, y, clusters = normal(rng, items)
            return x, np.digitize(y, cuts).astype(float), clusters

        return draw

    def labels(share: float, clustered: bool = False) -> Callable[[Rng, int], tuple[Any, Any, Any]]:
        def draw(rng: Rng, items: int) -> tuple[Any, Any, Any]:
            clusters = sized(rng, items) if clustered else np.arange(items)
            good = (rng.random(len(clusters)) < share).astype(float)
            noise = shared(rng, clusters) if clustered else rng.normal(size=items)
            return good + noise, good, clusters.tolist()

        return draw

    def of(measure: Callable[..., Finding | str]) -> Measure:
        def interval(d: tuple[Any, Any, Any]) -> Interval | None:
            finding = measure("m", d[0].tolist(), d[1].tolist(), d[2])
            return finding.interval if isinstance(finding, Finding) else None

        return interval

    def old(statistic: Callable[[Any, Any], float]) -> Measure:
        return lambda d: before.bootstrap(lambda rows: statistic(d[0][rows], d[1][rows]), d[2])

    rho, area = 6 / math.pi * math.asin(0.25), float(norm.cdf(1 / math.sqrt(2)))
    by_rank = of(reward_model.rank_correlation), old(spearman), True
    by_area = of(reward_model.area), old(under_curve), True
    few = (-1.3, -0.4, 0.4, 1.3)
    return [
        Case("Spearman", "normal", normal, rho, *by_rank),
        Case("Spearman", "five levels", levels(few), correlation_of_levels(few), *by_rank),
        Case("Spearman", "clustered", lambda rng, n: normal(rng, n, True), rho, *by_rank),
        Case("Spearman", "nearly constant", levels((1.4,)), correlation_of_levels((1.4,)), *by_rank),
        Case("area under the curve", "normal", labels(0.5), area, *by_area),
        Case("area under the curve", "clustered", labels(0.5, True), area, *by_area),
        Case("area under the curve", "one in ten good", labels(0.1), area, *by_area),
    ]


def correlation_of_levels(cuts: Sequence[float]) -> float:
    """Spearman's correlation of a normal value and the level of another that correlates with it by 0.5."""
    ends, grid = np.array([-8.0, *cuts, 8.0]), np.linspace(-6, 6, 4001)
    weight = norm.pdf(grid) / norm.pdf(grid).sum()
    inner = norm.cdf((ends[:, None] - 0.5 * grid) / math.sqrt(0.75))
    level = np.diff(inner, axis=0)  # the probability of each level at each value
    share = level @ weight
    grade = np.cumsum(share) - share / 2  # the mean rank of a level
    centred = grade - 0.5
    together = float((norm.cdf(grid) - 0.5) * weight @ (level * centred[:, None]).sum(0))
    return together / math.sqrt(float((centred**2 * share).sum()) / 12)


def verdicts() -> list[Case]:
    """Verdicts against a bound or a baseline, where the truth is that they are equal."""
    return [*fixed_bounds(), *losses(), *constants()]


def fixed_bounds() -> list[Case]:
    """Two models of which neither is better."""

    def scores(tied: float) -> Callable[[Rng, int], tuple[Any, Any, Any]]:
        def draw(rng: Rng, items: int) -> tuple[Any, Any, Any]:
            first, second = np.exp(rng.normal(size=(2, items)))
            return np.where(rng.random(items) < tied, second, first), second, [str(i) for i in range(items)]

        return draw

    def of(place: int) -> Measure:
        return lambda d: win_rate("a", d[0].tolist(), "b", d[1].tolist(), d[2])[place].interval

    def won(d: tuple[Any, Any, Any]) -> Interval:
        return minus(before.share_interval((0.5 + 0.5 * np.sign(d[0] - d[1])).tolist(), d[2]), 0.5)

    gained = of(4), lambda d: before.mean_interval((d[0] - d[1]).tolist(), d[2])
    return [
        Case("verdict of win_delta", "no ties", scores(0.0), 0.0, of(1), won),
        Case("verdict of win_delta", "half tied", scores(0.5), 0.0, of(1), won),
        Case("verdict of mean_score_delta", "heavy tails", scores(0.0), 0.0, *gained),
        Case("verdict of mean_score_delta", "nearly constant", scores(0.9), 0.0, *gained),
    ]


def losses() -> list[Case]:
    """Losses of models that know nothing of use: as large as their baseline's."""

    def errors(kind: str) -> Callable[[Rng, int], tuple[Any, Any, Any]]:
        def draw(rng: Rng, items: int) -> tuple[Any, Any, Any]:
            clusters = sized(rng, items) if kind == "clustered" else np.arange(items)
            t = {
                "clustered": lambda: shared(rng, clusters),
                "normal": lambda: rng.normal(size=items),
                "skewed (exponential)": lambda: rng.exponential(size=items) - 1,
                "ratings from 1 to 5": lambda: rng.choice(LEVELS, items, p=RATED) - LEVELS @ RATED,
                "nearly constant": lambda: np.where(rng.random(items) < 0.05, rng.normal(size=items), 0.0),
            }[kind]()
            scale = {
                "nearly constant": math.sqrt(0.05),
                "ratings from 1 to 5": math.sqrt(LEVELS**2 @ RATED - (LEVELS @ RATED) ** 2),
            }.get(kind, 1.0)
            e = shared(rng, clusters) if kind == "clustered" else rng.normal(size=items)
            return 0.5 * t + math.sqrt(0.75) * scale * e, t, [str(c) for c in clusters]

        return draw

    def squared(d: tuple[Any, Any, Any]) -> Interval | None:
        return reward_model.squared_error("m", d[0].tolist(), d[1].tolist(), d[2])[1].interval

    def squared_before(d: tuple[Any, Any, Any]) -> Interval | None:
        return minus(before.mean_interval((d[0] - d[1]) ** 2, d[2]), float(d[1].var()))

    def loss(tie: float, kind: float, sharp: float) -> float:
        """The loss of a tie (1) or of either side's win (0) by a model that exaggerates so much what it knows."""
        odds = math.log(0.3 / 0.7) + sharp * (math.log(tie / (1 - tie)) - math.log(0.3 / 0.7))
        q = 1 / (1 + math.exp(-odds))
        return -math.log(q) if kind else -math.log((1 - q) / 2)

    def excess(sharp: float) -> float:
        return sum(p / 2 * loss(p, 1, sharp) + (1 - p) / 2 * loss(p, 0, sharp) for p in (0.1, 0.5)) - blind

    blind = -0.3 * math.log(0.3) - 0.7 * math.log(0.35)
    sharp = float(brentq(excess, 1.0, 9.0))

    def outcomes(rng: Rng, items: int) -> tuple[Any, ...]:
        p = rng.choice([0.1, 0.5], items)
        tied = rng.random(items) < p
        values = [loss(a, float(b), sharp) for a, b in zip(p, tied, strict=True)]
        return p.tolist(), values, tied.tolist(), [str(i) for i in range(items)]

    def blind_here(tied: Sequence[bool]) -> float:
        share = float(np.mean(tied))
        return -sum(s * math.log(s / sides) for s, sides in ((share, 1), (1 - share, 2)) if s)

    name = "verdict of held_out_squared_error_delta"
    return [
        *(Case(name, kind, errors(kind), 0.0, squared, squared_before) for kind in KINDS),
        Case(
            "verdict of held_out_log_loss_delta",
            "ties in 0.3",
            outcomes,
            0.0,
            lambda d: reward_model.ties("m", *d)[3].interval,
            lambda d: minus(before.mean_interval(d[1], d[3]), blind_here(d[2])),
        ),
        Case(
            "verdict of held_out_tie_share_delta",
            "ties in 0.3",
            outcomes,
            0.0,
            lambda d: reward_model.ties("m", *d)[1].interval,
            lambda d: before.mean_interval(np.array(d[0]) - np.array(d[2], dtype=float), d[3]),
        ),
    ]


LEVELS, RATED = np.arange(1.0, 6.0), np.array([0.05, 0.1, 0.15, 0.3, 0.4])  # ratings, most of them high
KINDS = ("normal", "ratings from 1 to 5", "skewed (exponential)", "clustered", "nearly constant")


def constants() -> list[Case]:
    """Accuracies that are those of always giving the commonest label."""

    def labelled(shares: Sequence[float], clustered: bool = False) -> Callable[[Rng, int], tuple[Any, Any, Any]]:
        def draw(rng: Rng, items: int) -> tuple[Any, Any, Any]:
            clusters = sized(rng, items) if clustered else np.arange(items)
            label = rng.choice(len(shares), items, p=shares)[clusters]
            right = (rng.random(items) < max(shares))[clusters]
            return right, label, [str(c) for c in clusters]

        return draw

    def accuracy(d: tuple[Any, Any, Any]) -> Interval | None:
        right, good = d[0], d[1] == 0
        logits = np.where(right == good, 1.0, -1.0)
        return reward_model.label_accuracy("held_out_accuracy", "m", logits.tolist(), good.tolist(), d[2])[1].interval

    def first_error(d: tuple[Any, Any, Any]) -> Interval | None:
        points = d[0].astype(float).tolist()
        measured = reward_model.share("held_out_first_error_accuracy", "m", points, d[2], None, "")
        return reward_model.above_commonest(measured, points, d[1].tolist(), d[2], "").interval

    def old(d: tuple[Any, Any, Any]) -> Interval:
        common = float(np.bincount(d[1]).max() / len(d[1]))
        return minus(before.share_interval(d[0].astype(float).tolist(), d[2]), common)

    label, step = "verdict of held_out_accuracy_delta", "verdict of held_out_first_error_accuracy_delta"
    return [
        Case(label, "labels even", labelled((0.5, 0.5)), 0.0, accuracy, old),
        Case(label, "0.7 of one kind", labelled((0.7, 0.3)), 0.0, accuracy, old),
        Case(label, "0.7, clustered", labelled((0.7, 0.3), True), 0.0, accuracy, old),
        Case(label, "nearly constant (0.95)", labelled((0.95, 0.05)), 0.0, accuracy, old),
        Case(step, "four answers", labelled((0.4, 0.4, 0.1, 0.1)), 0.0, first_error, old),
    ]


def curves() -> list[Case]:
    """The peak of gold over the distance, from twelve looks that ask the same prompts, whose noise lasts."""

    def draw(rng: Rng, items: int, paired: bool = True) -> Curve:
        d = np.linspace(0, 4, 12)
        noise = rng.normal(0, 0.5, (items, 12))
        for i in range(1, 12):
            noise[:, i] = 0.8 * noise[:, i - 1] + 0.6 * noise[:, i]
        rows = rng.normal(0, 2.0, (items, 1)) + gold(d) + noise
        error = (0.02 + 0.5 * d**2) / math.sqrt(items)
        kl = d**2 + rng.normal(0, error)
        series = Series.of(rows)
        at = tuple(range(12))
        return Curve("m", "", "rl", at, kl, series, series, items, error)

    def gold(d: Any) -> Any:
        return np.where(d > 0, d * (1.0 - 0.6 * np.log(np.where(d > 0, d, 1))), 0)

    def exact_distances(rng: Rng, items: int) -> Curve:
        return replace(draw(rng, items), kl=np.linspace(0, 4, 12) ** 2)

    def fitted_peak(curve: Curve) -> Interval | None:
        fit = fitted(curve)
        ends = fit.peak_interval if fit else None
        return (ends[0] ** 2, ends[1] ** 2) if ends else None

    def not_paired(curve: Curve) -> Curve:
        return replace(curve, gold=Series(curve.gold.mean, curve.gold.error))

    top = math.exp(2 * (1 / 0.6 - 1))
    return [
        Case("gold_peak_kl_nats", "twelve looks", draw, top, peak_interval, before.peak_kl),
        Case(
            "gold_fitted_peak_kl_nats",
            "twelve looks",
            exact_distances,
            top,
            fitted_peak,
            lambda c: before.fitted_peak_kl(not_paired(c)),
        ),
    ]


def minus(interval: Interval | None, bound: float) -> Any:
    """An interval as seen from a bound that is taken as exact."""
    return interval and (interval[0] - bound, interval[1] - bound)


def cases() -> list[Case]:
    """All of them, in the order of the table."""
    return [*means(), *shares(), *ranks(), *verdicts(), *curves()]
