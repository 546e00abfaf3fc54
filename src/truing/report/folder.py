"""A run's folder read for the report. A piece that is missing is left out; one that is damaged is named on the page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing import door, seals
from truing.errors import DataError, UserError
from truing.records import Finding, is_number
from truing.report.distance import Way

UNFINISHED = ("pending", "running")
"""States of a stage whose folder may hold what an earlier run left."""


@dataclass
class StagePieces:
    """The files one stage left. `metrics` holds one mapping of numbers per step; `responses` some responses of its
    rounds; `ways` the curves of a diagnosis, and `truth` the reward it takes for gold."""

    name: str
    do: str = ""
    state: str = ""
    seconds: float | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    responses: list[dict[str, Any]] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    truth: str = ""


@dataclass
class RunPieces:
    """A whole run. `damaged` says which pieces could not be read, one sentence each."""

    name: str
    manifest: dict[str, Any]
    stages: list[StagePieces]
    decision: dict[str, Any]
    damaged: list[str]

    @property
    def findings(self) -> list[Finding]:
        """Every finding of every stage, each once."""
        return list(dict.fromkeys(f for stage in self.stages for f in stage.findings))


def read_run(folder: Path) -> RunPieces:
    """Everything a report shows of `folder`, in the order of the manifest's stages."""
    if not (folder / "manifest.json").is_file():
        raise UserError(f"{folder}: there is no such run; a run's folder has a manifest.json")
    damaged: list[str] = []
    manifest = _mapping(_json(folder / seals.MANIFEST, damaged))
    seals.check_version(folder, seals.made_by(manifest))
    listed = {str(row.get("name", "")): row for row in _rows(manifest.get("stages"))}
    stages = []
    for name, row in listed.items():
        if not name or name != Path(name).name or name == "..":
            damaged.append(f"{seals.MANIFEST}: {door.shown(name)} is no stage's name, and is not shown")
            continue
        stage = StagePieces(name, str(row.get("do", "")), str(row.get("state", "")), as_number(row.get("seconds")))
        if stage.state not in UNFINISHED:
            _fill(stage, folder / name, damaged)
        stages.append(stage)
    decision = _mapping(_json(folder / seals.DECISION, damaged))
    if decision and manifest.get("decision", decision.get(seals.SEAL)) != decision.get(seals.SEAL):
        damaged.append(f"{seals.DECISION}: is not the decision that this run came to, and is not shown")
        decision = {}
    return RunPieces(folder.resolve().name, manifest, stages, decision, damaged)


def as_number(x: Any) -> float | None:
    """`x` where it is a finite number, else None.

    >>> as_number(3), as_number(True), as_number("3"), as_number(float("nan"))
    (3.0, None, None, None)
    """
    return float(x) if is_number(x) else None


def _fill(stage: StagePieces, folder: Path, damaged: list[str]) -> None:
    stage.summary = _mapping(_json(folder / "summary.json", damaged))
    stage.do = stage.do or str(stage.summary.get("do", ""))
    stage.metrics = _metrics(folder / "metrics.jsonl", damaged)
    for i, row in enumerate(_rows(_mapping(_json(folder / "findings.json", damaged)).get("findings"))):
        try:
            stage.findings.append(Finding.from_json(row))
        except ValueError as problem:
            damaged.append(f"{stage.name}/findings.json, finding {i + 1}: {problem}")
    stage.examples = _rows(_json(folder / "examples.json", damaged))
    stage.responses = _rows(_json(folder / "responses.json", damaged))
    drawn = _mapping(_json(folder / "curve.json", damaged))
    stage.truth = str(drawn.get("truth", ""))
    for i, row in enumerate(_rows(drawn.get("curves"))):
        try:
            stage.ways.append(Way.from_json(row))
        except ValueError as problem:
            damaged.append(f"{stage.name}/curve.json, curve {i + 1}: {problem}")


def _json(path: Path, damaged: list[str]) -> Any:
    if not os.path.isfile(path):
        return None
    try:
        body = door.read_json(path, f"{path.parent.name}/{path.name}", door.EVIDENCE_BYTES)
    except DataError as error:
        damaged.append(f"{error.place}: cannot be read: it {error.problem}")
        return None
    if isinstance(body, dict) and seals.SEAL in body and not seals.fits(body):
        damaged.append(f"{path.parent.name}/{path.name}: was changed after it was written, and is not shown")
        return None
    return body


def _metrics(path: Path, damaged: list[str]) -> list[dict[str, float]]:
    if not os.path.isfile(path):
        return []
    rows, bad = [], 0
    try:
        content = door.read_bytes(path, f"{path.parent.name}/{path.name}", door.LOG_BYTES)
    except DataError as problem:
        damaged.append(str(problem))
        return []
    for line in content.decode("utf-8", "replace").split("\n"):
        if not line.strip():
            continue
        try:
            row = door.parse_json(line, strict=False)
        except ValueError:
            row = None
        if not isinstance(row, Mapping):
            bad += 1
            continue
        rows.append({str(k): float(v) for k, v in row.items() if isinstance(v, float) or is_number(v)})
    if bad:
        damaged.append(f"{path.parent.name}/{path.name}: {bad} line{'s' if bad > 1 else ''} could not be read")
    return rows


def _mapping(x: Any) -> dict[str, Any]:
    return {str(k): v for k, v in x.items()} if isinstance(x, Mapping) else {}


def _rows(x: Any) -> list[dict[str, Any]]:
    return [_mapping(row) for row in x if isinstance(row, Mapping)] if isinstance(x, list) else []
