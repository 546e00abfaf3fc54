"""The recipes that come with truing: run by their names, from anywhere, and shown to be copied."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from truing.errors import UserError, unknown

PACKAGE = Path(__file__).parent.parent


def folder() -> Path:
    """Folder of the shipped recipes: in the package, or beside the source that an editable installation reads."""
    inside = PACKAGE / "recipes"
    return inside if inside.is_dir() else PACKAGE.parent.parent / "recipes"


def recipes() -> dict[str, Path]:
    """Every recipe by its name; files of rules for gates are none."""
    return {path.stem: path for path in files() if "\nstages:" in path.read_text(encoding="utf-8")}


def files() -> list[Path]:
    """The recipes and the files of rules that they name."""
    return sorted(folder().glob("*.yaml"))


def locate(name: str | Path) -> Path:
    """Locate a file by its own path, or else the one that comes with truing and has its name: `quickstart`,
    `quickstart.yaml`, `recipes/quickstart.yaml`. What is neither is given back as it is."""
    path = Path(name)
    if os.path.exists(path) or str(path.parent) not in (".", "recipes"):
        return path
    return next((file for file in files() if path.name in (file.stem, file.name)), path)


def text(name: str) -> str:
    """A recipe as it is written. UserError for a name that none has."""
    path = {file.stem: file for file in files()}.get(name.removesuffix(".yaml"))
    if path is None:
        raise UserError(unknown("recipe", name, recipes()))
    return path.read_text(encoding="utf-8").rstrip()


def rows() -> list[dict[str, Any]]:
    """The recipes in the form of `truing list --json`; what each is for stands in its first lines."""
    return [
        {"name": name, "source": "", "needs": [], "options": [], "doc": heading(path)}
        for name, path in recipes().items()
    ]


def heading(path: Path) -> str:
    """The comment that a recipe begins with, up to the command that runs it."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.removeprefix("#").strip()
        if not line.startswith("#") or words.startswith("truing "):
            break
        lines.append(words)
    return " ".join(lines).rstrip(":;")
