"""Options of a stage that go together: refused when the recipe is checked where one says nothing without another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

from truing import registry
from truing.data.kinds import common_shape
from truing.errors import UserError, unknown
from truing.online.unread import unread
from truing.recipe.families import of_rollouts
from truing.recipe.objective_spec import names_of
from truing.recipe.references import Ref
from truing.recipe.reward_spec import COST, GOLD, WEIGHT, WITHIN, options_of
from truing.recipe.scope import Scope
from truing.settings import Leash, Online, Shaping
from truing.signature import Part
from truing.yaml_text.reading import Node

Group = TypeVar("Group", Online, Shaping, Leash)
WATCHING = ("watch_prompts", "watch_every", "patience")
ANSWERED = ("judge", "aggregate", "lookup", "samples", "answers", "passing", "max_new_tokens", "temperature", "preview")
TRYING = ("labelled", "least_accuracy", "exact", "trusted", "trusted_samples")
"""What says nothing in an exam where no prompts are answered."""


def check_together(part: Part, found: dict[str, Any], given: dict[str, Node], scope: Scope) -> None:
    """Note every option that says nothing beside the others of its stage, and every one that lacks another."""
    told: list[tuple[str, str]] = []
    if part.option("watch"):
        told += [*watched(found, given, scope), *learned(part, found, given, scope)]
    if part.option("runs"):
        told += diagnosed(found, scope)
    if part.option("lookup"):
        told += examined(found, given)
    told += alike(part, found)
    for option, said in told:
        scope.mistakes.add(given[option].line, scope.place + said)


def examined(found: dict[str, Any], given: dict[str, Node]) -> Iterator[tuple[str, str]]:
    """An exam has prompts to answer, or pairs to order; its judge is tried where it may err, and nowhere else."""
    if "prompts" in given:
        yield from trusting(found, given)
        return
    if "data" not in given and "models" in given:
        yield "models", "there is nothing to measure: give prompts (to answer) or data (pairs to order)"
        return
    for name in (*ANSWERED, *TRYING):
        if name in found:
            yield name, f"'{name}' says nothing without 'prompts' (to answer)"


def trusting(found: dict[str, Any], given: dict[str, Node]) -> Iterator[tuple[str, str]]:
    """What is said of a judge's errors goes together."""
    judge = found.get("judge", "" if "judge" in given else GOLD)
    if "judge" in given and "judge" not in found:  # a mistake already noted
        return
    if judge == GOLD or found.get("exact"):
        why = "judge is gold, which makes no errors" if judge == GOLD else "'exact' says that the judge makes no errors"
        for name in (n for n in TRYING if n in found and (n != "exact" or judge == GOLD)):
            yield name, f"'{name}' says nothing where {why}; leave it out"
        return
    if found.get("trusted_samples") is not None and "trusted" not in given:
        yield "trusted_samples", "'trusted_samples' says nothing without 'trusted' (a better judge, such as gold)"
    if found.get("trusted") is not None and found["trusted"] == judge:
        yield "trusted", "'trusted' is the judge itself; give a better one, or leave it out"


def watched(found: dict[str, Any], given: dict[str, Node], scope: Scope) -> Iterator[tuple[str, str]]:
    """Looks need rewards to look at, and prompts that nothing is learned from."""
    if "watch" in given and "watch" not in found:  # a mistake already noted
        return
    rewards = found.get("watch")
    if rewards is None:
        for name in WATCHING:
            if found.get(name) is not None:
                yield name, f"'{name}' says nothing without 'watch' (rewards to look at: [gold])"
        return
    if "watch_prompts" not in given:
        yield (
            "watch",
            "'watch' needs 'watch_prompts', which nothing is learned from: a part of a split, or "
            "world:prompts?n=200&split=eval",
        )
    if any(COST in one for one in rewards):
        yield "watch", "a cost is for learning; watch the reward itself"
    for key in (WEIGHT.name, WITHIN.name):
        if any(key in options_of(one) for one in rewards):
            yield "watch", f"'{key}' says nothing of a watched reward, each of which is looked at by itself"
    origin = scope.origin(found.get("watch_prompts"))
    if any("gold" in one for one in rewards) and isinstance(origin, str) and not origin.startswith("world:"):
        yield (
            "watch",
            "the watched reward is gold, which knows the truth of prompts of the world only, and these come "
            f"from '{origin}'; watch a reward model, or a verifier",
        )


