"""Provenance of findings: the weights that were measured, the data, the judge, the recipe and the code."""

from __future__ import annotations

from typing import Any

from truing import registry
from truing.policy.files.folder_digest import model_digest
from truing.records import digest, source_digest
from truing.run.deciding import production
from truing.run.plan import plain
from truing.run.stage_run import StageRun

JUDGES = ("judge", "aggregate", "coefficient", "best_by", "reward", "truth")
"""Options by which a stage names its judge."""


def about(run: StageRun) -> dict[str, Any]:
    """Return the stage, and by content hash every model that it read or made (by its place, as the recipe names it),
    every data set that it read, the recipe and truing's source; and by name the judge, and of an exam the model in
    production."""
    models = {place: stored_digest or model_digest(place) for place, stored_digest in run.models.items()}
    if (run.folder / "model").is_dir():
        models[f"{run.name}/model"] = model_digest(str(run.folder / "model"))
    spec = run.recipe.stage(run.name)
    return {
        "stage": run.name,
        "models": models,
        "data": dict(run.read),
        "judge": judge_of(run),
        "recipe": digest(run.recipe.text),
        "code": source_digest(),
    } | ({"production": [production(run.recipe, spec)]} if run.do == "evaluate" else {})


def judge_of(run: StageRun) -> dict[str, Any]:
    """Options that name the judge, by the stage's options and their defaults."""
    options, part = run.recipe.stage(run.name).options, registry.resolve(run.do, "stage", run.recipe.folder)
    choices = {
        option.name: options.get(option.name, option.default) for option in part.options if option.name in JUDGES
    }
    return {name: plain(value) for name, value in choices.items() if value is not None}
