"""The trust in a judge, and the conclusions from its win rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from truing.evaluate.corrected import Mean, corrected_rate
from truing.evaluate.intervals import Interval
from truing.evaluate.winrate import held_against
from truing.records import Finding

LEAST = 0.6
"""The default bound that the lower end of a judge's accuracy must reach before anything is decided by it."""
JUDGED, CONCLUDED = "judged_win_rate", ("win_rate", "win_delta")
Origin = Literal["own", "other", "unknown"]
UNCORRECTED = "it is as judged, not corrected for the judge's errors; win_rate is"
WORDS: dict[Origin, str] = {
    "own": "held out of what the judge learned from",
    "other": "of another source than the judge learned from",
    "unknown": "what the judge learned from is not known",
}


@dataclass(frozen=True)
class Tried:
    """The accuracy of a judge on labelled pairs of one source: as `finding` (`judge_accuracy`), and as `accuracy`, the
    same with its standard error."""

    source: str
    origin: Origin
    finding: Finding
    accuracy: Mean

    @property
    def text(self) -> str:
        """The accuracy with its interval."""
        return _spread(self.finding.value, self.finding.interval)


@dataclass(frozen=True)
class Trust:
    """The trust in a judge, called `judge`: the sources it was tried on, or `exact` (the world's truth, a verifier).
    `why` says why it was never tried. The lower end of its accuracy must be at least `least`, on each
    source, or nothing is decided by it."""

    judge: str
    tried: tuple[Tried, ...] = ()
    least: float = LEAST
    exact: bool = False
    why: str = ""

    @property
    def counted(self) -> tuple[Tried, ...]:
        """The sources with enough pairs for an interval, the source on which the judge is worst first."""
        measured = [tried for tried in self.tried if tried.finding.interval is not None]
        return tuple(sorted(measured, key=lambda tried: tried.finding.interval or (0.0, 0.0)))

    @property
    def doubt(self) -> str:
        """The reason why nothing is decided by this judge; empty where something may be."""
        if self.exact:
            return ""
        if not self.tried:
            return f"the judge was never tried on labelled pairs: {self.why}"
        if not self.counted:
            pairs = max(tried.finding.n for tried in self.tried)
            return f"the judge was tried on labelled pairs of {pairs} prompts, too few to say how often it is right"
        worst = self.counted[0]
        return (
            ""
            if believed(worst.finding, self.least)
            else (f"the judge's accuracy {worst.text} is below {self.least:g} at its lower end: it decides nothing")
        )

    @property
    def sentence(self) -> str:
        """The first line of a report on what it judged."""
        if self.exact:
            return f"Judged by {self.judge}, which is taken to make no errors"
        if not self.counted:
            return f"Judged by {self.judge}. Nothing is concluded from its scores: {self.doubt}"
        worst = self.counted[0]
        record = f"right in {worst.text} of labelled pairs from {worst.finding.n} prompts ({worst.source}, "
        record += f"{WORDS[worst.origin]}{'; its worst source' if len(self.counted) > 1 else ''})"
        if self.doubt:
            return f"Judged by {self.judge}, {record}: below {self.least:g} at its lower end; its scores decide nothing"
        return f"Judged by {self.judge}, {record}; win rates are corrected for its errors"


@dataclass(frozen=True)
class Powered:
    """A win rate by a better judge, which saw a part of the prompts, and by the judge, which saw all: it is
    prediction-powered (`corrected.powered_rate`), the judge's part weighed by `weight`. `trust` is that of the better
    judge."""

    rate: Mean
    weight: float
    trust: Trust


@dataclass(frozen=True)
class Conclusion:
    """The conclusion from a win rate: its value and interval, or why there is none; and its derivation in words."""

    value: float
    interval: Interval | None
    reservation: str
    words: str


def believed(accuracy: Finding, least: float) -> bool:
    """True if the lower end of an accuracy's interval is at least `least`.

    >>> believed(Finding("judge_accuracy", "rm", 0.7, interval=(0.64, 0.76)), 0.6)
    True
    """
    return accuracy.interval is not None and accuracy.interval[0] >= least


