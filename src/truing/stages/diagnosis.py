"""What the stages that diagnose share: what they leave, and its headline."""

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
    """Write what the curves say: findings.json, curve.json for the report, summary.json; and a table. `doubt` is why
    nothing may be decided by them, where the truth is a judge that may err."""
    told = [diagnosed(curve) for curve in curves]
    findings = [replace(f, reservation=doubt or f.reservation) for one in told for f in one.findings]
    notes = [*notes, *(note for one in told for note in one.notes), *([doubt] if doubt else [])]
    outputs.write_findings(run, findings)
    run.write("curve.json", {"truth": truth, "curves": [one.as_json() for one in told]})
    run.write("summary.json", {"do": run.do, "headline": "; ".join(map(headline, told)), "notes": notes})
    if findings:
        run.show.say(table(findings, {}))
    for note in notes:
        run.show.say(f"  {note}")


def headline(told: Diagnosis) -> str:
    """One curve in one sentence."""
    curve, lost = told.curve, next((f for f in told.findings if f.check == "gold_lost_after_peak"), None)
    if lost is None:
        return f"{curve.name}: too few looks"
    spread = f" [{lost.interval[0]:.2f}, {lost.interval[1]:.2f}]" if lost.interval else ""
    where = f"highest at {curve.place(told.best)} (KL {curve.kl[told.best]:.1f} nats)"
    return f"{curve.name}: gold {told.word}, {where}, lost since {lost.value:.2f}{spread}"