def learned(part: Part, found: dict[str, Any], given: dict[str, Node], scope: Scope) -> Iterator[tuple[str, str]]:
    """What a stage that learns from its own answers asks of them goes with its objective."""
    if found.get("tokens_per_step") is not None:
        yield "tokens_per_step", "answers have no length before they are given; set rows_per_step (prompts)"
    if isinstance(found.get("value"), list):
        yield "value", "'value' is one reward model, not a list of them"
    terms = objectives(part, found, given, scope)
    if not terms:
        return
    alone = {term.advantage for term in terms} & {"gae", "returns", "none"}
    if not alone and found.get("answers") == 1:
        yield "answers", "answers are compared with each other; set answers to 2 or more"
    yield from unheard(found, terms)
    read = {signal for term in terms for signal in (*term.needs, *term.optional, *term.surveyed)}
    if found.get("value") is not None and "value_BT" not in read:
        yield (
            "value",
            "'value' says nothing to this objective, which reads no forecasts; leave it out, or learn with "
            "[ppo, {value_clipped: {weight: 0.1}}]",
        )
    if ("given_logp_B" in read) != (given_value(found, given, "pretrain")):
        where = "pretrain" if "pretrain" in given else "objective" if "objective" in given else ""
        if where:
            yield (
                where,
                "'pretrain' (texts) and the objective 'ptx' go together; give both, as in pretrain: texts.jsonl, "
                "objective: [dapo, {ptx: {weight: 1.0}}], or neither",
            )


def unheard(found: dict[str, Any], terms: list[Part]) -> Iterator[tuple[str, str]]:
    """Options that the objective does not read; one that it has under the same name is to stand there."""
    advantage: Any = next((term.advantage for term in terms if term.advantage not in ("", "any")), None)
    if advantage is None and any(of_rollouts(term) for term in terms):
        return  # a mistake already noted
    try:
        imitates = advantage is None and common_shape((term.name, term.needs) for term in terms) == "single"
    except UserError:
        return
    online, shaping, leash = group(Online, found), group(Shaping, found), group(Leash, found)
    compares = not imitates and advantage not in ("gae", "returns", "none") and online.answers > 1
    for name, why in unread(online, shaping, leash, advantage, imitates, compares, referred=True):
        own = next((term.name for term in terms if term.option(name)), "")
        yield name, why + (f"; the objective has its own, {own}: {{{name}: {found[name]}}}" if own else "")


def group(kind: type[Group], found: dict[str, Any]) -> Group:
    """The options of a stage that belong to one group, those that are not set at their defaults."""
    names = {f.name for f in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in found.items() if name in names and value is not None})


def given_value(found: dict[str, Any], given: dict[str, Node], name: str) -> bool:
    """Whether an option is given, be it with a mistake in it that is noted already."""
    return name in given and found.get(name, True) is not None


def objectives(part: Part, found: dict[str, Any], given: dict[str, Node], scope: Scope) -> list[Part]:
    """The terms of a stage's objective; none where there is a mistake in it."""
    option = part.option("objective")
    objective = found.get("objective", None if option is None or "objective" in given else option.default)
    if None in (objective if isinstance(objective, list) else [objective]):
        return []
    return [registry.resolve(name, "objective", scope.folder) for name in names_of(objective)]


def diagnosed(found: dict[str, Any], scope: Scope) -> Iterator[tuple[str, str]]:
    """A run is diagnosed by what it watched."""
    named = found.get("runs")
    for run in named if isinstance(named, list) else [named]:
        if run is not None and run == scope.base:
            yield "runs", "$base is no run that watched itself"
        if not isinstance(run, Ref):
            continue
        options, made = scope.options[run.stage], scope.done[run.stage]
        if made is None or not made.option("watch"):
            what = f"{run} ({made.name if made else '?'})"
            yield "runs", f"{what} is no stage that watches itself; name a reinforce stage with 'watch'"
        elif options.get("watch") is None:
            yield "runs", f"{run} watched nothing: give that stage watch: [gold] and watch_prompts"
        else:
            known, truth = looks(options["watch"]), found.get("truth", "gold")
            if known and truth not in known:
                yield ("truth" if "truth" in found else "runs"), f"{run}: {unknown('watched reward', truth, known)}"


def looks(rewards: list[dict[str, Any]]) -> list[str]:
    """What watched rewards are called in watch.jsonl; none where that is not to be told from the recipe alone."""
    names: list[str] = []
    for one in rewards:
        ((name, options),) = one.items()
        model = options.get("model") if name == "reward_model" else None
        if name not in registry.parts("reward") or not (model is None or isinstance(model, Ref)):
            return []
        names.append(model.stage if isinstance(model, Ref) else "reward_length" if name == "length" else name)
    return names if len(set(names)) == len(names) else []


def alike(part: Part, found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """At temperature 0 a model has one answer to a prompt, however often it is asked."""
    answers = part.option("answers")
    if found.get("temperature") != 0 or answers is None:
        return
    times = found.get("answers", answers.default)
    if isinstance(times, int) and times > 1:
        yield "temperature", f"at temperature 0 all {times} answers to a prompt are the same; give answers: 1"
    if isinstance(found.get("best_of"), int) and found["best_of"] > 1:
        yield "best_of", "at temperature 0 all answers to a prompt are the same, and none is the best of several"
