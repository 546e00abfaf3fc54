"""Checkpoints: tensors in safetensors, scalars in JSON, a hash of each file; whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from truing.errors import RunFailed

KEPT = 2


def save(folder: Path, step: int, tensors: Mapping[str, Mapping[str, torch.Tensor]], facts: Mapping[str, Any]) -> None:
    """Write `folder/step-N`: every group of tensors as one file. Older checkpoints but one are then removed."""
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / f"step-{step:08d}", folder / f".part-{step:08d}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    hashes = {}
    for name, group in tensors.items():
        path = part / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in group.items()}, path)
        _sync(path)
        hashes[path.name] = file_digest(path)
    manifest = part / "manifest.json"
    manifest.write_text(json.dumps({"step": step, "files": hashes, "facts": dict(facts)}, indent=1), encoding="utf-8")
    _sync(manifest)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    _sync(folder)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def latest(folder: Path) -> tuple[int, dict[str, dict[str, torch.Tensor]], dict[str, Any], list[str]] | None:
    """The newest whole checkpoint: its step, tensors and facts, and a line for each newer one that was damaged."""
    damaged: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            wrong = [n for n, known in manifest["files"].items() if file_digest(path / n) != known]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            damaged.append(f"{path.name} cannot be read ({error})")
            continue
        if wrong:
            damaged.append(f"{path.name} is damaged ({', '.join(wrong)})")
            continue
        tensors = {Path(n).stem: load_file(path / n) for n in manifest["files"]}
        return manifest["step"], tensors, manifest["facts"], damaged
    if damaged:
        raise RunFailed(f"no checkpoint in {folder} is whole: " + "; ".join(damaged))
    return None


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
