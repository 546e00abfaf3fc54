"""Agreement of the processes that train together: recipe, data, code and versions of each are compared with rank
0's."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from truing import registry
from truing.errors import TruingError, UserError
from truing.recipe.references import Recipe
from truing.records import digest
from truing.run.plan import HARMLESS, changes, parts_of, plain

if TYPE_CHECKING:
    from torch import nn

    from truing.data.batch import Tree
    from truing.policy.policy import Policy

PACKAGES = (
    "truing", "torch", "transformers", "tokenizers", "numpy", "safetensors", "peft", "pyarrow", "jinja2", "accelerate",
)  # fmt: skip


def check(recipe: Recipe) -> None:
    """UserError on every rank where one has another recipe, other data, code or versions than rank 0."""
    from truing.train.distributed import process_group

    if process_group.world() == 1:
        return
    try:
        mine: dict[str, Any] = {"problem": "", **identity(recipe)}
    except (TruingError, OSError) as problem:
        mine = {"problem": str(problem)}
    compare(mine, difference)


def check_content(name: str, policy: Policy, trees: Sequence[Tree]) -> None:
    """UserError on every rank where a stage's model or rows are not the same on all, once they are there: two machines
    may hold different ones under one name of the Hub."""
    from truing.train.distributed import process_group

    if process_group.world() == 1:
        return
    rows = hashlib.sha256()
    for tree in trees:
        rows.update(repr(tree).encode())
    what = {"weights": fingerprint(policy.model), "rows, or the tokens that they become": rows.hexdigest()}
    compare({"problem": "", **what}, lambda first, other: next((f"stage '{name}': its {part}" for part in what
                                                                if first[part] != other[part]), ""))  # fmt: skip


def compare(mine: dict[str, Any], apart: Callable[[dict[str, Any], dict[str, Any]], str]) -> None:
    """Compare every rank's facts with those of rank 0; UserError on all ranks where one has a problem, or `apart` finds
    a difference."""
    from truing.train.distributed import process_group

    first, *others = map(json.loads, process_group.gathered(json.dumps(mine)))
    for rank, other in enumerate([first, *others]):
        if other["problem"]:
            raise UserError(f"rank {rank}: {other['problem']}")
        if words := apart(first, other):
            raise UserError(
                f"rank {rank} would train with something else than rank 0: {words}.\n"
                "  Give every process the same recipe, data, code and packages."
            )


def fingerprint(module: nn.Module) -> list[Any]:
    """Name, shape and the sum of the bits of every tensor: exact on every processor, and as fast as memory is."""
    import torch

    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return [
        [name, list(tensor.shape), int(tensor.detach().contiguous().view(whole[tensor.element_size()]).sum().item())]
        for name, tensor in sorted(module.state_dict().items())
    ]


def identity(recipe: Recipe) -> dict[str, Any]:
    """Facts of a process that must agree: its versions, and of every stage the options, what they name, and the
    code."""
    keys: dict[str, str] = {}
    stages: dict[str, Any] = {}
    for spec in recipe.stages:
        stages[spec.name] = parts_of(recipe, spec, registry.resolve(spec.do, "stage", recipe.folder), keys)
        # They change no result, and yet how many collectives a rank takes part in.
        stages[spec.name]["options"] |= {n: plain(v) for n, v in spec.options.items() if n in HARMLESS}
        keys[spec.name] = digest(stages[spec.name])
    versions = {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES}
    return {"versions": versions, "stages": json.loads(json.dumps(stages)), "keys": keys}


def installed(package: str) -> str:
    """The version of a package, or that it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def difference(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """First difference between two processes, in words; empty where there is none.

    >>> same = {"versions": {"torch": "2"}, "stages": {}, "keys": {}}
    >>> difference(same, same), difference(same, same | {"versions": {"torch": "1"}})
    ('', 'torch is 2 there and 1 here')
    """
    for name, expected in first["versions"].items():
        if other["versions"].get(name) != expected:
            return f"{name} is {expected} there and {other['versions'].get(name)} here"
    if list(first["stages"]) != list(other["stages"]):
        return f"its stages are {', '.join(other['stages'])}, and not {', '.join(first['stages'])}"
    for name, parts in first["stages"].items():
        if sentences := list(changes(parts, other["stages"][name]).values()):
            return f"stage '{name}': {sentences[0]}"
        if first["keys"][name] != other["keys"][name]:  # the sentences hold no keys, and so may be the same
            return f"stage '{name}'"
    return ""
