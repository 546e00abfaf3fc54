"""The stage that learns from a policy's own responses."""

from __future__ import annotations

import copy
import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from truing import door
from truing.data import clock
from truing.data.batch import Batch, Branch, Tree
from truing.data.formats.loading import without_tools
from truing.data.rendering.render import Renderer
from truing.data.split import unseen
from truing.data.trees import TreeDataset
from truing.errors import DataError, UserError
from truing.evaluate.exam import response_text
from truing.online.monitor import Monitor, MonitorLog
from truing.online.pretraining_mix import PretrainingMix
from truing.online.schedule import replaced
from truing.online.source import Judged, OnlineOptions, Place, Prompt, RolloutSource, rollout_source
from truing.policy.load import context_length, load
from truing.policy.policy import Policy
from truing.policy.value import put_on
from truing.records import Messages, Positive, Records, RowNote
from truing.registry import Columns, Data, Model, ObjectiveSpec, RewardModel, RewardSpec, stage
from truing.rewards.combine import count_notes, counted_parts
from truing.rollout import account, experience
from truing.rollout.engine import Sampling, fits, generate
from truing.run.lesson import Rounds
from truing.run.stage_run import StageRun
from truing.settings import KLControl, Lora, Monitoring, Online, Shaping, Training
from truing.stages import prepare
from truing.stages.learner import learner
from truing.stages.loaded_rewards import First, appointed, columns_of
from truing.stages.stage_figures import Evaluation, Measured
from truing.stages.training import learn
from truing.streams import derived
from truing.train.objective_sum import WeightedObjectives

SETTLING = 64


@stage(gives="model", keeps=("rollouts",))
def reinforce(
    run: StageRun,
    *,
    model: Annotated[Model, "the model to train: $stage, $base, a Hub name, a folder or world:NAME"],
    prompts: Annotated[Data, "the prompts that the policy answers and learns from"],
    rewards: Annotated[
        RewardSpec, "the rewards that score responses: a name, $stage, {name: {option: value}}, or a list"
    ],
    columns: Annotated[Columns | None, "which column of the prompts' file has which role, {prompt: question}"] = None,
    objective: Annotated[ObjectiveSpec, "the loss: a name, {name: {option: value}}, or a list"] = "grpo",
    combine: Annotated[Literal["sum", "lexicographic"], "by weight, or each only between equals of the last"] = "sum",
    on_error: Annotated[Literal["stop", "drop"], "drop leaves out, and counts, a response that has no score"] = "stop",
    time_limit: Annotated[Positive, "seconds after which a call of your own reward has failed"] = 60.0,
    value: Annotated[
        RewardModel | None, "the reward model from which the value model starts; else a head on the policy"
    ] = None,
    pretrain: Annotated[Data | None, "texts of which every token is learned beside the responses, with `ptx`"] = None,
    monitor: Annotated[RewardSpec | None, "rewards that are monitored during training and never learned from"] = None,
    monitor_prompts: Annotated[Data | None, "held-out prompts that are answered for `monitor`"] = None,
    monitoring: Monitoring = Monitoring(),
    online: Online = Online(),
    shaping: Shaping = Shaping(),
    kl_control: KLControl = KLControl(),
    training: Training = Training(learning_rate=1e-5, rows_per_step=16),
    lora: Lora = Lora(),
) -> None:
    """Learn from the policy's own responses to `prompts`, as `rewards` score them: their weighted sum, or one before
    the other (`truing list rewards`; your own function, or TRL's, as `mine.py:name`).

    A response that a reward fails on ends the run, or with `on_error: drop` is left out and counted; a call of your own
    reward fails after `time_limit` seconds. `rows_per_step` counts prompts, each with `group_size` responses; an epoch
    is every prompt once. The reference, if the objective or KL control (`beta`) needs one, is the policy as this stage
    received it. An objective with `value_clipped` beside it gives the model a value head for the length of the stage,
    or with `value` a value model apart from the policy, which starts from that reward model. With `ptx` beside it,
    every prompt of an update brings a text of `pretrain` along, of which each token is learned, prompts included.

    With `monitor`, rewards that nothing is learned from, the policy is evaluated on `monitor_prompts` during training,
    and monitor.jsonl holds these rewards, the training reward (`proxy`) and the KL to the reference."""
    terms = limited(prepare.compile_objective(objective), online)
    policy = learner(run, load(run.model(model), seed=run.seed), training, lora)
    policy.temperature = online.temperature
    records = run.records(prompts, want="prompts", columns=columns)
    usable, dataset = askable(run, policy, records, training, online)
    kl_controlled = online.beta > 0 or terms.needs_reference or online.mixture > 0
    reference = frozen(policy) if kl_controlled or monitor is not None or kl_control.stop_at_kl is not None else None
    put_value_model(run, policy, value, terms, training, online, usable)
    rows, first = [(p.row, p.columns) for p in usable], first_responses(run, policy, usable, online, "first")
    ptx_texts = texts(run, policy, pretrain, training)
    judged = Judged(response_text, appointed(run, rewards, rows, first, combine, on_error, time_limit))
    limits = (training, online)
    log = monitor_of(run, policy, monitor, monitor_prompts, records, monitoring, limits, on_error, time_limit)
    options = OnlineOptions(online, training, shaping, kl_control)
    place = Place(run.folder / "rollouts", run.seed, run.name)
    more: dict[str, Any] = {"reference": reference, "mix": ptx_texts, "monitor_log": log}

    def source_of(learner: Policy) -> RolloutSource:
        return rollout_source(learner, usable, judged, terms, options, place, **more)

    run_loop(run, policy, dataset, terms, training, usable, source_of)


