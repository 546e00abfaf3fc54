"""The stage that learns from a policy's own answers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from truing.data.batch import Batch, Branch, Tree
from truing.data.render import Renderer
from truing.data.trees import Planted
from truing.errors import DataError, UserError
from truing.evaluate.exam import response_text
from truing.pipeline import training as work
from truing.pipeline.context import StageRun
from truing.pipeline.rewards import First, appointed
from truing.pipeline.stages import learner
from truing.policy.load import context_length, load
from truing.policy.policy import Policy
from truing.registry import Columns, Data, Model, ObjectiveSpec, RewardSpec, stage
from truing.rollout import experience
from truing.rollout.engine import Sampling, generate
from truing.settings import Lora, Online, Training
from truing.train.online import Judged, Prompt, RolloutSource
from truing.train.terms import Sum
from truing.types import Demonstration, Judgement, Messages, Positive, Records, RowNote

SETTLING = 64


@stage(gives="model")
def reinforce(
    run: StageRun,
    *,
    model: Model,
    prompts: Data,
    rewards: RewardSpec,
    columns: Columns | None = None,
    objective: ObjectiveSpec = "grpo",
    combine: Literal["sum", "lexicographic"] = "sum",
    on_error: Literal["stop", "drop"] = "stop",
    time_limit: Positive = 60.0,
    online: Online = Online(),
    training: Training = Training(learning_rate=1e-5, rows_per_step=16),
    lora: Lora = Lora(),
) -> None:
    """Learn from the policy's own answers to `prompts`, as `rewards` score them: their weighted sum, or one before the
    other (`truing list rewards`; your own function, or TRL's, as `mine.py:name`).

    An answer that a reward fails on ends the run, or with `on_error: drop` is left out and counted; a call of your own
    reward fails after `time_limit` seconds.
    `rows_per_step` counts prompts, each with `answers`; an epoch is every prompt once. The reference, where the
    objective or the leash (`beta`) asks for one, is the policy as this stage received it. An objective with
    `value_clipped` beside it gives the model a value head for the length of the stage.
    """
    terms = limited(work.compile_objective(objective), online)
    check(run, terms, training, online)
    policy = learner(run, load(run.model(model), seed=run.seed), training, lora)
    asked, planted = askable(run, policy, run.records(prompts, want="prompts", columns=columns), training, online)
    leash = online.beta > 0 or terms.needs_reference
    reference = frozen(policy) if leash else None
    if "value_BT" in terms.all_signals:
        policy.put_value_head()
    rows, first_answers = [(p.row, p.columns) for p in asked], answered(run, policy, asked, online)
    judged = Judged(response_text, appointed(run, rewards, rows, first_answers, combine, on_error, time_limit))
    folder = run.folder / "rollouts"

    made: list[RolloutSource] = []

    def source(policy: Policy) -> RolloutSource:
        made.append(
            RolloutSource(policy, asked, judged, terms, online, training, folder, run.seed, reference, run.name)
        )
        return made[0]

    first = Tree(asked[0].ids, (Branch("response", asked[0].ids[-1:], (True,)),), 0, asked[0].row)
    work.learn(run, policy, planted, terms, training, Batch((first,)), source)
    if run.leads:
        work.noted(run, [*unscored(folder), *untaught(made[0])])


def limited(terms: Sum, online: Online) -> Sum:
    """The terms, told how long the longest answer may be."""
    return Sum([replace(term, longest=online.max_new_tokens) for term in terms.terms])


def check(run: StageRun, terms: Sum, training: Training, online: Online) -> None:
    """UserError for options that say nothing here, or that no group could learn from."""
    if training.tokens_per_step is not None:
        raise UserError(f"stage {run.name}: answers have no length before they are given; set rows_per_step (prompts)")
    alone = {t.objective.advantage for t in terms.terms} & {"gae", "returns", "none"}
    if not alone and online.answers < 2:
        raise UserError(f"stage {run.name}: answers are compared with each other; set answers to 2 or more")


def askable(
    run: StageRun, policy: Policy, records: Records, training: Training, online: Online
) -> tuple[list[Prompt], Planted]:
    """The prompts as tokens, and an account of those that leave no room for an answer."""
    renderer, most = Renderer(policy.tokenizer), min(training.max_length, context_length(policy))
    asked, notes = [], list(records.notes)
    for row, record in zip(records.rows, records.records, strict=True):
        try:
            ids = tuple(renderer.prompt_ids(record.prompt))
        except DataError as error:
            raise DataError(f"{records.name}, row {row}, {error.place}", error.problem, error.way_out) from error
        if len(ids) + online.max_new_tokens > most:
            notes.append(RowNote(row, "prompt", f"leaves no room for an answer within {most} tokens", "dropped"))
        else:
            asked.append(Prompt(row, record.prompt, ids, columns_of(record)))
    if not asked:
        raise UserError(f"stage {run.name}: no prompt of {records.name} leaves room for an answer in {most} tokens")
    planted = Planted(tuple(Tree(p.ids, (), i, p.row) for i, p in enumerate(asked)), tuple(notes))
    run.accounts.append(f"{records.name}: {planted.text()}")
    run.show.say(f"  {run.accounts[-1]}")
    return asked, planted


def columns_of(record: Demonstration | Judgement) -> Mapping[str, Any]:
    """What else the row of a prompt says, by column."""
    found: Mapping[str, Any] = record.meta.get("columns", {})
    return found


def answered(run: StageRun, policy: Policy, asked: Sequence[Prompt], online: Online) -> First:
    """The policy's answers to the first prompts as it is now, sampled when they are asked for."""
    some = asked[:SETTLING]

    def first() -> tuple[list[Messages], list[str]]:
        rollouts = generate(policy, [p.ids for p in some], Sampling(online.max_new_tokens, seed=run.seed))
        return [p.messages for p in some], [response_text(policy, r) for r in rollouts]

    return functools.cache(first)


def unscored(folder: Path) -> list[str]:
    """How many answers of all rounds could not be scored, and why the first could not; nothing where all could."""
    said = experience.failures(folder)
    failed = [why for why in said if why]
    if not failed:
        return []
    return [f"{len(failed)} of {len(said)} answers could not be scored and were left out; the first: {failed[0]}"]


def untaught(source: RolloutSource) -> list[str]:
    """How many rounds were passed over because their answers taught nothing."""
    rounds = source.skipped
    told = ", ".join(map(str, rounds[:10])) + (", ..." if len(rounds) > 10 else "")
    return [f"{len(rounds)} rounds taught nothing and had no update: {told}"] if rounds else []


def frozen(policy: Policy) -> Policy:
    """A copy of the policy as it is now, which no training reaches."""
    model = copy.deepcopy(policy.model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return replace(policy, model=model)
