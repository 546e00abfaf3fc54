"""A policy of one layer that learns from its own answers in a fraction of a second: shared by the tests of rounds."""

from __future__ import annotations

import json

from small_fit import fitted, weights
from small_models import build
from truing import registry
from truing.online.source import Judged, OnlineOptions, Place, Prompt, rollout_source
from truing.policy.load import load
from truing.records import Message
from truing.registry import RewardFunction
from truing.rewards.call import Call
from truing.rewards.combine import Rewards
from truing.rewards.combine import Term as Term_
from truing.settings import Online, Training
from truing.train.objective_sum import Term, WeightedObjectives

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8


def folder_of(factory):
    """The model's folder."""
    return str(build("llama", TEXT, factory.mktemp("online"), vocab=300))


def prompts(n=6):
    """Prompts of different lengths."""
    said = ["a refund", "the rule", "thirty days, please", "no", "the desk grants what", "an order"]
    return [Prompt(i + 1, (Message("user", said[i]),), tuple(range(20 + i, 24 + 2 * i))) for i in range(n)]


def judged(values=None, on_error="stop"):
    """An answer is worth the share of its tokens below 150; `text` is its token ids."""

    def text(policy, rollout):
        return json.dumps(rollout.response_ids)

    def below(responses):
        ids = [json.loads(answer) for answer in responses]
        return values(ids) if values else [sum(i < 150 for i in row) / len(row) for row in ids]

    return Judged(text, rewards_of(below, on_error=on_error))


def rewards_of(*functions, scope="response", on_error="stop", costs=None, seconds=60.0):
    """Rewards of plain functions by their names; `costs` are those under a budget."""
    terms = [Term_(f.__name__, Call(RewardFunction(f, scope), {}, seconds)) for f in functions]
    terms = [Term_(t.name, t.call, cost=(costs or {}).get(t.name)) for t in terms]
    return Rewards(tuple(terms), on_error=on_error)


def terms_of(name, longest=12):
    """An objective, with a value head where it is PPO."""
    terms = [Term(registry.load(name, "objective"), {}, longest=longest)]
    if name == "ppo":
        terms.append(Term(registry.load("value_clipped", "objective"), {}, 0.1))
    return WeightedObjectives(terms)


def beta_of(name):
    """Beta where the method reads one."""
    return 0.0 if registry.load(name, "objective").advantage in (None, "none") else 0.05


def made(folder, out, name, judge=None, asked=None, **options):
    """A policy and the source of its rollouts."""
    more = {f: options.pop(f) for f in ("monitor_log", "engine") if f in options}
    limits = {f: options.pop(f) for f in ("shaping", "kl_control") if f in options}
    place = Place(out / "rollouts", stage=options.pop("stage", ""))
    own = {f: options.pop(f) for f in Online.__dataclass_fields__ if f in options}
    online = Online(**({"group_size": 3, "max_new_tokens": 12, "beta": beta_of(name)} | own))
    training = Training(**({"steps": 6, "rows_per_step": 2, "learning_rate": 1e-2} | options))
    policy, terms = load(folder), terms_of(name)
    if "value_BT" in terms.all_signals:
        policy.put_value_head()
    all_options = OnlineOptions(online, training, **limits)
    more |= {"reference": load(folder)}
    return policy, rollout_source(policy, asked or prompts(), judge or judged(), terms, all_options, place, **more)


def collected(source, number):
    """The experience of a round, without a trace on disk."""
    return source.collect(source.plan(number))


def trees_of(source, rows):
    """The trees of a round's experience."""
    return source.trees(plan_of(source, rows), rows)


def round_of(source, rows):
    """A round's experience as numbers."""
    return source.builder.round(plan_of(source, rows), rows)


def plan_of(source, rows):
    """The plan of the round that some experience is of."""
    return source.plan(rows[0].policy_version // source.schedule.updates)


def run(folder, out, name, stop_after=None, judge=None, **options):
    """The policy after the run, its source, and its metrics; `stop_after` an update the process dies."""
    policy, source = made(folder, out, name, judge, **options)
    rows = fitted(policy, source, source.builder.terms, out, stop_after)
    return policy, source, rows


def trained(folder, out, name, stop_after=None, judge=None, **options):
    """The weights after the run, and its metrics."""
    policy, _, rows = run(folder, out, name, stop_after, judge, **options)
    return weights(policy), rows
