"""Expectations of a recipe about its findings: `stage.model.check: [low, high]`, compared with whole intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from truing.errors import UserError
from truing.gate.decide import each_once
from truing.recipe.expected import Expected
from truing.records import Finding
from truing.run.lesson import finding as taught
from truing.run.plan import read_json


@dataclass(frozen=True)
class Unmet:
    """A line of the expect block that is not met, or that cannot be decided."""

    state: Literal["missed", "open"]
    text: str


def unmet(expect: Mapping[str, tuple[float, float]], root: Path) -> list[Unmet]:
    """The expectations of a run that are not met: `missed` where nothing so called was measured or the whole interval
    lies outside, `open` where it reaches over a bound or there is none. Read as a gate reads its rules."""
    return [trouble for path, bounds in expect.items() if (trouble := held(path, bounds, root)) is not None]


def held(path: str, bounds: tuple[float, float], root: Path) -> Unmet | None:
    """Compare one expectation with the findings of a stage."""
    expected = Expected.read(path)
    assert expected is not None, "a checked recipe has paths of this form only"
    f = the_one(expected, path, findings_of(root / expected.stage))
    if not isinstance(f, Finding):
        return Unmet("missed", f)
    low, high = bounds
    if f.reservation:
        return Unmet("open", f"{path} is {f.value:.3f}, and nothing is decided by it: {f.reservation}")
    if f.interval is None:
        return Unmet("open", f"{path} is {f.value:.3f} from {f.n} samples, without an interval: too few, or all alike")
    shown = f"{path} is {f.value:.3f} [{f.interval[0]:.3f}, {f.interval[1]:.3f}]"
    if low <= f.interval[0] and f.interval[1] <= high:
        return None
    if f.interval[1] < low or f.interval[0] > high:
        return Unmet("missed", f"{shown}, all of it outside [{low}, {high}]")
    return Unmet("open", f"{shown}, which reaches over an end of [{low}, {high}]")


def the_one(expected: Expected, path: str, findings: Sequence[Finding]) -> Finding | str:
    """Return the finding that an expectation names, or the reason why there is none."""
    named = [f for f in findings if expected.names(f)]
    if not expected.slice and len(named) > 1:
        named = [f for f in named if f.slice == "all"] or named
    if not named:
        return f"{path} was not measured"
    if len(named) > 1:
        rivals = len({f.against for f in named}) > 1
        ends = [f"@{f.against}" if rivals else f"#{f.slice}" for f in named]
        return f"{path} names {len(named)} findings: add {' or '.join(dict.fromkeys(ends))}"
    return named[0]


def findings_of(folder: Path) -> list[Finding]:
    """Read the findings that a stage of this run has just measured."""
    rows: list[Any] = read_json(folder / "findings.json").get("findings", [])
    place = folder / "findings.json"
    lesson = taught(read_json(folder / "summary.json"), folder.name)
    try:
        return each_once([Finding.from_json(row) for row in rows], str(place)) + ([lesson] if lesson else [])
    except ValueError as problem:
        raise UserError(f"{place}: {problem}") from problem
