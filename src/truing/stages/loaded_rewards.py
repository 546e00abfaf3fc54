"""The rewards that a stage names, with their models loaded, ready to score responses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from truing import registry
from truing.data import clock
from truing.errors import UserError
from truing.policy.load import load
from truing.recipe.reward_spec import COST, TIE_TOLERANCE, TIMEOUT_SCORE, WEIGHT, options_of
from truing.records import Demonstration, Judgement, Messages, Reward
from truing.registry import RewardFunction
from truing.rewards import sandbox
from truing.rewards.call import Call
from truing.rewards.combine import Combine, Cost, OnError, Rewards, Term
from truing.rewards.isolated import isolated
from truing.rewards.scoring import RewardModel
from truing.run import foreseen_rewards
from truing.run.foreseen_rewards import Rows
from truing.run.stage_run import StageRun
from truing.schema.signature import TRL

First = Callable[[], tuple[Sequence[Messages], Sequence[str]]]
"""Prompts, and the policy's first responses to them, by which rewards are put on one scale."""


def appointed(
    run: StageRun,
    spec: Sequence[dict[str, Any]],
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    first: First,
    combine: Combine = "sum",
    on_error: OnError = "stop",
    seconds: float = 60.0,
) -> Rewards:
    """Load the rewards of a recipe in their plain form. `rows` are the prompts' rows with their numbers.

    UserError where a reward reads a column that they do not have, or cannot score by what a row holds.
    """
    terms: list[Term] = []
    for entry in spec:
        term = term_of(run, entry, first, seconds, [t.name for t in terms])
        numbered = list(rows)
        check_columns(run, term, numbered)
        check_rows(run, term, numbered)
        terms.append(term)
    return Rewards(tuple(terms), combine, on_error)


def term_of(run: StageRun, entry: dict[str, Any], first: First, seconds: float, taken: Sequence[str]) -> Term:
    """Load one reward with its weight, or with its budget if it is a cost."""
    cost = None
    if COST in entry:
        cost_options = options_of(entry)
        inner = cost_options.pop("of")
        cost, entry = Cost(**cost_options), inner
    ((name, options),) = entry.items()
    options = dict(options)
    function: RewardFunction = registry.load(name, "reward")
    declared = {option.name for option in function.options}
    weight, within, timeout_score = (
        shared.default if shared.name in declared else options.pop(shared.name, shared.default)
        for shared in (WEIGHT, TIE_TOLERANCE, TIMEOUT_SCORE)
    )
    called = label(run, function, options, taken)
    loaded = {key: with_models(run, function, key, value) for key, value in options.items()}
    if name == "program":
        run.note(sandbox.unkept(options.get("isolate", True)))
    call = Call(function, loaded, seconds)
    scorer = made(call, first) if timeout_score is None else isolated(name, call, timeout_score)
    return Term(called, scorer, weight, within, cost)


def label(run: StageRun, function: RewardFunction, options: Mapping[str, Any], taken: Sequence[str]) -> str:
    """The name of a reward in metrics: a reward model's stage or folder, any other's function; the second of a name has
    a 2 behind it."""
    alone = function.name == "reward_model" and not isinstance(options.get("model"), list)
    name = re.sub("[/:]", "_", run.labels([options["model"]])[0]) if alone else function.name
    names = [name, *(f"{name}_{i}" for i in range(2, len(taken) + 2))]
    return next(candidate for candidate in names if candidate not in taken)


def with_models(run: StageRun, function: RewardFunction, key: str, value: Any) -> Any:
    """An option's value; where it names models, these models, loaded."""
    kind = next(option.reference for option in function.options if option.name == key)
    if kind == "RewardModel" and isinstance(value, list):
        return {name: reward_model(run, member) for name, member in zip(run.labels(value), value, strict=True)}
    if kind == "RewardModel":
        return reward_model(run, value)
    return load(run.model(value)) if kind == "Model" and value is not None else value


def reward_model(run: StageRun, value: Any) -> RewardModel:
    """Load a reward model."""
    policy = load(run.model(value), "reward")
    run.note(clock.note(policy.tokenizer))
    return RewardModel(policy)


def made(call: Call, first: First) -> Call:
    """Return the call itself; for a reward that reads no response, a call of the `Reward` that it returns when called
    once."""
    function = call.function
    if function.scope == TRL or {"response", "responses"} & set(function.reads):
        return call
    arguments: dict[str, Any] = {"first": first()} if "first" in function.reads else {}
    strange = set(function.reads) - set(arguments)
    if strange:
        raise UserError(f"reward '{function.name}' reads {', '.join(sorted(strange))} and no response")
    reward: Reward = function.fn(**arguments, **call.options)

    def read(prompts: Sequence[Messages], responses: Sequence[str]) -> Any:
        """Score the responses by the `Reward`."""
        return reward(prompts, responses)

    whole = RewardFunction(read, function.scope)
    whole.name, whole.place = function.name, function.place
    return Call(whole, {}, call.seconds)


def columns_of(record: Demonstration | Judgement) -> Mapping[str, Any]:
    """The other columns of a prompt's row, by name."""
    columns: Mapping[str, Any] = record.meta.get("columns", {})
    return columns


def check_columns(run: StageRun, term: Term, rows: Rows) -> None:
    """Raise UserError where a reward's signature names a column that a prompt's row does not have (TRL's: no row
    has)."""
    function = term.call.function
    for text in foreseen_rewards.lacking(term.name, function.scope, term.call.columns, rows):
        raise UserError(f"stage {run.name}: {text}")


def check_rows(run: StageRun, term: Term, rows: Rows) -> None:
    """Raise UserError where a reward could not score by what a prompt's row holds: for all rows, before any is
    scored."""
    if text := foreseen_rewards.refused(term.call.function.check, term.call.options, rows):
        raise UserError(f"stage {run.name}: {text}")
