"""Names that stand for something outside the recipe: data sets and models of the world, and files."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from truing.errors import UserError, nearest, unknown
from truing.registry import type_words

MODEL_PREFIX = "world:desk/"
DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".gz")


def model_trouble(name: str) -> str:
    """What is wrong with a model's name, or an empty string. Hub names and folders are not looked up."""
    if not name.startswith("world:"):
        return "" if not name.startswith((".", "/")) or Path(name).exists() else f"there is no folder '{name}'"
    from truing.world import tiny

    models = [MODEL_PREFIX + size for size in tiny.SIZES]
    return "" if name in models else unknown("model", name, models)


def data_trouble(name: str, folder: Path | None) -> str:
    """What is wrong with a data set's name, or an empty string."""
    if name.startswith("world:"):
        return world_trouble(name)
    if not name.endswith(DATA_SUFFIXES) and not name.startswith((".", "/")):
        return ""
    return file_trouble(name, folder)


def file_trouble(name: str, folder: Path | None) -> str:
    """What to say of a file that is neither in the working folder nor beside the recipe, or an empty string."""
    if found_file(name, folder) is not None:
        return ""
    places = [Path(name).parent, *([folder / Path(name).parent] if folder else [])]
    there = [entry.name for place in places if place.is_dir() for entry in place.iterdir()]
    hint = nearest(Path(name).name, there)
    return f"there is no file '{name}'" + (f". Did you mean '{hint}'?" if hint else "")


def found_file(name: str, folder: Path | None) -> Path | None:
    """The file of that name in the working folder or else beside the recipe, or None."""
    places = [Path(name), *([folder / name] if folder else [])]
    return next((place for place in places if place.exists()), None)


def world_trouble(name: str) -> str:
    """What is wrong with `world:NAME?option=value&...`, or an empty string."""
    from truing import world

    if name.startswith(MODEL_PREFIX):
        return f"'{name}' is a model, not a data set"
    try:
        world.check(name)
    except UserError as problem:
        return str(problem)
    return ""


def datasets() -> list[dict[str, Any]]:
    """The world's data sets, in the form of `truing list --json`."""
    from truing import world

    return [
        entry(
            f"world:{name}", inspect.getdoc(fn) or "", [written(p) for p in inspect.signature(fn).parameters.values()]
        )
        for name, fn in world.DATASETS.items()
    ]


def models() -> list[dict[str, Any]]:
    """The world's base models, in the form of `truing list --json`."""
    from truing.world import tiny

    about = "A {layers}-layer model {hidden} wide, pretrained on the world's text when it is first used, and cached."
    return [entry(MODEL_PREFIX + size, about.format(**spec), []) for size, spec in tiny.SIZES.items()]


def entry(name: str, doc: str, options: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of `truing list --json`."""
    return {"name": name, "source": "", "needs": [], "options": options, "doc": doc}


def written(parameter: inspect.Parameter) -> dict[str, Any]:
    """A parameter of a data set as an option."""
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    return {"name": parameter.name, "type": type_words(parameter.annotation), "default": default, "required": required}
