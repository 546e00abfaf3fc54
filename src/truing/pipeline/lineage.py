"""What a model of a recipe learned from: in its own stage, and in those that its weights came through before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truing.data import split as splitting
from truing.pipeline.context import StageRun
from truing.pipeline.spec import Ref
from truing.registry import Columns
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
