"""Lineage of a model: the data it learned from in its own stage and in those that its weights came through before, in
this run or another, and the data of the models whose rewards taught it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from truing.data import split as splitting
from truing.data.likeness import Print, fingerprint
from truing.policy.files.lineage import Learned, Lineage, read
from truing.recipe.references import Ref
from truing.recipe.reward_spec import GOLD
from truing.records import Judgement, Records
from truing.registry import Columns
from truing.run.stage_run import StageRun


def verdicts(run: StageRun, model: Any) -> list[Records]:
    """Data of a model's own stage, and of the stages before it the verdicts alone: a demonstration to the same prompt
    does not teach which of two other responses is the better one."""
    if isinstance(model, list | tuple):
        return [records for member in model for records in verdicts(run, member)]
    if not isinstance(model, Ref) or model.stage == "base":
        return []
    options = run.recipe.stage(model.stage).options
    before = learned(run, options.get("model"))
    return by_stage(run, options) + [r for r in before if any(isinstance(x, Judgement) for x in r.records[:1])]


def learned(run: StageRun, model: Any) -> list[Records]:
    """Data that a model of this recipe learned from, its last stage's first: rows, prompts that it answered, and with
    `patience` those its best weights were chosen by. For a list of models all of it. The data of a model from elsewhere
    are unknown."""
    if isinstance(model, list | tuple):
        return [records for member in model for records in learned(run, member)]
    sources: list[Records] = []
    while isinstance(model, Ref) and model.stage != "base":
        options = run.recipe.stage(model.stage).options
        sources += by_stage(run, options)
        model = options.get("model")
    return sources


def rewarded(run: StageRun, model: Any) -> list[Any]:
    """The rewards that a model of this recipe was trained on, however many stages ago: named by its stages, or by those
    that judged the responses it learned from, and with `patience` what its best weights were chosen by."""
    rewards: list[Any] = []
    while isinstance(model, Ref) and model.stage != "base":
        options = run.recipe.stage(model.stage).options
        rewards.append(options.get("rewards"))
        if options.get("patience") is not None:
            rewards.append(options.get("monitor"))
        data = options.get("data")
        if isinstance(data, Ref):
            rewards.append(run.recipe.stage(data.stage).options.get("rewards"))
        model = options.get("model")
    return [reward for reward in rewards if reward is not None]


def by_stage(run: StageRun, options: Mapping[str, Any]) -> list[Records]:
    """Data that one stage learned from."""
    on_bad_row, columns = options.get("on_bad_row", "error"), options.get("columns")
    sources = []
    if options.get("prompts") is not None:  # it learned from its own responses to these
        sources.append(run.records(options["prompts"], on_bad_row, want="prompts", columns=columns))
    if options.get("patience") is not None and options.get("monitor_prompts") is not None:
        sources.append(run.records(options["monitor_prompts"], want="prompts"))
    if options.get("data") is not None:
        sources.append(taught_from(run, options["data"], options.get("without"), on_bad_row, columns))
    if options.get("pretrain") is not None:
        sources.append(run.records(options["pretrain"]))
    return sources


def taught_from(run: StageRun, data: Any, without: Any, on_bad_row: str, columns: Columns | None) -> Records:
    """Data of a stage, less the rows that ask what one of `without` asks."""
    records = run.records(data, on_bad_row, columns=columns)
    return records if without is None else splitting.without(records, run.records(without, want="prompts"))


def of_stage(run: StageRun) -> Lineage:
    """The lineage of the model that this stage has trained: its own data, its base's, and its teachers'."""
    options = run.recipe.stage(run.name).options
    direct = tuple(as_learned(run, records) for records in by_stage(run, options) if len(records))
    teachers = teachers_of(rewarded(run, Ref("model", run.name)))
    return Lineage(direct).before(*lineages(run, [options.get("model"), *teachers]))


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
    """Fingerprints of the data that models learned from, and of those that taught them."""
    return [learned.prints for lineage in lineages(run, named) for learned in lineage.learned]


def verdict_prints(run: StageRun, named: Any) -> list[Print]:
    """Fingerprints of the verdicts that models learned from, as in `verdicts`, in this run or before."""
    return [verdict for lineage in lineages(run, named) for verdict in lineage.verdicts()]


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
