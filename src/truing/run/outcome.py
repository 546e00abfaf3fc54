"""Outcome of a run: the decision of all its gates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truing import seals
from truing.gate import decide, evidence
from truing.records import digest
from truing.run.plan import read_json

WORST_FIRST: tuple[decide.Verdict, ...] = ("hold", "undecided", "ship")


def decision(root: Path, gates: list[str]) -> dict[str, Any]:
    """One decision of several gates' (their stages' names): the worst verdict, over every gate's results."""
    for name in gates:
        seals.check_stage(root / name)
    decisions = {name: read_json(root / name / seals.DECISION) for name in gates}
    verdict = next(word for word in WORST_FIRST if word in {d["verdict"] for d in decisions.values()})
    if len(decisions) == 1:
        return decisions[gates[0]]
    findings = list({digest(f): f for d in decisions.values() for f in d["findings"]}.values())
    body = {
        "verdict": verdict,
        "exit_code": decide.EXIT_CODES[verdict],
        "gates": {name: d["verdict"] for name, d in decisions.items()},
        "results": [r | {"rule": f"{name}: {r['rule']}"} for name, d in decisions.items() for r in d["results"]],
        "rules": [rule for d in decisions.values() for rule in d["rules"]],
        "evidence_hash": digest(findings),
        "findings": findings,
        "about": evidence.together([d["about"] for d in decisions.values()]),
    }
    return seals.sealed(body)
