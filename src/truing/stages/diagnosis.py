"""Shared by the stages that diagnose: the files they write, and the headline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from truing.diagnose.curve import Curve
from truing.diagnose.overoptimisation import Diagnosis
from truing.diagnose.overoptimisation import diagnose as diagnosed
from truing.report.exam_table import table
from truing.run.stage_run import StageRun
from truing.stages import outputs


def tell(run: StageRun, curves: Sequence[Curve], truth: str, notes: Sequence[str] = (), doubt: str = "") -> None:
    """Write the diagnosis of the curves: findings.json, curve.json for the report, summary.json; and show a table.
    `doubt` is why nothing may be decided by them, where the truth is a judge that may err."""
    diagnoses = [diagnosed(curve) for curve in curves]
    findings = [replace(f, reservation=doubt or f.reservation) for diagnosis in diagnoses for f in diagnosis.findings]
    notes = [*notes, *(note for diagnosis in diagnoses for note in diagnosis.notes), *([doubt] if doubt else [])]
    outputs.write_findings(run, findings)
    run.write("curve.json", {"truth": truth, "curves": [diagnosis.as_json() for diagnosis in diagnoses]})
    run.write("summary.json", {"do": run.do, "headline": "; ".join(map(headline, diagnoses)), "notes": notes})
    if findings:
        run.show.say(table(findings, {}))
    for note in notes:
        run.show.say(f"  {note}")


def headline(diagnosis: Diagnosis) -> str:
    """One curve in one sentence."""
    curve, lost = diagnosis.curve, next((f for f in diagnosis.findings if f.check == "gold_lost_after_peak"), None)
    if lost is None:
        return f"{curve.name}: too few evaluations"
    spread = f" [{lost.interval[0]:.2f}, {lost.interval[1]:.2f}]" if lost.interval else ""
    where = f"highest at {curve.place(diagnosis.best)} (KL {curve.kl[diagnosis.best]:.1f} nats)"
    return f"{curve.name}: gold {diagnosis.word}, {where}, lost since {lost.value:.2f}{spread}"
