"""The stage that teaches a reward model preferences, labels or scores."""

from __future__ import annotations

from typing import Annotated, Literal

from truing.data import split as splitting
from truing.evaluate.held_out import measure
from truing.policy.heads import fresh_reward
from truing.policy.scalars import Heads
from truing.recipe.objective_spec import weights_of
from truing.registry import Columns, Data, Model, ObjectiveSpec, stage
from truing.run.stage_run import StageRun
from truing.settings import Lora, Training
from truing.stages import outputs, prepare
from truing.stages.learner import learner
from truing.stages.stage_figures import Measured
from truing.stages.training import train


@stage(gives="reward")
def fit_reward(
    run: StageRun,
    *,
    model: Annotated[Model, "the model whose language head is replaced by a scalar one and trained"],
    data: Annotated[Data, "pairs, rankings, scores, labels or labelled steps, as the objective reads them"],
    eval: Annotated[Data | None, "held-out data on which accuracy and the like are measured at the end"] = None,
    objective: Annotated[ObjectiveSpec, "the loss: a name, {name: {option: value}}, or a list"] = "bradley_terry",
    head_weights: Annotated[
        dict | None,  # type: ignore[type-arg]
        "weight of each named head in the reward, {name: number}; their mean unless given",
    ] = None,
    on_bad_row: Annotated[Literal["error", "drop"], "stop at a row of no use, or leave it out and list it"] = "error",
    columns: Annotated[Columns | None, "which column has which role, {chosen: better}; null is not read"] = None,
    training: Training = Training(learning_rate=5e-4, rows_per_step=32),
    lora: Lora = Lora(),
) -> None:
    """Fit a reward model: `model` with its language head replaced by a scalar one, or by one for each `head` that the
    objective's terms name. The objective says what they learn from: pairs, rankings, scores, labels, labelled steps.

    The reward of several heads is their mean, or with `head_weights` ({name: number}) their weighted sum. With `eval`
    they are measured on held-out data when they are trained.
    """
    terms = prepare.compile_objective(objective)
    shape, names = prepare.shape_for(terms), prepare.heads_of(terms)
    taught = {t.head for t in terms.terms if t.objective.lower_is_better}
    costs = tuple(name for name in names if name in taught)
    heads = Heads(names, weights_of(names, head_weights), read=prepare.READ.get(shape, "end"), costs=costs)
    whole = lora.lora_rank is None or lora.lora_merge
    policy = learner(run, fresh_reward(run.model(model), seed=run.seed, whole=whole, heads=heads), training, lora)
    records = run.records(data, on_bad_row, columns=columns)
    dataset, held_out = prepare.trees_for(run, policy, records, training, shape, on_bad_row, terms=terms), None
    if eval is not None:
        left = splitting.unseen(run.records(eval, on_bad_row, columns=columns), [records])
        held_out = prepare.trees_for(run, policy, left, training, shape, on_bad_row, terms=terms)
    prepare.begin_ties(policy, dataset, terms)

    def measured() -> Measured:
        if held_out is None:
            return Measured()
        findings, missing = measure(run.name, policy, held_out.trees, terms)
        outputs.write_findings(run, findings)
        return Measured(findings, notes=missing)

    train(run, policy, dataset, terms, training, measure=measured)
