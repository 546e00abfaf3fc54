"""Short runs of any objective in any precision on a given model, and what is to be seen at their first update."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch

from small_fit import fitted
from small_trees import fitting
from truing import registry
from truing.data.batch import Batch, Branch, Tree
from truing.data.rendering.render import Renderer
from truing.online.source import Judged, OnlineOptions, Place, Prompt, RolloutSource, rollout_source
from truing.policy import heads
from truing.policy.load import load
from truing.policy.policy import Policy
from truing.policy.reference import Reference, compute
from truing.records import Message
from truing.registry import RewardFunction
from truing.rewards.call import Call
from truing.rewards.combine import Rewards
from truing.rewards.combine import Term as Scored
from truing.settings import Online, Training
from truing.signals.observe import observe
from truing.train.checks import at_sampling, compared, trouble, with_own
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.source import DataSource
from truing.train.step_statistics import Survey

QUESTIONS = ("What is a refund?", "Name a colour.", "Say hello to my friend.", "What is two plus two?")


def terms_of(name: str, longest: int) -> WeightedObjectives:
    """An objective, with what it cannot stand without."""
    names = {"ppo": ["ppo", "value_clipped"], "kl_k2": ["dapo", "kl_k2"], "kl_k3": ["dapo", "kl_k3"]}
    names |= {"entropy": ["dapo", "entropy"]}
    found = [registry.load(each, "objective") for each in names.get(name, [name])]
    return WeightedObjectives([Term(each, {}, longest=longest) for each in found])


def given(folder: str, name: str, out: Path, precision: str, trees=None, **options) -> list[dict[str, float]]:
    """The metrics of three steps on trees of random tokens in the objective's own shape, or on these."""
    terms = terms_of(name, 16)
    (objective,) = [term.objective for term in terms.terms]
    teaches = any("reward" in need or "_logit_" in need for need in objective.needs)
    policy = heads.fresh_reward(folder, seed=3) if teaches else load(folder, seed=3)
    policy.compute_in(precision)
    if "tie_logit_B" in objective.needs:
        policy.model.register_parameter("tie_logit", torch.nn.Parameter(torch.zeros(1)))
    trees = trees or fitting(name, 4)
    read = (*trees, *(tree.shadow for tree in trees if tree.shadow is not None))
    reference = compute(policy, read, 4096) if terms.needs_reference else None
    training = Training(**({"steps": 3, "rows_per_step": 4, "learning_rate": 1e-5, "precision": precision} | options))
    return fitted(policy, DataSource(trees, training), terms, out, reference=reference)


def vowels(responses):
    """The share of vowels in a response: a reward that differs between almost any two."""
    return [sum(letter in "aeiou" for letter in text) / (len(text) + 1) for text in responses]


def source_of(folder: str, name: str, out: Path, precision: str, **options) -> RolloutSource:
    """A policy that answers the first `questions` of four, four times each, with KL control to what it was."""
    texts = QUESTIONS[: options.pop("questions", len(QUESTIONS))]
    own = {f: options.pop(f) for f in Online.__dataclass_fields__ if f in options}
    online = Online(**({"group_size": 4, "max_new_tokens": 12, "beta": beta_of(name)} | own))
    policy = load(folder, seed=3)
    policy.compute_in(precision)
    terms = terms_of(name, online.max_new_tokens)
    if "value_BT" in terms.all_signals:
        policy.put_value_head()
    renderer = Renderer(policy.tokenizer)
    said = [(Message("user", text),) for text in texts]
    asked = [Prompt(i, m, tuple(renderer.prompt_ids(m))) for i, m in enumerate(said, start=1)]
    judged = Judged(
        lambda p, r: p.tokenizer.decode(r.response_ids, skip_special_tokens=True),
        Rewards((Scored("vowels", Call(RewardFunction(vowels, "response"), {}, 60.0)),)),
    )
    training = Training(**({"steps": 3, "rows_per_step": 4, "learning_rate": 1e-6, "precision": precision} | options))
    reference = load(folder, seed=3)
    reference.compute_in(precision)
    place, every = Place(out / "rollouts"), OnlineOptions(online, training)
    return rollout_source(policy, asked, judged, terms, every, place, reference=reference)


