"""The methods that learn from a policy's own answers: one recipe trains them all, and each has one of its own."""

import json
from pathlib import Path

import pytest

from truing.recipe.check import check
from truing.run import runner as running

RECIPES = Path(__file__).parent.parent.parent / "recipes"
LAST = "iterative_dpo-3-policy"
ALONE = {
    "rlhf_ppo": {"rlhf_ppo": "policy", "rm": "rm"},
    "rloo": {"rloo": "policy", "rm": "rm"},
    "online_dpo": {"online_dpo": "policy", "rm": "rm"},
    "rft": {"rft": "policy", "rm": "rm"},
    "kldo_explicit": {"kldo_explicit": "policy", "safe": "safe", "unsafe": "unsafe"},
}
"""Of each recipe of one method: which of its stages is which stage of online.yaml."""

SMALL = [
    "base=world:desk/tiny",
    "demonstrations=world:demonstrations?n=8",
    "good=world:demonstrations?n=8&quality=0.9",
    "bad=world:demonstrations?n=8&quality=0.1",
    "pairs=world:comparisons?n=6",
    "held_out=world:comparisons?n=4&split=eval",
    "prompts=world:prompts?n=4",
    "turns=world:prompts?n=3&seed=$turn",
    "questions=world:prompts?n=3&split=eval",
    "exam.max_new_tokens=2",
    "iterative_dpo.answers.samples_per_prompt=3",
    "iterative_dpo.chosen.truncated=keep",
    "iterative_dpo.answers.max_new_tokens=6",
]


def small_steps(recipe) -> list[str]:
    """Two updates of two prompts for every stage that samples, one for the others that train."""
    asked = [s.name for s in recipe.stages if s.do == "reinforce"]
    few = ("steps=2", "rows_per_step=2", "group_size=3", "max_new_tokens=6")
    return [
        *(f"{name}.{change}" for name in asked for change in few),
        "warm.steps=1",
        "rm.steps=1",
        "safe.steps=1",
        "unsafe.steps=1",
    ]


def test_one_recipe_trains_and_measures_every_method(tmp_path) -> None:
    recipe = check(RECIPES / "online.yaml")
    recipe = check(RECIPES / "online.yaml", [*SMALL, *small_steps(recipe)])
    assert running.run(recipe, tmp_path) == 0
    found = json.loads((tmp_path / "exam" / "findings.json").read_text())["findings"]
    measured = {(f["model"], f["check"]) for f in found if f["against"] in ("", "warm")}
    methods = [s.name for s in recipe.stages if s.do == "reinforce"] + [LAST]
    checks = ("win_rate", "mean_score", "kl_to_reference", "mean_length_delta_tokens")
    assert {(name, check) for name in methods for check in checks} <= measured
    assert len(methods) == 7
    held_out = json.loads((tmp_path / "rm" / "findings.json").read_text())["findings"]
    assert [f["check"] for f in held_out] == ["held_out_accuracy"]


@pytest.mark.parametrize("name", ALONE)
def test_a_method_s_own_recipe_is_the_one_that_is_studied(name) -> None:
    alone, together = check(RECIPES / f"{name}.yaml"), check(RECIPES / "online.yaml")
    for studied, own in {**ALONE[name], "warm": "warm"}.items():
        assert alone.stage(own).do == together.stage(studied).do
        assert {**alone.stage(own).options} == {**together.stage(studied).options}
    exam, study = dict(alone.stage("exam").options), dict(together.stage("exam").options)
    examined, studied = ([ref.stage for ref in options.pop("models")] for options in (exam, study))
    assert examined[-1] == "policy" and {name, *examined[:-1]} <= {*studied}
    assert exam.pop("prompts") == "world:prompts?n=500&split=eval" and study.pop("prompts").endswith("split=eval")
    assert exam == study


def test_the_turns_of_iterative_dpo_are_those_of_its_own_recipe() -> None:
    alone, together = check(RECIPES / "iterative_dpo.yaml"), check(RECIPES / "online.yaml")
    own, studied = alone.stage("loop-2-policy").options, together.stage("iterative_dpo-2-policy").options
    unlike = ("model", "data")
    assert {k: v for k, v in own.items() if k not in unlike} == {k: v for k, v in studied.items() if k not in unlike}
    assert studied["model"].stage == "iterative_dpo-1-policy"