def run_loop(
    run: StageRun,
    policy: Policy,
    dataset: TreeDataset,
    terms: WeightedObjectives,
    training: Training,
    prompts: Sequence[Prompt],
    source: Callable[[Policy], RolloutSource],
) -> None:
    """Run the loop over the rounds of `source`, and summarise them."""
    made: list[RolloutSource] = []

    def make_source(learner: Policy) -> RolloutSource:
        made.append(source(learner))
        return made[0]

    def measured() -> Measured:
        notes = [*unscored(run.folder / "rollouts"), *untaught(run.folder, made[0]), *made[0].account()]
        folder, source = run.folder / "rollouts", made[0]
        whole = account.of(folder)
        run.write("responses.json", account.samples(folder, whole))
        longest, more = source.schedule.online.max_new_tokens, beside(source)
        rounds = Rounds(whole, source.builder.compares, source.builder.imitates, longest, more)
        return Measured(evaluation=evaluation_of(source.monitor), counts=counts(source), notes=notes, rounds=rounds)

    learn(run, policy, dataset, terms, training, Batch((first_of(prompts),)), make_source, measure=measured)
    if run.leads:
        for name in ("checkpoints", "best", "references"):  # a resume needs them: its checkpoints go first
            shutil.rmtree(run.folder / name, ignore_errors=True)


def beside(source: RolloutSource) -> str:
    """Name what a stage learns from beside the scores of its responses; empty where that is nothing."""
    costs = source.schedule.online.truncated_penalty > 0 or source.builder.shaping.overlong_buffer is not None
    texts = bool(source.mix.trees)
    return " and ".join(["the cost of a response's length"] * costs + ["the texts of pretrain"] * texts)


def evaluation_of(monitor: Monitor | None) -> Evaluation | None:
    """The evaluation of the weights that a stage leaves: the last one, or with `patience` the best."""
    if monitor is None:
        return None
    log = monitor.log
    row = log.best if monitor.picks else log.rows[-1]
    return Evaluation(row, log.names, len(log.rows), monitor.picks)


def counts(source: RolloutSource) -> dict[str, int]:
    """Count over all rounds of a stage, those before a resume and those that taught nothing too: responses, those that
    could not be scored, were left alone, on which a reward timed out or that it could not read; prompts replaced."""
    totals = dict(experience.counts(source.folder, fewest=2 if source.builder.compares else 1))
    totals |= counted_parts(experience.parts(source.folder))
    if source.schedule.online.resample is not None:
        rounds = experience.rounds(source.folder).items()
        totals["resampled"] = sum(
            replaced(source.schedule.prompts_of(number - 1), experience.read(path)) for number, path in rounds
        )
    return totals


def put_value_model(
    run: StageRun,
    policy: Policy,
    value: Any,
    terms: WeightedObjectives,
    training: Training,
    online: Online,
    prompts: Sequence[Prompt],
) -> None:
    """Give the policy a value head, or the model that `value` names as its value model, if a term reads values.

    UserError for a model that cannot read the policy's tokens or its longest responses.
    """
    if "value_BT" not in terms.all_signals:
        return
    if value is None:
        policy.put_value_head()
        return
    reader = learner(run, load(run.model(value), "reward", seed=run.seed), training)
    put_on(policy, reader, Batch((first_of(prompts),)))
    if not all(fits(reader, p.ids, Sampling(online.max_new_tokens)) for p in prompts):
        raise UserError(
            f"stage {run.name}: value model '{reader.name}' reads {context_length(reader)} tokens, and a prompt with "
            "its longest response has more; lower max_new_tokens or max_length"
        )


def texts(run: StageRun, policy: Policy, pretrain: Any, training: Training) -> PretrainingMix:
    """The texts that `ptx` learns from beside responses."""
    if pretrain is None:
        return PretrainingMix()
    dataset = prepare.trees_for(run, policy, run.records(pretrain), training, "text")
    return PretrainingMix(dataset.trees, run.seed + training.seed)


def first_of(prompts: Sequence[Prompt]) -> Tree:
    """A small tree, the same on every process, so that all choose the same way to read a model."""
    return Tree(prompts[0].ids, (Branch("response", prompts[0].ids[-1:], (True,)),), 0, prompts[0].row)


