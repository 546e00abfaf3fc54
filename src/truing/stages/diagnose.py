"""The stage that measures whether the truth turned down while the reward rose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from truing import seals
from truing.diagnose.curve import read_curve
from truing.recipe.references import Ref
from truing.registry import Models, stage
from truing.run.stage_run import StageRun
from truing.stages.diagnosis import tell

LOG = "monitor.jsonl"


@stage(gives="findings")
def diagnose(
    run: StageRun,
    *,
    runs: Annotated[Models, "the reinforce stages, or model folders, that monitored held-out prompts"],
    truth: Annotated[str, "the monitored reward that counts as the truth"] = "gold",
) -> None:
    """Measure whether the reward was over-optimised, from what `reinforce` stages monitored (`monitor`,
    `monitor_prompts`): the reward that they were trained on, the proxy, and `truth`, a reward that they only monitored,
    over the KL to their start.

    Finds where gold was highest, what was lost by the last evaluation, and whether the proxy rose meanwhile; fits Gao's
    form d (alpha - beta ln d). A run from elsewhere is named by its model's folder.
    """
    named = runs if isinstance(runs, list) else [runs]
    names = run.labels(named)
    for value in named:  # its findings are about these weights
        run.model(value)
    curves = [
        read_curve(monitored(run, model), name, started(run, model), truth)
        for name, model in zip(names, named, strict=True)
    ]
    tell(run, curves, truth)


def monitored(run: StageRun, model: Any) -> Path:
    """Return the path of a run's monitor.jsonl: in the stage's folder, beside its model."""
    if isinstance(model, Ref):
        return run.stage(model) / LOG
    beside = Path(model).parent / LOG
    path = beside if beside.is_file() else Path(model) / LOG
    seals.check_file(path)
    return path


def started(run: StageRun, model: Any) -> str:
    """Name the model that a stage of this recipe began from, as findings call it; empty for a run from elsewhere."""
    begun = run.recipe.stage(model.stage).options.get("model") if isinstance(model, Ref) else None
    return run.labels([begun])[0] if begun is not None else ""
