"""A recipe is YAML 1.2: what its options get, whether written in the file or on the command line."""

from __future__ import annotations

import pytest
import yaml

from truing.errors import RecipeError
from truing.recipe.check import check

RECIPE = """\
title: on
seed: 010
base: world:desk/tiny
stages:
  data: {do: split, data: world:comparisons?n=50, eval: 0.2}
  no: {do: sft, model: $base, data: $data.train, epochs: 1e0, learning_rate: 1e-5, max_grad_norm: .5}
  yes: {do: sft, model: $no, data: world:demonstrations?n=20&seed=3, epochs: 0x2, learning_rate: 1E-3}
"""


def read(text=RECIPE, overrides=()):
    recipe = check(text, overrides)
    return recipe, {spec.name: spec.options for spec in recipe.stages}


def test_numbers_words_and_names_of_the_world_need_no_quotes():
    recipe, options = read()
    assert (recipe.title, recipe.seed) == ("on", 10)
    assert options["data"]["data"] == "world:comparisons?n=50"
    assert options["yes"]["data"] == "world:demonstrations?n=20&seed=3"
    assert (options["no"]["epochs"], options["no"]["learning_rate"], options["no"]["max_grad_norm"]) == (1.0, 1e-5, 0.5)
    assert (options["yes"]["epochs"], options["yes"]["learning_rate"]) == (2.0, 1e-3)


def test_the_command_line_is_read_alike():
    recipe, options = read(
        overrides=["title=off", "seed=007", "no.learning_rate=3e-6", "yes.data=world:demonstrations?n=7"]
    )
    assert (recipe.title, recipe.seed, options["no"]["learning_rate"]) == ("off", 7, 3e-6)
    assert options["yes"]["data"] == "world:demonstrations?n=7"


@pytest.mark.parametrize(
    "title", ["on", "no", "1e-5", "010", "2024-01-01", "1:30", "~", "a: b", "it's", 'say "x"', "é\n#"]
)
def test_a_changed_recipe_is_kept_as_text_that_reads_the_same(title):
    quoted = yaml.safe_dump(title, default_style='"', width=1000).strip()
    recipe, options = read(RECIPE.replace("title: on", f"title: {quoted}"), ["seed=4"])
    again, same = read(recipe.text)
    assert recipe.title == again.title == yaml.safe_load(recipe.text)["title"] == title
    assert (again.seed, same) == (4, options)
    assert yaml.safe_load(recipe.text)["stages"]["no"]["learning_rate"] == 1e-5


@pytest.mark.parametrize(
    ("word", "value"), [("true", True), ("FALSE", False), ("yes", None), ("on", None), ("off", None)]
)
def test_truth_values_are_true_and_false_alone(word, value):
    text = f"{RECIPE}  exam: {{do: evaluate, models: $yes, against: $no, lookup: {word}, prompts: world:prompts?n=9}}\n"
    if value is None:
        with pytest.raises(RecipeError, match=f"recipe:8: stage 'exam': lookup must be true or false, got '{word}'"):
            check(text)
    else:
        assert read(text)[1]["exam"]["lookup"] is value
