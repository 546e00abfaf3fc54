"""Several processes train together only on the same recipe, data, code and versions: held against the first's."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from truing import registry
from truing.errors import TruingError, UserError
from truing.pipeline.plan import changes, parts_of
from truing.pipeline.spec import Recipe
from truing.types import digest

PACKAGES = ("truing", "torch", "transformers", "tokenizers", "numpy", "safetensors")


def check(recipe: Recipe) -> None:
    """UserError on every rank where one has another recipe, other data, code or versions than the first one."""
    from truing.train import parallel

    if parallel.world() == 1:
        return
    try:
        own: dict[str, Any] = {"problem": "", **identity(recipe)}
    except (TruingError, OSError) as problem:
        own = {"problem": str(problem)}
    first, *others = map(json.loads, parallel.gathered(json.dumps(own)))
    for rank, other in enumerate([first, *others]):
        if other["problem"]:
            raise UserError(f"rank {rank}: {other['problem']}")
        if apart := difference(first, other):
            raise UserError(
                f"rank {rank} would train with something else than rank 0: {apart}.\n"
                "  Give every process the same recipe, data, code and packages."
            )


def identity(recipe: Recipe) -> dict[str, Any]:
    """What a process would train with: its versions, and of every stage the options, what they name, and the code."""
    keys: dict[str, str] = {}
    stages: dict[str, Any] = {}
    for spec in recipe.stages:
        stages[spec.name] = parts_of(recipe, spec, registry.resolve(spec.do, "stage", recipe.folder), keys)
        keys[spec.name] = digest(stages[spec.name])
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    return {"versions": versions, "stages": json.loads(json.dumps(stages)), "keys": keys}


def difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The first thing in which two processes differ, in words; empty where there is none.

    >>> same = {"versions": {"torch": "2"}, "stages": {}, "keys": {}}
    >>> difference(same, same), difference(same, same | {"versions": {"torch": "1"}})
    ('', 'torch is 2 there and 1 here')
    """
    for name, known in first["versions"].items():
        if other["versions"].get(name) != known:
            return f"{name} is {known} there and {other['versions'].get(name)} here"
    if list(first["stages"]) != list(other["stages"]):
        return f"its stages are {', '.join(other['stages'])}, and not {', '.join(first['stages'])}"
    for name, parts in first["stages"].items():
        if sentences := list(changes(parts, other["stages"][name]).values()):
            return f"stage '{name}': {sentences[0]}"
        if first["keys"][name] != other["keys"][name]:  # what is said holds no keys, and so may be the same
            return f"stage '{name}'"
    return ""
