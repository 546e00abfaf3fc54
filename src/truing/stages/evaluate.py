"""The stage that measures models: an exam of prompts, held-out data, or both."""

from __future__ import annotations

from typing import Annotated, Literal

from truing.errors import UserError
from truing.records import Count, Fraction, NonNegative
from truing.registry import Columns, Data, Models, RewardModel, RewardSpec, Rivals, stage
from truing.rollout.engine import Sampling
from truing.run.stage_run import StageRun
from truing.stages import exam, judge_trial, outputs
from truing.stages.exam_judge import appoint


@stage(gives="findings")
def evaluate(
    run: StageRun,
    *,
    models: Annotated[Models, "the models to measure, policies or reward models"],
    against: Annotated[Rivals, "the model or models that each is compared with, prompt by prompt"],
    prompts: Annotated[Data | None, "prompts to which every policy gives fresh responses"] = None,
    data: Annotated[Data | None, "held-out pairs that models have to order"] = None,
    columns: Annotated[Columns | None, "which column of `data`, or else of `prompts`, has which role"] = None,
    judge: Annotated[RewardModel | RewardSpec | Literal["gold"], "who scores: gold, reward models, a reward"] = "gold",
    aggregate: Annotated[Literal["mean", "worst", "uncertainty"] | None, "how models, or heads, make one score"] = None,
    coefficient: Annotated[NonNegative | None, "of uncertainty: share of members' variance subtracted (0.5)"] = None,
    lookup: Annotated[bool, "add the world's template look-up as a contestant"] = False,
    samples: Annotated[Count, "the most prompts that are answered; more narrow the intervals"] = 500,
    samples_per_prompt: Annotated[Count, "responses to each prompt; several give pass@k and narrower intervals"] = 1,
    passing: Annotated[float | None, "score from which a response counts as right, for pass@k"] = None,
    best_of: Annotated[Count | None, "add the best of so many responses, by `best_by`, as a contestant"] = None,
    best_by: Annotated[RewardModel | None, "the reward model that chooses among `best_of` responses"] = None,
    labelled: Annotated[Data | None, "pairs with a verdict on which the judge is tried before it is believed"] = None,
    least_accuracy: Annotated[Fraction, "share of labelled pairs below which the judge decides nothing"] = 0.6,
    exact: Annotated[bool, "say that the judge makes no errors, so that it is not tried"] = False,
    trusted: Annotated[
        RewardModel | RewardSpec | Literal["gold"] | None, "a better judge of some prompts, which corrects the other"
    ] = None,
    trusted_samples: Annotated[Count, "prompts that the trusted judge scores; more narrow the interval"] = 100,
    max_new_tokens: Annotated[Count, "tokens at which a response is truncated"] = 64,
    temperature: Annotated[NonNegative, "1 samples as the model says, smaller is greedier, 0 the likeliest"] = 1.0,
    preview: Annotated[Count | None, "prompts whose table is shown before the rest is answered"] = None,
    seed: Annotated[int, "added to the recipe's seed; another number draws other responses"] = 0,
) -> None:
    """Measure whether a model is better: fresh responses to `prompts`, judged by the world's truth (`gold`), by a
    reward model, by any other reward (`{verifier: {answer: number}}`), or by an ensemble: several reward models, or
    with `aggregate` the heads of one, as their mean, the lowest, or the mean less `coefficient` times their variance.

    Finds, for each model against each of `against`, paired by prompt: win rate, mean score, change of length; and KL to
    the first of them. Reward models among `models`, and policies on `data`, are measured by accuracy; an ensemble by
    its members' disagreement on responses and on `data`; a judge of several heads head by head; `passing` adds pass@k
    for k = 1, 2, 4, ... up to `samples_per_prompt`. A judge that errs is tried first, on pairs of `labelled` and `data`
    that it did not learn from: below `least_accuracy` it decides nothing, above it win rates are corrected for its
    errors, with `trusted` by prediction-powered inference."""
    sampling = Sampling(max_new_tokens, temperature, run.seed + seed)
    sitting = exam.Exam(run, models, against, sampling, per_prompt=samples_per_prompt, passing=passing, preview=preview)
    held_out = run.records(data, columns=columns) if data is not None else None
    if held_out is not None:
        sitting.order(held_out)
    if prompts is not None:
        questions = run.records(prompts, want="prompts", columns=columns if data is None else None)
        who = appoint(run, judge, aggregate, coefficient, questions)
        trying = judge_trial.Trying(labelled, held_out, least_accuracy, exact, trusted, trusted_samples)
        sitting.trial, sitting.better = trying.of(run, who, judge, questions)
        if best_of is not None:
            sitting.choice = exam.Choice(best_of, appoint(run, best_by, None, None, questions), best_by)
        reward = sitting.answer(questions, who, samples, lookup)
        sitting.disagree(held_out, who, reward, judge, samples)
    if not sitting.findings:
        raise UserError(f"stage {run.name} has nothing to measure: give prompts (to answer) or data (pairs to order)")
    outputs.write_findings(run, sitting.findings, sitting.examples)
    run.show.say(sitting.table())
    run.write("summary.json", sitting.summary())
