"""Intervals against numbers computed by hand and by others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.errors import UserError
from truing.evaluate.intervals import bootstrap_mean, mean_interval, t_mean, wilson


def test_wilson_golden_without_ties() -> None:
    assert wilson(53, 53 + 35) == pytest.approx((0.49780730042864657, 0.6981826177535346), abs=1e-9)


def test_wilson_by_hand() -> None:
    # z² = 3.8415, n = 4, share 0.5: the centre is 0.5, the half-width z / (1 + z²/n) * sqrt(p (1 - p) / n + z²/4n²)
    z2 = 3.841458820694124
    half = (z2**0.5 / (1 + z2 / 4)) * (0.25 / 4 + z2 / 64) ** 0.5
    assert wilson(2, 4) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-12)
    assert wilson(0, 10)[0] == 0.0 and wilson(10, 10)[1] == 1.0
    assert wilson(10, 10)[0] == pytest.approx(10 / (10 + z2), abs=1e-12)


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_wilson_holds_the_share_and_stays_within_0_and_1(n: int, share: float) -> None:
    low, high = wilson(share * n, n)
    assert 0 <= low <= share + 1e-9 and share - 1e-9 <= high <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4), (float("nan"), 4)])
def test_wilson_refuses_what_is_no_share(successes: float, n: int) -> None:
    with pytest.raises(UserError):
        wilson(successes, n)


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    x = np.random.default_rng(1).normal(3.0, 2.0, 400)
    low, high = bootstrap_mean(x.tolist(), resamples=4000)
    sem = x.std() / 20
    assert (low, high) == pytest.approx((x.mean() - 1.96 * sem, x.mean() + 1.96 * sem), abs=0.03)
    assert (low, high) == bootstrap_mean(x.tolist(), resamples=4000)


def test_clusters_widen_the_interval_when_answers_repeat() -> None:
    x = np.random.default_rng(2).normal(size=100)
    plain, repeated = bootstrap_mean(x.tolist()), np.repeat(x, 9)
    naive = bootstrap_mean(repeated.tolist())
    by_prompt = bootstrap_mean(repeated.tolist(), clusters=np.repeat(np.arange(100), 9).tolist())
    width = plain[1] - plain[0]
    assert by_prompt == pytest.approx(plain, abs=1e-9)
    assert (naive[1] - naive[0]) == pytest.approx(width / 3, rel=0.1)


@pytest.mark.parametrize("items", [3, 5, 10, 40])
@pytest.mark.parametrize("per_cluster", [1, 3])
def test_the_interval_of_a_mean_covers_it_19_times_in_20(items: int, per_cluster: int) -> None:
    draws = np.random.default_rng(5)
    labels = np.repeat(np.arange(items), per_cluster).tolist()
    covered = 0
    for _ in range(500):
        shared = np.repeat(draws.normal(size=items), per_cluster)
        interval = mean_interval((7.0 + shared + 0.3 * draws.normal(size=len(shared))).tolist(), labels)
        covered += interval is not None and interval[0] <= 7.0 <= interval[1]
    assert 0.92 <= covered / 500 <= 0.98


def test_students_interval_by_hand() -> None:
    # n = 4, mean 2.5, s = 1.2910, t at 97.5 % with 3 degrees of freedom = 3.1824
    assert t_mean([1.0, 2.0, 3.0, 4.0]) == pytest.approx(
        (2.5 - 3.182446 * 0.645497, 2.5 + 3.182446 * 0.645497), abs=1e-5
    )
    assert mean_interval([1.0, 2.0, 3.0, 4.0], None) == t_mean([1.0, 2.0, 3.0, 4.0])
    doubled = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]
    assert t_mean(doubled, list("aabbccdd")) == pytest.approx(t_mean([1.0, 2.0, 3.0, 4.0]), abs=1e-12)


def test_few_items_and_no_spread_are_no_certainty() -> None:
    assert mean_interval([0.1, 0.1], None) is None
    assert mean_interval([0.1, 0.4], None) is None
    assert mean_interval([0.1, 0.2, 0.3, 0.4], ["a", "a", "b", "b"]) is None
    assert mean_interval([0.1] * 29, None) is None
    assert mean_interval([0.1] * 30, None) == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], None, "no value to measure"),
        ([1.0, float("nan")], None, "row 2: value is nan"),
        ([1.0, float("inf"), float("inf")], None, "and 1 more"),
        ([1.0], None, "at least two"),
        ([1.0, 2.0], ["a", "a"], "at least two"),
        ([1.0, 2.0], ["a"], "rows do not match: 2 of values, 1 of clusters"),
    ],
)
def test_bootstrap_refuses(values: list[float], clusters: list[str] | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        bootstrap_mean(values, clusters)
