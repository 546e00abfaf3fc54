"""The stage that decides by rules whether a model may ship."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from truing.gate import decide, looks
from truing.gate import rules as gate_rules
from truing.gate.standing import UNMEASURED
from truing.registry import Evidence, Rules, stage
from truing.run.stage_run import StageRun


@stage(gives="decision")
def gate(
    run: StageRun,
    *,
    evidence: Annotated[Evidence, "the evaluate stages, or JSON files, whose findings are checked against the rules"],
    rules: Annotated[Rules, "the rules file that says what a model has to reach"],
) -> None:
    """Decide whether a model may ship: check the findings of `evidence` against a rules file, and write decision.json.

    The rules have to compare with what stands in production: `$base`, or the recipe's `production`. Of several gates in
    a recipe the worst verdict is the run's.
    """
    read, ruleset = run.evidence(evidence), gate_rules.read_rules(Path(rules))
    gates = [spec.name for spec in run.recipe.stages if spec.do == "gate"]
    look = looks.look_number(run.root, run.name, read.findings, ruleset, beside=gates)
    stands = read.production or (("",) if run.recipe.replaced is None else (UNMEASURED + "base",))
    decision = decide.decide(read.findings, ruleset, production=stands, vouched=read.vouched, look=look)
    decide.write_decision(decision, run.folder / "decision.json", read.weights)
    run.show.say(decision.text())
    run.write("summary.json", {"do": "gate", "headline": decision.verdict, "shown": decision.text().split("\n")})
