"""A run's folder read for the report. A piece that is missing is left out; one that is damaged is named on the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing.errors import UserError
from truing.types import Finding

_PIECES = ("summary.json", "metrics.jsonl", "findings.json", "examples.json")


@dataclass
class StagePieces:
    """What one stage left behind. `metrics` holds one mapping of numbers per step."""

    name: str
    do: str = ""
    state: str = ""
    seconds: float | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)


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
    if not folder.is_dir():
        raise UserError(f"{folder}: is not a run's folder")
    damaged: list[str] = []
    manifest = _mapping(_json(folder / "manifest.json", damaged))
    listed = {str(row.get("name", "")): row for row in _rows(manifest.get("stages"))}
    present = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and any((p / x).is_file() for x in _PIECES)}
    stages = []
    for name in dict.fromkeys([*listed, *present]):
        row = listed.get(name, {})
        stage = StagePieces(name, str(row.get("do", "")), str(row.get("state", "")), as_number(row.get("seconds")))
        if name in present:
            _fill(stage, present[name], damaged)
        stages.append(stage)
    decision = _mapping(_json(folder / "decision.json", damaged))
    return RunPieces(folder.resolve().name, manifest, stages, decision, damaged)


def as_number(x: Any) -> float | None:
    """A finite number, or None.

    >>> as_number(3), as_number(True), as_number("3"), as_number(float("nan"))
    (3.0, None, None, None)
    """
    good = isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x)
    return float(x) if good else None


def _fill(stage: StagePieces, folder: Path, damaged: list[str]) -> None:
    stage.summary = _mapping(_json(folder / "summary.json", damaged))
    stage.do = stage.do or str(stage.summary.get("do", ""))
    stage.metrics = _metrics(folder / "metrics.jsonl", damaged)
    for i, row in enumerate(_rows(_mapping(_json(folder / "findings.json", damaged)).get("findings"))):
        found = _finding(row)
        if found is None:
            damaged.append(f"{stage.name}/findings.json, finding {i + 1}: has no check or no number as its value")
        else:
            stage.findings.append(found)
    stage.examples = _rows(_json(folder / "examples.json", damaged))


def _json(path: Path, damaged: list[str]) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as e:
        damaged.append(f"{path.parent.name}/{path.name}: cannot be read ({e})")
        return None


def _metrics(path: Path, damaged: list[str]) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    rows, bad = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, Mapping):
            bad += 1
            continue
        rows.append({str(k): float(v) for k, v in row.items() if isinstance(v, (int, float)) and v is not True})
    if bad:
        damaged.append(f"{path.parent.name}/{path.name}: {bad} line{'s' if bad > 1 else ''} could not be read")
    return rows


def _finding(row: Mapping[str, Any]) -> Finding | None:
    value, n, ends = as_number(row.get("value")), as_number(row.get("n")), row.get("interval")
    if value is None or not row.get("check"):
        return None
    low, high = (as_number(ends[0]), as_number(ends[1])) if isinstance(ends, list) and len(ends) == 2 else (None, None)
    return Finding(
        check=str(row["check"]),
        model=str(row.get("model") or ""),
        value=value,
        against=str(row.get("against") or ""),
        slice=str(row.get("slice") or "all"),
        interval=(low, high) if low is not None and high is not None else None,
        n=int(n or 0),
        bound=as_number(row.get("bound")),
        verdict=str(row.get("verdict") or ""),
        evidence=str(row.get("evidence") or ""),
    )


def _mapping(x: Any) -> dict[str, Any]:
    return {str(k): v for k, v in x.items()} if isinstance(x, Mapping) else {}


def _rows(x: Any) -> list[dict[str, Any]]:
    return [_mapping(row) for row in x if isinstance(row, Mapping)] if isinstance(x, list) else []
