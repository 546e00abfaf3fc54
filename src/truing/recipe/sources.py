"""Names that stand for something outside the recipe: data sets and models of the world, and files."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from truing import world
from truing.errors import UserError, nearest
from truing.policy.files import adapter_files
from truing.recipe import shipped
from truing.schema.type_words import words_and_doc
from truing.world import tiny

HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
HUB_LONGEST = 96
LOOKED_AT = 1000
"""Most names of a folder that are read for a hint."""
DATA_SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".gz")


def find(name: str, folder: Path | None, typed: bool = False) -> Path | None:
    """The file or folder of that name: beside the recipe, or else in the working folder; the other way round for a
    name that was typed on the command line. Rules that come with truing are there for a recipe that was copied."""
    here, beside = [Path(name)], [folder / name] if folder else []
    places = [*(here + beside if typed else beside + here), *([shipped.locate(name)] if name.endswith(".yaml") else [])]
    return next((place for place in places if os.path.exists(place)), None)


def model_trouble(name: str, references: Callable[[], Sequence[str]]) -> str:
    """Problem with a model's name that is no folder's, or empty. `references` gives references that fit."""
    if name.startswith("world:"):
        return problem_of(lambda: tiny.size(name))
    if HUB.fullmatch(name):
        return hub_trouble(name)
    return f"there is no folder '{name}'{meant(name, references())}"


def hub_trouble(name: str) -> str:
    """Reason why no model or data set of the Hub can have this name (of the form owner/name), or empty.

    >>> hub_trouble("Qwen/Qwen3--0.6B")
    "'Qwen/Qwen3--0.6B' is no folder here, and no name of the Hub has '--' in it"
    """
    no_folder = f"'{name}' is no folder here, and no name of the Hub"
    twice = next((mark for mark in ("--", "..") if mark in name), "")
    if twice:
        return f"{no_folder} has '{twice}' in it"
    if any(part[:1] in "-." or part[-1:] in "-." for part in name.split("/")):
        return f"{no_folder} has a part that begins or ends with '-' or '.'"
    return f"{no_folder} is longer than {HUB_LONGEST} characters" if len(name) > HUB_LONGEST else ""


def adapter_trouble(path: str) -> str:
    """Problem with the adapter in a folder, as far as its files show without torch; empty for any other folder."""
    folder = Path(path)
    if not adapter_files.is_adapter(folder):
        return ""
    return problem_of(lambda: adapter_files.bases(folder, adapter_files.read_config(folder)))


def data_trouble(name: str, folder: Path | None, references: Callable[[], Sequence[str]]) -> str:
    """Problem with a data set's name that is no file's, or empty. `references` gives references that fit."""
    if name.startswith(tiny.PREFIX):
        return f"'{name}' is a model, not a data set"
    if name.startswith("world:"):
        return problem_of(lambda: world.check(name))
    if name.endswith(DATA_SUFFIXES):
        return file_trouble(name, folder)
    repository, _, split = name.partition(":")
    if HUB.fullmatch(repository) and (split or ":" not in name):
        return hub_trouble(repository)
    fitting = references()
    hint = "" if f"${name}" in fitting else file_hint(name, folder)
    return f"there is no file '{name}'{hint or meant(name, fitting)}"


def file_trouble(name: str, folder: Path | None) -> str:
    """Describe a file that is neither in the working folder nor beside the recipe."""
    return f"there is no file '{name}'{file_hint(name, folder)}"


def file_hint(name: str, folder: Path | None) -> str:
    """The file that a misspelt name most likely meant, as a question; empty where none is near."""
    places = [Path(name).parent, *([folder / Path(name).parent] if folder else [])]
    there = [entry.name for place in places if os.path.isdir(place) for entry in islice(place.iterdir(), LOOKED_AT)]
    hint = nearest(Path(name).name, [entry for entry in there if not entry.startswith(".")])
    return f". Did you mean '{hint}'?" if hint else ""


def meant(name: str, references: Sequence[str]) -> str:
    """The reference that a word without $ most likely meant, or what a Hub name looks like."""
    hint = nearest(f"${name}", references)
    return f". Did you mean '{hint}'?" if hint else ", and a Hub name has the form owner/name"


def problem_of(look_up: Callable[[], object]) -> str:
    """Run a look-up and return its UserError as text, or an empty string."""
    try:
        look_up()
    except UserError as problem:
        return str(problem)
    return ""


def datasets() -> list[dict[str, Any]]:
    """The world's data sets, in the form of `truing list --json`."""
    return [
        entry(
            f"world:{name}",
            inspect.getdoc(fn) or "",
            [written(p) for p in inspect.signature(fn, eval_str=True).parameters.values()],
        )
        for name, fn in world.DATASETS.items()
    ]


def models() -> list[dict[str, Any]]:
    """The world's base models, in the form of `truing list --json`."""
    about = "A {layers}-layer model {hidden} wide, pretrained on the world's text when it is first used, and cached."
    return [entry(tiny.PREFIX + size, about.format(**spec), []) for size, spec in tiny.SIZES.items()]


def entry(name: str, doc: str, options: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of `truing list --json`."""
    return {"name": name, "source": "", "needs": [], "options": options, "doc": doc}


def written(parameter: inspect.Parameter) -> dict[str, Any]:
    """A parameter of a data set as an option."""
    required = parameter.default is parameter.empty
    default = None if required else parameter.default
    text, doc = words_and_doc(parameter.annotation)
    return {"name": parameter.name, "type": text, "default": default, "required": required, "doc": doc}
