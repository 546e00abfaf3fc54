"""Win rates corrected for a judge's errors: by hand, at their limits, and how often the intervals hold the truth."""

from __future__ import annotations

import importlib.util
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from truing.errors import UserError
from truing.evaluate.corrected import Mean, corrected_rate, mean_of, points_of, powered_rate
from truing.evaluate.intervals import FEWEST, student

PLACE = Path(__file__).parent.parent.parent / "benchmarks" / "decisions.py"
SPEC = importlib.util.spec_from_file_location("simulated_decisions", PLACE)
assert SPEC is not None and SPEC.loader is not None
decisions: Any = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = decisions
SPEC.loader.exec_module(decisions)


@pytest.mark.parametrize(
    ("judged", "accuracy", "true"), [(0.62, 0.8, 0.7), (0.38, 0.8, 0.3), (0.5, 0.61, 0.5), (0.664, 0.607, 1.2664)]
)
def test_the_correction_by_hand(judged: float, accuracy: float, true: float) -> None:
    """t = (w + a - 1) / (2 a - 1); the last is the case in which no rate comes out."""
    found = corrected_rate(Mean(judged, 0.02, 500), Mean(accuracy, 0.026, 350))
    assert found.value == pytest.approx(true, abs=1e-4)
    assert found.is_rate == (true <= 1)
    back = accuracy * found.value + (1 - accuracy) * (1 - found.value)
    assert back == pytest.approx(judged, abs=1e-12)


def test_the_interval_is_where_no_t_is_refused() -> None:
    """Fieller's ends are the roots of (w - 1/2 - (2a - 1)(t - 1/2))^2 - q^2 (var w + 4 (t - 1/2)^2 var a)."""
    rate, accuracy = Mean(0.58, 0.02, 500), Mean(0.7, 0.03, 200)
    found = corrected_rate(rate, accuracy)
    assert found.interval is not None
    of_a = (0.2 * 2 * 0.03) ** 2  # 4 (t - 1/2)^2 var a at the estimate, t = 0.7
    degrees = (0.02**2 + of_a) ** 2 / (0.02**4 / 499 + of_a**2 / 199)
    q = stats.t.ppf(0.975, degrees)

    def refused(t: float) -> float:
        return (0.08 - 0.4 * (t - 0.5)) ** 2 - q**2 * (0.02**2 + 4 * (t - 0.5) ** 2 * 0.03**2)

    roots = (optimize.brentq(refused, 0.4, 0.7), optimize.brentq(refused, 0.7, 1.2))
    assert found.interval == pytest.approx(roots, abs=1e-9)


def test_a_judge_that_never_errs_gives_the_raw_interval() -> None:
    rate = Mean(0.58, 0.02, 500)
    found = corrected_rate(rate, Mean(1.0, 0.0, 200))
    assert (found.value, found.interval) == (pytest.approx(0.58), pytest.approx(student(0.58, 0.02, 500)))


def test_turned_sides_give_the_turned_interval() -> None:
    ours, theirs = (corrected_rate(Mean(w, 0.02, 400), Mean(0.75, 0.03, 200)) for w in (0.56, 0.44))
    assert ours.interval is not None and theirs.interval is not None
    assert theirs.value == pytest.approx(1 - ours.value)
    assert theirs.interval == pytest.approx((1 - ours.interval[1], 1 - ours.interval[0]))


def test_the_interval_grows_with_the_doubt_of_the_judge() -> None:
    widths = []
    for error in (0.0, 0.02, 0.04, 0.06):
        interval = corrected_rate(Mean(0.6, 0.02, 400), Mean(0.75, error, 200)).interval
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert all(narrow < wide for narrow, wide in pairwise(widths))


def test_a_judge_not_told_from_chance_gives_no_interval() -> None:
    """Fieller's set is unbounded where 2a - 1 may be 0, and a judge below one half says nothing at all."""
    assert corrected_rate(Mean(0.6, 0.02, 400), Mean(0.53, 0.03, 200)).interval is None
    below = corrected_rate(Mean(0.6, 0.02, 400), Mean(0.45, 0.01, 200))
    assert below.interval is None and math.isnan(below.value) and not below.is_rate
    few = FEWEST - 1
    assert corrected_rate(Mean(0.6, 0.1, few), Mean(0.9, 0.02, 200)).interval is None
    assert corrected_rate(Mean(0.6, 0.02, 400), Mean(0.9, 0.1, few)).interval is None


