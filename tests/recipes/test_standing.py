"""Wherever a recipe decides, it decides about what stands in production."""

from __future__ import annotations

import json

import pytest

from truing.errors import RecipeError
from truing.recipe.check import check

RULES = "rules: [{check: win_rate, model: direct, against: warm, min: 0.0}]\n"
BOTH = RULES.replace("]", ", {check: win_rate, model: direct, against: base, min: 0.5}]")
RECIPE = """\
title: standing
base: world:desk/tiny
stages:
  warm: {do: sft, model: $base, data: "world:demonstrations?n=60", steps: 4, rows_per_step: 4}
  direct: {do: prefer, model: $warm, data: "world:comparisons?n=40", steps: 2, rows_per_step: 4}
  exam:
    do: evaluate
    models: [$direct]
    against: $warm
    prompts: world:prompts?n=24&split=eval
    max_new_tokens: 24
  release: {do: gate, evidence: $exam, rules: rules.yaml}
"""


@pytest.fixture
def release(desk):
    (desk.folder / "rules.yaml").write_text(RULES)
    desk.write(RECIPE)
    return desk


def test_a_recipe_that_compares_with_its_own_stage_alone_decides_nothing(release) -> None:
    """The case found: shipped over its own SFT stage, though worse than the model its user began with."""
    assert release("check", str(release.folder / "r.yaml")) == 0
    foreseen = "base stands in production, and no exam compares with it; give against: [$warm, $base] in stage 'exam'"
    assert foreseen in release.said
    assert release.run() == 4
    assert release.said.index(foreseen) < release.said.index("warm (sft)"), "said before anything is trained"
    assert "add to the rules: {check: win_rate, model: direct, against: base, min: 0.5}" in release.said
    assert "undecided" in release.page().lower()


def test_rules_that_do_not_read_the_comparison_decide_nothing_and_say_the_line(release) -> None:
    release.write(RECIPE.replace("against: $warm", "against: [$warm, $base]"))
    assert release.run() == 4
    assert "no rule of rules.yaml compares with base" in release.said
    wins = {f["against"] for f in release.read("exam/findings.json")["findings"] if f["check"] == "win_rate"}
    assert wins == {"warm", "base"}, "each against the same prompts"
    (release.folder / "rules.yaml").write_text(BOTH)
    assert release.run() in (0, 1, 4) and "cannot decide:" not in release.said
    states = [r["state"] for r in release.read("decision.json")["results"]]
    assert "missing" not in states and len(states) == 2


def test_production_may_be_another_model_than_the_base(release) -> None:
    release.write(RECIPE.replace("base: world", "production: world:desk/small\nbase: world"))
    release("check", str(release.folder / "r.yaml"))
    assert "small stands in production" in release.said
    assert "give against: [$warm, world:desk/small]" in release.said
    named = RECIPE.replace("base: world", "production: world:desk/small\nbase: world")
    release.write(named.replace("against: $warm", "against: [$warm, world:desk/small]"))
    (release.folder / "rules.yaml").write_text(BOTH.replace("against: base", "against: small"))
    release("check", str(release.folder / "r.yaml"))
    assert "cannot decide" not in release.said


def test_a_recipe_without_a_base_says_what_it_would_replace(release) -> None:
    release.write(RECIPE.replace("base: world:desk/tiny\n", "").replace("$base", "world:desk/tiny"))
    assert release.run() == 4
    assert "the recipe names no base and no production" in release.said
    assert "the model in production is unknown" in release.said


@pytest.mark.parametrize("value", ["$warm", "3", "[a, b]", "''"])
def test_what_a_recipe_makes_itself_stands_in_no_production(value: str) -> None:
    with pytest.raises(RecipeError, match="production is the model that a release would replace"):
        check(RECIPE.replace("base: world", f"production: {value}\nbase: world").replace("rules.yaml", "r.yaml"))


def test_looking_again_with_other_rules_is_counted(release) -> None:
    release.write(RECIPE.replace("against: $warm", "against: [$warm, $base]"))
    release.run()
    (release.folder / "rules.yaml").write_text(BOTH)
    release.run()
    assert release.read("decision.json")["look"] == 2 and "look 2 of this gate" in release.said
    assert release("gate", str(release.out), "--rules", str(release.folder / "rules.yaml")) in (0, 1, 4)
    assert len(json.loads((release.out / "looks.json").read_text())["looks"]) == 2, "the same evidence and rules"
