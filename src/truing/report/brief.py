"""The first three lines of a report, in words that can be read to somebody who does not train models: what was trained
on what, whether it is better and how sure that is, and whether it may ship and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from truing.records import Finding
from truing.report.folder import RunPieces, StagePieces

_WORDS = {
    "ship": "It may ship: every condition of the gate is met.",
    "hold": "It may not ship",
    "undecided": "Whether it may ship is not decided",
}
_MOST = 3  # reasons that are named


def lines(run: RunPieces) -> list[str]:
    """Three sentences of a run; none of one in which nothing was trained or measured."""
    if not run.stages:
        return []
    stage = _main(run)
    return [_trained(stage), _better(stage, run.findings), _ships(run)]


def _main(run: RunPieces) -> StagePieces | None:
    """The stage that the run is about: the last that trained a model which was compared, or else the last that
    trained."""
    trained = [stage for stage in run.stages if isinstance(stage.summary.get("paragraph"), str)]
    compared = {f.model for f in run.findings if f.check == "win_rate"}
    about = [stage for stage in trained if stage.name in compared] or trained
    return about[-1] if about else None


def _trained(stage: StagePieces | None) -> str:
    if stage is None:
        return "Nothing was trained in this run."
    text, taught = str(stage.summary["paragraph"]), stage.summary.get("taught")
    why = taught.get("nothing") if isinstance(taught, Mapping) else ""
    return f"{text} It taught nothing: {why}." if why else text


def _better(stage: StagePieces | None, findings: Sequence[Finding]) -> str:
    rates = [f for f in findings if f.check == "win_rate" and f.slice == "all"]
    of_stage = [f for f in rates if stage is not None and f.model == stage.name] or rates
    if of_stage:
        return " ".join(dict.fromkeys(_compared(f, stage) for f in of_stage[:_MOST]))
    accuracies = [f for f in findings if f.check == "held_out_accuracy" and f.slice == "all"]
    if accuracies:
        f = accuracies[-1]
        return f"{f.model} puts the better response first in {100 * f.value:.0f} of 100 pairs held out{_sure(f)}."
    return "Whether it is better was not measured."


def _compared(f: Finding, stage: StagePieces | None) -> str:
    other = f.against or "the other"
    who = "it" if stage is not None and f.model == stage.name else f.model  # the trained one may be the other
    if f.reservation:
        return f"Whether {f.model} is better than {other} is not known: {f.reservation}."
    shown = f"{f.model} wins {100 * f.value:.0f} of 100 comparisons with {other}, ties half{_sure(f)}"
    if f.interval is None:
        return f"{shown}; that is too little to say how sure this is."
    low, high = f.interval
    if low > 0.5:
        return f"{shown}: {who} is better."
    if high < 0.5:
        return f"{shown}: {who} is worse."
    return f"{shown}: whether {who} is better or worse cannot be told from these {f.n:,} prompts."


def _sure(f: Finding) -> str:
    """The interval of a share in words, empty where there is none."""
    if f.interval is None:
        return ""
    return f" (with 95 % confidence between {100 * f.interval[0]:.0f} and {100 * f.interval[1]:.0f})"


def _ships(run: RunPieces) -> str:
    if run.manifest.get("state") in ("failed", "stopped"):
        return f"This run did not come to its end: {run.manifest.get('reason') or 'it does not say why'}."
    text = _WORDS.get(str(run.decision.get("verdict", "")))
    if text is None:
        return "Whether it may ship was not asked: no gate decides in this run."
    if text.endswith("."):
        return text
    unmet = [row for row in _results(run.decision) if row.get("state") != "passed"]
    why = "; ".join(f"{row.get('rule')} ({row.get('text')})" for row in unmet[:_MOST])
    more = f"; and {len(unmet) - _MOST} more" if len(unmet) > _MOST else ""
    return f"{text}: {why or 'its rules are not met'}{more}."


def _results(decision: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = decision.get("results")
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
