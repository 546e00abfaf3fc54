"""The stage that learns from a policy's own answers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from truing.data.batch import Batch, Branch, Tree
from truing.data.render import Renderer
from truing.data.trees import Planted
from truing.errors import DataError, UserError
from truing.evaluate.exam import response_text
from truing.pipeline import training as work
from truing.pipeline.context import StageRun
from truing.pipeline.judge import appoint
from truing.pipeline.stages import learner
from truing.policy.load import context_length, load
from truing.policy.policy import Policy
from truing.registry import Data, Model, ObjectiveSpec, RewardModel, stage
from truing.rollout.engine import Sampling, generate
from truing.rollout.rewards import scores
from truing.train.online import Judged, Prompt, RolloutSource
from truing.train.terms import Sum
from truing.types import Lora, Messages, Online, Records, Reward, RowNote, Training

SETTLING = 64


@stage(gives="model")
def reinforce(
    run: StageRun,
    *,
    model: Model,
    prompts: Data,
    reward: RewardModel | Literal["gold"],
    objective: ObjectiveSpec = "grpo",
    online: Online = Online(),
    training: Training = Training(learning_rate=1e-5, rows_per_step=16),
    lora: Lora = Lora(),
) -> None:
    """Learn from the policy's own answers to `prompts`, as `reward` scores them: the world's truth (`gold`), a reward
    model, or several (their mean).

    `rows_per_step` counts prompts, each with `answers`; an epoch is every prompt once. The reference, where the
    objective or the leash (`beta`) asks for one, is the policy as this stage received it. An objective with
    `value_clipped` beside it gives the model a value head for the length of the stage.
    """
    terms = limited(work.compile_objective(objective), online)
    check(run, terms, training, online)
    policy = learner(run, load(run.model(model), seed=run.seed), training, lora)
    asked, planted = askable(run, policy, run.records(prompts, want="prompts"), training, online)
    leash = online.beta > 0 or terms.needs_reference
    reference = frozen(policy) if leash else None
    if "value_BT" in terms.all_signals:
        policy.put_value_head()
    given = settled(run, policy, reward, asked, online)

    def judge(questions: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        return scores(given, questions, answers)

    def source(policy: Policy) -> RolloutSource:
        folder, judged = run.folder / "rollouts", Judged(response_text, judge)
        return RolloutSource(policy, asked, judged, terms, online, training, folder, run.seed, reference)

    first = Tree(asked[0].ids, (Branch("response", asked[0].ids[-1:], (True,)),), 0, asked[0].row)
    work.learn(run, policy, planted, terms, training, Batch((first,)), source)


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
            asked.append(Prompt(row, record.prompt, ids))
    if not asked:
        raise UserError(f"stage {run.name}: no prompt of {records.name} leaves room for an answer in {most} tokens")
    planted = Planted(tuple(Tree(p.ids, (), i, p.row) for i, p in enumerate(asked)), tuple(notes))
    run.accounts.append(f"{records.name}: {planted.text()}")
    run.show.say(f"  {run.accounts[-1]}")
    return asked, planted


def settled(run: StageRun, policy: Policy, reward: Any, asked: Sequence[Prompt], online: Online) -> Reward:
    """The reward. Several reward models are put on one scale by what they say of this policy's first answers."""
    who = appoint(run, reward, None, None)
    if who.panel is None:
        return who.settled([], [])
    some = asked[:SETTLING]
    rollouts = generate(policy, [p.ids for p in some], Sampling(online.max_new_tokens, seed=run.seed))
    return who.settled([p.messages for p in some], [response_text(policy, r) for r in rollouts])


def frozen(policy: Policy) -> Policy:
    """A copy of the policy as it is now, which no training reaches."""
    model = copy.deepcopy(policy.model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return replace(policy, model=model)
