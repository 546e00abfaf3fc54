"""Who gave the tokens, and how exactly: ratios at a round's first update, KL from equal weights, samplers that are off."""

import math
from dataclasses import replace

import pytest
import torch

from small_fit import fitted
from small_online import collected, folder_of, made, trained, trees_of
from truing.data.batch import Batch
from truing.errors import RunFailed, UserError
from truing.online.advantages import sampler_weights
from truing.policy.load import load
from truing.rollout import experience
from truing.rollout.engine import InProcess
from truing.settings import Online
from truing.signals.observe import observe

OFF = 0.01
"""How far the engine's log-probabilities are off here, nats: what another precision or kernel does."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory)


class Elsewhere:
    """An engine of its own: it samples from the policy, and says of every other token that it was likelier, by `off`."""

    def __init__(self, policy, off=OFF):
        self.inner, self.off = InProcess(policy), off

    def generate(self, prompts, n, sampling):
        return [
            replace(r, logp_T=tuple(x + self.off * (t % 2) for t, x in enumerate(r.logp_T)))
            for r in self.inner.generate(prompts, n, sampling)
        ]

    def sync(self, policy, version):
        self.inner.sync(policy, version)


def elsewhere(folder, out, name, off=OFF, **options):
    """A policy and a source that samples elsewhere."""
    policy, source = made(folder, out, name, **options)
    source.collector.client.engine = Elsewhere(policy, off)
    return policy, source


@pytest.mark.parametrize("name", ["grpo", "gspo", "cispo", "dapo", "ppo", "rloo"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ratios_are_exactly_1_at_a_rounds_first_update(folder, tmp_path, name, precision, monkeypatch) -> None:
    """What the objective is given by the loop, in rounds of two updates: whatever sampled, one rounding of the sampler's
    put rows beyond gspo's clip of 3e-4 before anything was learned."""
    given = {}

    def seen(step, part, policy, signals, *more):
        forms = [form for form in ("logp_BT", "logp_B") if f"old_{form}" in signals]
        given[step] = [(signals[form].detach().double(), signals[f"old_{form}"]) for form in forms]
        return ""

    monkeypatch.setattr("truing.train.fit.trouble", seen)
    policy, source = elsewhere(folder, tmp_path, name, epochs_per_round=2, steps=4)
    for each in (policy, source.kl.reference):
        each.compute_in(precision)
    fitted(policy, source, source.builder.terms, tmp_path)
    assert sorted(given) == [1, 2, 3, 4] and all(pairs for pairs in given.values())
    for step, pairs in given.items():
        assert all(torch.equal(own, old) == (step in (1, 3)) for own, old in pairs), step


@pytest.mark.parametrize("name", ["reinforce", "rwr"])
def test_a_method_without_a_ratio_is_held_to_its_sampler_too(folder, tmp_path, name) -> None:
    """Its gradient is right for the policy's own answers alone."""
    policy, source = elsewhere(folder, tmp_path, name, off=5.0)
    with pytest.raises(RunFailed, match="the sampler's log-probabilities differ from the trainer's"):
        fitted(policy, source, source.builder.terms, tmp_path)


def test_rounding_is_measured_as_the_policy_grows(folder, tmp_path) -> None:
    """A policy whose logits grow rounds more: by what was measured at its beginning it would be refused."""
    policy, source = made(folder, tmp_path, "grpo", steps=2)
    for each in (policy, source.kl.reference):
        each.compute_in("bf16")
    collected(source, 0)
    before = policy.rounding.measured
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(30)
    collected(source, 1)
    assert policy.rounding.measured > 10 * before


def test_later_updates_of_a_round_are_held_to_the_policy_that_began_it(folder, tmp_path) -> None:
    """With several updates to a round, the trainer reads what another engine sampled before the first of them."""
    policy, source = elsewhere(folder, tmp_path, "grpo", epochs_per_round=2, sampler_cap=2.0)
    rows = source.experience(source.plan(0), 0)
    with torch.no_grad():
        trees = trees_of(source, rows)
        seen = observe(policy, Batch(tuple(trees)), frozenset({"logp_BT", "old_logp_BT", "sampler_logp_BT", "mask_BT"}))
    assert (seen["logp_BT"] - seen["old_logp_BT"]).abs().max() < 1e-5
    assert (seen["logp_BT"] - seen["sampler_logp_BT"]).abs().max() == pytest.approx(OFF, rel=1e-2)
    assert experience.read(source.history.path(0)) == rows and all(len(r.old_logp_T) == len(r.logp_T) for r in rows)


@pytest.mark.parametrize("name", ["grpo", "ppo", "rloo"])
def test_a_kl_begins_at_0_in_bf16(folder, tmp_path, name) -> None:
    """Equal weights have no distance: policy and reference read the same batches, and the sampler has no say."""
    policy, source = made(folder, tmp_path, name, steps=2)
    policy.compute_in("bf16")
    source.kl.reference.compute_in("bf16")
    rows = fitted(policy, source, source.builder.terms, tmp_path)
    assert rows[0]["kl"] == 0.0 != rows[1]["kl"]
    assert 0 < rows[0]["sampler_gap"] < 0.01


