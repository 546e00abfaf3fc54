"""Evidence as a gate reads it: findings, and whose weights they were measured on; refused where anything is amiss.

A stage's evidence is sealed and names what it is about; all of that is checked against the disk. A file of findings
that somebody wrote by hand is believed as it stands (docs/integrity.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truing import door, seals
from truing.errors import DataError, UserError, short, unknown
from truing.gate.decide import each_once
from truing.gate.standing import measured
from truing.policy.files.folder_digest import model_digest
from truing.records import Finding, is_number

FINDINGS = "findings.json"
SAID = 1000
"""Most characters of a finding's problem that are shown."""
ENDED = ("done", "reused")
AGAIN = "Run the recipe again, and gate what it leaves."
KEYS = frozenset({"suite", "models", "findings", "about", seals.SEAL})
DECIDED = frozenset({"verdict", "exit_code", "look", "gates", "results", "rules", "evidence_hash", "findings", "about"})
ABOUT = frozenset({"stage", "models", "data", "judge", "recipe", "code", "production"})
"""Keys of a findings.json, of a decision.json and of the part `about` of both."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Findings, each once, and what they are about: `models` by where they lie, with the hash of their files."""

    findings: tuple[Finding, ...]
    about: Mapping[str, Any]
    vouched: frozenset[Finding] = frozenset()
    """Findings that a stage made, and no hand."""

    @property
    def production(self) -> tuple[str, ...]:
        """Names of the model in production in the exams; none where they name none, as findings by hand do not."""
        return tuple(self.about.get("production", ()))

    @property
    def weights(self) -> dict[str, Any]:
        """The part of `about` that a decision repeats: whose weights it is about."""
        return together([self.about])


def read_findings(path: Path) -> list[Finding]:
    """The findings of `read`."""
    return list(read(path).findings)


def read(path: Path) -> Evidence:
    """The evidence in a run's folder (of all its stages), in any folder (of every findings.json beneath it), or in a
    JSON file with `findings`. UserError for a run that is not done, and for anything changed since it was made.

    A part of a run (a stage, its file, the decision) is believed with the run that it lies in. A folder without
    findings gives none, and a gate then names which evidence is missing.
    """
    path = Path(os.path.realpath(path))  # `resolve` raises where a link names itself
    root = run_of(path)
    if root == path:
        return of_run(path)
    if root is not None:
        of_run(root)
    if path.is_dir():
        return of_folder(path)
    if path.name in (FINDINGS, seals.DECISION) and is_stage(path.parent):
        return of_stage(path.parent, path.name)
    return of_file(path)


def run_of(path: Path) -> Path | None:
    """The folder of the run that a resolved path is, or is a stage, a file, or a stage's file of; None where it is none
    of these."""
    return next((folder for folder in (path, path.parent, path.parent.parent) if is_run(folder)), None)


def of_folder(folder: Path) -> Evidence:
    """The evidence of a stage, or of every findings.json beneath any other folder."""
    if is_stage(folder):
        return of_stage(folder)
    files = sorted(folder.rglob(FINDINGS)) or sorted(folder.glob(seals.DECISION))
    return joined([read(file) for file in files])


def is_run(folder: Path) -> bool:
    """True if a folder is a run's: it has a manifest, or at least stages."""
    return folder.is_dir() and ((folder / seals.MANIFEST).exists() or any(folder.glob(f"*/{seals.STAGE}")))


def is_stage(folder: Path) -> bool:
    """True if a folder is that of a run's stage."""
    return (folder / seals.STAGE).exists() or is_run(folder.parent)


def of_run(folder: Path) -> Evidence:
    """The evidence of a run that is done, and whose every stage still is what it left."""
    path = folder / seals.MANIFEST
    manifest = _object(path, AGAIN)
    seals.check(path, manifest, AGAIN)
    seals.check_version(folder, seals.made_by(manifest))
    if manifest.get("state") != "done":
        why = f" ({manifest['reason']})" if manifest.get("reason") else ""
        raise UserError(f"{folder}: this run is not done, it is '{manifest.get('state')}'{why}.\n  {AGAIN}")
    rows = manifest.get("stages")
    if not isinstance(rows, list) or not all(map(_is_stage_row, rows)):
        raise UserError(f"{path}: 'stages' is not what a run writes there.\n  {AGAIN}")
    for row in rows:
        if row["state"] not in ENDED:
            raise UserError(
                f"{folder}: stage '{row['name']}' of this run is not done, it is '{row['state']}'.\n  {AGAIN}"
            )
        if seals.check_stage(folder / row["name"])[seals.SEAL] != row.get(seals.SEAL):
            raise UserError(
                f"{folder / row['name'] / seals.STAGE}: is not the one that this run left: it comes from another run.\n"
                f"  {AGAIN}"
            )
    check_decision(folder, manifest)
    return joined([of_stage(folder / row["name"]) for row in rows if (folder / row["name"] / FINDINGS).is_file()])


def check_decision(folder: Path, manifest: Mapping[str, Any]) -> None:
    """UserError where a run's decision.json is not the one that it left."""
    path, expected = folder / seals.DECISION, manifest.get("decision")
    if path.is_file() or expected is not None:
        body = _object(path, AGAIN)
        seals.check(path, body, AGAIN)
        if body[seals.SEAL] != expected:
            raise UserError(f"{path}: is not the decision that this run came to: it comes from another run.\n  {AGAIN}")


