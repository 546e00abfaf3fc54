"""Rules between the options of `reinforce`: monitored rewards, and options that the objective reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

from truing import registry
from truing.data.kinds import common_shape
from truing.errors import UserError
from truing.online.unread import unread
from truing.recipe.families import of_rollouts
from truing.recipe.objective_spec import names_of
from truing.recipe.reward_spec import COST, TIE_TOLERANCE, WEIGHT, options_of
from truing.recipe.scope import Scope
from truing.recipe.values import is_set
from truing.schema.signature import Part
from truing.settings import KLControl, Online, Shaping
from truing.yaml_text.reading import Node

Group = TypeVar("Group", Online, Shaping, KLControl)


MONITORING = ("monitor_prompts", "monitor_every", "patience")


def monitored(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> Iterator[tuple[str, str]]:
    """Check that monitoring has rewards to evaluate, and prompts that nothing is learned from."""
    if "monitor" in nodes and "monitor" not in options:  # a mistake already noted
        return
    rewards = options.get("monitor")
    if rewards is None:
        for name in MONITORING:
            if options.get(name) is not None:
                yield name, f"'{name}' has no effect without 'monitor' (rewards to monitor: [gold])"
        return
    if "monitor_prompts" not in nodes:
        yield (
            "monitor",
            "'monitor' needs 'monitor_prompts', which nothing is learned from: a part of a split, or "
            "world:prompts?n=200&split=eval",
        )
    if any(COST in reward for reward in rewards):
        yield "monitor", "a cost is for learning; monitor the reward itself"
    for key in (WEIGHT.name, TIE_TOLERANCE.name):
        if any(key in options_of(reward) for reward in rewards):
            yield "monitor", f"'{key}' has no effect on a monitored reward, each of which is evaluated by itself"
    origin = scope.origin(options.get("monitor_prompts"))
    if any("gold" in reward for reward in rewards) and isinstance(origin, str) and not origin.startswith("world:"):
        yield (
            "monitor",
            "the monitored reward is gold, which knows the truth of prompts of the world only, and these come "
            f"from '{origin}'; monitor a reward model, or a verifier",
        )


def learned(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> Iterator[tuple[str, str]]:
    """Check that the options about a stage's own responses go with its objective."""
    if options.get("tokens_per_step") is not None:
        yield "tokens_per_step", "responses have no length before they are sampled; set rows_per_step (prompts)"
    if isinstance(options.get("value"), list):
        yield "value", "'value' is one reward model, not a list of them"
    terms = objectives(part, options, nodes, scope)
    if not terms:
        return
    alone = {term.advantage for term in terms} & {"gae", "returns", "none"}
    if not alone and options.get("group_size") == 1:
        yield "group_size", "responses are compared with each other; set group_size to 2 or more"
    yield from unheard(options, terms)
    read = {signal for term in terms for signal in (*term.needs, *term.optional, *term.surveyed)}
    if options.get("value") is not None and "value_BT" not in read:
        yield (
            "value",
            "'value' has no effect on this objective, which reads no value estimates; leave it out, or learn with "
            "[ppo, {value_clipped: {weight: 0.1}}]",
        )
    if ("given_logp_B" in read) != (is_set(options, nodes, "pretrain")):
        where = "pretrain" if "pretrain" in nodes else "objective" if "objective" in nodes else ""
        if where:
            yield (
                where,
                "'pretrain' (texts) and the objective 'ptx' go together; give both, as in pretrain: texts.jsonl, "
                "objective: [dapo, {ptx: {weight: 1.0}}], or neither",
            )


def unheard(options: dict[str, Any], terms: list[Part]) -> Iterator[tuple[str, str]]:
    """Options that the objective does not read; one that the objective has under the same name belongs there."""
    advantage: Any = next((term.advantage for term in terms if term.advantage not in ("", "any")), None)
    if advantage is None and any(of_rollouts(term) for term in terms):
        return  # a mistake already noted
    try:
        imitates = advantage is None and common_shape((term.name, term.needs) for term in terms) == "single"
    except UserError:
        return
    online, shaping, kl_control = group(Online, options), group(Shaping, options), group(KLControl, options)
    compares = not imitates and advantage not in ("gae", "returns", "none") and online.group_size > 1
    for name, why in unread(online, shaping, kl_control, advantage, imitates, compares, referred=True):
        owner = next((term.name for term in terms if term.option(name)), "")
        yield name, why + (f"; the objective has its own, {owner}: {{{name}: {options[name]}}}" if owner else "")


def group(kind: type[Group], options: dict[str, Any]) -> Group:
    """The options of a stage that belong to one group, those that are not set at their defaults."""
    names = {f.name for f in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in options.items() if name in names and value is not None})


def objectives(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> list[Part]:
    """The terms of a stage's objective; none where there is a mistake in it."""
    option = part.option("objective")
    objective = options.get("objective", None if option is None or "objective" in nodes else option.default)
    if None in (objective if isinstance(objective, list) else [objective]):
        return []
    return [registry.resolve(name, "objective", scope.folder) for name in names_of(objective)]


RULES = (monitored, learned)