def test_a_look_at_equal_weights_has_no_distance_in_bf16(folder) -> None:
    from small_online import prompts
    from truing.online.monitor import ratios
    from truing.records import Sampling

    policy, reference = load(folder), load(folder)
    for each in (policy, reference):
        each.compute_in("bf16")
    rollouts = InProcess(policy).generate([p.ids for p in prompts()], 1, Sampling(8))
    assert ratios(rollouts, reference, 4096, policy) == [0.0] * len(rollouts)
    assert any(ratios(rollouts, reference, 4096)), "as they were sampled they have one, of rounding"


def test_a_sampler_of_another_precision_stops_the_run_or_is_weighed(folder, tmp_path) -> None:
    policy, source = elsewhere(folder, tmp_path / "a", "grpo")
    with pytest.raises(RunFailed, match=r"sampler's log-probabilities differ .* sampler_cap: 2"):
        fitted(policy, source, source.builder.terms, tmp_path / "a")
    policy, source = elsewhere(folder, tmp_path / "b", "grpo", sampler_cap=2.0, steps=2)
    rows = fitted(policy, source, source.builder.terms, tmp_path / "b")
    assert len(rows) == 2 and rows[0]["sampler_gap"] == pytest.approx(OFF / 2, rel=0.3)


def test_weights_make_an_expectation_over_the_sampler_one_over_the_policy() -> None:
    """Of a policy (0.5, 0.3, 0.2) and a sampler (0.2, 0.3, 0.5), counted out: the weighed mean of a score under the
    sampler is the policy's, as long as no weight is cut."""
    policy, sampler, score = (0.5, 0.3, 0.2), (0.2, 0.3, 0.5), (1.0, -2.0, 4.0)

    def weighed(cap: float) -> float:
        rows = [answer((math.log(p),), (math.log(q),)) for p, q in zip(policy, sampler, strict=True)]
        weights = [sampler_weights(row, cap)[0][0] for row in rows]
        return sum(q * w * s for q, w, s in zip(sampler, weights, score, strict=True))

    exact = sum(p * s for p, s in zip(policy, score, strict=True))
    assert weighed(3.0) == pytest.approx(exact) and weighed(2.0) == pytest.approx(exact - 0.2 * 0.5)
    row = answer((-1.0, -2.0), (-1.5, -2.2))
    each, together = sampler_weights(row, 10.0)
    assert math.prod(each) == pytest.approx(together) and sampler_weights(row, 1.5)[1] == 1.5


def answer(old, sampled):
    """An answer with these log-probabilities under policy and sampler."""
    ids = tuple(range(len(old)))
    return experience.Experience(1, (), "", (1,), ids, sampled, (), (), 0.0, "eos", 0, 0, old_logp_T=old)


@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_weights_multiply_what_is_learned(folder, tmp_path, name) -> None:
    """Tokens by their own weight, whole answers by the product: the facts that the objectives read."""
    _, plain = elsewhere(folder, tmp_path / "a", name, off=0.5, epochs_per_round=2)
    _, weighed = elsewhere(folder, tmp_path / "b", name, off=0.5, epochs_per_round=2, sampler_cap=0.9)
    for mine, theirs in zip(facts(weighed), facts(plain), strict=True):
        tokens = [min(math.exp(-0.5 * (t % 2)), 0.9) for t in range(len(mine["advantage_BT"]))]
        assert mine["advantage_BT"] == pytest.approx(
            [a * w for a, w in zip(theirs["advantage_BT"], tokens, strict=True)], rel=1e-3, abs=1e-6
        )
        whole = min(math.exp(-0.5 * (len(tokens) // 2)), 0.9)
        assert mine["advantage_B"][0] == pytest.approx(theirs["advantage_B"][0] * whole, rel=1e-3, abs=1e-6)


def facts(source):
    """What is known of every answer of the first round."""
    return [b.facts for tree in trees_of(source, collected(source, 0)) for b in tree.branches]


def test_a_cap_that_nothing_reads_is_refused(folder, tmp_path) -> None:
    with pytest.raises(UserError, match="'sampler_cap' has no effect on this objective"):
        made(folder, tmp_path, "dpo", sampler_cap=2.0)


def test_in_fp32_the_policy_is_read_once_less(folder, tmp_path) -> None:
    """The sampler in this process is as exact as the trainer, so a round costs no reading of its own."""
    _, source = made(folder, tmp_path, "grpo", epochs_per_round=2)
    assert source.collector.client.exact and all(not row.old_logp_T for row in collected(source, 0))
    source.policy.compute_in("bf16")
    assert not source.collector.client.exact
    assert Online().sampler_cap is None


def test_bf16_trains_and_resumes_bit_for_bit(folder, tmp_path, monkeypatch) -> None:
    """A round of four updates in bf16, killed within."""
    real = InProcess.__init__

    def low(self, policy, *given, **named):
        policy.compute_in("bf16")
        real(self, policy, *given, **named)

    monkeypatch.setattr(InProcess, "__init__", low)
    options = dict(steps=4, minibatches=2, epochs_per_round=2, checkpoint_every=1)
    whole, _ = trained(folder, tmp_path / "a", "grpo", **options)
    trained(folder, tmp_path / "b", "grpo", stop_after=2, **options)
    again, _ = trained(folder, tmp_path / "b", "grpo", **options)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