def beta_of(name: str) -> float:
    """Beta where the method reads one."""
    return 0.0 if registry.load(name, "objective").advantage in (None, "none") else 0.05


def online(folder: str, name: str, out: Path, precision: str, **options) -> list[dict[str, float]]:
    """The metrics of updates on the policy's own answers, three unless `steps` says otherwise."""
    source = source_of(folder, name, out, precision, **options)
    return fitted(source.policy, source, source.builder.terms, out)


def share_with_gradient(source: RolloutSource, *, fresh: bool = True) -> float:
    """The share of rows whose loss has a gradient at the first update of the first round; with `fresh` false, as it is
    where the sampler's own log-probabilities stand for the policy's. Not a number of an objective that reads no ratio."""
    _, batch = next(source.since(0))
    sampled = [replace_facts(tree, "old_logp_BT", "sampler_logp_BT") for tree in batch.trees]
    signals = observe(source.policy, Batch(tuple(sampled)), with_own(source.builder.terms.all_signals))
    signals = at_sampling(signals) if fresh else signals
    survey = Survey(source.builder.terms)
    survey.take(batch, [(batch, 1.0)], lambda part, names: {name: signals[name] for name in names})
    of_step = survey.of(batch)
    rows = torch.zeros(batch.rows)
    if not any(name.startswith("old_logp") for term in source.builder.terms.terms for name in term.objective.observed):
        return math.nan
    for called, term in zip(source.builder.terms.names, source.builder.terms.terms, strict=True):
        if not any(name.startswith("old_logp") for name in term.objective.observed):
            continue
        name = "logp_BT" if "logp_BT" in term.objective.observed else "logp_B"
        leaf = signals[name].detach().double().requires_grad_()
        (slope,) = torch.autograd.grad(term.losses(signals | {name: leaf}, of_step.get(called, {})).sum(), leaf)
        rows += slope.abs().reshape(batch.rows, -1).sum(1)
    return float((rows > 0).double().mean())


def replace_facts(tree: Tree, name: str, other: str) -> Tree:
    """A tree in which one fact of its answers' tokens stands for another."""
    branches = [dataclasses.replace(b, facts={**b.facts, name: b.facts[other]}) for b in tree.branches]
    return dataclasses.replace(tree, branches=tuple(branches))


def begun(policy: Policy, batch: Batch, reference: Reference) -> str:
    """What is in the way of a first update by dpo, if anything."""
    terms = terms_of("dpo", 0)
    names = terms.all_signals | compared(terms, 1, False, True)
    with torch.no_grad():
        return trouble(1, batch, policy, observe(policy, batch, names, reference), 0.0)


def asked(folder: str) -> Batch:
    """Two trees of a question with two responses each."""
    tokenizer = load(folder).tokenizer
    renderer = Renderer(tokenizer)

    def branch(text: str) -> Branch:
        ids = tuple(tokenizer(text, add_special_tokens=False).input_ids)
        return Branch("response", ids, (True,) * len(ids))

    responses = ("I am not sure, but I can find out for you if you give me the number of your order.", "No, never.")
    return Batch(
        tuple(
            Tree(tuple(renderer.prompt_ids((Message("user", text),))), tuple(map(branch, responses)), i, i)
            for i, text in enumerate(QUESTIONS[:2])
        )
    )


def shorter(batch: Batch, most: int) -> Batch:
    """The same trees with responses of at most so many tokens."""

    def cut(branch):
        return dataclasses.replace(branch, ids=branch.ids[:most], loss=branch.loss[:most])

    trees = [dataclasses.replace(t, branches=tuple(map(cut, t.branches))) for t in batch.trees]
    return Batch(tuple(trees))
