"""The stage that teaches a policy preferences."""

from __future__ import annotations

from typing import Annotated, Literal

from truing.policy.load import load
from truing.registry import Columns, Data, Model, ObjectiveSpec, stage
from truing.run.stage_run import StageRun
from truing.settings import Lora, Training
from truing.stages import prepare
from truing.stages.learner import learner
from truing.stages.training import reference_of, train


@stage(gives="model")
def prefer(
    run: StageRun,
    *,
    model: Annotated[Model, "the model to train: $stage, $base, a Hub name, a folder or world:NAME"],
    data: Annotated[Data, "pairs, rankings or labelled responses, as the objective reads them"],
    reference: Annotated[
        Model | None, "the model that log-ratios are taken to; `model` as this stage received it by default"
    ] = None,
    objective: Annotated[ObjectiveSpec, "the loss: a name, {name: {option: value}}, or a list"] = "dpo",
    thoughts: Annotated[Literal["learn", "mask"], "learn the thought before an answer, or the answer alone"] = "learn",
    on_bad_row: Annotated[Literal["error", "drop"], "stop at a row of no use, or leave it out and list it"] = "error",
    columns: Annotated[Columns | None, "which column has which role, {chosen: better}; null is not read"] = None,
    training: Training = Training(learning_rate=1e-4, rows_per_step=32),
    lora: Lora = Lora(),
) -> None:
    """Train a policy on preferences: pairs, rankings, or responses called desirable or undesirable, as its objective
    reads them. The reference is the policy as this stage received it, or `reference`, a model that the policy may have
    left behind already; the two share a tokenizer. With `thoughts: mask` a response's thought counts for nothing."""
    terms = prepare.compile_objective(objective)
    policy = learner(run, load(run.model(model), seed=run.seed), training, lora)
    records = run.records(data, on_bad_row, columns=columns)
    shape = prepare.shape_for(terms)
    dataset = prepare.trees_for(run, policy, records, training, shape, on_bad_row, terms=terms, thoughts=thoughts)
    before = reference_of(run, policy, dataset, training, reference) if terms.needs_reference else None
    train(run, policy, dataset, terms, training, before)
