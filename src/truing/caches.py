"""Folders that are costly to make and are kept: made once, with hashes of their files, made again when damaged."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from truing import seals
from truing.disk import folder_beside, locked, refuse_link, write_json
from truing.errors import UserError

RECORD = "made.json"


def cache_folder() -> Path:
    """The folder of what is costly to make and kept between runs: TRUING_CACHE, else `truing` in XDG_CACHE_HOME, else
    ~/.cache/truing. An XDG_CACHE_HOME that is no absolute path is invalid, says its specification, and is not read."""
    if chosen := os.environ.get("TRUING_CACHE", ""):
        return Path(chosen)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "truing"


def keep_torch_here() -> None:
    """Let torch make its own cache, of which it makes the folder when it is first used, in ours and not in the
    temporary folder; unless it was told where, or nothing can be made here."""
    folder = cache_folder() / "torch"
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if os.access(there, os.W_OK | os.X_OK):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def cached(folder: Path, make: Callable[[Path], None], say: Callable[[str], None]) -> Path:
    """`folder`, made by `make` where there is none or where it is not what was made; the latter is said.

    Several processes may ask at once: each makes its own beside, and the first whole one stays. UserError where a
    damaged one cannot be moved away.
    """
    if not folder.exists():
        return made(folder, make)
    if wrong := trouble(folder):
        say(f"  {wrong}; it is made again")
        made(folder, make)
    return folder


def made(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder beside and put it in its place, with the hashes of its files; one that is there and whole stays."""
    with folder_beside(folder) as part:
        make(part)
        body = {"name": folder.name, "outputs": seals.outputs_of(part, RECORD)}
        write_json(part / RECORD, seals.sealed(body))
        with locked(folder.parent / f".{folder.name}.lock", wait=True):
            if trouble(folder):
                put_away(folder)
                part.rename(folder)
    return folder


def trouble(folder: Path) -> str:
    """Why a folder is not the one that was made under its name; empty where it is."""
    try:
        body = seals.read_object(folder / RECORD)
        seals.check(folder / RECORD, body)
        if not seals.are_outputs(body.get("outputs")):
            return f"{folder / RECORD}: is not what was written there"
        wrong = next(seals.differences(folder, body["outputs"], without=RECORD), "")
    except UserError as problem:
        return str(problem).partition("\n")[0]
    except OSError as problem:
        return f"{folder}: cannot be read ({problem.strerror})"
    return wrong if body.get("name") == folder.name else f"{folder}: is another's, '{body.get('name')}'"


def put_away(folder: Path) -> None:
    """Remove a damaged folder, if there is one; UserError where that cannot be done."""
    if not folder.exists():
        return
    refuse_link(folder)
    try:
        away = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        folder.rename(away / folder.name)
    except OSError as problem:
        raise UserError(
            f"{folder}: is damaged, and cannot be moved ({problem.strerror}): delete this folder"
        ) from problem
    shutil.rmtree(away, ignore_errors=True)
