"""What a model learned from: in its own stage, in those that its weights came through before, in this run or another,
and what those learned from whose rewards taught it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from truing.data import split as splitting
from truing.data.likeness import Print, fingerprint
from truing.policy.files.lineage import Learned, Lineage, read
from truing.recipe.references import Ref
from truing.recipe.reward_spec import GOLD
from truing.registry import Columns
from truing.run.stage_run import StageRun
from truing.types import Judgement, Records


def verdicts(run: StageRun, model: Any) -> list[Records]:
    """What a model's own stage learned from, and of the stages before it the verdicts alone: a demonstration that it
    once saw of the same prompt has not told it which of two other answers is the better one."""
    if isinstance(model, list | tuple):
        return [records for one in model for records in verdicts(run, one)]
    if not isinstance(model, Ref) or model.stage == "base":
        return []
    options = run.recipe.stage(model.stage).options
    before = learned(run, options.get("model"))
    return by_stage(run, options) + [r for r in before if any(isinstance(x, Judgement) for x in r.records[:1])]


def learned(run: StageRun, model: Any) -> list[Records]:
    """What a model of this recipe learned from, that of its last stage first: rows, prompts that it answered, and with
    `patience` those its best weights were chosen by. Of a list of models all of it. What a model from elsewhere
    learned from is not known."""
    if isinstance(model, list | tuple):
        return [records for one in model for records in learned(run, one)]
    found: list[Records] = []
    while isinstance(model, Ref) and model.stage != "base":
        options = run.recipe.stage(model.stage).options
        found += by_stage(run, options)
        model = options.get("model")
    return found


def rewarded(run: StageRun, model: Any) -> list[Any]:
    """The rewards that a model of this recipe was trained on, however many stages ago: named by its stages, or by those
    that judged the answers it learned from, and with `patience` what its best weights were chosen by."""
    found: list[Any] = []
    while isinstance(model, Ref) and model.stage != "base":
        options = run.recipe.stage(model.stage).options
        found.append(options.get("rewards"))
        if options.get("patience") is not None:
            found.append(options.get("watch"))
        data = options.get("data")
        if isinstance(data, Ref):
            found.append(run.recipe.stage(data.stage).options.get("rewards"))
        model = options.get("model")
    return [reward for reward in found if reward is not None]


def by_stage(run: StageRun, options: Mapping[str, Any]) -> list[Records]:
    """What one stage learned from."""
    on_bad_row, columns = options.get("on_bad_row", "error"), options.get("columns")
    found = []
    if options.get("prompts") is not None:  # it learned from its own answers to these
        found.append(run.records(options["prompts"], on_bad_row, want="prompts", columns=columns))
    if options.get("patience") is not None and options.get("watch_prompts") is not None:
        found.append(run.records(options["watch_prompts"], want="prompts"))
    if options.get("data") is not None:
        found.append(taught_from(run, options["data"], options.get("without"), on_bad_row, columns))
    if options.get("pretrain") is not None:
        found.append(run.records(options["pretrain"]))
    return found


def taught_from(run: StageRun, data: Any, without: Any, on_bad_row: str, columns: Columns | None) -> Records:
    """What a stage learns from: its data, less the rows that ask what one of `without` asks."""
    records = run.records(data, on_bad_row, columns=columns)
    return records if without is None else splitting.without(records, run.records(without, want="prompts"))


def of_stage(run: StageRun) -> Lineage:
    """The lineage of the model that this stage has trained: its own data, its base's, and its teachers'."""
    options = run.recipe.stage(run.name).options
    own = tuple(as_learned(run, records) for records in by_stage(run, options) if len(records))
    teachers = teachers_of(rewarded(run, Ref("model", run.name)))
    return Lineage(own).before(*lineages(run, [options.get("model"), *teachers]))


def as_learned(run: StageRun, records: Records) -> Learned:
    """A data set of a stage as its model's lineage names it."""
    verdicts = any(isinstance(record, Judgement) for record in records.records[:1])
    return Learned("", run.root.name, run.name, Path(records.name).name, verdicts, fingerprint(records))


def lineages(run: StageRun, named: Any) -> list[Lineage]:
    """The lineage of a model, or of each of several, as its folder tells it."""
    if isinstance(named, list | tuple):
        return [lineage for model in named for lineage in lineages(run, model)]
    if named is None or named == GOLD:
        return []
    folder = run.root / named.stage / "model" if isinstance(named, Ref) and named.stage != "base" else None
    return [read(str(folder) if folder is not None else run.base_model(named))]


def prints(run: StageRun, named: Any) -> list[Print]:
    """What models learned from, and those that taught them."""
    return [learned.prints for lineage in lineages(run, named) for learned in lineage.learned]


def verdict_prints(run: StageRun, named: Any) -> list[Print]:
    """What told models which of two responses is better, as `verdicts` has it, in this run or before."""
    return [known for lineage in lineages(run, named) for known in lineage.verdicts()]


def judging(named: Any) -> list[Any]:
    """The models in what a recipe calls a judge."""
    if isinstance(named, Mapping):
        return teachers_of(named)
    return list(named) if isinstance(named, list | tuple) else [named]


def teachers_of(spec: Any) -> list[Any]:
    """The models in what a recipe calls rewards: stages wherever they stand, and what `model` and `models` name."""
    if isinstance(spec, Ref):
        return [spec]
    if isinstance(spec, Mapping):
        strings = [part for key, value in spec.items() if key in ("model", "models") for part in texts(value)]
        return strings + [model for value in spec.values() for model in teachers_of(value)]
    return [model for part in spec for model in teachers_of(part)] if isinstance(spec, list | tuple) else []


def texts(value: Any) -> list[str]:
    """A text, or the texts of a list."""
    return [part for part in (value if isinstance(value, list | tuple) else [value]) if isinstance(part, str)]
