"""pass@k: against every subset counted out, and what is found of two models."""

from __future__ import annotations

from itertools import combinations
from statistics import mean

import pytest

from truing.errors import UserError
from truing.evaluate.intervals import exact
from truing.evaluate.passes import counts, pass_at, passes


@pytest.mark.parametrize(("k", "answers", "right"), [(1, 5, 2), (3, 5, 2), (4, 5, 2), (5, 5, 1), (2, 6, 0), (2, 4, 4)])
def test_it_is_the_share_of_subsets_with_a_right_answer(k: int, answers: int, right: int) -> None:
    drawn = combinations([True] * right + [False] * (answers - right), k)
    assert pass_at(k, answers, right) == pytest.approx(mean(any(some) for some in drawn))


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(UserError, match="pass@8 needs at least 8 responses to a prompt, got 4"):
        pass_at(8, 4, 1)
    with pytest.raises(UserError, match="5 of 4 responses cannot be right"):
        pass_at(1, 4, 5)
    with pytest.raises(UserError, match="5 scores are not 2 to each prompt"):
        counts([1.0] * 5, 2, 1.0)


def test_two_models_are_compared_prompt_by_prompt() -> None:
    one, other = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0] * 20, [0.0, 0.0, 0.0, 0.0, 0.5, 1.0] * 20
    found = {(f.check, f.model): f for f in passes("policy", one, "warm", other, 2, 1.0, "reward verifier")}
    assert [check for check, name in found if name == "warm"] == ["pass_at_1", "pass_at_2"]
    assert found["pass_at_1", "policy"].value == pytest.approx(0.5)
    assert found["pass_at_1", "warm"].value == pytest.approx(1 / 6)
    assert found["pass_at_2", "policy"].value == pytest.approx(2 / 3)
    gained = found["pass_at_1_delta", "policy"]
    assert gained.value == pytest.approx(1 / 3) and gained.n == 60 and gained.verdict == "better"
    assert gained.interval is not None and gained.interval[0] > 0.25 and gained.interval[1] < 0.42
    assert "60 prompts, 2 responses to each, right from 1 on; judged by reward verifier" in gained.evidence


def test_no_right_answer_at_all_is_no_certainty() -> None:
    found = {(f.check, f.model): f for f in passes("policy", [0.0] * 40, "warm", [0.0] * 40, 2, 1.0, "x")}
    low, high = found["pass_at_2", "policy"].interval or (1.0, 1.0)
    assert low == 0.0 and 0.1 < high < 0.2


def test_intervals_of_shares_stay_between_none_and_all() -> None:
    """Of fewer than ten prompts there is none; of prompts that are all alike it is that of so many zeros and ones."""
    few = passes("policy", [1.0, 0.0, 1.0, 1.0, 1.0, 1.0], "warm", [0.0] * 6, 2, 1.0, "x")[0]
    assert few.value == pytest.approx(5 / 6) and few.interval is None
    ten = passes("policy", [1.0, 0.0, 1.0, 1.0] * 5, "warm", [0.0] * 20, 2, 1.0, "x")[0]
    assert ten.value == pytest.approx(3 / 4) and ten.interval is not None
    assert 0.3 < ten.interval[0] < 3 / 4 and 0.9 < ten.interval[1] <= 1.0
    alike = passes("policy", [1.0, 0.0] * 40, "warm", [0.0] * 80, 2, 1.0, "x")[0]
    assert (alike.value, alike.interval) == (0.5, exact(20.0, 40))


def test_scores_of_two_models_are_of_the_same_answers() -> None:
    with pytest.raises(UserError):
        passes("policy", [1.0] * 4, "warm", [1.0] * 2, 2, 1.0, "x")
    with pytest.raises(UserError, match="2 scores are not 0 to each prompt"):
        counts([1.0] * 2, 0, 1.0)
