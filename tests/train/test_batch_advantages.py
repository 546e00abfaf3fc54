"""Advantages over the deviation of the whole round: REINFORCE++ with a baseline and Lite-PPO, as a recipe reaches them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch

from small_online import collected, folder_of, judged, made, round_of
from truing.online.advantages import ADVANTAGES
from truing.recipe.check import check
from truing.run import runner as running
from truing.stages.prepare import compile_objective

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "golden.json").read_text())["cases"]
REWARDS = next(case for case in GOLDEN if case["id"] == "reinforce_pp_baseline")["inputs"]["rewards"]
HOME = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory)


def wanted(scores, groups, raw, sample=False):
    """The formulas: the group's mean subtracted, over the round's deviation of these differences or of the scores."""
    centre = torch.cat([scores[groups == g] - scores[groups == g].mean() for g in groups.unique()])
    return centre / ((scores if raw else centre).std(correction=int(sample)) + 1e-4)


@pytest.mark.parametrize(("name", "raw"), [("reinforce_pp_baseline", False), ("lite_ppo", True)])
@pytest.mark.parametrize("sample", [False, True])
def test_a_round_has_the_advantages_of_the_formula(name, raw, sample, folder, tmp_path) -> None:
    scores = iter([x for row in REWARDS for x in row])
    options = {"group_size": 4, "rows_per_step": 2, "beta": 0.0, "sample_deviation": sample}
    _, source = made(folder, tmp_path, name, judge=judged(lambda ids: [next(scores) for _ in ids]), **options)
    rows = collected(source, 0)
    round_ = round_of(source, rows)
    found = ADVANTAGES[source.builder.advantage](round_)[:, 0]
    assert torch.allclose(found, wanted(round_.score, round_.group, raw, sample), atol=1e-12)
    assert found.abs().max() > 0.5 and source.builder.compares


def test_the_golden_numbers_are_those_of_the_round(folder, tmp_path) -> None:
    """But for the 1e-4 that is added to the deviation."""
    for name, case, key, sample in (
        ("reinforce_pp_baseline", "reinforce_pp_baseline", "advantages_population", False),
        ("lite_ppo", "grpo_batch_std", "advantages", True),
    ):
        scores = iter([x for row in REWARDS for x in row])
        options = {"group_size": 4, "rows_per_step": 2, "beta": 0.0, "sample_deviation": sample}
        judge = judged(lambda ids, scores=scores: [next(scores) for _ in ids])
        _, source = made(folder, tmp_path / name, name, judge=judge, **options)
        found = ADVANTAGES[source.builder.advantage](round_of(source, collected(source, 0)))[:, 0]
        golden = next(c for c in GOLDEN if c["id"] == case)["expected"][key]
        assert found.tolist() == pytest.approx([x for row in golden for x in row], rel=5e-4)


@pytest.mark.parametrize(
    ("objective", "raw"), [("[reinforce_pp_baseline, {kl_k2: {weight: 0.01}}]", False), ("lite_ppo", True)]
)
def test_a_recipe_trains_by_them(objective, raw, tmp_path) -> None:
    """The first update's loss is that of the formula, from the round's own file: the ratio is 1 and the policy its own
    reference, so it is minus the mean over tokens of their advantages."""
    changed = [
        "base=world:desk/tiny", "prompts=world:prompts?n=6", "warm.data=world:demonstrations?n=8", "warm.steps=1",
        "policy.steps=1", "policy.rows_per_step=3", "policy.group_size=3", "policy.max_new_tokens=5", "exam.samples=4",
        "policy.rewards=[{length: {per_token: 1.0}}]", "exam.prompts=world:prompts?n=4&split=eval",
        "exam.max_new_tokens=5", f"policy.objective={objective}",
    ]  # fmt: skip
    assert running.run(check(HOME / "recipes" / "grpo.yaml", changed), tmp_path) == 0
    (line,) = (tmp_path / "policy" / "metrics.jsonl").read_text().splitlines()
    rows = parquet.read_table(tmp_path / "policy" / "rollouts" / "round-00001.parquet").to_pylist()
    scores, groups = (torch.tensor([row[key] for row in rows]).double() for key in ("score", "group"))
    tokens = torch.tensor([len(row["response_ids"]) for row in rows]).double()
    loss = -(wanted(scores, groups, raw) * tokens).sum() / tokens.sum()
    assert json.loads(line)["loss"] == pytest.approx(loss.item(), abs=1e-6)


def test_the_leash_of_the_source_goes_beside_it() -> None:
    names = [t.name for t in compile_objective(["reinforce_pp_baseline", {"kl_k2": {"weight": 0.01}}]).terms]
    assert names == ["reinforce_pp_baseline", "kl_k2"]
