"""Ship, hold or undecided: whole intervals compared with rules, and how much more evidence would settle it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from truing import door, seals
from truing.consistency import Ends
from truing.disk import as_json, check_target, write_exact
from truing.errors import DataError, UserError, nearest, redacted, visible
from truing.gate.looks import error_of, evidence_hash, interval_at
from truing.gate.rules import Rule, Side
from truing.gate.standing import COMPARISONS, released, unread
from truing.records import Finding

Verdict = Literal["ship", "hold", "undecided"]
State = Literal["passed", "failed", "straddles", "no interval", "too few", "reserved", "missing"]
EXIT_CODES: dict[Verdict, int] = {"ship": 0, "hold": 1, "undecided": 4}
FEWEST = 10
"""Independent items below which nothing is decided: no interval of so few has its coverage whatever the data."""
NEAR = 1e-3
"""A value is on a bound that lies within this share of its half-width: it would take a million times the samples."""


@dataclass(frozen=True, slots=True)
class Result:
    """One rule compared with one finding (or with none). `text` describes the measurement; `samples_needed` is the
    number of fresh items at which the decision would be expected to be clear, where more of them could make it so."""

    rule: Rule
    state: State
    text: str
    finding: Finding | None = None
    samples_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision of the gate at its `look`, with every rule's result and the findings it rests on."""

    verdict: Verdict
    results: tuple[Result, ...]
    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...]
    look: int = 1

    @property
    def exit_code(self) -> int:
        """0 ship, 1 hold, 4 undecided."""
        return EXIT_CODES[self.verdict]

    def text(self) -> str:
        """The lines printed for a person: one per result, then the verdict."""
        width = max(len(r.state) for r in self.results)
        lines = []
        for r in self.results:
            mark = "FAILED" if r.state == "failed" else r.state
            lines += [f"{mark:<{width}}  {_line(r.rule.text())}", f"{'':<{width}}  {_line(r.text)}"]
        if self.look > 1:
            lines.append(
                f"look {self.look} of this gate: one-sided error {100 * error_of(self.look):.2g} % in place of "
                f"{100 * error_of(1):g} %, so intervals are wider"
            )
        passed = sum(r.state == "passed" for r in self.results)
        return "\n".join([*lines, f"{self.verdict}: {passed} of {len(self.results)} conditions met"])

    def as_json(self) -> dict[str, Any]:
        """The stable form of decision.json."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "look": self.look,
            "results": [
                {
                    "rule": r.rule.text(),
                    "check": r.rule.check,
                    "state": r.state,
                    "text": r.text,
                    "samples_needed": r.samples_needed,
                    "finding": r.finding.as_json() if r.finding else None,
                }
                for r in self.results
            ],
            "rules": [rule.model_dump(exclude_none=True) for rule in self.rules],
            "evidence_hash": evidence_hash(self.findings),
            "findings": [f.as_json() for f in self.findings],
        }


def decide(
    findings: Sequence[Finding],
    rules: Sequence[Rule],
    *,
    production: Sequence[str] = (),
    vouched: Collection[Finding] | None = None,
    look: int = 1,
) -> Decision:
    """Compare every rule with the findings that it names.

    A rule is met where the whole interval satisfies its bound, and failed where all of it lies beyond; else it is open.
    One failure holds; else anything open or missing is undecided. With `production` (that model's name in exams; an
    empty name where it is unknown) the rules must compare with it, by findings that are `vouched` for (all by default);
    `look` widens the intervals of a gate that has had earlier looks. UserError without rules, and for a finding of no
    model.

    >>> wins = [Finding("win_delta", "direct", 0.12, "warm", interval=(0.08, 0.16), n=500)]
    >>> decide(wins, [Rule(check="win_delta", min=0.0, samples=200)]).verdict
    'ship'
    >>> decide(wins, [Rule(check="win_delta", min=0.1)]).verdict
    'undecided'
    """
    if not rules:
        raise UserError("a gate needs at least one rule; without rules it would pass anything")
    findings = _of_models(findings)
    results: list[Result] = []
    for rule in rules:
        matching = [f for f in findings if rule.names(f)]
        results += [weigh(rule, f, look) for f in matching] if matching else [_missing(rule, findings)]
    if production:
        results += _beside_production(rules, findings, production, findings if vouched is None else vouched)
    states = {r.state for r in results}
    verdict: Verdict = "hold" if "failed" in states else "ship" if states == {"passed"} else "undecided"
    return Decision(verdict, tuple(results), tuple(rules), tuple(findings), look)


def _beside_production(
    rules: Sequence[Rule], findings: Sequence[Finding], production: Sequence[str], vouched: Collection[Finding]
) -> list[Result]:
    """Results that are missing of the comparison with the model that a release would replace."""
    if any(production):
        return [Result(rule, "missing", text) for rule, text in unread(rules, findings, production, vouched)]
    text = "the model in production is unknown: give the recipe 'production: MODEL', and compare with it"
    return [
        Result(Rule(check="win_rate", model=model, min=COMPARISONS["win_rate"]), "missing", text)
        for model in released(rules, findings, production)
    ]


def _of_models(findings: Sequence[Finding]) -> list[Finding]:
    """The findings, each once; UserError for one of no model."""
    for f in findings:
        if not f.model.strip():
            raise UserError(f"finding {f.check} names no model, so nothing can be decided by it; give 'model'")
    return list(dict.fromkeys(findings))


def each_once(findings: Sequence[Finding], place: str) -> list[Finding]:
    """The findings of one place, without repetition. UserError where one is of no model, or two differ
    about the same quantity."""
    by_subject: dict[tuple[str, str, str, str], Finding] = {}
    for f in _of_models(findings):
        about = (f.check, f.model, f.against, f.slice)
        if by_subject.setdefault(about, f) != f:
            raise UserError(
                f"{place}: has two values for {f.check} of {_subject(f)}, {by_subject[about].value:g} and {f.value:g}; "
                "give the value of one measurement"
            )
    return list(by_subject.values())


def weigh(rule: Rule, f: Finding, look: int = 1) -> Result:
    """Hold a rule against a finding, whose interval is that of this look."""
    interval = interval_at(f, look)
    shown = f"{f.value:.4g}" + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else " (no interval)")
    measured = f"{_subject(f)}: {shown}"
    if f.reservation:
        return Result(rule, "reserved", f"{measured}; nothing is decided by it: {f.reservation}", f)
    least = max(FEWEST, rule.samples or 0)
    if f.n < least:
        count = f"from {f.n} samples; {least - f.n} more" if f.n else f"does not say from how many; {least}"
        return Result(rule, "too few", f"{measured} {count} are needed", f, least)
    if interval is None:
        return Result(
            rule, "no interval", f"{measured} from {f.n} samples; a value alone does not say how sure it is", f
        )
    ends = {"lower": interval[0], "upper": interval[1]}
    missed = [(side, bound) for end, side, bound in rule.bounds() if not _met(ends[end], side, bound)]
    if not missed:
        return Result(rule, "passed", f"{measured} from {f.n} samples", f)
    for side, bound in missed:
        if not _met(interval[1] if side == "min" else interval[0], side, bound):
            return Result(rule, "failed", f"{measured} from {f.n} samples; all of it misses the bound", f)
    advice, needed = _advice(f, interval, missed)
    return Result(
        rule, "straddles", f"{measured}; the interval of {f.n} samples reaches over the bound. {advice}", f, needed
    )


def _advice(f: Finding, interval: Ends, missed: Sequence[tuple[Side, float]]) -> tuple[str, int | None]:
    """Describe what it would take to decide, in words and as a number of samples.

    The half-width shrinks with the root of the number of samples.
    """
    needed = 0
    for _, bound in missed:
        # Towards the bound the interval must end before it is reached.
        apart, half = f.value - bound, f.value - (interval[0] if f.value > bound else interval[1])
        if abs(apart) <= NEAR * abs(half):
            return "The value lies on the bound, so no number of samples is expected to settle it", None
        needed = max(needed, math.ceil(f.n * (half / apart) ** 2 - 1e-9))
    text = f"If the value stays, about {needed} fresh samples would settle it: other prompts, not these again"
    return text, needed


def check_place(path: Path) -> None:
    """UserError where a decision would be written over a file that is none: one decision gives way to the next."""
    check_target(path)
    if path.exists() and path.stat().st_size and not _is_decision(path):
        raise UserError(f"{path}: is there already, and is no decision of truing; name another file")


def _is_decision(path: Path) -> bool:
    try:
        body = door.read_object(path, most=door.EVIDENCE_BYTES)
    except DataError:
        return False
    return "verdict" in body and seals.SEAL in body


def write_decision(decision: Decision, path: Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write decision.json with its seal, so that a reader sees the old file or the whole new one, never a part. `about`
    names whose weights its findings were measured on, where that is known (`evidence.Evidence`)."""
    body = seals.sealed(decision.as_json() | {"about": dict(about or {})})
    return write_exact(path, as_json(body, path.name, indent=2) + "\n")


def _missing(rule: Rule, findings: Sequence[Finding]) -> Result:
    same = [f for f in findings if f.check == rule.check]
    if same:
        there = sorted({_subject(f) for f in same})
        return Result(rule, "missing", f"evidence missing; {rule.check} was measured for {'; '.join(there)}")
    checks = sorted({f.check for f in findings})
    guess = nearest(rule.check, checks)
    hint = f" Did you mean '{guess}'?" if guess else f" Measured: {', '.join(checks) or 'nothing'}."
    return Result(rule, "missing", f"evidence missing, no finding of check '{rule.check}'.{hint}")


def _line(text: str) -> str:
    """A text that may come from a file, on one line, with nothing in it that a terminal would act on."""
    return visible(redacted(" ".join(text.split())))


def _met(x: float, side: str, bound: float) -> bool:
    return x >= bound if side == "min" else x <= bound


def _subject(f: Finding) -> str:
    name = f.model or "the model"
    name += f" against {f.against}" if f.against else ""
    return name + (f" on {f.slice}" if f.slice != "all" else "")
