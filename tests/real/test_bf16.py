"""Training in bf16 on a real language model: what stopped at step 1, or learned from half of its rows, goes on."""

import math

import pytest
import torch

from real import runs
from truing.data.batch import Batch
from truing.policy.load import load
from truing.policy.reference import compute


@pytest.mark.parametrize("name", ["dpo", "bradley_terry"])
def test_given_preferences(real_model, real_pairs, tmp_path, name) -> None:
    """Three steps on human pairs. Policy and reference are read in different company, and begin as one."""
    trees = runs.shorter(Batch(real_pairs.trees[:4]), 12).trees
    rows = runs.given(real_model, name, tmp_path, "bf16", trees, tokens_per_device=150)
    assert len(rows) == 3 and all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    if name == "dpo":
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=0.05)


@pytest.mark.parametrize("name", ["grpo", "gspo", "ppo"])
def test_own_answers(real_model, tmp_path, name) -> None:
    """Every row whose group is not equal has a gradient at a round's first update, where ratios are exactly 1; the
    sampler's rounding alone put up to half of them beyond gspo's clip of 3e-4. A KL begins at 0."""
    share = runs.share_with_gradient(runs.source_of(real_model, name, tmp_path / "first", "bf16", questions=2))
    rows = runs.online(real_model, name, tmp_path, "bf16", questions=2, steps=2)
    assert share == pytest.approx(1 - rows[0]["equal_groups"])
    assert rows[0]["kl"] == 0.0 and 1e-3 < rows[0]["sampler_gap"] < 0.2
    assert len(rows) == 2 and all(math.isfinite(row["loss"]) for row in rows)


def test_a_reference_of_other_weights_is_still_refused(real_model, real_pairs, tmp_path) -> None:
    """As far as bf16 can tell: weights that are 2 % off are another reference."""
    policy, other = load(real_model), load(real_model)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.02)
    for each in (policy, other):
        each.compute_in("bf16")
    few = runs.shorter(Batch(real_pairs.trees[:2]), 8)
    reference = compute(other, few.trees, 4096)
    assert "differ from its reference's" in runs.begun(policy, few, reference)
    assert runs.begun(policy, few, compute(policy, few.trees, 60)) == ""
