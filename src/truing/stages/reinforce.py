"""The stage that learns from a policy's own answers."""

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
from truing.data.trees import Planted
from truing.errors import DataError, UserError
from truing.evaluate.exam import response_text
from truing.online.monitor import Looking, Watch
from truing.online.pretraining_mix import Given
from truing.online.schedule import replaced
from truing.online.source import Judged, OnlineOptions, Place, Prompt, RolloutSource, rollout_source
from truing.policy.load import context_length, load
from truing.policy.policy import Policy
from truing.policy.value import put_on
from truing.registry import Columns, Data, Model, ObjectiveSpec, RewardModel, RewardSpec, stage
from truing.rewards.combine import counted_parts, hung
from truing.rollout import account, experience
from truing.rollout.engine import Sampling, fits, generate
from truing.run.lesson import Rounds
from truing.run.stage_run import StageRun
from truing.settings import Leash, Lora, Online, Shaping, Training, Watching
from truing.stages import prepare
from truing.stages.learner import learner
from truing.stages.loaded_rewards import First, appointed, columns_of
from truing.stages.stage_figures import Look, Measured
from truing.stages.training import learn
from truing.streams import derived
from truing.train.objective_sum import Sum
from truing.types import Messages, Positive, Records, RowNote

SETTLING = 64


@stage(gives="model", keeps=("rollouts",))
def reinforce(
    run: StageRun,
    *,
    model: Annotated[Model, "the model to train: $stage, $base, a Hub name, a folder or world:NAME"],
    prompts: Annotated[Data, "the prompts that the policy answers and learns from"],
    rewards: Annotated[RewardSpec, "who scores answers: a name, $stage, {name: {option: value}}, or a list"],
    columns: Annotated[Columns | None, "which column of the prompts' file has which role, {prompt: question}"] = None,
    objective: Annotated[ObjectiveSpec, "the loss: a name, {name: {option: value}}, or a list"] = "grpo",
    combine: Annotated[Literal["sum", "lexicographic"], "by weight, or each only between equals of the last"] = "sum",
    on_error: Annotated[Literal["stop", "drop"], "drop leaves out, and counts, an answer that has no score"] = "stop",
    time_limit: Annotated[Positive, "seconds after which a call of your own reward has failed"] = 60.0,
    value: Annotated[RewardModel | None, "the reward model that forecasts, at first; else a head on the policy"] = None,
    pretrain: Annotated[Data | None, "texts of which every token is learned beside the answers, with `ptx`"] = None,
    watch: Annotated[RewardSpec | None, "rewards that are measured on the way and never learned from"] = None,
    watch_prompts: Annotated[Data | None, "held-out prompts that are answered for `watch`"] = None,
    watching: Watching = Watching(),
    online: Online = Online(),
    shaping: Shaping = Shaping(),
    leash: Leash = Leash(),
    training: Training = Training(learning_rate=1e-5, rows_per_step=16),
    lora: Lora = Lora(),
) -> None:
    """Learn from the policy's own answers to `prompts`, as `rewards` score them: their weighted sum, or one before the
    other (`truing list rewards`; your own function, or TRL's, as `mine.py:name`).

    An answer that a reward fails on ends the run, or with `on_error: drop` is left out and counted; a call of your own
    reward fails after `time_limit` seconds.
    `rows_per_step` counts prompts, each with `answers`; an epoch is every prompt once. The reference, where the
    objective or the leash (`beta`) asks for one, is the policy as this stage received it. An objective with
    `value_clipped` beside it gives the model a value head for the length of the stage, or with `value` a model of its
    own to forecast with, which begins as that reward model. With `ptx` beside it, every prompt of an update brings a
    text of `pretrain` along, of which each token is learned, prompts included.

    With `watch`, rewards that nothing is learned from, the policy answers `watch_prompts` now and then, and watch.jsonl
    says what these rewards, the training reward (`proxy`) and the KL to the reference were.
    """
    terms = limited(prepare.compile_objective(objective), online)
    policy = learner(run, load(run.model(model), seed=run.seed), training, lora)
    policy.temperature = online.temperature
    records = run.records(prompts, want="prompts", columns=columns)
    asked, planted = askable(run, policy, records, training, online)
    leashed = online.beta > 0 or terms.needs_reference or online.mixture > 0
    reference = frozen(policy) if leashed or watch is not None or leash.stop_at_kl is not None else None
    forecasting(run, policy, value, terms, training, online, asked)
    rows, first_answers = [(p.row, p.columns) for p in asked], answered(run, policy, asked, online)
    given = texts(run, policy, pretrain, training)
    judged = Judged(response_text, appointed(run, rewards, rows, first_answers, combine, on_error, time_limit))
    limits = (training, online)
    looks = watched(run, policy, watch, watch_prompts, records, watching, limits, on_error, time_limit)
    options = OnlineOptions(online, training, shaping, leash)
    place = Place(run.folder / "rollouts", run.seed, run.name)
    kinds: dict[str, Any] = {"reference": reference, "given": given, "watch": looks}

    def source_of(learner: Policy) -> RolloutSource:
        return rollout_source(learner, asked, judged, terms, options, place, **kinds)

    lived(run, policy, planted, terms, training, asked, source_of)


