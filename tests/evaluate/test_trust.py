"""What a judge's accuracy lets be concluded: corrected win rates, or the reason why nothing is."""

from __future__ import annotations

import pytest

from truing.evaluate.corrected import Mean, corrected_rate, mean_of, points_of
from truing.evaluate.trust import (
    LEAST,
    UNCORRECTED,
    Origin,
    Powered,
    Tried,
    Trust,
    believed,
    concluded,
    uncorrected,
)
from truing.evaluate.winrate import win_rate
from truing.records import Finding

PROMPTS = [str(i) for i in range(200)]
JUDGE = "reward model rm"


def tried(
    accuracy: float, low: float, high: float, n: int = 200, source: str = "pairs", origin: Origin = "own"
) -> Tried:
    """An accuracy with this interval, and the error that goes with it."""
    finding = Finding("judge_accuracy", "rm", accuracy, interval=(low, high), n=n, bound=0.5)
    return Tried(source, origin, finding, Mean(accuracy, (high - low) / 3.94, n))


def scores(wins: int, ties: int = 0) -> tuple[list[float], list[float]]:
    """Scores of two models: so many wins and ties of the first."""
    return [1.0] * wins + [0.0] * (200 - wins), [0.0] * wins + [0.0] * ties + [1.0] * (200 - wins - ties)


def findings(wins: int, trust: Trust, ties: int = 0, powered: Powered | None = None) -> dict[str, Finding]:
    """What is concluded of so many wins, by check; of the means that of the first model."""
    ours, theirs = scores(wins, ties)
    raw = win_rate("direct", ours, "warm", theirs, PROMPTS, judged_by=JUDGE)
    said = concluded(raw, mean_of(points_of(ours, theirs), PROMPTS), trust, powered)
    return {f.check: f for f in reversed(said)}


def consistent(f: Finding) -> None:
    """A finding says nothing against itself."""
    assert f.interval is None or f.interval[0] <= f.value <= f.interval[1], f
    if f.check in ("win_rate", "judged_win_rate"):
        assert all(0 <= x <= 1 for x in (f.value, *(f.interval or ())))
    if f.check in ("win_rate", "win_delta"):
        side = "unclear" if f.interval is None else "better" if f.interval[0] > (f.bound or 0) else "unclear"
        assert f.verdict == side or (f.interval is not None and f.verdict == "worse")
    assert not f.reservation or f.check == "judged_win_rate" or "mean" in f.check or f.interval is None


def test_a_judge_that_errs_is_corrected() -> None:
    """116 wins of 200 by a judge of 0.8: the true rate is 0.5 + 0.08 / 0.6."""
    judge = tried(0.8, 0.74, 0.86)
    said = findings(116, Trust(JUDGE, (judge,)))
    rate, delta, raw = said["win_rate"], said["win_delta"], said["judged_win_rate"]
    expected = corrected_rate(mean_of([1.0] * 116 + [0.0] * 84), judge.accuracy)
    assert rate.value == pytest.approx(0.5 + 0.08 / 0.6)
    assert expected.interval is not None and rate.interval == pytest.approx(expected.interval)
    assert delta.value == pytest.approx(rate.value - 0.5) and delta.verdict == rate.verdict
    assert (raw.value, raw.verdict, raw.reservation, rate.reservation) == (0.58, "measured", UNCORRECTED, "")
    assert rate.evidence.startswith("judged 0.580, corrected for a judge right in 0.800 [0.740, 0.860]; 200 prompts: ")
    assert rate.n == 200 and said["mean_score"].reservation == said["mean_score_delta"].reservation == UNCORRECTED
    for f in said.values():
        consistent(f)


def test_an_exact_judge_is_not_corrected() -> None:
    ours, theirs = scores(116)
    raw = win_rate("direct", ours, "warm", theirs, PROMPTS)
    assert concluded(raw, mean_of(points_of(ours, theirs)), Trust("gold", exact=True)) == raw


@pytest.mark.parametrize(
    ("trust", "reason"),
    [
        (
            Trust(JUDGE, (tried(0.577, 0.51, 0.64),)),
            "the judge's accuracy 0.577 [0.510, 0.640] is below 0.6 at its lower end: it decides nothing",
        ),
        (
            Trust(JUDGE, (tried(0.72, 0.66, 0.78),), least=0.7),
            "the judge's accuracy 0.720 [0.660, 0.780] is below 0.7 at its lower end: it decides nothing",
        ),
        (Trust(JUDGE, why="give labelled"), "the judge was never tried on labelled pairs: give labelled"),
        (
            Trust(JUDGE, (Tried("p", "own", Finding("judge_accuracy", "rm", 0.9, n=4), Mean(0.9, 0.1, 4)),)),
            "the judge was tried on labelled pairs of 4 prompts, too few to say how often it is right",
        ),
        (
            Trust(JUDGE, (tried(0.95, 0.92, 0.98), tried(0.55, 0.48, 0.62, source="others", origin="other"))),
            "the judge's accuracy 0.550 [0.480, 0.620] is below 0.6 at its lower end: it decides nothing",
        ),
    ],
)
def test_a_judge_that_is_not_believed_decides_nothing(trust: Trust, reason: str) -> None:
    """154 wins of 200 stay under their own name; all that the judge says carries the reason."""
    said = findings(154, trust)
    assert trust.doubt == reason
    rate = said["win_rate"]
    assert (rate.value, rate.interval, rate.verdict, rate.reservation) == (0.77, None, "unclear", reason)
    assert said["win_delta"].interval is None and said["win_delta"].reservation == reason
    assert said["judged_win_rate"].value == 0.77 and said["judged_win_rate"].interval is not None
    assert {f.reservation for f in said.values()} == {reason}
    for f in said.values():
        consistent(f)


