"""The stage that teaches a language model plain text."""

from __future__ import annotations

from typing import Annotated, Literal

from truing.policy.load import load
from truing.registry import Columns, Data, Model, stage
from truing.run.lineage import taught_from
from truing.run.stage_run import StageRun
from truing.settings import Training
from truing.stages import prepare
from truing.stages.learner import learner
from truing.stages.training import train


@stage(gives="model")
def pretrain(
    run: StageRun,
    *,
    model: Annotated[Model, "the model to train: $stage, $base, a Hub name, a folder or world:NAME"],
    data: Annotated[Data, "the texts of which every token is learned, prompts too"],
    without: Annotated[Data | None, "held-out data; rows that ask what it asks are not learned from"] = None,
    on_bad_row: Annotated[Literal["error", "drop"], "stop at a row of no use, or leave it out and list it"] = "error",
    columns: Annotated[Columns | None, "which column has which role, {chosen: better}; null is not read"] = None,
    training: Training = Training(learning_rate=1e-3, tokens_per_step=8192),
) -> None:
    """Teach a language model every token of a text, prompts included. Begins from `model`, often a new one.

    Rows that ask what a row of `without` (held-out data) asks are left out.
    """
    policy = learner(run, load(run.model(model), seed=run.seed), training)
    records = taught_from(run, data, without, on_bad_row, columns)
    dataset = prepare.trees_for(run, policy, records, training, "text", on_bad_row)
    train(run, policy, dataset, prepare.compile_objective("nll"), training)
