"""The loop with answers of one token to one prompt, six of which can be told apart: it ends where theory says."""

import json

import pytest
import torch

from small_fit import fitted
from small_models import build
from truing import registry
from truing.data.batch import Batch, Branch, Tree
from truing.objectives import closed_form, kl
from truing.online.source import Judged, OnlineOptions, Place, Prompt, rollout_source
from truing.policy import heads
from truing.policy.load import load
from truing.policy.plain import own_logits
from truing.policy.value import put_on
from truing.records import Message
from truing.registry import RewardFunction
from truing.rewards.call import Call
from truing.rewards.combine import Rewards
from truing.rewards.combine import Term as Scored
from truing.settings import Online, Training
from truing.train.objective_sum import Term, WeightedObjectives

ASKED = (20, 21, 22)
WORTH = dict(zip(range(30, 36), (1.0, 0.2, 0.6, 1.4, 1.8, 0.4), strict=True))
BEGIN = torch.tensor([0.0, 1.0, 0.5, -0.5, -1.0, 0.2])
FIRST = Batch((Tree(ASKED, (Branch("response", (30,), (True,)),), 0, 1),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A model that answers this prompt with one of six tokens."""
    place = build(
        "llama", ["the desk grants a refund within thirty days"] * 9, tmp_path_factory.mktemp("six"), vocab=300
    )
    policy = load(str(place))
    with torch.no_grad():
        h = policy.hidden(FIRST, torch.tensor([len(ASKED) - 1]))[0]
        z = torch.full((len(policy.model.lm_head.weight),), -25.0)
        z[30:36] = BEGIN
        policy.model.lm_head.weight.copy_(z[:, None] * h / h.square().sum())
    policy.model.save_pretrained(place)
    return str(place)


def law(policy):
    """The log-probabilities of the six."""
    with torch.no_grad():
        z = next(own_logits(policy, [list(ASKED)], 1))[1][0][-1].double()
    assert z.log_softmax(-1)[30:36].logsumexp(-1) > -1e-6
    return z[30:36].log_softmax(-1)


def trained(folder, out, terms, online, rows=1, own_value=False, stop_after=None, **options):
    """The policy after the run, of which the head alone learns; after `stop_after` updates the process dies."""

    def worth(responses):
        return [WORTH[int(answer)] for answer in responses]

    policy, reference = load(folder), load(folder)
    policy.model.base_model.requires_grad_(False)
    if own_value:
        put_on(policy, heads.fresh_reward(folder, seed=1), FIRST)
    rewards = Rewards((Scored("worth", Call(RewardFunction(worth, "response"), {}, 60.0)),))
    judged = Judged(lambda _, rollout: str(rollout.response_ids[0]), rewards)
    prompts = [Prompt(i + 1, (Message("user", "say"),), ASKED) for i in range(rows)]
    training = Training(rows_per_step=rows, schedule="linear", **options)
    place, every = Place(out / "rollouts"), OnlineOptions(online, training)
    source = rollout_source(policy, prompts, judged, terms, every, place, reference=reference)
    fitted(policy, source, terms, out, stop_after)
    return policy


def terms_of(**named):
    """A sum of objectives with their options; `weight` is the term's."""
    return WeightedObjectives(
        [
            Term(registry.load(n, "objective"), {k: x for k, x in o.items() if k != "weight"}, o.get("weight", 1.0))
            for n, o in named.items()
        ]
    )


def test_ppo_with_a_value_model_reaches_the_optimum_under_its_leash(folder, tmp_path) -> None:
    beta, worth = 0.7, torch.tensor(list(WORTH.values()), dtype=torch.float64)
    terms = terms_of(ppo={}, value_clipped={"clip": 10.0, "weight": 0.5})
    online = Online(group_size=32, max_new_tokens=1, beta=beta)
    policy = trained(folder, tmp_path, terms, online, own_value=True, steps=30, learning_rate=4e-3)
    ref, found = law(load(folder)), law(policy)
    best, soft = closed_form.optimum(ref, worth, beta), closed_form.soft_value(ref, worth, beta).item()
    assert kl.exact(found, best) < 0.02 < 0.2 < kl.exact(ref, best)
    with torch.no_grad():
        value = policy.logp_and_values(FIRST)[1].item()
        first = heads.fresh_reward(folder, seed=1).head_rewards_at(FIRST, FIRST.source_R).item()
    assert abs(value - soft) < 0.25 < abs(first - soft), (first, value, soft)


def fixed_point(ref, tau, share):
    """The policy that minimises the expected loss of ipo on pairs of its own mixture: ref exp(E_mixture[win] / tau)."""
    worth, found = torch.tensor(list(WORTH.values()), dtype=torch.float64), ref
    wins = (worth[:, None] > worth).double() + 0.5 * torch.eye(6, dtype=torch.float64)
    for _ in range(300):
        mixed = closed_form.geometric_mixture(torch.stack([found, ref]), torch.tensor([1 - share, share])).exp()
        found = (0.5 * found + 0.5 * (ref + wins @ mixed / tau)).log_softmax(-1)
    return found


IPO, MIXED = {"tau": 0.3}, Online(group_size=2, max_new_tokens=1, mixture=0.5)


def test_ipo_md_comes_to_the_fixed_point_of_its_mixture(folder, tmp_path) -> None:
    """From pairs that were sampled."""
    policy = trained(folder, tmp_path, terms_of(ipo=IPO), MIXED, rows=32, steps=40, learning_rate=4e-3)
    ref, found = law(load(folder)), law(policy)
    best = fixed_point(ref, 0.3, 0.5)
    assert kl.exact(found, best) < 0.03 < 0.4 < kl.exact(ref, best)


def test_answers_of_a_mixture_are_the_same_after_a_kill(folder, tmp_path) -> None:
    terms, options = terms_of(ipo=IPO), dict(rows=8, steps=4, learning_rate=4e-3, checkpoint_every=2)
    policy = trained(folder, tmp_path / "a", terms, MIXED, **options)
    trained(folder, tmp_path / "b", terms, MIXED, stop_after=3, **options)
    again = trained(folder, tmp_path / "b", terms, MIXED, **options)
    assert torch.equal(again.model.lm_head.weight, policy.model.lm_head.weight)
    rows = [json.loads(line) for line in (tmp_path / "b" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
