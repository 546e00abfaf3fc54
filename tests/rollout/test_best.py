"""Best-of-n: the estimate over subsets against counting them all, ties included; and the best of every n."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from truing.errors import UserError
from truing.rollout.best import best_places, expected_best


def by_counting(proxy: list[float], gold: list[float], n: int) -> float:
    """The mean over all subsets of n, each giving the mean gold of those of its answers that the proxy likes best."""
    values = []
    for subset in itertools.combinations(range(len(proxy)), n):
        top = max(proxy[i] for i in subset)
        tied = [gold[i] for i in subset if proxy[i] == top]
        values.append(sum(tied) / len(tied))
    return sum(values) / len(values)


@pytest.mark.parametrize("n", range(1, 8))
def test_the_estimate_is_the_mean_over_all_subsets(n: int) -> None:
    draw = random.Random(3)
    for proxy in ([draw.random() for _ in range(7)], [float(draw.randrange(3)) for _ in range(7)], [0.5] * 7):
        gold = [draw.gauss(0, 1) for _ in range(7)]
        assert expected_best(proxy, gold, n) == pytest.approx(by_counting(proxy, gold, n), abs=1e-12)


def test_the_order_of_answers_and_a_rising_proxy_change_nothing() -> None:
    proxy, gold = [0.3, -1.0, 2.0, 2.0, 0.9], [1.0, 2.0, 3.0, 5.0, 4.0]
    wanted = expected_best(proxy, gold, 3)
    assert expected_best(proxy[::-1], gold[::-1], 3) == pytest.approx(wanted, abs=1e-12)
    assert expected_best([math.exp(p) for p in proxy], gold, 3) == pytest.approx(wanted, abs=1e-12)
    assert expected_best(proxy, gold, 1) == pytest.approx(3.0) and expected_best(proxy, gold, 5) == pytest.approx(4.0)


def test_many_answers_stay_exact() -> None:
    assert expected_best(list(range(2000)), [1.0] * 2000, 777) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("proxy", "gold", "n", "said"),
    [
        ([1.0], [1.0, 2.0], 1, "are not of the same responses"),
        ([1.0, 2.0], [1.0, 2.0], 3, "the best of 3 cannot be told from 2 responses"),
        ([1.0, 2.0], [1.0, 2.0], 0, "the best of 0 cannot be told"),
        ([1.0, math.nan], [1.0, 2.0], 1, "a response has no score"),
        ([1.0, 2.0], [math.inf, 2.0], 1, "a response has no score"),
    ],
)
def test_what_is_no_score_is_refused(proxy: list[float], gold: list[float], n: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        expected_best(proxy, gold, n)


def test_the_best_of_every_n() -> None:
    assert best_places([0.0, 2.0, 2.0, 5.0, 4.0, 3.0], 3) == [1, 3]
    assert best_places([0.0, 1.0], 1) == [0, 1]
    with pytest.raises(UserError, match="5 scores cannot be divided so"):
        best_places([0.0] * 5, 2)
