"""Penalties beside a method, and a temperature: where they begin, what they hold, what is refused, and that neither
parts nor a kill change anything."""

import json
from pathlib import Path

import pytest
import torch

from small_fit import apart, fitted, weights
from small_models import build
from small_online import collected, trees_of
from truing import registry
from truing.data.batch import Batch
from truing.errors import UserError
from truing.online.advantages import advantage_of
from truing.online.source import Judged, OnlineOptions, Place, Prompt, rollout_source
from truing.policy.load import load
from truing.recipe.check import check
from truing.records import Message
from truing.registry import RewardFunction
from truing.rewards.call import Call
from truing.rewards.combine import Rewards
from truing.rewards.combine import Term as Scored
from truing.settings import Online, Training
from truing.signals.observe import observe
from truing.train.objective_sum import Term, WeightedObjectives

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8
GRPO = Path(__file__).parent.parent.parent / "recipes" / "grpo.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(build("llama", TEXT, tmp_path_factory.mktemp("penalties"), vocab=300))


def terms_of(*named) -> WeightedObjectives:
    """Terms from names, or from a name with its weight."""
    pairs = [name if isinstance(name, tuple) else (name, 1.0) for name in named]
    return WeightedObjectives(
        [Term(registry.load(name, "objective"), {}, weight, longest=12) for name, weight in pairs]
    )


def made(folder, out, terms, temperature=None, **options):
    """A policy and its source: six prompts, an answer is worth the share of its tokens below 150."""

    def below(responses):
        rows = [json.loads(text) for text in responses]
        return [sum(i < 150 for i in row) / len(row) for row in rows]

    judged = Judged(
        lambda policy, rollout: json.dumps(rollout.response_ids),
        Rewards((Scored("below", Call(RewardFunction(below, "response"), {}, 60.0)),)),
    )
    online = Online(
        group_size=3, max_new_tokens=12, **{k: options.pop(k) for k in ("epochs_per_round",) if k in options}
    )
    training = Training(**{"steps": 6, "rows_per_step": 2, "learning_rate": 1e-2, "warmup": 0.0} | options)
    asked = [Prompt(i + 1, (Message("user", str(i)),), tuple(range(20 + i, 24 + 2 * i))) for i in range(6)]
    policy, reference = load(folder), load(folder)
    if temperature is not None:
        online = online.changed(temperature=temperature)
        policy.temperature = reference.temperature = temperature
    if "value_BT" in terms.all_signals:
        policy.put_value_head()
    place, every = Place(out / "rollouts"), OnlineOptions(online, training)
    return policy, rollout_source(policy, asked, judged, terms, every, place, reference=reference)


def trained(folder, out, terms, stop_after=None, **options):
    """The weights after the run, and its metrics; `stop_after` an update the process dies."""
    policy, source = made(folder, out, terms, **options)
    rows = fitted(policy, source, terms, out, stop_after)
    return weights(policy), rows


@pytest.mark.parametrize("name", ["kl_k2", "kl_k3"])
def test_a_leash_in_the_loss_begins_at_0_and_holds(name, folder, tmp_path) -> None:
    """At the first update it is 0 and changes nothing; afterwards the policy stays nearer, and the more it weighs."""
    free, told = trained(folder, tmp_path / "free", terms_of("dapo"))
    distance = []
    for weight in (0.0, 10.0):
        weights, rows = trained(folder, tmp_path / str(weight), terms_of("dapo", (name, weight)))
        assert rows[0][name] == pytest.approx(0.0, abs=1e-9) and rows[0]["loss"] == pytest.approx(told[0]["loss"])
        distance.append(rows[-1][name])
        assert (apart(weights, free) == 0.0) == (weight == 0.0)
    assert distance[0] > 2 * distance[1] > 0


def test_an_entropy_bonus_keeps_the_policy_spread_out(folder, tmp_path) -> None:
    """And each line of metrics says the mean entropy, whose negative is the term."""
    last = {}
    for weight in (0.0, 0.3):
        _, rows = trained(folder, tmp_path / str(weight), terms_of("dapo", ("entropy", weight)), temperature=0.3)
        assert all(0 < row["entropy_nats"] < torch.tensor(300.0).log() for row in rows)
        assert rows[0]["entropy"] == pytest.approx(-rows[0]["entropy_nats"], rel=0.05), "means over tokens and rows"
        last[weight] = rows[-1]["entropy_nats"]
    assert last[0.3] > last[0.0] + 0.1


