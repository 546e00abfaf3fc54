"""Findings: the counts, the verdicts and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from truing.errors import UserError
from truing.evaluate.behaviour import kl, length_delta, truncated_share
from truing.evaluate.intervals import exact, share_interval
from truing.evaluate.reward_model import accuracy
from truing.evaluate.winrate import win_rate

IDS = [f"p{i}" for i in range(100)]


def test_win_rate_golden() -> None:
    ours = [1.0] * 53 + [0.0] * 12 + [-1.0] * 35
    found = {(f.check, f.model): f for f in win_rate("direct", ours, "warm", [0.0] * 100, IDS)}
    rate, delta = found["win_rate", "direct"], found["win_delta", "direct"]
    assert rate.value == pytest.approx(0.59, abs=1e-12)
    assert rate.interval == share_interval([1.0] * 53 + [0.5] * 12 + [0.0] * 35)
    assert rate.interval == pytest.approx((0.4993, 0.6807), abs=0.01)  # the golden case's normal interval
    assert (rate.n, rate.bound, rate.verdict, rate.against) == (100, 0.5, "unclear", "warm")
    assert rate.evidence == "100 prompts: 53 won, 12 tied, 35 lost; judged by gold"
    assert delta.value == pytest.approx(0.09, abs=1e-12) and delta.bound == 0.0
    assert rate.interval is not None and delta.interval is not None
    assert delta.interval == pytest.approx((rate.interval[0] - 0.5, rate.interval[1] - 0.5))
    assert found["mean_score", "direct"].value == pytest.approx(0.18)
    assert found["mean_score", "warm"].value == 0.0
    shift = found["mean_score_delta", "direct"]
    assert shift.value == pytest.approx(0.18)
    sem2 = 2 * 0.04626450086625857  # the golden case's; scores of -1, 0, 1 spread twice as far as 0, half, 1
    assert shift.interval == pytest.approx((0.18 - 1.96 * sem2, 0.18 + 1.96 * sem2), abs=0.02)


@pytest.mark.parametrize(("won", "verdict"), [(80, "better"), (55, "unclear"), (20, "worse")])
def test_verdict_follows_the_interval(won: int, verdict: str) -> None:
    ours = [1.0] * won + [-1.0] * (100 - won)
    assert win_rate("a", ours, "b", [0.0] * 100, IDS)[0].verdict == verdict


def test_two_prompts_a_little_better_are_no_evidence() -> None:
    """Two prompts, each 0.1 better: there was an interval [0.1, 0.1], and the verdict `better`."""
    shift = win_rate("a", [0.6, 0.4], "b", [0.5, 0.3], ["p", "q"])[-1]
    assert (shift.check, shift.interval, shift.verdict) == ("mean_score_delta", None, "unclear")


def test_few_repeated_prompts_have_no_interval_and_ten_a_wide_one() -> None:
    """Five prompts answered twice each are five items, though there are ten rows."""
    ours = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0]
    rate, delta, *_ = win_rate("a", ours, "b", [0.0] * 10, [f"p{i // 2}" for i in range(10)])
    assert (rate.value, rate.n, rate.verdict) == (0.7, 5, "unclear")
    assert (rate.interval, delta.interval, delta.verdict) == (None, None, "unclear")
    rate = win_rate("a", ours * 2, "b", [0.0] * 20, [f"p{i // 2}" for i in range(20)])[0]
    assert rate.n == 10 and rate.interval is not None
    assert rate.interval[0] <= exact(7, 10)[0] and rate.interval[1] >= exact(7, 10)[1]


def test_prefix_names_the_checks() -> None:
    found = win_rate("a", [1.0, 2.0], "b", [0.0, 3.0], ["p", "q"], slice="red-team", prefix="held_out_")
    assert {f.check for f in found} >= {"held_out_win_rate", "held_out_win_delta"}
    assert {f.slice for f in found} == {"red-team"}


def test_repeated_prompts_are_counted_once() -> None:
    ids = [f"p{i // 4}" for i in range(100)]
    ours = [1.0 if i // 4 % 5 < 3 else -1.0 for i in range(100)]
    rate = win_rate("a", ours, "b", [0.0] * 100, ids)[0]
    assert rate.n == 25 and rate.value == pytest.approx(0.6)
    assert rate.interval == pytest.approx(exact(15, 25), abs=0.05)


def test_an_even_sweep_of_repeated_prompts_is_no_certainty() -> None:
    rate = win_rate("a", [1.0] * 24, "b", [0.0] * 24, [f"p{i // 2}" for i in range(24)])[0]
    assert rate.interval == exact(12, 12)
    few = win_rate("a", [1.0] * 4, "b", [0.0] * 4, ["p", "p", "q", "q"])[0]
    assert few.interval is None and few.verdict == "unclear"


def test_one_prompt_gives_no_interval_of_a_mean() -> None:
    found = win_rate("a", [1.0], "b", [0.0], ["p"])
    assert [f.interval for f in found if f.check.startswith("mean")] == [None, None, None]


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([1.0, float("nan")], [0.0, 0.0], "row 2: score of direct is nan"),
        ([1.0, 1.0], [float("inf"), 0.0], "row 1: score of warm is inf"),
        ([1.0], [0.0, 0.0], "1 of scores, 2 of scores_against"),
    ],
)
def test_win_rate_refuses(ours: list[float], theirs: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        win_rate("direct", ours, "warm", theirs, IDS[:2])


def test_accuracy_golden() -> None:
    f = accuracy("rm", [1.0, 0.2, 0.5, 0.5], [0.5, 0.4, 0.5, 0.1])
    assert f.value == 0.625 and "strict accuracy 50.0 %" in f.evidence
    assert (f.interval, f.verdict, f.check) == (None, "unclear", "held_out_accuracy")
    many = accuracy("rm", [1.0, 0.2] * 20, [0.5, 0.1] * 20)
    assert many.interval == exact(40, 40) and many.verdict == "better"


def test_accuracy_by_group_and_name() -> None:
    f = accuracy("rm", [1.0, 1.0, 0.0, 1.0], [0.0] * 4, ["a", "a", "b", "b"], check="transfer_accuracy")
    assert (f.check, f.n) == ("transfer_accuracy", 2) and "4 pairs from 2 prompts" in f.evidence


def test_behaviour() -> None:
    longer = length_delta("a", [12, 13, 14, 15] * 3, "b", [10] * 12)
    assert (longer.check, longer.value, longer.verdict, longer.n) == ("mean_length_delta_tokens", 3.5, "longer", 12)
    assert longer.interval == pytest.approx((3.5 - 0.7419, 3.5 + 0.7419), abs=1e-3)  # Student's: symmetric
    assert length_delta("a", [9, 11], "b", [10, 10]).verdict == "unclear"
    assert length_delta("a", [9], "b", [10]).interval is None
    moved = kl("a", [-10.0, -8.0, -5.0], [-11.0, -10.0, -8.0])
    assert (moved.check, moved.value, moved.against) == ("kl_to_reference", 2.0, "reference")
    assert (moved.interval, moved.verdict) == (None, "unclear"), "three responses"
    moved = kl("a", [-10.0, -8.0, -5.0] * 4, [-11.0, -10.0, -8.0] * 4)
    assert moved.interval == pytest.approx((2 - 0.5420, 2 + 0.5420), abs=1e-3) and moved.verdict == "moved"
    ours = length_delta("a", [1, 2], "b", [3, 5], counted_by="a")
    assert ours.evidence == "2 pairs of responses: 1.5 against 4.0 tokens on average, counted by a's tokenizer"
    cut = truncated_share("a", [True] + [False] * 9)
    assert cut.value == 0.1 and cut.interval == exact(1, 10)


def test_measuring_needs_no_torch() -> None:
    code = (
        "import sys, truing.evaluate.winrate, truing.evaluate.behaviour, truing.evaluate.reward_model, "
        "truing.gate.decide, truing.report.html, truing.report.card; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
