"""Hashes of what a run and a cache leave behind: made when it is finished, checked when it is used.

A seal is the hash of a JSON object's own content. It shows an edit and is no signature: who can run this code can make
the hashes anew (docs/integrity.md says what that means).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from truing import __version__, door
from truing.errors import DataError, UserError, cleaned

SEAL = "seal"
STAGE = "stage.json"
MANIFEST = "manifest.json"
DECISION = "decision.json"
TIMED = ("metrics.jsonl", "summary.json", "README.md")
"""Outputs that say how long something took: the same work done again leaves others."""
MEND = "Put back what was there, or run the stage again: `truing run` with --restart."
SETTLED = 100_000_000
"""Nanoseconds after which another write shows in a file's times: a kernel's clock ticks every few milliseconds."""
Outputs: TypeAlias = dict[str, list[Any]]
"""The size and SHA-256 of every file of a folder, by its name in the folder."""

_hashes: dict[tuple[str, int, int, int, int], str] = {}


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, computed once per process for as long as the file system says that it is the same file:
    its inode, size and both of its times (ctime cannot be set back). One that was written just now is hashed again when
    it is next asked for. OSError where it cannot be read."""
    facts = path.stat()
    key = (str(path.absolute()), facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    if key in _hashes:
        return _hashes[key]
    settled = time.time_ns() - facts.st_ctime_ns > SETTLED
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    if settled:
        _hashes[key] = content
    return content


def made_by(manifest: Mapping[str, Any]) -> Any:
    """The version of truing that wrote the manifest of a run; None where it does not say."""
    versions = manifest.get("versions")
    return versions.get("truing") if isinstance(versions, Mapping) else None


def check_version(place: Path, version: Any) -> None:
    """UserError for something that another version of truing made: it has other names for options and figures, which
    this version would not find. `version` is that one, or no text where it is not known."""
    if not isinstance(version, str) or version.split(".")[:2] == __version__.split(".")[:2]:
        return
    made = cleaned(version)
    raise UserError(
        f"{place}: was made by truing {made}, and this is {__version__}, which has other names for options and "
        f"figures.\n  Open it with the truing that made it, or run the recipe again, with another --out or with "
        "--overwrite. Models of any version open."
    )


def seal_of(body: Mapping[str, Any]) -> str:
    """The seal of a JSON object: of its content as a reader gets it back, whatever its layout, without `seal` itself.

    >>> seal_of({"a": 1, "b": (2, 3)}) == seal_of({"b": [2, 3], "a": 1, "seal": "another"})
    True
    """
    content = json.loads(json.dumps({name: value for name, value in body.items() if name != SEAL}))
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sealed(body: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its seal; keys are taken out of it first, for what is sealed is written as it is.

    >>> fits(sealed({"verdict": "hold"})), fits(sealed({"verdict": "hold"}) | {"verdict": "ship"})
    (True, False)
    """
    body = cleaned(dict(body))
    return {**body, SEAL: seal_of(body)}


def fits(body: Mapping[str, Any]) -> bool:
    """Return whether an object has a seal, and it is that of its content."""
    return body.get(SEAL) == seal_of(body)


def check(path: Path, body: Mapping[str, Any], way_out: str = MEND) -> None:
    """UserError where the object read from `path` has no seal, or another than its content's."""
    if SEAL not in body:
        raise UserError(
            f"{path}: has no seal: an earlier truing made it, or its seal was taken out, so that nothing says whether "
            f"it was changed.\n  {way_out}"
        )
    if not fits(body):
        raise UserError(
            f"{path}: was changed after it was written: its seal is {str(body[SEAL])[:12]}, and its content's would be "
            f"{seal_of(body)[:12]}.\n  {way_out}"
        )


def outputs_of(folder: Path, without: str = STAGE) -> Outputs:
    """Every file beneath a folder but hidden ones and `without`, each hashed in one pass."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder) for path in files]
    shown = [(n, p) for n, p in zip(names, files, strict=True) if not any(part.startswith(".") for part in n.parts)]
    return {n.as_posix(): [p.stat().st_size, file_hash(p)] for n, p in shown if n.as_posix() != without}


def product(outputs: Mapping[str, Any]) -> str:
    """The identity of what a stage left for others to read: the same work done again leaves the same.

    >>> product({"data.jsonl": [4, "ab"], "summary.json": [9, "cd"]}) == product({"data.jsonl": [4, "ab"]})
    True
    """
    return seal_of({name: facts for name, facts in outputs.items() if name.rpartition("/")[2] not in TIMED})


def differences(folder: Path, recorded: Mapping[str, Any], below: str = "", without: str = STAGE) -> Iterator[str]:
    """A sentence for every file beneath `folder` that is missing, other than `recorded`, or was added; only files whose
    name begins with `below` are checked."""
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    visible = {n for n in there if not any(part.startswith(".") for part in n.split("/")) and n != without}
    for name, (size, hashed) in recorded.items():
        if not name.startswith(below):
            continue
        path = folder / name
        if name not in visible:
            yield f"{path}: is missing (it was {size} bytes, sha256 {hashed[:12]})"
        elif path.stat().st_size != size or file_hash(path) != hashed:
            now = f"{path.stat().st_size} bytes, sha256 {file_hash(path)[:12]}"
            yield f"{path}: was changed after it was written: expected {size} bytes, sha256 {hashed[:12]}; it has {now}"
    for name in sorted(visible - set(recorded)):
        if name.startswith(below):
            yield f"{folder / name}: was added after the folder was finished"


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file; UserError where there is none."""
    try:
        return door.read_object(path, most=door.EVIDENCE_BYTES, strict=True)
    except DataError as error:
        raise DataError(error.place, f"cannot be read: it {error.problem}", MEND) from error


def are_outputs(value: Any) -> bool:
    """Return whether a value is of the form of `Outputs`, and every file lies in the folder."""
    return isinstance(value, dict) and all(
        isinstance(facts, list)
        and len(facts) == 2
        and isinstance(facts[0], int)
        and isinstance(facts[1], str)
        and not {"", "..", "."} & set(name.split("/"))
        for name, facts in value.items()
    )


def check_stage(folder: Path, below: str = "") -> dict[str, Any]:
    """The stage.json of a finished stage whose outputs are what it left; UserError names the first that is not.

    Only outputs whose name begins with `below` are checked, such as `model/`.
    """
    body = read_object(folder / STAGE)
    check(folder / STAGE, body)
    if body.get("name") != Path(os.path.abspath(folder)).name:  # not where a link leads: stages may be moved, not mixed
        raise UserError(f"{folder / STAGE}: is that of another stage, '{body.get('name')}'.\n  {MEND}")
    if body.get("state") != "done":
        raise UserError(
            f"{folder}: this stage was not finished (its stage.json says '{body.get('state')}'), so its files are not "
            "to be used.\n  Run it to its end: `truing run` with --resume."
        )
    if not are_outputs(body.get("outputs", {})):
        raise UserError(f"{folder / STAGE}: 'outputs' is not what a stage writes there.\n  {MEND}")
    wrong = list(differences(folder, body.get("outputs", {}), below))
    if wrong:
        more = f"\n  ({len(wrong) - 1} more of its files are not what the stage left)" if wrong[1:] else ""
        raise UserError(f"{wrong[0]}{more}\n  {MEND}")
    return body


def check_model(folder: Path) -> None:
    """UserError where a folder is the model of a run's stage and not what the stage left; any other folder is the
    user's own, of which nothing is recorded."""
    if not os.path.exists(folder):
        return
    # A stage's folder may be a link, and so may this.
    for place in (Path(os.path.abspath(folder)), Path(os.path.realpath(folder))):
        if place.name == "model" and (place.parent / STAGE).is_file():
            check_stage(place.parent, "model/")
            return


def check_file(path: Path) -> None:
    """UserError where a file was left by a finished stage of a run, and is not what the stage left."""
    if not os.path.exists(path):  # a name of the Hub, or one that no file can have
        return
    place = Path(os.path.realpath(path))
    for folder in place.parents[:2]:
        if not (folder / STAGE).is_file():
            continue
        body = read_object(folder / STAGE)
        if {"key", "parts", SEAL} & set(body):  # a run's, and not a file of the user's own of that name
            check(folder / STAGE, body)
            if body.get("state") == "done":
                check_stage(folder, place.relative_to(folder).as_posix())
        return
