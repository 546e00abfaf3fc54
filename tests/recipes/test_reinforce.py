"""Learning from the policy's own answers, as a user meets it: the recipe that ships, PPO, online DPO, and their record."""

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from safetensors import safe_open

from truing.recipe.check import check
from truing.run import runner as running

HOME = Path(__file__).parent.parent.parent
SMALL = [
    "base=world:desk/tiny",
    "prompts=world:prompts?n=6",
    "warm.data=world:demonstrations?n=16",
    "warm.steps=2",
    "policy.steps=2",
    "policy.rows_per_step=2",
    "policy.group_size=3",
    "policy.max_new_tokens=5",
    "exam.samples=4",
    "exam.prompts=world:prompts?n=4&split=eval",
    "exam.max_new_tokens=5",
]


@pytest.mark.parametrize(
    ("objective", "columns"),
    [
        ("grpo", {"score", "kl", "length", "truncated", "equal_groups"}),
        ("[ppo, {value_clipped: {weight: 0.1}}]", {"score", "ppo", "value_clipped"}),
        ("dpo", {"score", "margin_nats", "accuracy"}),
    ],
)
def test_the_recipe_leaves_a_policy_its_rollouts_and_a_measurement(objective, columns, tmp_path) -> None:
    changed = [*SMALL, f"policy.objective={objective}", *(["policy.max_new_tokens=40"] if objective == "dpo" else [])]
    assert running.run(check(HOME / "recipes" / "grpo.yaml", changed), tmp_path) == 0
    folder = tmp_path / "policy"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows and columns <= set(rows[0])
    lived = parquet.read_table(folder / "rollouts" / "round-00001.parquet").to_pylist()
    assert len(lived) == 2 * 3 and {row["stop"] for row in lived} <= {"eos", "length"}
    assert sum(row["score"] for row in lived) / 6 == pytest.approx(rows[0]["score"])
    assert all(len(row["logp_T"]) == len(row["response_ids"]) <= 40 for row in lived)
    with safe_open(folder / "model" / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "value" in name and "v_proj" not in name]  # noqa: SIM118
    found = json.loads((tmp_path / "exam" / "findings.json").read_text())["findings"]
    assert {f["check"] for f in found if f["model"] == "policy"} >= {"win_rate", "kl_to_reference"}