def concluded(findings: Sequence[Finding], rate: Mean, trust: Trust, powered: Powered | None = None) -> list[Finding]:
    """Replace the findings of two models' scores (`winrate.win_rate`) by what may be concluded from a judge that errs.

    `rate` is the judge's own win rate with its error. It stays under `judged_win_rate`; `win_rate` and `win_delta` hold
    the rate corrected for the judge's errors, with an interval of both uncertainties. Where nothing may be decided by
    the judge they keep its own rate, without an interval, and the reason in `reservation`. What is not corrected, its
    own rate and mean scores, always carries one: a few large errors raise a mean even if most responses are no better.
    """
    if trust.exact and powered is None:
        return list(findings)
    (raw,) = (f for f in findings if f.check == "win_rate")
    by_judge = conclude(rate, trust)
    conclusion = by_judge if powered is None else conclude_powered(powered, rate)
    doubt = "" if trust.exact else by_judge.reservation or UNCORRECTED
    judged = replace(raw, check=JUDGED, bound=None, verdict="measured", reservation=doubt)
    others = [replace(f, reservation=doubt) for f in findings if f.check not in CONCLUDED]
    return [*_win_findings(raw, conclusion), judged, *others]


def conclude(rate: Mean, trust: Trust) -> Conclusion:
    """Conclude on the true win rate from a judge's.

    If it was tried on several sources, its errors are those of the worst, and the interval spans each source's.
    """
    if trust.exact:
        return Conclusion(rate.value, rate.interval(), "", f"judged by {trust.judge}")
    judged = f"judged {rate.value:.3f}"
    if trust.doubt:
        return Conclusion(rate.value, None, trust.doubt, f"{judged}, not corrected")
    worst = trust.counted[0]
    each = [corrected_rate(rate, tried.accuracy) for tried in trust.counted]
    words = f"{judged}, corrected for a judge right in {worst.text}"
    if not each[0].is_rate:
        return Conclusion(rate.value, None, _outside(each[0].value, each[0].interval), f"{judged}, not corrected")
    ends = [corrected.interval for corrected in each if corrected.interval is not None]
    if len(ends) < len(each):
        few = f"{rate.items} prompts and labelled pairs of {worst.accuracy.items} are too few for an interval"
        return Conclusion(rate.value, None, f"no corrected rate: {few}", f"{judged}, not corrected")
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    return Conclusion(each[0].value, (max(0.0, low), min(1.0, high)), "", words)


def conclude_powered(powered: Powered, rate: Mean) -> Conclusion:
    """Conclude on the true win rate where a better judge saw a part of the prompts: its own errors are corrected in
    turn."""
    conclusion = conclude(powered.rate, powered.trust)
    words = f"{powered.trust.judge} on {powered.rate.items} of the prompts and the judge on all"
    if conclusion.reservation:
        return replace(conclusion, value=rate.value, words=f"judged {rate.value:.3f}; {words}")
    more = "" if powered.trust.exact else f"; {conclusion.words}"
    return replace(conclusion, words=f"by {words} (prediction-powered, lambda {powered.weight:.2f}){more}")


def uncorrected(findings: Sequence[Finding], trust: Trust) -> list[Finding]:
    """Findings of single responses (pass@k): of a judge that errs they are not corrected, and decide nothing."""
    if trust.exact:
        return list(findings)
    why = trust.doubt or "the judge's accuracy on pairs does not give its accuracy on single responses"
    return [replace(f, reservation=why) for f in findings]


def _win_findings(raw: Finding, conclusion: Conclusion) -> list[Finding]:
    """`win_rate` and `win_delta` with the conclusion's value and interval."""
    interval, evidence = conclusion.interval, f"{conclusion.words}; {raw.evidence}"
    delta = None if interval is None else (interval[0] - 0.5, interval[1] - 0.5)
    rate = replace(
        raw,
        value=conclusion.value,
        interval=interval,
        bound=0.5,
        verdict=held_against(0.5, interval),
        evidence=evidence,
        reservation=conclusion.reservation,
    )
    return [rate, replace(rate, check="win_delta", value=conclusion.value - 0.5, interval=delta, bound=0.0)]


def _outside(value: float, interval: Interval | None) -> str:
    """The reservation about a corrected rate outside [0, 1]."""
    near = interval is not None and interval[0] < 1 and interval[1] > 0
    chance = " or, since its interval reaches into [0, 1], chance" if near else ""
    return (
        f"corrected rate {value:.3g} lies outside [0, 1]: the judge does not err on these responses as it did on "
        f"labelled pairs (over-optimisation or a shift{chance})"
    )


def _spread(value: float, interval: Interval | None) -> str:
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
