"""Names of models in findings: short, and apart from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from truing.errors import UserError
from truing.recipe.references import Ref


def labels(models: Sequence[Any], base: Any, taken: Sequence[str] = ()) -> list[str]:
    """One name for each model: its stage, `base`, or as much of the end of its folder or Hub name as tells it apart.

    `taken` are names that mean something else. Two spellings of one folder, and a stage called by a taken name, are
    errors: their findings could not be distinguished.

    >>> labels([Ref("model", "warm"), "x/new", "run1/direct/model", "run2/direct/model"], base="x/new")
    ['warm', 'base', 'run1/direct', 'run2/direct']
    """
    names = [NEW if is_new(value) and value != base else _stage_or_base(value, base) for value in models]
    if len({str(value) for value, name in zip(models, names, strict=True) if name == NEW}) > 1:
        raise UserError(f"two models are called '{NEW}' in findings and cannot be told apart: measure one of them")
    fixed = {*taken, *filter(None, names)}
    clash = next((name for name in names if name in taken), None)
    if clash is not None:
        raise UserError(f"a stage called '{clash}' cannot be told from the {clash} in findings; call it something else")
    paths = {value: _parts(value) for value, name in zip(models, names, strict=True) if not name}
    named = {value: _shortest(value, paths, fixed) for value in paths}
    return [name or named[value] for value, name in zip(models, names, strict=True)]


LOOKUP = "lookup"
"""Name of the world's template look-up in findings, which is no model."""
NEW = "new"
"""Name of a model that is made for the measurement alone."""


def _stage_or_base(model: Any, base: Any) -> str:
    return model.stage if isinstance(model, Ref) else "base" if model == base else ""


def is_new(model: Any) -> bool:
    """True if a model is one to be made (`{new: llama}`), which no folder gives a name."""
    return isinstance(model, Mapping)


def best_of(name: str, n: int | str) -> str:
    """Name of the best of `n` responses of a model in findings; of a curve over all n, `n` is the letter.

    >>> best_of("warm", 8)
    'warm best of 8'
    """
    return f"{name} best of {n}"


def _parts(name: str) -> tuple[str, ...]:
    """The words of a folder or Hub name; a run keeps a stage's model in its folder `model`."""
    parts = PurePosixPath(name).parts
    return parts[:-1] if len(parts) > 1 and parts[-1] == "model" else parts


def _shortest(name: str, paths: dict[str, tuple[str, ...]], fixed: set[str]) -> str:
    path, others = paths[name], {other: parts for other, parts in paths.items() if other != name}
    for count in range(1, len(path) + 1):
        end, whole = path[-count:], count == len(path)
        text = "/".join(end).replace("//", "/")
        alike = [parts for parts in others.values() if parts[-count:] == end]
        if text not in fixed and (path not in alike if whole else not alike):
            return text
    same = next((f"model '{other}'" for other, parts in others.items() if parts == path), f"stage '{text}'")
    raise UserError(f"model '{name}' and {same} cannot be told apart in findings: name one by another path")
