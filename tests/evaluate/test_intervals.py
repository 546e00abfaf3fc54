"""Intervals against scipy's and statsmodels', numbers worked out by hand, and what has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.api import OLS
from statsmodels.stats.proportion import proportion_confint

from truing.errors import UserError
from truing.evaluate.intervals import (
    CORRELATION,
    SHARE,
    exact,
    items_of,
    jackknife,
    mean_interval,
    not_below,
    share_interval,
    student,
)

TIES = [1.0] * 53 + [0.5] * 12 + [0.0] * 35  # the golden case's outcomes


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (1, 10), (53, 88), (170, 500)])
def test_the_exact_interval_is_scipys_and_statsmodels(right: int, n: int) -> None:
    by_scipy = stats.binomtest(right, n).proportion_ci(method="exact")
    assert exact(right, n) == pytest.approx((by_scipy.low, by_scipy.high), abs=1e-12)
    assert exact(right, n, 0.9) == pytest.approx(proportion_confint(right, n, alpha=0.1, method="beta"), abs=1e-9)
    assert share_interval([1.0] * right + [0.0] * (n - right)) == exact(right, n)


def test_the_exact_interval_holds_wilsons_of_the_golden_case() -> None:
    low, high = exact(53, 88)
    assert low < 0.49780730042864657 and high > 0.6981826177535346
    assert (low, high) == pytest.approx((0.49780730042864657, 0.6981826177535346), abs=0.01)


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_the_exact_interval_holds_the_share_and_stays_within_0_and_1(n: int, share: float) -> None:
    low, high = exact(share * n, n)
    assert 0 <= low <= share + 1e-9 and share - 1e-9 <= high <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4), (float("nan"), 4)])
def test_what_is_no_share_is_refused(successes: float, n: int) -> None:
    with pytest.raises(UserError):
        exact(successes, n)
    with pytest.raises(UserError, match=r"row 2: point is 1\.5, and a share is of points from 0 to 1"):
        share_interval([1.0, 1.5])


def test_without_skewness_the_interval_of_a_mean_is_students() -> None:
    x = np.random.default_rng(1).normal(3.0, 2.0, 40)
    x = np.concatenate([x, 6.0 - x])  # symmetric about 3
    wanted = stats.t.interval(0.95, len(x) - 1, x.mean(), stats.sem(x))
    assert mean_interval(x.tolist()) == pytest.approx(wanted, rel=1e-6)
    assert mean_interval(x.tolist()) == pytest.approx(tuple(stats.ttest_1samp(x, 0).confidence_interval()), rel=1e-6)
    assert student(float(x.mean()), float(stats.sem(x)), len(x)) == pytest.approx(wanted, abs=1e-12)


def test_skewness_widens_it_on_the_side_of_the_long_tail_as_halls_does() -> None:
    x = np.exp(np.random.default_rng(2).normal(size=30))
    low, high = mean_interval(x.tolist())
    mean, error, t = x.mean(), stats.sem(x), stats.t.ppf(0.975, 29)
    skew = stats.skew(x, bias=False) / math.sqrt(30)
    assert low == pytest.approx(mean - t * error)
    assert high == pytest.approx(mean - error * 3 / skew * (np.cbrt(1 + skew * (-t - skew / 6)) - 1))
    assert high > mean + t * error
    # What Hall's transformation makes of the end is Student's quantile again.
    z = (mean - high) / error
    assert z + skew * z**2 / 3 + skew**2 * z**3 / 27 + skew / 6 == pytest.approx(-t)
    mirrored = mean_interval((-x).tolist())
    assert mirrored == pytest.approx((-high, -low))


def test_over_clusters_the_error_is_that_of_statsmodels() -> None:
    """Cluster-robust with the factor G/(G - 1) of G clusters; statsmodels' second factor (N - 1)/(N - 1) is 1 here."""
    draws = np.random.default_rng(3)
    labels = np.repeat(np.arange(25), draws.integers(1, 6, 25))
    x = draws.normal(size=25)[labels] + draws.normal(size=len(labels))
    fit = OLS(x, np.ones(len(x))).fit(cov_type="cluster", cov_kwds={"groups": labels})
    items = items_of(x, labels.tolist())
    assert items.values.mean() == pytest.approx(x.mean()) == pytest.approx(fit.params[0])
    assert items.error() == pytest.approx(fit.bse[0], rel=1e-12)
    sizes = np.bincount(labels)
    assert items.effective == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum()) and items.effective < 25


def test_clusters_of_one_size_are_items_and_repeats_add_nothing() -> None:
    x = np.random.default_rng(2).normal(size=100)
    repeated, labels = np.repeat(x, 9).tolist(), np.repeat(np.arange(100), 9).tolist()
    plain, naive = mean_interval(x.tolist()), mean_interval(repeated)
    assert mean_interval(repeated, labels) == pytest.approx(plain, rel=1e-9)
    assert naive[1] - naive[0] == pytest.approx((plain[1] - plain[0]) / 3, rel=0.1)


