"""A value model of its own: what it says at first, that it learns and is kept with a checkpoint, and is not saved."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from small_fit import fitted, weights
from small_models import build
from truing import registry
from truing.data.batch import Batch, Branch, Tree
from truing.errors import UserError
from truing.online.source import Judged, OnlineOptions, Place, Prompt, rollout_source
from truing.policy import adapters, heads
from truing.policy.load import load
from truing.policy.recompute import recompute_layers
from truing.policy.scalars import Heads
from truing.policy.value import put_on, take_off
from truing.records import Message
from truing.registry import RewardFunction
from truing.rewards.call import Call
from truing.rewards.combine import Rewards
from truing.rewards.combine import Term as Scored
from truing.settings import Lora, Online, Training
from truing.train.objective_sum import Term, WeightedObjectives

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8
ROWS = (((20, 21, 22), ((30, 31), (40, 41, 42, 43), (50,))), ((25, 26), ((60, 61, 62), (70, 71))))
TREES = tuple(
    Tree(prompt, tuple(Branch("response", ids, (True,) * len(ids)) for ids in answers), i, i + 1)
    for i, (prompt, answers) in enumerate(ROWS)
)
BATCH = Batch(TREES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(build("llama", TEXT, tmp_path_factory.mktemp("valued"), vocab=300))


@pytest.fixture(scope="module")
def judge(folder, tmp_path_factory) -> str:
    """A reward model of two heads, whose reward is the first less half of the second."""
    made = heads.fresh_reward(folder, seed=5, heads=Heads(("good", "harm"), (1.0, -0.5)))
    place = tmp_path_factory.mktemp("judge") / "model"
    heads.save(made, place)
    return str(place)


def valued(folder, judge):
    policy = load(folder)
    put_on(policy, load(judge, "reward"), BATCH)
    return policy


def plain_values(judge):
    """The reward after each prefix that a response token follows, each prefix read as a row of its own."""
    reader = load(judge, "reward")
    rows = [(p, ids, t) for p, answers in ROWS for ids in answers for t in range(len(ids))]
    trees = [Tree(p[:-1], (Branch("response", (p[-1], *ids[:t]), (True,) * (t + 1)),), 0, 1) for p, ids, t in rows]
    with torch.no_grad():
        return torch.cat([reader.rewards(Batch((tree,))) for tree in trees])


def test_at_first_it_says_what_the_reward_model_says_after_every_prefix(folder, judge) -> None:
    policy = valued(folder, judge)
    with torch.no_grad():
        logp, value = policy.logp_and_values(BATCH)
        assert torch.equal(logp, load(folder).logp(BATCH)), "the policy itself is as it was"
    assert torch.allclose(value, plain_values(judge), atol=1e-5) and value.std() > 0.1
    assert value.dtype == torch.float32


def test_a_policy_read_in_rows_has_one_too(folder, judge) -> None:
    policy = valued(folder, judge)
    policy.layout = "padded"
    assert torch.allclose(policy.logp_and_values(BATCH)[1], plain_values(judge), atol=1e-5)


def test_its_gradient_reaches_the_value_model_alone_and_layers_may_be_computed_again(folder, judge) -> None:
    slopes = []
    for again in (False, True):
        policy, reader = load(folder), load(judge, "reward")
        if again:
            recompute_layers(reader.model)
        put_on(policy, reader, BATCH)
        policy.logp_and_values(BATCH)[1].square().sum().backward()
        slopes.append({n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None})
    assert slopes[0].keys() == slopes[1].keys() and all(n.startswith("value_model.") for n in slopes[0])
    assert {n.rsplit(".", 2)[-2] for n in slopes[0]} >= {"score", "embed_tokens", "q_proj", "down_proj", "norm"}
    assert all(torch.allclose(slopes[0][n], slopes[1][n], atol=1e-6) for n in slopes[0])


def test_a_saved_policy_has_no_weight_of_it(folder, judge, tmp_path) -> None:
    policy = valued(folder, judge)
    heads.save(policy, tmp_path / "model")
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "value_model" in name or "score" in name]  # noqa: SIM118
    plain, before = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "model").state_dict(),
        load(folder).model.state_dict(),
    )
    assert plain.keys() == before.keys() and all(torch.equal(plain[n], before[n]) for n in plain)
    assert policy.model.state_dict().keys() == before.keys()


@pytest.mark.parametrize("merged", [False, True])
def test_of_an_adapter_only_the_policys_own_is_saved(merged, folder, judge, tmp_path) -> None:
    """Both the policy and the value model are adapters: of the second, only the adapter and the head learn."""
    reader = heads.fresh_reward(folder, seed=5, whole=False)
    adapters.put_on(reader, Lora(lora_rank=2), seed=2)
    heads.save(reader, tmp_path / "judge")
    policy = load(folder)
    adapters.put_on(policy, Lora(lora_rank=4), seed=1)
    policy.merge = merged
    put_on(policy, load(str(tmp_path / "judge"), "reward"), BATCH)
    own = {n for n, p in policy.model.named_parameters() if p.requires_grad and n.startswith("value_model.")}
    assert own and all("lora_" in n or "score" in n for n in own)
    heads.save(policy, tmp_path / "model")
    (path,) = (tmp_path / "model").glob("*.safetensors")
    with safe_open(path, "pt") as file:
        assert not [name for name in file.keys() if "value_model" in name or "score" in name]  # noqa: SIM118
    with torch.no_grad():
        assert torch.allclose(load(str(tmp_path / "model")).logp(BATCH), policy.logp(BATCH), atol=1e-4)


def test_what_cannot_forecast_for_this_policy_is_refused(folder, judge, tmp_path) -> None:
    other = str(build("llama", ["quite other words stand here, and more of them"] * 9, tmp_path / "other", vocab=290))
    strange = heads.fresh_reward(other, seed=1)
    with pytest.raises(
        UserError, match=r"value model '.*' has another tokenizer than .* is not the same token of both"
    ):
        put_on(load(folder), strange, BATCH)
    steps = heads.fresh_reward(folder, seed=1, heads=Heads(read="steps"))
    with pytest.raises(UserError, match="fitted to the steps of a solution"):
        put_on(load(folder), steps, BATCH)
    rows = replace(load(judge, "reward"), layout="padded", verified=True)
    with pytest.raises(UserError, match="gives no score inside a response; give one that is read in trees"):
        put_on(load(folder), rows, BATCH)
    policy = load(folder)
    policy.put_value_head()
    take_off(policy)
    assert not [n for n, _ in policy.model.named_parameters() if "value" in n]


def test_how_it_is_read_is_judged_before_it_forecasts(folder, judge) -> None:
    """Else one that cannot be read in trees would be, and nobody would be told."""
    reader = load(judge, "reward")
    assert not reader.verified
    put_on(load(folder), reader, BATCH)
    assert reader.verified and reader.layout == "trees"


def source_of(policy, folder, out, **options):
    """Rounds of four prompts; an answer is worth the share of its tokens below 150."""

    def below(responses):
        rows = [json.loads(answer) for answer in responses]
        return [sum(i < 150 for i in row) / len(row) for row in rows]

    terms = WeightedObjectives(
        [Term(registry.load("ppo", "objective"), {}), Term(registry.load("value_clipped", "objective"), {}, 0.5)]
    )
    prompts = [Prompt(i + 1, (Message("user", "say"),), tuple(range(20 + i, 24 + i))) for i in range(4)]
    judged = Judged(
        lambda _, rollout: json.dumps(rollout.response_ids),
        Rewards((Scored("below", Call(RewardFunction(below, "response"), {}, 60.0)),)),
    )
    training = Training(**({"steps": 6, "rows_per_step": 4, "learning_rate": 1e-3, "schedule": "constant"} | options))
    online = Online(group_size=4, max_new_tokens=8, beta=0.05, epochs_per_round=2)
    options_ = OnlineOptions(online, training)
    place = Place(out / "rollouts")
    return rollout_source(policy, prompts, judged, terms, options_, place, reference=load(folder))


def trained(folder, judge, out, stop_after=None, **options):
    """The weights after the run and its metrics; after `stop_after` updates the process dies."""
    policy = valued(folder, judge)
    source = source_of(policy, folder, out, **options)
    rows = fitted(policy, source, source.builder.terms, out, stop_after)
    return weights(policy), rows


def test_it_learns_what_is_earned(folder, judge, tmp_path) -> None:
    """The head of a random reward model forecasts anything; the returns are about a half of what it is worth."""
    weights, rows = trained(folder, judge, tmp_path, steps=16)
    said = [row["value_clipped"] for row in rows]
    assert sum(said[-4:]) < 0.5 * sum(said[:4]), said
    before = dict(load(judge, "reward").model.named_parameters())
    moved = {n: (weights[f"value_model.network.{n}"] - p).abs().max() for n, p in before.items()}
    assert min(moved.values()) > 1e-4, "every one of its weights is trained"


@pytest.mark.parametrize("stop_after", [3, 4])
def test_killed_in_a_round_or_between_two_it_goes_on_bitwise(stop_after, folder, judge, tmp_path) -> None:
    whole, rows = trained(folder, judge, tmp_path / "a", checkpoint_every=2)
    trained(folder, judge, tmp_path / "b", stop_after=stop_after, checkpoint_every=2)
    again, more = trained(folder, judge, tmp_path / "b", checkpoint_every=2)
    assert whole.keys() == again.keys() and all(torch.equal(whole[n], again[n]) for n in whole)
    assert [row["loss"] for row in rows] == [row["loss"] for row in more]
