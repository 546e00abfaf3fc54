"""A checked recipe: stages in order, their options, and references between them. Frozen, and plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Ref:
    """An output of an earlier stage: its kind (model, reward, data, findings, decision) and, of several, which."""

    kind: str
    stage: str
    part: str = ""

    def __str__(self) -> str:
        return f"${self.stage}.{self.part}" if self.part else f"${self.stage}"


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One stage of a recipe: its name, what it does, and the options that were set (defaults are not filled in)."""

    name: str
    do: str
    options: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pipeline of stages.

    `base` is a Hub name, a folder, `world:desk/small`, or a mapping that describes a new model; `production` the model
    that a release would replace, where that is another one. `expect` maps `stage.model.check` to the bounds within
    which its whole interval must lie. `chat_template_kwargs` are values that the models' chat templates take.
    `text` is the recipe with `overrides` (the command line's
    `a.b=c`) put in, `path` its file.

    >>> warm = StageSpec("warm", "sft", {"model": "world:desk/tiny", "data": "world:demonstrations"})
    >>> Recipe(title="warm up", stages=(warm,)).stage("warm").do
    'sft'
    """

    title: str
    stages: tuple[StageSpec, ...]
    seed: int = 0
    base: str | Mapping[str, Any] | None = None
    production: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    expect: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    path: str | None = None
    overrides: tuple[str, ...] = ()

    @property
    def replaced(self) -> Any:
        """The model that a release would replace: that in production, or else the base; None where there is neither."""
        return self.base if self.production is None else self.production

    @property
    def folder(self) -> Path | None:
        """Folder in which the recipe's own files are looked for first: the one it lies in."""
        return Path(self.path).parent if self.path else None

    def stage(self, name: str) -> StageSpec:
        """The stage of that name."""
        return next(spec for spec in self.stages if spec.name == name)
