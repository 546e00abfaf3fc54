"""One rule for every comparison of numbers: what rounding explains passes, in each precision and at each size of
logits, and a planted fault does not."""

import dataclasses
import math

import pytest
import torch

from planted_faults import FAULTS, everything_seen, turned
from small_models import build
from small_pairs import TEXT, ragged
from truing.data.batch import Batch
from truing.errors import RunFailed
from truing.policy import heads
from truing.policy.load import load
from truing.policy.logp import token_logp
from truing.policy.policy import Policy
from truing.policy.precision import MEASURED_SAFETY, SAFETY, TAIL, Gap, Rounding, unit

ARCHITECTURES = ["llama-tied", "gemma3_text", "gpt2", "olmo2"]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, tmp_path_factory):
    return build(request.param, TEXT, tmp_path_factory.mktemp(request.param), vocab=300)


@pytest.fixture(scope="module")
def batch():
    return Batch(ragged(6, longest=30))


def loud(folder, times: float, precision: str) -> Policy:
    """A policy whose logits are so many times as large."""
    policy = load(str(folder))
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.mul_(times)
    policy.compute_in(precision)
    return policy


@pytest.mark.parametrize("times", [1, 8, 32])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_rounding_explains_is_no_fault(folder, batch, precision, times) -> None:
    """Logits of any size: a bound that knew neither magnitude nor depth refused right models with large ones."""
    policy = loud(folder, times, precision)
    policy.logp(batch)
    assert policy.layout == "trees" and policy.verified and not policy.notes


@pytest.mark.parametrize("times", [1, 32])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_in_every_precision(folder, batch, fault, precision, times, monkeypatch) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    policy = loud(folder, times, precision)
    with pytest.raises(RunFailed, match="plain rows with the same head agree"):
        policy.logp(batch)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_head_that_is_not_the_models_own_is_not_used(folder, batch, precision, monkeypatch) -> None:
    """The model's own forward is read instead, and that is said."""
    monkeypatch.setattr(Policy, "_head", turned)
    policy = loud(folder, 1, precision)
    policy.logp(batch)
    assert policy.layout == "padded" and "the head of" in policy.notes[0]


def test_bf16_that_is_worse_than_the_models_own_is_refused(folder, batch, monkeypatch) -> None:
    """A fault of one precision alone: fp32 agrees, and the message blames no architecture."""
    policy = loud(folder, 8, "bf16")
    straight = Policy.hidden

    def coarse(self, batch, at):
        h = straight(self, batch, at)
        return h + h.std() * torch.linspace(-1, 1, h.shape[-1]) if self.precision == "bf16" else h

    monkeypatch.setattr(Policy, "hidden", coarse)
    with pytest.raises(RunFailed, match=r"in bf16, trees read .* off the model's own rows in fp32.*in fp32 they agree"):
        policy.logp(batch)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rewards_are_judged_by_the_same_rule(folder, batch, precision, monkeypatch) -> None:
    policy = heads.fresh_reward(str(folder), seed=0)
    policy.compute_in(precision)
    policy.head_rewards(batch)
    assert policy.layout == "trees"
    monkeypatch.setattr("truing.policy.trees.Segment.calls", everything_seen)
    with pytest.raises(RunFailed, match="a part that tree attention does not honour"):
        dataclasses.replace(policy, verified=False).head_rewards(batch)


def test_another_precision_is_verified_anew(folder, batch) -> None:
    policy = loud(folder, 1, "fp32")
    policy.logp(batch)
    exact = policy.rounding
    policy.compute_in("bf16")
    assert not policy.verified and policy.rounding is None
    policy.logp(batch)
    assert policy.rounding.measured > 0 == exact.measured


def test_the_rule_follows_from_precision_depth_and_size() -> None:
    shallow, deep = Rounding(4, 2.0, 3.0), Rounding(40, 2.0, 3.0)
    assert deep.expected(torch.float64) < 1e-14 < deep.expected(torch.float32) < 1e-5 < deep.expected(torch.bfloat16)
    ratio = (deep.expected(torch.bfloat16) - unit(torch.float32) * 3) / (
        shallow.expected(torch.bfloat16) - unit(torch.float32) * 3
    )
    assert ratio == pytest.approx(math.sqrt(81 / 9))
    loud_ = Rounding(4, 20.0, 3.0)
    assert loud_.expected(torch.bfloat16) == pytest.approx(10 * shallow.expected(torch.bfloat16), rel=1e-3)
    assert deep.allowed(torch.float32) == SAFETY * deep.expected(torch.float32)
    seen = dataclasses.replace(deep, measured=0.5)
    assert seen.allowed(torch.bfloat16) == MEASURED_SAFETY * 0.5 and seen.allowed(torch.float32) < 1e-4


def test_a_gap_is_judged_by_its_mean_and_by_its_largest() -> None:
    """One token far off among many is a fault too, and so is what is no number."""
    zeros = torch.zeros(10_000)
    assert Gap.between(zeros, zeros + 0.9).within(1.0) and not Gap.between(zeros, zeros + 1.1).within(1.0)
    spike = zeros.clone()
    spike[5] = 1.1 * TAIL
    assert Gap.between(zeros, spike).rms < 0.2 and not Gap.between(zeros, spike).within(1.0)
    assert not Gap.between(zeros, zeros + math.nan).within(1.0)
    assert Gap.between(torch.zeros(0), torch.zeros(0)).within(0.0)


def test_logits_are_not_rounded_to_bf16() -> None:
    """At logits of 16 to 32 a bf16 number has a step of 0.125: a product kept in bf16 moves log-probabilities by 0.03,
    and one in fp32 only by what its inputs were rounded to."""
    generator = torch.Generator().manual_seed(0)
    h, w = torch.randn(64, 48, generator=generator).bfloat16(), torch.randn(500, 48, generator=generator)
    w = w.bfloat16() * 4
    target = torch.randint(0, 500, (64,), generator=generator)
    exact = (h.double() @ w.double().t()).log_softmax(-1).gather(1, target[:, None]).squeeze(1)
    rounded = (h @ w.t()).float().log_softmax(-1).gather(1, target[:, None]).squeeze(1)
    assert Gap.between(token_logp(h, w, target), exact).largest < 64 * unit(torch.float32) * 48 * 4
    assert Gap.between(rounded, exact).rms > 0.02
