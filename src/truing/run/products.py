"""The products of a stage: the file in which each thing that a stage gives is looked for by those after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from truing import seals
from truing.errors import RunFailed
from truing.gate.evidence import FINDINGS

LEFT: dict[str, tuple[str, ...]] = {
    "model": ("model",),
    "reward": ("model",),
    "data": ("data.jsonl", "split.json", "rollouts"),
    "findings": (FINDINGS,),
    "decision": (seals.DECISION,),
    "file": (),
}
"""The names of files and folders of which a stage leaves one, by what it gives."""


def check_products(gives: str, parts: Sequence[str], folder: Path, place: str) -> None:
    """RunFailed where a stage (`place`: a user's own file and function, or its name) left nothing that later ones find:
    they would fail on it, far from the cause. Data in `parts` may lie in a folder of rollouts each."""
    names = LEFT[gives]
    apart = bool(parts) and all((folder / part).is_dir() for part in parts)
    if names and not apart and not any((folder / name).exists() for name in names):
        raise RunFailed(
            f"{place}: gives {gives}, and left no {' or '.join(names)} in {folder}. Write it there, or say "
            "@stage(gives='file'), which later stages do not read"
        )