def of_stage(folder: Path, name: str = FINDINGS) -> Evidence:
    """The evidence that a finished stage left, about models that still are what was measured."""
    seals.check_stage(folder)
    path = folder / name
    evidence = of_file(path, sealed=True)
    if name == FINDINGS and evidence.about.get("stage") != Path(os.path.realpath(folder)).name:
        raise UserError(f"{path}: is that of another stage, '{evidence.about.get('stage')}'.\n  {AGAIN}")
    check_models(path, evidence.about.get("models", {}), folder.parent)
    return evidence


def check_models(path: Path, models: Mapping[str, str], root: Path) -> None:
    """UserError where a model that findings are about is no longer what was measured. One that lies outside the run and
    is not on this disk cannot be checked."""
    for place, expected in models.items():
        beside = root / place
        folder = beside if beside.is_dir() or (beside.parent / seals.STAGE).is_file() else Path(place)
        if folder != beside and not folder.is_dir():
            continue
        now = model_digest(str(folder)) if folder.is_dir() else "nothing"
        if now != expected:
            raise UserError(
                f"{path}: was measured on other weights than those in {folder} now "
                f"({expected[:12]} then, {now[:12]} now).\n"
                f"  Put that model back, or measure this one: {AGAIN[0].lower()}{AGAIN[1:]}"
            )


def of_file(path: Path, sealed: bool = False) -> Evidence:
    """The evidence in one file. A seal, where there is one or one is needed, fits."""
    body = _object(path)
    rows = body.get("findings")
    if not isinstance(rows, list):
        raise UserError(
            f"{path}: has no list under 'findings'; give a run's folder, or the findings.json of an evaluate stage"
        )
    if sealed or seals.SEAL in body or {"about", "verdict"} & set(body):
        seals.check(path, body, AGAIN)
    keys_allowed = DECIDED | {seals.SEAL} if "verdict" in body else KEYS
    about = body.get("about", {})
    if not isinstance(about, dict) or not isinstance(about.get("models", {}), dict):
        raise UserError(f"{path}: 'about' must be an object that names models, not {door.shown(about)}")
    if not all(isinstance(model_hash, str) for model_hash in about.get("models", {}).values()):
        raise UserError(f"{path}: 'models' must name the hash of each, not {door.shown(about['models'])}")
    production = about.get("production", [])
    if not isinstance(production, list) or not all(isinstance(name, str) for name in production):
        raise UserError(f"{path}: 'production' must be a list of names, not {door.shown(production)}")
    for place, keys, words in ((str(path), body, keys_allowed), (f"{path}, about", about, ABOUT)):
        for key in keys:
            if key not in words:
                raise UserError(f"{place}: {unknown('key', key, words)}")
    findings = [_finding(row, f"{path}, finding {i + 1}") for i, row in enumerate(rows)]
    once = tuple(each_once(findings, str(path)))
    return Evidence(once, about, frozenset(once if seals.SEAL in body else ()))


def joined(parts: Sequence[Evidence]) -> Evidence:
    """Several pieces of evidence as one; UserError where they are about different models of one name."""
    findings = dict.fromkeys(f for part in parts for f in part.findings)
    about, vouched = together([part.about for part in parts]), frozenset(f for part in parts for f in part.vouched)
    return Evidence(tuple(findings), about, vouched)


def together(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The models that several pieces of evidence are about, and what they call the one in production; UserError where
    two models have one name."""
    models: dict[str, str] = {}
    names: dict[str, None] = {}
    for part in parts:
        names |= dict.fromkeys(part.get("production", ()))
        for place, model_hash in part.get("models", {}).items():
            if models.setdefault(place, model_hash) != model_hash:
                raise UserError(
                    f"the evidence is about two different models called '{place}' ({models[place][:12]} and "
                    f"{model_hash[:12]}): it comes from several runs.\n  Give the evidence of one run."
                )
    production = {"production": measured(names) or list(names)} if names else {}
    return {"models": models} | production if models else production


def _object(path: Path, way_out: str = "") -> dict[str, Any]:
    try:
        body = door.read_json(path, most=door.EVIDENCE_BYTES, strict=True)
    except DataError as problem:
        raise DataError(problem.place, problem.problem, way_out or problem.way_out) from problem
    return body if isinstance(body, dict) else {}


def _is_stage_row(row: Any) -> bool:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("name", "state")):
        return False
    name = row["name"]
    return name == Path(name).name and name not in ("", "..") and isinstance(row.get(seals.SEAL, ""), str)


def _finding(row: Any, place: str) -> Finding:
    try:
        finding = Finding.from_json(row)
    except ValueError as problem:
        raise UserError(f"{place}: {str(problem)[:SAID]}") from problem
    if problems := list(_problems(row)):
        raise UserError(f"{place}: {problems[0]} ({short(finding.check)})")
    return finding


def _problems(row: Mapping[str, Any]) -> Iterator[str]:
    """Problems of a row that `Finding.from_json` accepts: it takes what is left out or empty as not set."""
    for key, value in row.items():
        if key not in Finding.__dataclass_fields__:
            yield unknown("key", key, Finding.__dataclass_fields__)
        elif key in ("value", "bound", "interval", "n"):
            if key == "n" and (isinstance(value, bool) or not isinstance(value, int)):
                yield f"n must be a whole number from 0 up, not {door.shown(value)}"
            if key == "bound" and value is not None and not is_number(value):
                yield f"bound must be a number, not {door.shown(value)}"
        elif value is not None and not isinstance(value, str):
            yield f"{key} must be text, not {door.shown(value)}"
    if not row.get("model"):
        yield "names no model, so nothing can be decided by it; give 'model', the model that was measured"