@given(st.lists(st.floats(-100, 100), min_size=10, max_size=40, unique=True), st.floats(-50, 50), st.floats(0.1, 9))
def test_the_interval_of_a_mean_holds_it_and_moves_and_stretches_with_the_values(values, shift, scale) -> None:
    x = np.round(np.array(values), 3)
    interval = mean_interval(x.tolist())
    if interval is None:
        assert len(np.unique(x)) < len(x)  # rounded to be alike
        return
    assert interval[0] <= x.mean() <= interval[1]
    moved = mean_interval((scale * x + shift).tolist())
    assert moved == pytest.approx((scale * interval[0] + shift, scale * interval[1] + shift), rel=1e-6, abs=1e-6)
    assert mean_interval(x[::-1].tolist()) == pytest.approx(interval, rel=1e-9, abs=1e-9)


def test_few_items_and_no_spread_are_no_certainty() -> None:
    nine = [0.1 * i for i in range(9)]
    assert mean_interval(nine) is None and mean_interval([*nine, 0.9]) is not None
    assert mean_interval(np.repeat(nine, 3).tolist(), np.repeat(np.arange(9), 3).tolist()) is None
    assert share_interval([1.0, 0.0] * 4) is None and share_interval([1.0, 0.0] * 5) == exact(5, 10)
    for alike in ([0.1] * 500, [0.1] * 496 + [0.3, 0.4, 0.5, 0.6], [1e9 + 1e-5 * (i % 2) for i in range(40)]):
        assert mean_interval(alike) is None
    assert mean_interval([0.1] * 495 + [0.3, 0.4, 0.5, 0.6, 0.7]) is not None


def test_a_share_over_clusters_that_agree_is_one_over_so_many_items() -> None:
    labels = np.repeat(np.arange(40), 4).tolist()
    assert share_interval([1.0] * 160, labels) == exact(40, 40)
    few = np.repeat([1.0] * 35 + [0.0] * 5, 4).tolist()  # five clusters differ: their spread says little
    low, high = share_interval(few, labels)
    assert low <= exact(35, 40)[0] and high >= exact(35, 40)[1] - 1e-3


def test_a_share_over_clusters_that_say_nothing_of_each_other_is_that_of_its_rows() -> None:
    draws = np.random.default_rng(4)
    points, labels = (draws.random(2000) < 0.6).astype(float).tolist(), np.repeat(np.arange(500), 4).tolist()
    clustered, plain = share_interval(points, labels), exact(sum(points), 2000)
    assert clustered[1] - clustered[0] == pytest.approx(plain[1] - plain[0], rel=0.1)
    assert clustered[1] - clustered[0] >= (plain[1] - plain[0]) * (1 - 1e-9)


def test_ties_make_a_share_surer_and_never_less_sure_than_wins_and_losses() -> None:
    low, high = share_interval(TIES)
    without = exact(59, 100)
    assert without[0] < low < 0.59 < high < without[1]
    sem = 0.04626450086625857  # the golden case's: of the points, so that ties reduce it
    assert (high - low) / 2 == pytest.approx(1.96 * sem, rel=0.06)
    assert share_interval([0.5] * 100) == exact(50, 100)


def test_the_jackknife_of_a_mean_is_students() -> None:
    x = np.random.default_rng(5).normal(0.2, 0.1, 50)
    identity = type(CORRELATION)(float, float)
    assert jackknife(lambda rows: float(x[rows].mean()), range(50), identity) == pytest.approx(
        student(float(x.mean()), float(stats.sem(x)), 50), abs=1e-12
    )


def test_the_jackknife_leaves_out_whole_clusters_and_many_of_them_together() -> None:
    x = np.random.default_rng(6).normal(size=1000)
    seen: list[int] = []

    def mean(rows):
        seen.append(len(rows))
        return math.tanh(float(x[rows].mean()))

    assert jackknife(mean, range(1000), CORRELATION) is not None
    assert len(seen) == 101 and set(seen) == {1000, 990}
    seen.clear()
    jackknife(mean, np.repeat(np.arange(20), 50).tolist(), CORRELATION)
    assert seen == [1000] + [950] * 20


def test_a_statistic_without_a_value_or_at_the_end_of_its_scale_has_no_interval() -> None:
    assert jackknife(lambda rows: math.nan, range(40), CORRELATION) is None
    assert jackknife(lambda rows: math.nan if len(rows) < 40 else 0.5, range(40), SHARE) is None
    assert jackknife(lambda rows: 1.0, range(40), CORRELATION) is None
    assert jackknife(lambda rows: 0.5, range(40), SHARE) is None  # all alike
    assert jackknife(lambda rows: float(rows.mean()) / 100, range(9), SHARE) is None


def test_an_interval_is_cut_where_nothing_can_lie() -> None:
    assert not_below(0.0, (-1.0, 2.0)) == (0.0, 2.0) and not_below(0.0, None) is None


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], None, "no value to measure"),
        ([1.0, float("nan")], None, "row 2: value is nan"),
        ([1.0, float("inf"), float("inf")], None, "and 1 more"),
        ([1.0, 2.0], ["a"], "rows do not match: 2 of values, 1 of clusters"),
    ],
)
def test_what_is_no_number_or_has_no_cluster_is_refused(values, clusters, message) -> None:
    with pytest.raises(UserError, match=message):
        mean_interval(values, clusters)
