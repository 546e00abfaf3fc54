"""PPO-ptx and the other terms beside a method, as a user meets them: one recipe with all of them, and what is refused."""

import json
from pathlib import Path

import pytest

from truing.errors import UserError
from truing.recipe.check import check
from truing.run import runner as running

GRPO = Path(__file__).parent.parent.parent / "recipes" / "grpo.yaml"
SMALL = [
    "base=world:desk/tiny",
    "prompts=world:prompts?n=4",
    "warm.data=world:demonstrations?n=16",
    "warm.steps=1",
    "policy.steps=2",
    "policy.rows_per_step=2",
    "policy.group_size=2",
    "policy.max_new_tokens=5",
    "exam.samples=2",
    "exam.prompts=world:prompts?n=2&split=eval",
    "exam.max_new_tokens=2",
]


def test_a_recipe_with_every_term_at_a_temperature(tmp_path) -> None:
    """PPO with a value head, KL control in the loss, entropy and texts, sampled and read at 0.8; measured at 1."""
    objective = "[ppo, {value_clipped: {weight: 0.1}}, {kl_k2: {weight: 0.1}}, {entropy: {weight: 0.01}}, ptx]"
    more = [f"policy.objective={objective}", "policy.temperature=0.8", "policy.pretrain=world:demonstrations?n=3"]
    assert running.run(check(GRPO, [*SMALL, *more]), tmp_path) == 0
    rows = [json.loads(line) for line in (tmp_path / "policy" / "metrics.jsonl").read_text().splitlines()]
    assert {"ppo", "value_clipped", "kl_k2", "entropy", "ptx", "entropy_nats", "kl"} <= set(rows[0])
    assert rows[0]["kl_k2"] == pytest.approx(0.0, abs=1e-6) and rows[0]["ptx"] > 0
    accounts = json.loads((tmp_path / "policy" / "summary.json").read_text())["notes"]
    assert any("demonstrations" in line and "kept 3 rows" in line for line in accounts)


@pytest.mark.parametrize("more", [["policy.objective=[dapo, ptx]"], ["policy.pretrain=world:demonstrations?n=3"]])
def test_a_recipe_with_one_of_the_two_is_refused(more, tmp_path) -> None:
    with pytest.raises(UserError, match="'pretrain' \\(texts\\) and the objective 'ptx' go together"):
        running.run(check(GRPO, [*SMALL, *more]), tmp_path)
