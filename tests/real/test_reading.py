"""A real language model, read in trees: what bf16 can tell is told, and no right model is refused."""

import pytest
import torch

from planted_faults import FAULTS, turned
from real.runs import shorter
from truing.errors import RunFailed
from truing.policy.load import load
from truing.policy.plain import own_logp
from truing.policy.policy import Policy
from truing.policy.precision import Gap, unit


def test_trees_are_as_exact_as_rows_in_fp32_and_in_bf16(real_model, real_pairs) -> None:
    """The first batch that a real run reads: a bound on single tokens refused it in bf16, with trees no worse than the
    model's own rows."""
    policy = load(real_model)
    with torch.no_grad():
        trees, rows = policy.logp(real_pairs), own_logp(policy, real_pairs)
        policy.compute_in("bf16")
        low_trees, low_rows = policy.logp(real_pairs), own_logp(policy, real_pairs)
    assert policy.layout == "trees" and not policy.notes
    rounding = policy.rounding
    assert Gap.between(trees, rows).rms <= rounding.allowed(torch.float32) < 1e-4
    own, ours = Gap.between(low_rows, rows), Gap.between(low_trees, rows)
    assert 0.01 < ours.rms < 1.2 * own.rms and own.rms <= rounding.allowed(torch.bfloat16)
    assert 0.05 < own.rms / rounding.expected(torch.bfloat16) < 2, "the estimate is of the right size"
    assert own.largest > 0.1, "what the bound on single tokens was"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_in_bf16(real_model, real_pairs, fault, monkeypatch) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    policy = load(real_model)
    policy.compute_in("bf16")
    with pytest.raises(RunFailed, match="plain rows with the same head agree"), torch.no_grad():
        policy.logp(shorter(real_pairs, 8))


def test_a_swapped_head_is_not_used_in_bf16(real_model, real_pairs, monkeypatch) -> None:
    monkeypatch.setattr(Policy, "_head", turned)
    policy = load(real_model)
    policy.compute_in("bf16")
    with torch.no_grad():
        policy.logp(shorter(real_pairs, 8))
    assert policy.layout == "padded" and "the head of llama has parts of its own" in policy.notes[0]


def test_equal_weights_have_no_distance_in_bf16(real_model, real_pairs) -> None:
    """Read in the same batch by two copies: bit for bit, so a KL at a run's beginning is 0 and not -0.011."""
    one, other = load(real_model), load(real_model)
    few = shorter(real_pairs, 8)
    with torch.no_grad():
        for policy in (one, other):
            policy.compute_in("bf16")
        assert torch.equal(one.logp(few), other.logp(few))
    assert unit(one.dtype) == 2**-8
