"""PPO-ptx: texts beside answers, one a prompt, which one term learns from and no other sees."""

import json
from dataclasses import replace

import pytest
import torch

from small_fit import apart, fitted, weights
from small_models import build
from truing import registry
from truing.data.batch import Batch, Branch, Tree
from truing.errors import UserError
from truing.online.pretraining_mix import PretrainingMix
from truing.online.source import Judged, OnlineOptions, Place, Prompt, rollout_source
from truing.policy.load import load
from truing.records import Message
from truing.registry import RewardFunction
from truing.rewards.call import Call
from truing.rewards.combine import Rewards
from truing.rewards.combine import Term as Scored
from truing.settings import Online, Training
from truing.signals.observe import observe
from truing.train.fit import fit
from truing.train.objective_sum import Term, WeightedObjectives
from truing.train.optim import Optim
from truing.train.record.metrics import Record

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8
TEXTS = tuple(
    Tree((7,), (Branch("response", tuple(range(30 + i, 36 + 2 * i)), (True,) * (6 + i)),), i, i + 1) for i in range(5)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return str(build("llama", TEXT, tmp_path_factory.mktemp("ptx"), vocab=300))


def made(folder, out, weight, method="dapo", temperature=1.0, **options):
    """A policy and its source: four prompts, an answer is worth the share of its tokens below 150; texts beside."""

    def below(responses):
        rows = [json.loads(text) for text in responses]
        return [sum(i < 150 for i in row) / len(row) for row in rows]

    judged = Judged(
        lambda policy, rollout: json.dumps(rollout.response_ids),
        Rewards((Scored("below", Call(RewardFunction(below, "response"), {}, 60.0)),)),
    )
    online = Online(group_size=3, max_new_tokens=12, temperature=temperature, epochs_per_round=2)
    training = Training(**{"steps": 6, "rows_per_step": 2, "learning_rate": 1e-2, "warmup": 0.0} | options)
    asked = [Prompt(i + 1, (Message("user", str(i)),), tuple(range(20 + i, 24 + 2 * i))) for i in range(4)]
    named = [method, *(["value_clipped"] if method == "ppo" else []), *(["ptx"] if weight is not None else [])]
    weights = {"ptx": weight or 0.0, "value_clipped": 0.1}
    terms = WeightedObjectives(
        [Term(registry.load(n, "objective"), {}, weights.get(n, 1.0), longest=12) for n in named]
    )
    policy = replace(load(folder), temperature=temperature)
    if method == "ppo":
        policy.put_value_head()
    given = PretrainingMix(TEXTS if weight is not None else (), seed=3)
    place, every = Place(out / "rollouts"), OnlineOptions(online, training)
    return policy, rollout_source(policy, asked, judged, terms, every, place, mix=given)


def trained(folder, out, weight, stop_after=None, **options):
    """The weights after the run, and its metrics; `stop_after` an update the process dies."""
    policy, source = made(folder, out, weight, **options)
    rows = fitted(policy, source, source.builder.terms, out, stop_after)
    return weights(policy), rows


def nll(policy) -> list[float]:
    """Mean negative log-probability of each text's tokens, read by itself."""
    batch = Batch(TEXTS)
    with torch.no_grad():
        sums = batch.sums(policy.logp(batch))
    return [-x / len(t.branches[0].ids) for x, t in zip(sums.tolist(), TEXTS, strict=True)]


def test_the_term_reads_the_texts_and_every_other_only_the_answers(folder, tmp_path) -> None:
    """Its value is the mean over the update's texts, at temperature 1 also where answers are read at 0.7; the other
    term and its count are those of a run without texts."""
    _, free = trained(folder, tmp_path / "free", None, steps=2)
    _, rows = trained(folder, tmp_path / "with", 0.5, steps=2)
    policy, source = made(folder, tmp_path / "seen", 0.5)
    read = [tree.shadow.row - 1 for tree in source.mix.beside(TEXTS[:2], 1, 2)]
    each = nll(policy)
    wanted = sum(each[i] for i in read) / 2
    assert rows[0]["ptx"] == pytest.approx(wanted, rel=1e-5) and len(set(read)) == 2
    assert rows[0]["dapo"] == pytest.approx(free[0]["loss"], abs=1e-7)
    assert rows[0]["loss"] == pytest.approx(rows[0]["dapo"] + 0.5 * wanted, rel=1e-5)
    assert {k: rows[0][k] for k in ("rows", "tokens", "score")} == {k: free[0][k] for k in ("rows", "tokens", "score")}
    _, cold = trained(folder, tmp_path / "cold", 0.5, steps=2, temperature=0.7)
    assert cold[0]["ptx"] == pytest.approx(wanted, rel=1e-5)


def test_the_gradient_is_the_sum_of_both(folder, tmp_path) -> None:
    """That of the answers' term alone, and gamma times that of the texts read alone."""
    policy, source = made(folder, tmp_path, 2.0)
    (_, batch), *_ = source.since(0)

    def gradients(loss):
        policy.model.zero_grad(set_to_none=True)
        loss.backward()
        return {n: p.grad.clone() for n, p in policy.model.named_parameters()}

    def total(terms):
        return terms.total(observe(policy, batch, terms.signals), terms.counts(batch))[0]

    texts = Batch(tuple(tree.shadow for tree in batch.trees))
    lengths = torch.tensor([len(t.branches[0].ids) for t in texts.trees])
    both, alone = (
        gradients(total(source.builder.terms)),
        gradients(total(WeightedObjectives(source.builder.terms.terms[:1]))),
    )
    given = gradients((-2.0 * texts.sums(policy.logp(texts)) / lengths).mean())
    assert all(torch.allclose(both[n], alone[n] + given[n], atol=1e-5) for n in both)
    assert max(g.abs().max() for g in given.values()) > 1e-2


def test_texts_stay_likely(folder, tmp_path) -> None:
    def after(weight):
        policy, source = made(folder, tmp_path / str(weight), weight, steps=12)
        fit(
            policy,
            source,
            source.builder.terms,
            Optim(policy.model, source.training, 12),
            Record(tmp_path / str(weight)),
        )
        return sum(nll(policy)) / len(TEXTS)

    assert after(1.0) < after(0.0) - 0.5


@pytest.mark.parametrize("method", ["ppo"])
def test_a_kill_and_parts_change_nothing(method, folder, tmp_path) -> None:
    options = dict(method=method, checkpoint_every=2)
    whole, rows = trained(folder, tmp_path / "a", 1.0, **options)
    trained(folder, tmp_path / "b", 1.0, stop_after=3, **options)
    again, more = trained(folder, tmp_path / "b", 1.0, **options)
    assert apart(whole, again) == 0.0 and [r["ptx"] for r in rows] == [r["ptx"] for r in more]
    _, split = trained(folder, tmp_path / "c", 1.0, tokens_per_device=30, **options)
    for key in ("ptx", method, "grad_norm"):
        assert split[0][key] == pytest.approx(rows[0][key], rel=1e-3, abs=1e-6), key
    other = PretrainingMix(TEXTS, seed=4)
    assert [t.row for t in drawn(other)] != [t.row for t in drawn(PretrainingMix(TEXTS, seed=3))], (
        "and the order has a seed"
    )


def drawn(given: PretrainingMix) -> list[Tree]:
    return [tree.shadow for update in range(1, 6) for tree in given.beside(TEXTS[:2], update, 2)]


def test_every_text_comes_once_before_any_comes_again() -> None:
    rows = [t.row for t in drawn(PretrainingMix(TEXTS, seed=3))]
    assert sorted(rows[:5]) == sorted(rows[5:]) == [1, 2, 3, 4, 5] and rows[:5] != rows[5:]


def test_without_texts_it_is_refused(folder, tmp_path) -> None:
    policy, source = made(folder, tmp_path, 1.0)
    source.mix = PretrainingMix()
    (_, batch), *_ = source.since(0)
    with pytest.raises(UserError, match="learns from given texts"):
        observe(policy, batch, source.builder.terms.signals)
