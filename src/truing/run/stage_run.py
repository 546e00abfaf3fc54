"""A stage's view of the run it is in: its folder, and the models, data and findings that the recipe names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from truing import door, seals, world
from truing.data.formats import loading
from truing.data.formats.conventions import Want
from truing.disk import write_json
from truing.errors import DataError, UserError, one_line
from truing.gate import evidence
from truing.policy.files.folder_digest import model_digest
from truing.recipe import model_labels
from truing.recipe.references import Recipe, Ref
from truing.records import Records
from truing.run.console import Show


@dataclass
class StageRun:
    """One stage at work. `folder` is its own; `root` the run's; `key` is what its checkpoints are tied to; `read` the
    content hash of every data set it read (each once), `models` that of every model, by its place; `accounts` what
    became of their rows, for its summary. `leads` is false on every rank but 0: those only train, and write nothing.
    """

    recipe: Recipe
    name: str
    do: str
    root: Path
    key: str
    show: Show
    leads: bool = True
    read: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    accounts: list[str] = field(default_factory=list)
    _loaded: dict[str, Records] = field(default_factory=dict, repr=False)

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
            folder = self.stage(value) / "model"
            self.models[f"{value.stage}/model"] = model_digest(str(folder))
            return str(folder)
        from truing.train.distributed import process_group

        place = process_group.lead(lambda: self.base_model(value))
        name = value if isinstance(value, str) else Path(place).name
        self.models[name] = model_digest(place) if Path(place).is_dir() else ""  # the Hub's is not fetched yet
        return place

    def base_model(self, value: Any) -> str:
        """The folder or Hub name of what stands under `base`: a name, or the description of a new model."""
        from truing.run import base_models  # which needs torch

        return base_models.resolve(value, root=self.root, seed=self.seed, records=self.records, show=self.show)

    def stage(self, ref: Ref) -> Path:
        """The folder of an earlier stage; UserError where its files are not what it left."""
        folder = self.root / ref.stage
        seals.check_stage(folder)
        return folder

    def labels(self, models: Sequence[Any], taken: Sequence[str] = ()) -> list[str]:
        """Names of models in findings: short, and apart from each other."""
        return model_labels.labels(models, self.recipe.base, taken)

    def records(
        self,
        value: Any,
        on_bad_row: str = "error",
        want: Want = "any",
        columns: Mapping[str, str] | None = None,
        *,
        keep: bool = False,
    ) -> Records:
        """A data set: a part of a split, a file (whose columns may be called otherwise), a Hub name or the world's.
        With `keep` other columns of a file's rows stay with them, for rewards that read them."""
        key = repr((value, on_bad_row, want, columns, keep))  # an exam asks for what several models learned from
        if key not in self._loaded:
            self._loaded[key] = self._records(value, on_bad_row, want, columns, keep)
            self._account_for_columns(self._loaded[key])
        records = self._loaded[key]
        self.read[records.name] = records.digest
        return records

    def _account_for_columns(self, records: Records) -> None:
        """Report once what became of the columns of a file that no convention names."""
        for note in records.columns:
            line = one_line(f"{records.name}: {note.text}")
            if line not in self.accounts:
                self.accounts.append(line)
                self.show.say(f"  {line}")

    def _records(
        self, value: Any, on_bad_row: str, want: Want, columns: Mapping[str, str] | None, keep: bool = False
    ) -> Records:
        if isinstance(value, Ref):
            return self._left(value, on_bad_row, want, keep)
        if value.startswith("world:"):
            return world.records(value)
        return loading.load(value, on_bad_row=on_bad_row, want=want, columns=columns, keep=keep)  # type: ignore[arg-type]

    def rollouts(self, value: Any) -> Path | None:
        """The folder of the rollouts that a reference names: those of a `sample` stage, or a stage's `.rollouts`."""
        if not isinstance(value, Ref) or (self.root / value.stage / "split.json").is_file():
            return None
        folder = self.stage(value) / (value.part or "rollouts")
        return folder if folder.is_dir() else None

    def _left(self, ref: Ref, on_bad_row: str, want: Want, keep: bool) -> Records:
        """Read the data that a stage left: the parts of a split, rollouts, or rows of its own (data.jsonl)."""
        folder = self.rollouts(ref)
        if folder is not None:
            from truing.rollout import stored

            rollouts = stored.of_rollouts(sorted(folder.glob("round-*.parquet")))
            return stored.as_records(rollouts, f"{ref.stage}/{folder.name}")
        file = self.stage(ref) / "data.jsonl"
        if not file.is_file():
            return self._part(ref, keep)
        records = loading.load(str(file), on_bad_row=on_bad_row, want=want, keep=keep)  # type: ignore[arg-type]
        return replace(
            records, name=f"{ref.stage}/{file.name}", columns=()
        )  # columns that a stage wrote beside are for people

    def _part(self, ref: Ref, keep: bool) -> Records:
        stored = door.read_object(self.stage(ref) / "split.json", most=door.LOG_BYTES)
        data = stored["data"]
        named = Ref(**data) if isinstance(data, dict) else data
        whole = self._records(named, stored["on_bad_row"], stored.get("read", "any"), stored["columns"])
        if whole.digest != stored["digest"]:
            raise DataError(whole.name, "has changed since it was split", "Run the recipe again without --resume.")
        self._account_for_columns(whole)
        if keep:  # the columns play no part in what was divided
            whole = self._records(named, stored["on_bad_row"], stored.get("read", "any"), stored["columns"], keep)
        place = {row: i for i, row in enumerate(whole.rows)}
        return whole.subset([place[row] for row in stored[ref.part]], f"{whole.name} ({ref.part})")

    def evidence(self, value: Any) -> evidence.Evidence:
        """Evidence of an evaluate stage, of a JSON file, or of both and more in a list; each finding once."""
        if isinstance(value, list | tuple):
            return evidence.joined([self.evidence(item) for item in value])
        if isinstance(value, Ref):
            return evidence.of_stage(self.root / value.stage)
        read = evidence.read(Path(value))
        for place, expected in read.about.get("models", {}).items():
            folder = self.root / place
            if not Path(place).is_absolute() and folder.is_dir() and model_digest(str(folder)) != expected:
                raise UserError(
                    f"{value}: is about another '{place}' than this recipe's; give evidence measured on this one"
                )
        return read

    def note(self, text: str) -> None:
        """Print a note and keep it for the stage's summary; each note once, and an empty one never."""
        if text and text not in self.accounts:
            self.accounts.append(text)
            self.show.say(f"  {text}")

    def write(self, name: str, value: Any) -> None:
        """Write JSON into the stage's folder, whole or not at all."""
        if self.leads:
            write_json(self.folder / name, value)