def test_a_mean_over_clusters_has_the_error_that_its_interval_has() -> None:
    points, prompts = [1.0, 0.0, 1.0, 1.0, 0.5, 0.0], ["a", "a", "b", "b", "c", "d"]
    mean = mean_of(points, prompts)
    apart = [1.0 - 2 * 3.5 / 6, 2.0 - 2 * 3.5 / 6, 0.5 - 3.5 / 6, 0.0 - 3.5 / 6]  # sums of clusters about the mean
    assert (mean.items, mean.value) == (4, pytest.approx(3.5 / 6))
    assert mean.error == pytest.approx(math.sqrt(4 / 3 * sum(x * x for x in apart)) / 6)
    assert mean_of(points, list("abcdef")) == mean_of(points)


def test_points_all_alike_are_no_certainty() -> None:
    """All of 50 pairs right is not an accuracy without error; the same for a rate."""
    right = mean_of([1.0] * 50)
    assert right.error == pytest.approx(math.sqrt(52 / 54 * 2 / 54 / 54))
    interval = corrected_rate(Mean(0.6, 0.02, 400), right).interval
    assert interval is not None and interval[1] - interval[0] > 4 * 0.02 * 0.98
    assert mean_of([0.5] * 20, [str(i // 2) for i in range(20)]).error > 0.1
    assert mean_of([1.0]).error == math.inf


def test_ties_of_rounding_count_half() -> None:
    assert points_of([1.0, 1.0 + 1e-7, 0.0], [0.0, 1.0, 1.0], within=1e-6) == [1.0, 0.5, 0.0]


def test_prediction_powered_by_hand() -> None:
    """Of ten prompts four have a known truth; lambda is cov / ((1 + n/N) var)."""
    truth, judged, rest = [1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    everywhere = np.array(judged + rest)
    lam = np.cov(truth, judged)[0, 1] / ((1 + 4 / 6) * everywhere.var(ddof=1))
    rate, weight = powered_rate(truth, judged, rest)
    assert weight == pytest.approx(lam)
    assert rate.value == pytest.approx(0.5 + lam * (4 / 6 - 3 / 4))
    left = np.array(truth) - lam * np.array(judged)
    assert rate.error == pytest.approx(math.sqrt(left.var(ddof=1) / 4 + lam**2 * np.var(rest, ddof=1) / 6))
    assert rate.items == 4


def test_a_judge_worth_nothing_leaves_the_truth_alone() -> None:
    """Turned round it is worth nothing either: lambda is not below 0. What never varies has an error still."""
    truth = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    for judged in ([1 - y for y in truth], [0.5] * 6):
        rate, weight = powered_rate(truth, judged, [0.5, 1.0, 0.0])
        assert (weight, rate.value, rate.error) == pytest.approx((0.0, mean_of(truth).value, mean_of(truth).error))
    alike, _ = powered_rate([1.0] * 8, [1.0] * 8, [1.0] * 9)
    assert alike.value == 1 and alike.error == mean_of([1.0] * 8).error > 0
    with pytest.raises(UserError, match="needs two prompts with a known truth"):
        powered_rate([1.0], [1.0], [1.0, 0.0])


def test_the_prediction_powered_interval_covers_where_the_judge_has_a_side() -> None:
    """A judge that likes one side whatever it says: the correction by accuracy would be wrong, this is not; and it is
    narrower than the truth's part alone."""
    draws, covered, widths = np.random.default_rng(0), 0, []
    for _ in range(1500):
        truth = (draws.random(500) < 0.6).astype(float)
        sure = np.where(truth == 1, 0.95, 0.45)  # it calls 45 % of the losses wins
        judged = (draws.random(500) < sure).astype(float)
        rate, _ = powered_rate(truth[:100].tolist(), judged[:100].tolist(), judged[100:].tolist())
        low, high = rate.interval() or (0.0, 0.0)
        covered += low <= 0.6 <= high
        widths.append(rate.error / mean_of(truth[:100].tolist()).error)
    assert 0.935 <= covered / 1500 <= 0.965
    assert float(np.mean(widths)) < 0.92


@pytest.mark.parametrize("accuracy", decisions.ACCURACIES)
def test_at_a_null_effect_few_decisions_ship(accuracy: float) -> None:
    """At most 5 % within five looks, and with room for chance in 1,000 decisions 3.5 % at the first."""
    found = decisions.simulate(accuracy, 0.5, 1000, seed=1)
    assert found.ships <= 0.035 and found.ships_in_looks <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize("accuracy", decisions.ACCURACIES)
def test_the_corrected_interval_covers_a_true_rate(accuracy: float) -> None:
    found = decisions.simulate(accuracy, 0.6, 1500, seed=1)
    assert 0.935 <= found.covers_with_unbounded <= 0.97
    assert 0.93 <= found.covers <= 0.97


def test_the_looks_spend_no_more_than_their_alpha() -> None:
    spent = [(1 - decisions.level_of(look)) / 2 for look in range(1, 2000)]
    assert spent[:3] == pytest.approx([0.025, 0.0125, 0.025 / 6])
    assert 0.0499 < sum(spent) < 0.05