def lived(
    run: StageRun,
    policy: Policy,
    planted: Planted,
    terms: Sum,
    training: Training,
    asked: Sequence[Prompt],
    source: Callable[[Policy], RolloutSource],
) -> None:
    """Run the loop over what `source` gives, and say in the summary what is to be said of its rounds."""
    made: list[RolloutSource] = []

    def kept(learner: Policy) -> RolloutSource:
        made.append(source(learner))
        return made[0]

    def measured() -> Measured:
        notes = [*unscored(run.folder / "rollouts"), *untaught(run.folder, made[0]), *made[0].account()]
        folder, source = run.folder / "rollouts", made[0]
        whole = account.of(folder)
        run.write("responses.json", account.samples(folder, whole))
        longest, more = source.schedule.online.max_new_tokens, beside(source)
        lived = Rounds(whole, source.builder.compares, source.builder.imitates, longest, more)
        return Measured(look=look_at(source.looking), counts=counts(source), notes=notes, rounds=lived)

    learn(run, policy, planted, terms, training, Batch((first_of(asked),)), kept, measure=measured)
    if run.leads:
        for name in ("checkpoints", "best", "references"):  # what a resume asks for, its checkpoints first
            shutil.rmtree(run.folder / name, ignore_errors=True)


def beside(source: RolloutSource) -> str:
    """What a stage learns from beside the scores of its answers; empty where they are all."""
    costs = source.schedule.online.unfinished_penalty > 0 or source.builder.shaping.overlong_buffer is not None
    texts = bool(source.given.trees)
    return " and ".join(["what the length of an answer costs"] * costs + ["the texts of pretrain"] * texts)


def look_at(looking: Looking | None) -> Look | None:
    """The look that tells of the weights a stage leaves: the last one, or with `patience` the best."""
    if looking is None:
        return None
    watch = looking.watch
    row = watch.best if looking.picks else watch.rows[-1]
    return Look(row, watch.names, len(watch.rows), looking.picks)


def counts(source: RolloutSource) -> dict[str, int]:
    """What is counted over all rounds of a stage, those before a resume and those that taught nothing too: responses,
    those that could not be scored, were left alone, hung a reward or could not be read by it; prompts replaced."""
    found = dict(experience.counts(source.folder, fewest=2 if source.builder.compares else 1))
    found |= counted_parts(experience.parts(source.folder))
    if source.schedule.online.resample is not None:
        rounds = experience.rounds(source.folder).items()
        found["resampled"] = sum(
            replaced(source.schedule.prompts_of(number - 1), experience.read(path)) for number, path in rounds
        )
    return found


def forecasting(
    run: StageRun, policy: Policy, value: Any, terms: Sum, training: Training, online: Online, asked: Sequence[Prompt]
) -> None:
    """Give the policy what it forecasts with, where a term reads forecasts: a head, or the model that `value` names.

    UserError for a model that cannot read the policy's tokens or its longest answers.
    """
    if "value_BT" not in terms.all_signals:
        return
    if value is None:
        policy.put_value_head()
        return
    reader = learner(run, load(run.model(value), "reward", seed=run.seed), training)
    put_on(policy, reader, Batch((first_of(asked),)))
    if not all(fits(reader, p.ids, Sampling(online.max_new_tokens)) for p in asked):
        raise UserError(
            f"stage {run.name}: value model '{reader.name}' reads {context_length(reader)} tokens, and a prompt with "
            "its longest answer has more; lower max_new_tokens or max_length"
        )


def texts(run: StageRun, policy: Policy, pretrain: Any, training: Training) -> Given:
    """What `ptx` learns from beside answers."""
    if pretrain is None:
        return Given()
    planted = prepare.plant_for(run, policy, run.records(pretrain), training, "text")
    return Given(planted.trees, run.seed + training.seed)