def test_a_corrected_rate_that_is_none_is_named() -> None:
    """The case that shipped: 0.664 by a judge of 0.607 [0.556, 0.659]; believed from 0.55 on, it decides nothing."""
    judge = Trust(JUDGE, (tried(0.607, 0.556, 0.659, 350),), least=0.55)
    said = findings(132, judge, ties=1)
    assert said["judged_win_rate"].value == 0.6625 and judge.doubt == ""
    why = said["win_rate"].reservation
    assert why.startswith(
        "corrected rate 1.26 lies outside [0, 1]: the judge does not err on these responses as it did"
    )
    assert "over-optimisation or a shift" in why and "chance" in why, "its interval reaches into [0, 1]"
    assert (said["win_rate"].value, said["win_rate"].interval) == (0.6625, None)
    assert said["mean_score_delta"].reservation == why
    far = findings(198, Trust(JUDGE, (tried(0.7, 0.66, 0.74, 900),)))["win_rate"]
    assert "outside [0, 1]" in far.reservation and "chance" not in far.reservation
    below = findings(4, Trust(JUDGE, (tried(0.7, 0.66, 0.74, 900),)))["win_rate"]
    assert below.reservation.startswith("corrected rate -0.7") and below.value == 0.02


def test_of_several_sources_the_worst_counts_and_the_interval_holds_each() -> None:
    """The accuracy is that of the worst; the interval reaches over what either source gives."""
    good, bad = tried(0.9, 0.86, 0.94), tried(0.7, 0.64, 0.76, source="others", origin="other")
    said = findings(120, Trust(JUDGE, (good, bad)))["win_rate"]
    alone = [findings(120, Trust(JUDGE, (one,)))["win_rate"] for one in (good, bad)]
    assert said.value == pytest.approx(0.75) == alone[1].value
    assert alone[0].interval and alone[1].interval and said.interval
    assert said.interval[0] == min(f.interval[0] for f in alone if f.interval)
    assert said.interval[1] == max(f.interval[1] for f in alone if f.interval)
    consistent(said)


def test_a_better_judge_of_a_part_is_what_is_concluded_from() -> None:
    """The weak judge need not be believed: its share is weighed. What the better one errs is corrected in turn."""
    weak, rate = Trust(JUDGE, why="nothing"), Mean(0.56, 0.03, 100)
    said = findings(154, weak, powered=Powered(rate, 0.4, Trust("gold", exact=True)))
    assert (said["win_rate"].value, said["win_rate"].interval) == (0.56, rate.interval())
    assert said["win_rate"].reservation == "" and said["mean_score"].reservation == weak.doubt
    assert said["win_rate"].evidence.startswith(
        "by gold on 100 of the prompts and the judge on all (prediction-powered"
    )
    better = Trust("reward model big", (tried(0.8, 0.75, 0.85),))
    corrected = findings(154, weak, powered=Powered(rate, 0.4, better))["win_rate"]
    assert corrected.value == pytest.approx(0.6)
    assert "corrected for a judge right in 0.800" in corrected.evidence
    unsure = findings(154, weak, powered=Powered(rate, 0.4, weak))["win_rate"]
    assert (unsure.value, unsure.interval, unsure.reservation) == (0.77, None, weak.doubt)


def test_single_answers_are_not_corrected() -> None:
    raw = [Finding("pass_at_1", "direct", 0.4, interval=(0.3, 0.5), n=90, verdict="measured")]
    assert uncorrected(raw, Trust("gold", exact=True)) == raw
    (found,) = uncorrected(raw, Trust(JUDGE, (tried(0.9, 0.85, 0.95),)))
    assert "single responses" in found.reservation and found.value == 0.4
    assert "never tried" in uncorrected(raw, Trust(JUDGE, why="x"))[0].reservation


def test_the_first_line_of_a_report() -> None:
    assert Trust("gold", exact=True).sentence == "Judged by gold, which is taken to make no errors"
    good = Trust(JUDGE, (tried(0.72, 0.66, 0.77, 240, "pairs.jsonl"),)).sentence
    assert good == (
        "Judged by reward model rm, right in 0.720 [0.660, 0.770] of labelled pairs from 240 prompts (pairs.jsonl, held "
        "out of what the judge learned from); win rates are corrected for its errors"
    )
    weak = Trust(JUDGE, (tried(0.577, 0.51, 0.64, origin="other"),)).sentence
    assert "of another source than the judge learned from" in weak
    assert weak.endswith("below 0.6 at its lower end; its scores decide nothing")
    assert Trust(JUDGE, why="give labelled").sentence.endswith("never tried on labelled pairs: give labelled")


def test_believed_is_the_lower_end() -> None:
    f = Finding("judge_accuracy", "rm", 0.7, interval=(0.6, 0.8))
    assert believed(f, LEAST) and not believed(f, 0.61)
    assert not believed(Finding("judge_accuracy", "rm", 0.99), 0.6), "no interval is no belief"
