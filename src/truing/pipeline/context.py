"""What a stage can ask of the run it is in: its folder, and the things other stages and the recipe name."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from truing import registry, world
from truing.data import formats
from truing.errors import DataError, UserError
from truing.pipeline.recipe import Recipe, Ref
from truing.pipeline.show import Show
from truing.types import Finding, Records


@dataclass
class StageRun:
    """One stage at work. `folder` is its own; `root` the run's."""

    recipe: Recipe
    name: str
    do: str
    root: Path
    key: str
    show: Show

    @property
    def folder(self) -> Path:
        """This stage's folder."""
        return self.root / self.name

    @property
    def seed(self) -> int:
        """The recipe's seed, from which a stage's own seed is counted."""
        return self.recipe.seed

    def model(self, value: Any) -> str:
        """The folder or Hub name of a model: of an earlier stage, of the world (made on first use), or as named."""
        if isinstance(value, Ref):
            return str(self.root / value.stage / "model")
        from truing.pipeline import base

        return base.resolve(value, self)

    def gives(self, stage: str) -> str:
        """What an earlier stage gives: model, reward, data, findings, decision."""
        do = next(spec.do for spec in self.recipe.stages if spec.name == stage)
        return registry.resolve(do, "stage", Path(self.recipe.path).parent if self.recipe.path else None).gives

    def label(self, value: Any) -> str:
        """What a model is called in findings: its stage, or `base`."""
        return value.stage if isinstance(value, Ref) else "base"

    def records(self, value: Any, on_bad_row: str = "error") -> Records:
        """A data set: a part of a split, a file, a Hub name or one of the world's."""
        if isinstance(value, Ref):
            return self._part(value)
        if value.startswith("world:"):
            return world.records(value)
        return formats.load(value, on_bad_row=on_bad_row)  # type: ignore[arg-type]

    def _part(self, ref: Ref) -> Records:
        stored = json.loads((self.root / ref.stage / "split.json").read_text(encoding="utf-8"))
        whole = self.records(stored["data"], stored["on_bad_row"])
        if whole.digest != stored["digest"]:
            raise DataError(stored["data"], "has changed since it was split", "Run the recipe again without --resume.")
        place = {row: i for i, row in enumerate(whole.rows)}
        return whole.subset([place[row] for row in stored[ref.part]], f"{whole.name} ({ref.part})")

    def findings(self, value: Any) -> list[Finding]:
        """What an evaluate stage found."""
        stored = json.loads((self.root / value.stage / "findings.json").read_text(encoding="utf-8"))
        return [
            Finding(**{**row, "interval": tuple(row["interval"]) if row["interval"] else None})
            for row in stored["findings"]
        ]

    def file(self, name: str) -> Path:
        """A file named in the recipe: beside the recipe, or from the working directory."""
        places = [Path(name)] if self.recipe.path is None else [Path(self.recipe.path).parent / name, Path(name)]
        for place in places:
            if place.exists():
                return place
        raise UserError(f"{self.recipe.path}: stage {self.name} names the file {name}, which is not there")

    def write(self, name: str, value: Any) -> None:
        """Write JSON into the stage's folder, whole or not at all."""
        write_json(self.folder / name, value)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    part.replace(path)


def cache_folder() -> Path:
    """Where pretrained world models are kept: TRUING_CACHE, or ~/.cache/truing."""
    return Path(os.environ.get("TRUING_CACHE", "") or Path.home() / ".cache" / "truing")


def data_summary(records: Records) -> Mapping[str, Any]:
    """What a report shows of a data set: rows read and used, and what was odd."""
    return formats.summary(records)
