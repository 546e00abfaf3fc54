"""The stage that teaches a language model demonstrations."""

from __future__ import annotations

from typing import Annotated, Literal

from truing.policy.load import load
from truing.registry import Columns, Data, Model, ObjectiveSpec, stage
from truing.run.lineage import taught_from
from truing.run.stage_run import StageRun
from truing.settings import Lora, Training
from truing.stages import prepare
from truing.stages.learner import learner
from truing.stages.training import train


@stage(gives="model")
def sft(
    run: StageRun,
    *,
    model: Annotated[Model, "the model to train: $stage, $base, a Hub name, a folder or world:NAME"],
    data: Annotated[Data, "demonstrations, or pairs of which the chosen responses are learned"],
    without: Annotated[Data | None, "held-out data; rows that ask what it asks are not learned from"] = None,
    objective: Annotated[ObjectiveSpec, "the loss: a name, {name: {option: value}}, or a list"] = "nll",
    turns: Annotated[Literal["last", "all"], "learn every assistant turn of a conversation, or the last alone"] = "all",
    thoughts: Annotated[Literal["learn", "mask"], "learn the thought before an answer, or the answer alone"] = "learn",
    on_bad_row: Annotated[Literal["error", "drop"], "stop at a row of no use, or leave it out and list it"] = "error",
    columns: Annotated[Columns | None, "which column has which role, {chosen: better}; null is not read"] = None,
    training: Training = Training(learning_rate=1e-3, tokens_per_step=8192),
    lora: Lora = Lora(),
) -> None:
    """Supervised fine-tuning: teach a model to give the responses of demonstrations, or the chosen ones of pairs.

    Of a conversation every assistant turn is learned, or with `turns: last` only the last; a thought before an answer
    is learned with it, or with `thoughts: mask` read only. Rows that ask what one of `without` (data held out) asks are
    left out.
    """
    policy = learner(run, load(run.model(model), seed=run.seed), training, lora)
    records = taught_from(run, data, without, on_bad_row, columns)
    dataset = prepare.trees_for(run, policy, records, training, "single", on_bad_row, turns, thoughts=thoughts)
    train(run, policy, dataset, prepare.compile_objective(objective), training)
