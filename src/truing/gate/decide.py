"""Ship, hold or undecided: findings held against rules, and how much more evidence would settle it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from truing import seals
from truing.disk import write_text
from truing.errors import UserError, nearest, visible
from truing.gate.rules import Rule
from truing.types import Finding, digest

Verdict = Literal["ship", "hold", "undecided"]
State = Literal["passed", "failed", "too few", "missing"]
EXIT_CODES: dict[Verdict, int] = {"ship": 0, "hold": 1, "undecided": 4}


@dataclass(frozen=True, slots=True)
class Result:
    """One rule held against one finding (or against none). `text` says what was found, in words; `samples_needed`
    the number of samples at which the answer would be expected to turn, where more samples could turn it."""

    rule: Rule
    state: State
    text: str
    finding: Finding | None = None
    samples_needed: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The gate's answer, with every rule's result and the findings it rests on."""

    verdict: Verdict
    results: tuple[Result, ...]
    rules: tuple[Rule, ...]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0 ship, 1 hold, 4 undecided."""
        return EXIT_CODES[self.verdict]

    def text(self) -> str:
        """The lines printed for a person: one per result, then the verdict."""
        mark = {"passed": "passed ", "failed": "FAILED ", "too few": "too few", "missing": "missing"}
        lines = [f"{mark[r.state]}  {_line(r.rule.text())}\n         {_line(r.text)}" for r in self.results]
        passed = sum(r.state == "passed" for r in self.results)
        return "\n".join([*lines, f"{self.verdict}: {passed} of {len(self.results)} conditions met"])

    def as_json(self) -> dict[str, Any]:
        """The stable form of decision.json."""
        found = [f.as_json() for f in self.findings]
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
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
            "evidence_hash": digest(found),
            "findings": found,
        }


def decide(findings: Sequence[Finding], rules: Sequence[Rule]) -> Decision:
    """Hold every finding that a rule names against it. One failure holds; else missing or thin evidence is undecided.

    >>> found = [Finding("win_delta", "direct", 0.12, "warm", interval=(0.08, 0.16), n=500)]
    >>> decide(found, [Rule(check="win_delta", min=0.0, samples=200)]).verdict
    'ship'
    """
    if not rules:
        raise UserError("a gate needs at least one rule; without rules it would pass anything")
    for f in findings:
        ends = f.interval or ()
        if not all(math.isfinite(x) for x in (f.value, *ends)):
            raise UserError(f"finding {f.check} of {f.model}: its value or interval is not a number")
    results: list[Result] = []
    for rule in rules:
        matching = [f for f in findings if _named(rule, f)]
        results += [_hold(rule, f) for f in matching] if matching else [_missing(rule, findings)]
    states = {r.state for r in results}
    verdict: Verdict = "hold" if "failed" in states else "ship" if states == {"passed"} else "undecided"
    return Decision(verdict, tuple(results), tuple(rules), tuple(findings))


def write_decision(decision: Decision, path: Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write decision.json with its seal, so that a reader sees the old file or the whole new one, never a part. `about`
    says whose weights its findings were measured on, where that is known (`evidence.Evidence`)."""
    body = seals.sealed(decision.as_json() | {"about": dict(about or {})})
    return write_text(path, json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _named(rule: Rule, f: Finding) -> bool:
    places = ((rule.model, f.model), (rule.against, f.against), (rule.slice, f.slice))
    return rule.check == f.check and all(asked is None or asked == has for asked, has in places)


def _missing(rule: Rule, findings: Sequence[Finding]) -> Result:
    same = [f for f in findings if f.check == rule.check]
    if same:
        there = sorted({_subject(f) for f in same})
        return Result(rule, "missing", f"evidence missing; {rule.check} was measured for {'; '.join(there)}")
    known = sorted({f.check for f in findings})
    guess = nearest(rule.check, known)
    hint = f" Did you mean '{guess}'?" if guess else f" Measured: {', '.join(known) or 'nothing'}."
    return Result(rule, "missing", f"evidence missing, no finding of check '{rule.check}'.{hint}")


def _hold(rule: Rule, f: Finding) -> Result:
    low, high = f.interval or (f.value, f.value)
    shown = f"{f.value:.4g}" + (f" [{low:.4g}, {high:.4g}]" if f.interval else " (no interval)")
    said = f"{_subject(f)}: {shown}"
    if rule.samples and f.n < rule.samples:
        more = rule.samples - f.n
        rest = (
            f"from {f.n} samples; {more} more are needed" if f.n else f"does not say from how many; {more} are needed"
        )
        return Result(rule, "too few", f"{said} {rest}", f, rule.samples)
    ends = {"lower": low, "upper": high, "value": f.value}
    missed = [(end, side, bound) for end, side, bound in rule.bounds() if not _met(ends[end], side, bound)]
    if not missed:
        return Result(rule, "passed", f"{said} from {f.n} samples" if f.n else said, f)
    needed = 0
    for end, side, bound in missed:
        if not _met(f.value, side, bound):
            return Result(rule, "failed", f"{said}; the value itself misses the bound", f)
        if f.value == bound:
            return Result(
                rule, "failed", f"{said}; the value lies on the bound, so more samples would not settle it", f
            )
        if not f.n:
            return Result(rule, "failed", f"{said}; the interval reaches over the bound", f)
        # The half-width shrinks with the root of the number of samples.
        ratio = (f.value - ends[end]) / (f.value - bound)
        needed = max(needed, math.ceil(f.n * ratio * ratio - 1e-9))
    return Result(
        rule,
        "failed",
        f"{said}; the interval of {f.n} samples reaches over the bound. "
        f"If the value stays, about {needed} samples would show it",
        f,
        needed,
    )


def _line(text: str) -> str:
    """A text that may come from a file, on one line, with nothing in it that a terminal would act on."""
    return visible(" ".join(text.split()))


def _met(x: float, side: str, bound: float) -> bool:
    return x >= bound if side == "min" else x <= bound


def _subject(f: Finding) -> str:
    name = f.model or "the model"
    name += f" against {f.against}" if f.against else ""
    return name + (f" on {f.slice}" if f.slice != "all" else "")
