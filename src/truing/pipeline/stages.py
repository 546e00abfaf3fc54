"""The stages a recipe can name. A stage's keyword-only parameters are its options in a recipe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from truing.data import split as splitting
from truing.data.formats import loading
from truing.errors import UserError
from truing.evaluate.held_out import measure
from truing.gate import decide, looks
from truing.gate import rules as gate_rules
from truing.gate.standing import UNMEASURED
from truing.pipeline import examine, trial
from truing.pipeline import training as work
from truing.pipeline.context import StageRun
from truing.pipeline.judge import appoint
from truing.pipeline.lineage import taught_from
from truing.pipeline.mixture import weights_of
from truing.pipeline.spec import Ref
from truing.pipeline.stage_figures import Measured
from truing.policy import adapters
from truing.policy.heads import fresh_reward
from truing.policy.load import load
from truing.policy.policy import Policy
from truing.policy.recompute import recompute_layers
from truing.policy.scalars import Heads
from truing.registry import (
    Columns,
    Data,
    Evidence,
    Model,
    Models,
    ObjectiveSpec,
    RewardModel,
    RewardSpec,
    Rivals,
    Rules,
    stage,
)
from truing.rollout.engine import Sampling
from truing.settings import Lora, Training
from truing.types import Count, Fraction, NonNegative


@stage(gives="data", parts=("train", "eval"))
def split(
    run: StageRun,
    *,
    data: Annotated[Data, "the data set to divide: a file, a Hub name or world:NAME"],
    by: Annotated[Literal["prompt", "row"], "keep every row of a prompt on one side, or divide single rows"] = "prompt",
    eval: Annotated[Fraction, "share of the prompts (or rows) that is held out"] = 0.1,
    read: Annotated[
        Literal["any", "prompts"], "whether rows are prompts whose other columns are kept for rewards"
    ] = "any",
    on_bad_row: Annotated[Literal["error", "drop"], "stop at a row of no use, or leave it out and list it"] = "error",
    columns: Annotated[Columns | None, "which column has which role, {chosen: better}; null is not read"] = None,
    seed: Annotated[int, "added to the recipe's seed; another number draws other rows to hold out"] = 0,
) -> None:
    """Divide a data set into `train` and `eval`, with no prompt (nor first user turn) on both sides.

    `by: row` divides single rows instead. `on_bad_row: drop` leaves out rows that cannot be used, and lists them. With
    `read: prompts` rows are prompts to answer, and a file's other columns are kept for the rewards that read them.
    """
    records = run.records(data, on_bad_row, want=read, columns=columns)
    run.show.say(loading.describe(records, columns=False))
    parts = splitting.split(records, eval=eval, seed=run.seed + seed, by=by)
    source = asdict(data) if isinstance(data, Ref) else data
    stored: dict[str, Any] = {"data": source, "digest": records.digest, "on_bad_row": on_bad_row}
    stored |= {"columns": columns, "read": read}
    stored |= {name: list(part.rows) for name, part in zip(("train", "eval"), parts, strict=True)}
    run.write("split.json", stored)
    figures = [{"name": n, "value": len(p), "unit": "rows"} for n, p in zip(("train", "eval"), parts, strict=True)]
    run.write("summary.json", {"do": "split", "data": loading.summary(records), "figures": figures})
    run.show.say(f"  {len(parts[0])} rows to train on, {len(parts[1])} held out, divided by {by}")


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

    Rows that ask what one of `without` (data held out) asks are left out.
    """
    policy = learner(run, load(run.model(model), seed=run.seed), training)
    records = taught_from(run, data, without, on_bad_row, columns)
    planted = work.plant_for(run, policy, records, training, "text", on_bad_row)
    work.train(run, policy, planted, work.compile_objective("nll"), training)


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
    planted = work.plant_for(run, policy, records, training, "single", on_bad_row, turns, thoughts=thoughts)
    work.train(run, policy, planted, work.compile_objective(objective), training)


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
    what they say of held-out data is measured when they are trained.
    """
    terms = work.compile_objective(objective)
    shape, names = work.shape_for(terms), work.heads_of(terms)
    taught = {t.head for t in terms.terms if t.objective.lower_is_better}
    costs = tuple(name for name in names if name in taught)
    heads = Heads(names, weights_of(names, head_weights), read=work.READ.get(shape, "end"), costs=costs)
    whole = lora.lora_rank is None or lora.lora_merge
    policy = learner(run, fresh_reward(run.model(model), seed=run.seed, whole=whole, heads=heads), training, lora)
    records = run.records(data, on_bad_row, columns=columns)
    planted, held_out = work.plant_for(run, policy, records, training, shape, on_bad_row, terms=terms), None
    if eval is not None:
        left = splitting.unseen(run.records(eval, on_bad_row, columns=columns), [records])
        held_out = work.plant_for(run, policy, left, training, shape, on_bad_row, terms=terms)
    work.begin_ties(policy, planted, terms)

    def measured() -> Measured:
        if held_out is None:
            return Measured()
        findings, missing = measure(run.name, policy, held_out.trees, terms)
        work.found(run, findings)
        return Measured(findings, notes=missing)

    work.train(run, policy, planted, terms, training, measure=measured)


@stage(gives="model")
def prefer(
    run: StageRun,
    *,
    model: Annotated[Model, "the model to train: $stage, $base, a Hub name, a folder or world:NAME"],
    data: Annotated[Data, "pairs, rankings or labelled responses, as the objective reads them"],
    reference: Annotated[
        Model | None, "the model that log-ratios are taken to; `model` as it came unless given"
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
    terms = work.compile_objective(objective)
    policy = learner(run, load(run.model(model), seed=run.seed), training, lora)
    records = run.records(data, on_bad_row, columns=columns)
    shape = work.shape_for(terms)
    planted = work.plant_for(run, policy, records, training, shape, on_bad_row, terms=terms, thoughts=thoughts)
    before = work.reference_of(run, policy, planted, training, reference) if terms.needs_reference else None
    work.train(run, policy, planted, terms, training, before)


@stage(gives="findings")
def evaluate(
    run: StageRun,
    *,
    models: Annotated[Models, "the models to measure, policies or reward models"],
    against: Annotated[Rivals, "the model or models that each is compared with, prompt by prompt"],
    prompts: Annotated[Data | None, "prompts that every policy answers afresh"] = None,
    data: Annotated[Data | None, "held-out pairs that models have to order"] = None,
    columns: Annotated[Columns | None, "which column of `data`, or else of `prompts`, has which role"] = None,
    judge: Annotated[RewardModel | RewardSpec | Literal["gold"], "who scores: gold, reward models, a reward"] = "gold",
    aggregate: Annotated[Literal["mean", "worst", "uncertainty"] | None, "how models, or heads, make one score"] = None,
    coefficient: Annotated[NonNegative | None, "of uncertainty: share of the members' variance taken off (0.5)"] = None,
    lookup: Annotated[bool, "add the world's template look-up as a contestant"] = False,
    samples: Annotated[Count, "the most prompts that are answered; more narrow the intervals"] = 500,
    answers: Annotated[Count, "answers to each prompt; several give pass@k and narrower intervals"] = 1,
    passing: Annotated[float | None, "score from which an answer counts as right, for pass@k"] = None,
    best_of: Annotated[Count | None, "add the best of so many answers, by `best_by`, as a contestant"] = None,
    best_by: Annotated[RewardModel | None, "the reward model that chooses among `best_of` answers"] = None,
    labelled: Annotated[Data | None, "pairs with a verdict on which the judge is tried before it is believed"] = None,
    least_accuracy: Annotated[Fraction, "share of labelled pairs below which the judge decides nothing"] = 0.6,
    exact: Annotated[bool, "say that the judge makes no errors, so that it is not tried"] = False,
    trusted: Annotated[
        RewardModel | RewardSpec | Literal["gold"] | None, "a better judge of some prompts, which corrects the other"
    ] = None,
    trusted_samples: Annotated[Count, "prompts that the trusted judge scores; more narrow the interval"] = 100,
    max_new_tokens: Annotated[Count, "tokens at which an answer is cut off"] = 64,
    temperature: Annotated[NonNegative, "1 samples as the model says, smaller is greedier, 0 the likeliest"] = 1.0,
    preview: Annotated[Count | None, "prompts whose table is shown before the rest is answered"] = None,
    seed: Annotated[int, "added to the recipe's seed; another number draws other answers"] = 0,
) -> None:
    """Is it better? Fresh responses to `prompts`, judged by the world's truth (`gold`), by a reward model, by any other
    reward (`{verifier: {answer: number}}`), or by an ensemble: several reward models, or with `aggregate` the heads of
    one, as their mean, the lowest, or the mean less `coefficient` times their variance.

    Finds, for each model against each of `against`, paired by prompt: win rate, mean score, change of length; and KL to
    the first of them. Reward models among `models`, and policies on `data`, are measured by accuracy. Of an ensemble it
    finds how far its members disagree on answers and on `data`; of a judge with several heads what each of them says;
    with `passing` pass@k for k = 1, 2, 4, ... as far as there are `answers`. A judge that errs is tried first, on pairs
    of `labelled` and `data` that it did not learn from: below `least_accuracy` it decides nothing, above it win rates
    are corrected for its errors, with `trusted` by prediction-powered inference.
    """
    sampling = Sampling(max_new_tokens, temperature, run.seed + seed)
    exam = examine.Exam(run, models, against, sampling, answers=answers, passing=passing, preview=preview)
    held_out = run.records(data, columns=columns) if data is not None else None
    if held_out is not None:
        exam.order(held_out)
    if prompts is not None:
        asked = run.records(prompts, want="prompts", columns=columns if data is None else None)
        who = appoint(run, judge, aggregate, coefficient, asked)
        trying = trial.Trying(labelled, held_out, least_accuracy, exact, trusted, trusted_samples)
        exam.trial, exam.better = trying.of(run, who, judge, asked)
        if best_of is not None:
            exam.choice = examine.Choice(best_of, appoint(run, best_by, None, None, asked), best_by)
        reward = exam.answer(asked, who, samples, lookup)
        exam.disagree(held_out, who, reward, judge, samples)
    if not exam.findings:
        raise UserError(f"stage {run.name} has nothing to measure: give prompts (to answer) or data (pairs to order)")
    work.found(run, exam.findings, exam.examples)
    run.show.say(exam.table())
    run.write("summary.json", exam.summary())


@stage(gives="decision")
def gate(
    run: StageRun,
    *,
    evidence: Annotated[Evidence, "the evaluate stages, or JSON files, whose findings are held against the rules"],
    rules: Annotated[Rules, "the rules file that says what a model has to reach"],
) -> None:
    """May it ship? Holds the findings of `evidence` against a rules file, and writes decision.json.

    The rules have to compare with what stands in production: `$base`, or the recipe's `production`. Of several gates in
    a recipe the worst answer is the run's.
    """
    read, asked = run.evidence(evidence), gate_rules.read_rules(Path(rules))
    gates = [spec.name for spec in run.recipe.stages if spec.do == "gate"]
    look = looks.look_number(run.root, run.name, read.findings, asked, beside=gates)
    stands = read.production or (("",) if run.recipe.replaced is None else (UNMEASURED + "base",))
    decision = decide.decide(read.findings, asked, production=stands, vouched=read.vouched, look=look)
    decide.write_decision(decision, run.folder / "decision.json", read.weights)
    run.show.say(decision.text())
    run.write("summary.json", {"do": "gate", "headline": decision.verdict, "shown": decision.text().split("\n")})


def learner(run: StageRun, policy: Policy, training: Training, lora: Lora = Lora()) -> Policy:
    """The policy as a stage trains it: with its adapter, in its precision, with activations kept or computed again."""
    if lora.lora_rank is not None:
        adapters.put_on(policy, lora, seed=run.seed + training.seed)
    if lora.lora_merge and policy.adapter is None:
        raise UserError(
            f"stage {run.name}: lora_merge, and {policy.name} is no adapter; give lora_rank, or leave it out"
        )
    policy.merge = lora.lora_merge
    if policy.merge:
        adapters.check_merge(policy)
    if policy.adapter is not None:
        run.show.say(f"  an adapter is trained: {adapters.size(policy)}")
        dropout = policy.adapter.peft_config["default"].lora_dropout
        if dropout:
            run.show.say(f"  lora_dropout {dropout:g} of this adapter is off: truing trains without dropout")
    policy.compute_in(training.precision)
    if policy.precision == "bf16" and policy.device.type == "cpu":
        run.show.say("  precision bf16 on a CPU: correct, and often slower than fp32")
    if training.gradient_checkpointing:
        recompute_layers(policy.model)
    return policy