BOTH = (("ppo", ("value_clipped", 0.1), ("entropy", 0.01), ("kl_k3", 0.1)), ("dapo", ("entropy", 0.01), ("kl_k2", 0.1)))


@pytest.mark.parametrize("named", BOTH, ids=lambda named: named[0])
def test_at_a_temperature_parts_and_a_kill_change_nothing(named, folder, tmp_path) -> None:
    """Rounds of two updates at 0.7, whose first is at ratio 1 (`fit` stops a run of which that is not so)."""
    options = dict(temperature=0.7, epochs_per_round=2, checkpoint_every=2)
    whole, rows = trained(folder, tmp_path / "a", terms_of(*named), **options)
    trained(folder, tmp_path / "b", terms_of(*named), stop_after=3, **options)
    again, more = trained(folder, tmp_path / "b", terms_of(*named), **options)
    assert apart(whole, again) == 0.0
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in rows] == [
        {k: v for k, v in r.items() if k != "seconds"} for r in more
    ]
    _, split = trained(folder, tmp_path / "c", terms_of(*named), tokens_per_device=30, **options)
    assert split[0]["grad_norm"] == pytest.approx(rows[0]["grad_norm"], rel=1e-3)
    assert split[0]["entropy_nats"] == pytest.approx(rows[0]["entropy_nats"], rel=1e-4)
    colder = trained(folder, tmp_path / "d", terms_of(*named), **options | {"temperature": 0.5})[1]
    assert colder[0]["entropy_nats"] < rows[0]["entropy_nats"]


def test_policy_reference_and_sampler_are_at_one_temperature(folder, tmp_path) -> None:
    """The ratio of sampler and trainer, and that to the reference, begin at 1; one of two temperatures is refused."""
    policy, source = made(folder, tmp_path, terms_of("dapo", "kl_k2"), temperature=1.7)
    trees = trees_of(source, collected(source, 0))
    names = frozenset({"logp_BT", "old_logp_BT", "ref_logp_BT", "mask_BT"})
    with torch.no_grad():
        seen = observe(policy, Batch(tuple(trees)), names)
        policy.temperature = 1.0
        other = observe(policy, Batch(tuple(trees)), names)
    assert (seen["logp_BT"] - seen["old_logp_BT"]).abs().max() < 1e-4
    assert (seen["logp_BT"] - seen["ref_logp_BT"]).abs().max() < 1e-4
    assert (other["logp_BT"] - other["old_logp_BT"]).abs().max() > 0.1
    with pytest.raises(UserError, match=r"sampled at temperature 1.7 and the trainer reads its policy at 1: "):
        asked, terms = source.schedule.prompts, source.builder.terms
        every = OnlineOptions(source.schedule.online, source.training)
        rollout_source(policy, asked, source.collector.judged, terms, every, Place(tmp_path))


def test_a_penalty_stands_beside_advantages_and_not_alone() -> None:
    assert advantage_of(terms_of("dapo", "kl_k2", "entropy")) == "standardised"
    assert advantage_of(terms_of("entropy", "ppo", "value_clipped")) == "gae"
    for named in (("kl_k2",), ("entropy", "kl_k3"), ("dpo", "entropy"), ("nll", "kl_k2")):
        with pytest.raises(UserError, match="goes with a method that has advantages, and there is none; put it beside"):
            advantage_of(terms_of(*named))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("policy.objective=kl_k2", "'kl_k2' goes with a method that has advantages, and there is none"),
        ("policy.objective=[dpo, {entropy: {weight: 0.1}}]", "'entropy' goes with a method that has advantages"),
        ("warm.objective=[nll, entropy]", "which sft does not give; it belongs under reinforce"),
        ("policy.temperature=0", "temperature must be a number above 0, got 0"),
        ("policy.top_p=0.9", "unknown option 'top_p'"),
    ],
)
def test_a_recipe_is_refused_before_anything_runs(setting, said) -> None:
    with pytest.raises(UserError, match=said):
        check(GRPO, [setting])


def test_a_recipe_takes_them() -> None:
    recipe = check(GRPO, ["policy.objective=[dapo, {kl_k2: {weight: 0.05}}, {entropy: {weight: 0.001}}]"])
    assert [next(iter(t)) for t in recipe.stages[-2].options["objective"][1:]] == ["kl_k2", "entropy"]