def first_of(asked: Sequence[Prompt]) -> Tree:
    """A small tree, the same on every process, by which all judge how a model is read."""
    return Tree(asked[0].ids, (Branch("response", asked[0].ids[-1:], (True,)),), 0, asked[0].row)


def watched(
    run: StageRun,
    policy: Policy,
    spec: Any,
    prompts: Any,
    unlike: Records,
    watching: Watching,
    limits: tuple[Training, Online],
    on_error: Literal["stop", "drop"],
    time_limit: float,
) -> Watch | None:
    """What a stage looks at on the way: rewards, and prompts, each different one once, that are not among those it
    learns from (`unlike`)."""
    if spec is None:
        return None
    once = distinct(run.records(prompts, want="prompts"))
    asked, _ = askable(run, policy, unseen(once, [unlike]), *limits)
    if len(asked) < 2:
        raise UserError(
            f"stage {run.name}: a mean over one watched prompt has no error; give watch_prompts more of them"
        )
    rows, first = [(p.row, p.columns) for p in asked], answered(run, policy, asked, limits[1])
    rewards = appointed(run, spec, rows, first, "sum", on_error, time_limit)
    return Watch(run.folder / "watch.jsonl", asked, rewards, watching, lambda text: run.show.say(f"  {text}"))


def limited(terms: Sum, online: Online) -> Sum:
    """The terms, told how long the longest answer may be."""
    return Sum([replace(term, longest=online.max_new_tokens) for term in terms.terms])


def distinct(records: Records) -> Records:
    """The records with each different prompt once, at its first place: the same prompt twice is no second witness."""
    places = {record.prompt: i for i, record in reversed(list(enumerate(records.records)))}
    return records.subset(sorted(places.values()), records.name)


def askable(
    run: StageRun, policy: Policy, records: Records, training: Training, online: Online
) -> tuple[list[Prompt], Planted]:
    """The prompts as tokens, and an account of those that leave no room for an answer."""
    renderer, most = Renderer(policy.tokenizer), min(training.max_length, context_length(policy))
    asked, notes = [], list(without_tools(records).notes)
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
    trees = tuple(Tree(p.ids, (), i, p.row) for i, p in enumerate(asked))
    planted = Planted(trees, tuple(notes), records.name)
    run.note(f"{records.name}: {planted.text()}")
    run.note(clock.note(policy.tokenizer))
    return asked, planted


def answered(run: StageRun, policy: Policy, asked: Sequence[Prompt], online: Online) -> First:
    """The policy's answers to the first prompts as it is now, sampled when they are asked for."""
    some = asked[:SETTLING]

    def first() -> tuple[list[Messages], list[str]]:
        sampling = Sampling(online.max_new_tokens, online.temperature, derived(run.seed, run.name, "first"))
        rollouts = generate(policy, [p.ids for p in some], sampling)
        return [p.messages for p in some], [response_text(policy, r) for r in rollouts]

    return functools.cache(first)


def unscored(folder: Path) -> list[str]:
    """How many answers of all rounds hung a reward or could not be read by it, and how many could not be scored and why
    the first could not; nothing where all could."""
    notes = hung(experience.parts(folder))
    said = experience.failures(folder)
    failed = [why for why in said if why]
    if not failed:
        return notes
    return [
        *notes,
        f"{len(failed)} of {len(said)} answers could not be scored and were left out; the first: {failed[0]}",
    ]


def untaught(folder: Path, source: RolloutSource) -> list[str]:
    """How many rounds of the whole stage, those before a resume too, were passed over because their answers taught
    nothing: they have no update among the metrics. The last one may have ended the stage instead."""
    taught = {(row["step"] - 1) // source.schedule.updates + 1 for _, row in door.read_log(folder / "metrics.jsonl")}
    lived = list(experience.rounds(folder / "rollouts"))
    rounds = [number for number in lived if number not in taught and not (source.ended and number == lived[-1])]
    told = ", ".join(map(str, rounds[:10])) + (", ..." if len(rounds) > 10 else "")
    return [f"{len(rounds)} rounds taught nothing and had no update: {told}"] if rounds else []


def frozen(policy: Policy) -> Policy:
    """A copy of the policy as it is now, which no training reaches."""
    model = copy.deepcopy(policy.model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return replace(policy, model=model)
