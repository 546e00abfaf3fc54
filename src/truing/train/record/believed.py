"""Files that a resumed stage trusts beside its checkpoint: rounds, evaluations, metrics, weights set aside.

A checkpoint holds their hashes, as they were when it was written. Whatever a kill cut off came later, and is done
again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from truing import seals
from truing.errors import RunFailed

GROWING = ("metrics.jsonl", "monitor.jsonl")
"""Files that a line is added to with every update or evaluation: of these, all that was there."""
ASIDE = ("best", "references")
"""Folders of weights by update, of which a resume reads the newest that are no newer than its checkpoint."""


def listed(folder: Path, step: int) -> dict[str, list[Any]]:
    """The size and SHA-256 of all that a resume from update `step` will believe, by its name in the stage's folder."""
    return {
        path.relative_to(folder).as_posix(): [path.stat().st_size, seals.file_hash(path)] for path in of(folder, step)
    }


def of(folder: Path, step: int) -> Iterator[Path]:
    """The files themselves."""
    yield from (folder / name for name in GROWING if (folder / name).is_file())
    yield from sorted(folder.glob("rollouts/round-*.parquet"))
    for name in ASIDE:
        weights = [path for path in folder.glob(f"{name}/step-*.safetensors") if int(path.stem[5:]) <= step]
        yield from sorted(weights)[-1:]


def check(folder: Path, believed: Mapping[str, Any], step: int) -> None:
    """RunFailed where a file is missing, or is not what it was when the checkpoint of update `step` was written."""
    for name, (size, hashes) in believed.items():
        path = folder / name
        now = beginning(path, size) if name in GROWING else whole(path, size)
        if now != hashes:
            raise RunFailed(
                f"{path}: was changed, or removed, after the checkpoint of update {step} was written: it had {size} "
                f"bytes, sha256 {hashes[:12]}.\n"
                "  Put the file back, or begin the stage anew with --restart."
            )


def whole(path: Path, size: int) -> str:
    """The hash of a file of this size; empty where there is none."""
    return seals.file_hash(path) if path.is_file() and path.stat().st_size == size else ""


def beginning(path: Path, size: int) -> str:
    """The hash of the first `size` bytes of a file; empty where it has fewer."""
    if not path.is_file() or path.stat().st_size < size:
        return ""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()