def monitor_of(
    run: StageRun,
    policy: Policy,
    spec: Any,
    prompts: Any,
    unlike: Records,
    monitoring: Monitoring,
    limits: tuple[Training, Online],
    on_error: Literal["stop", "drop"],
    time_limit: float,
) -> MonitorLog | None:
    """The monitor of a stage: rewards, and held-out prompts, each different one once, that are not among those it
    learns from (`unlike`)."""
    if spec is None:
        return None
    once = distinct(run.records(prompts, want="prompts"))
    usable, _ = askable(run, policy, unseen(once, [unlike]), *limits)
    if len(usable) < 2:
        raise UserError(
            f"stage {run.name}: a mean over one monitored prompt has no error; give monitor_prompts more of them"
        )
    rows, first = (
        [(p.row, p.columns) for p in usable],
        first_responses(run, policy, usable, limits[1], "first monitored"),
    )
    rewards = appointed(run, spec, rows, first, "sum", on_error, time_limit)
    return MonitorLog(run.folder / "monitor.jsonl", usable, rewards, monitoring, lambda text: run.show.say(f"  {text}"))


def limited(terms: WeightedObjectives, online: Online) -> WeightedObjectives:
    """The terms, with the length of the longest response."""
    return WeightedObjectives([replace(term, longest=online.max_new_tokens) for term in terms.terms])


def distinct(records: Records) -> Records:
    """The records with each different prompt once, at its first place: the same prompt twice is no independent item."""
    places = {record.prompt: i for i, record in reversed(list(enumerate(records.records)))}
    return records.subset(sorted(places.values()), records.name)


def askable(
    run: StageRun, policy: Policy, records: Records, training: Training, online: Online
) -> tuple[list[Prompt], TreeDataset]:
    """The prompts as tokens, and notes on those that leave no room for a response."""
    renderer, most = Renderer(policy.tokenizer), min(training.max_length, context_length(policy))
    usable, notes = [], list(without_tools(records).notes)
    for row, record in zip(records.rows, records.records, strict=True):
        try:
            ids = tuple(renderer.prompt_ids(record.prompt))
        except DataError as error:
            raise DataError(f"{records.name}, row {row}, {error.place}", error.problem, error.way_out) from error
        if len(ids) + online.max_new_tokens > most:
            notes.append(RowNote(row, "prompt", f"leaves no room for a response within {most} tokens", "dropped"))
        else:
            usable.append(Prompt(row, record.prompt, ids, columns_of(record)))
    if not usable:
        raise UserError(f"stage {run.name}: no prompt of {records.name} leaves room for a response in {most} tokens")
    trees = tuple(Tree(p.ids, (), i, p.row) for i, p in enumerate(usable))
    dataset = TreeDataset(trees, tuple(notes), records.name)
    run.note(f"{records.name}: {dataset.text()}")
    run.note(clock.note(policy.tokenizer))
    return usable, dataset


def first_responses(run: StageRun, policy: Policy, prompts: Sequence[Prompt], online: Online, purpose: str) -> First:
    """The policy's responses to the first prompts as it is now, sampled for a purpose at the first call."""
    some = prompts[:SETTLING]

    def first() -> tuple[list[Messages], list[str]]:
        sampling = Sampling(online.max_new_tokens, online.temperature, derived(run.seed, run.name, purpose))
        rollouts = generate(policy, [p.ids for p in some], sampling)
        return [p.messages for p in some], [response_text(policy, r) for r in rollouts]

    return functools.cache(first)


def unscored(folder: Path) -> list[str]:
    """Note on how many responses of all rounds a reward timed out or could read no answer, and how many could not be
    scored and why the first could not; nothing where all could."""
    notes = count_notes(experience.parts(folder))
    reasons = experience.failures(folder)
    failed = [why for why in reasons if why]
    if not failed:
        return notes
    return [
        *notes,
        f"{len(failed)} of {len(reasons)} responses could not be scored and were left out; the first: {failed[0]}",
    ]


def untaught(folder: Path, source: RolloutSource) -> list[str]:
    """Note how many rounds of the whole stage, those before a resume too, were skipped because their responses taught
    nothing: they have no update among the metrics. The last one may have ended the stage instead."""
    taught = {(row["step"] - 1) // source.schedule.updates + 1 for _, row in door.read_log(folder / "metrics.jsonl")}
    lived = list(experience.rounds(folder / "rollouts"))
    rounds = [number for number in lived if number not in taught and not (source.ended and number == lived[-1])]
    numbers = ", ".join(map(str, rounds[:10])) + (", ..." if len(rounds) > 10 else "")
    return [f"{len(rounds)} rounds taught nothing and had no update: {numbers}"] if rounds else []


def frozen(policy: Policy) -> Policy:
    """A copy of the policy as it is now, which no training reaches."""
    model = copy.deepcopy(policy.model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return replace(policy, model=model)
