"""The products of a stage: the file in which each thing that a stage gives is looked for by those after it."""

from __future__ import annotations

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


def check_products(gives: str, folder: Path, place: str) -> None:
    """RunFailed where a stage (`place`: a user's own file and function, or its name) left nothing that later ones find:
    they would fail on it, far from the cause."""
    names = LEFT[gives]
    if names and not any((folder / name).exists() for name in names):
        raise RunFailed(
            f"{place}: gives {gives}, and left no {' or '.join(names)} in {folder}. Write it there, or say "
            "@stage(gives='file'), which later stages do not read"
        )
