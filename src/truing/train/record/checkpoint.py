"""Checkpoints: tensors in safetensors, scalars in sealed JSON, a hash of each file; whole or not there at all.

Every rank writes the rows it holds; the manifest says where they begin. So any number of ranks can read what another
number wrote. Nothing is pickled: a folder without our manifest, whatever else lies in it, is not read at all.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from truing import __version__, door, seals
from truing.disk import as_json, file_digest, share_alike
from truing.errors import DataError, RunFailed, UserError
from truing.train.distributed import process_group
from truing.train.distributed.fsdp import held_here, piece

KEPT = 2
FILE = re.compile(r"(model|optim)-[0-9]+\.safetensors")


@dataclass(frozen=True)
class Stored:
    """A whole checkpoint. `starts` says of each file which row each of its tensors begins with."""

    folder: Path
    step: int
    facts: Mapping[str, Any]
    starts: Mapping[str, Mapping[str, int]]

    def read(self, group: str, like: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of a group, `model` or `optim`: of each the rows that this rank holds of the parameter in `like`
        that it is named after (`norm.weight`, or `norm.weight/exp_avg`); of a number, the number."""
        places: dict[str, list[tuple[int, Path]]] = {}
        for file in (name for name in self.starts if name.startswith(f"{group}-")):
            for key, start in self.starts[file].items():
                places.setdefault(key, []).append((start, self.folder / file))
        out = {}
        for key, pieces in places.items():
            parameter = like.get(key, like.get(key.rpartition("/")[0]))
            out[key] = _rows(key, sorted(pieces), parameter)
        return out


def _rows(key: str, pieces: list[tuple[int, Path]], parameter: torch.Tensor | None) -> torch.Tensor:
    """The rows of a stored tensor that this rank holds of a parameter, from all files that have some of them."""
    held, first = (None, 0) if parameter is None else piece(parameter)
    last = first + held.shape[0] if held is not None and held.ndim else sys.maxsize
    counts = []
    for start, path in pieces:
        with safe_open(str(path), framework="pt") as file:
            rows = file.get_slice(key)
            if not rows.get_shape():
                return file.get_tensor(key)  # type: ignore[no-any-return]
            here = rows.get_shape()[0]
            counts.append(rows[min(max(first - start, 0), here) : min(max(last - start, 0), here)])
    return torch.cat(counts)


def save(folder: Path, step: int, tensors: Mapping[str, Mapping[str, torch.Tensor]], facts: Mapping[str, Any]) -> None:
    """Write `folder/step-N`: every rank its part. Older checkpoints but one are then removed.

    Raises RunFailed where the disk is full or cannot be written; what was begun is then removed, and the checkpoint
    before it stays as it was.
    """
    target, part = folder / f"step-{step:08d}", folder / f".part-{step:08d}"
    problem, mine = "", {}
    try:
        process_group.lead(lambda: _begin(part))
        mine = {name: _write(part, name, group) for name, group in tensors.items()}
    except (OSError, SafetensorError) as error:
        problem = cannot_write(part, error)
    why = [json.loads(text) for text in process_group.gathered(json.dumps([problem, list(mine.values())]))]
    problem = next((text for text, _ in why if text), "")
    if not problem:
        files = {name: rest for _, rows in why for name, *rest in rows}
        manifest = {"step": step, "world": process_group.world(), "files": files, "facts": dict(facts)}
        manifest["truing"] = __version__
        problem = process_group.lead(lambda: _finish(part, target, manifest))
    if problem:
        process_group.lead(lambda: _clear(part))
        raise RunFailed(problem)


def _begin(part: Path) -> str:
    _clear(part)
    part.mkdir(parents=True)
    return ""


def _clear(part: Path) -> str:
    for litter in part.parent.glob(".part-*"):
        shutil.rmtree(litter, ignore_errors=True)
    return ""


def _write(part: Path, group: str, tensors: Mapping[str, torch.Tensor]) -> tuple[str, str, dict[str, int]]:
    """Write this rank's file of a group: its name, its hash, and where its tensors begin."""
    path = part / f"{group}-{process_group.rank()}.safetensors"
    pieces = {key: piece(tensor) for key, tensor in tensors.items() if held_here(tensor)}
    save_file({key: rows.contiguous() for key, (rows, _) in pieces.items()}, path)
    _sync(path)
    return path.name, file_digest(path), {key: start for key, (_, start) in pieces.items()}


def _finish(part: Path, target: Path, manifest: Mapping[str, Any]) -> str:
    """Make a checkpoint whole, and remove what it replaces; what went wrong, if anything did."""
    try:
        path = part / seals.MANIFEST
        path.write_text(as_json(seals.sealed(manifest), seals.MANIFEST, indent=1), encoding="utf-8")
        _sync(path)
        share_alike(part)
        _sync(part)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        _sync(target.parent)
    except OSError as error:
        return cannot_write(part, error)
    except RunFailed as error:  # the other processes wait for what this one says
        return str(error)
    for old in sorted(target.parent.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return ""


def latest(folder: Path) -> tuple[Stored | None, list[str]]:
    """The newest whole checkpoint, if there is any, and a line for each newer one that was damaged."""
    damaged: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            manifest = door.read_object(path / seals.MANIFEST, seals.MANIFEST)
            if not seals.fits(manifest) or path.name != f"step-{manifest['step']:08d}":
                damaged.append(f"{path.name} is damaged ({seals.MANIFEST} is not what was written there)")
                continue
            seals.check_version(path, manifest.get("truing", "0.1"))
            files = {name: (digest, starts) for name, (digest, starts) in manifest["files"].items()}
            wrong = [n for n, (steps, _) in files.items() if not FILE.fullmatch(n) or file_digest(path / n) != steps]
            if not wrong:
                starts = {name: starts for name, (_, starts) in files.items()}
                return Stored(path, manifest["step"], manifest["facts"], starts), damaged
            damaged.append(f"{path.name} is damaged ({', '.join(wrong)})")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
            damaged.append(f"{path.name} cannot be read ({error})")
    if damaged:
        raise RunFailed(
            f"no checkpoint in {folder} is whole: {'; '.join(damaged)}.\n  Begin the stage anew with --restart."
        )
    return None, []


def check_room(folder: Path, model: int, trained: int, checkpoints: int) -> None:
    """Refuse to begin where the disk cannot hold what a training run will write: UserError.

    `model` is the bytes that are written at the end. `trained` is the bytes of the weights that are trained, of which a
    checkpoint with its two moments has three times as many. What lies in `folder` already counts as room.
    """
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    needed, free = model + 3 * trained * checkpoints, shutil.disk_usage(folder).free + there
    if needed > free:
        raise UserError(
            f"{folder}: training may write up to {needed / 1e9:.2f} GB (the model, and {checkpoints} checkpoints at "
            f"once), and {free / 1e9:.2f} GB are free; make room, or give an --out on another disk"
        )


@contextmanager
def room(path: Path) -> Iterator[None]:
    """Within this block, a full disk becomes a RunFailed that names `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not is_full(error):
            raise
        raise RunFailed(cannot_write(path, error)) from error


def is_full(error: Exception) -> bool:
    """True if the disk is full, or the share of it that a user has."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


def cannot_write(path: Path, error: Exception) -> str:
    """The message for a file that could not be written."""
    if is_full(error):
        return f"{path.parent}: no space left on the disk; what was whole is whole. Make room, and go on with --resume"
    return f"{path}: cannot be written ({error})"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
