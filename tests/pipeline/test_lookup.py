"""A word that somebody asks for, without having to know what kind of thing it is."""

from __future__ import annotations

import pytest

from truing import registry
from truing.errors import UserError
from truing.recipe import lookup


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("dpo", "objective"),
        ("grpo", "objective"),  # and a recipe, which is asked for as one
        ("prefer", "stage"),
        ("verifier", "reward"),
        ("world:comparisons", "data"),
        ("world:desk/tiny", "model"),
        ("quickstart", "recipe"),
        ("warmup", "option"),
        ("per_device_train_batch_size", "option"),
    ],
)
def test_a_word_is_known_by_itself(word, kind) -> None:
    assert lookup.kind_of(word) == kind


def test_what_is_several_things_or_none_is_said() -> None:
    for word, said in {
        "judge": "'judge' has several meanings; name one: truing show stage judge, truing show option judge",
        "reinforce": "truing show objective reinforce, truing show stage reinforce",
        "wormup": "there is nothing called 'wormup'. Did you mean 'warmup'?",
    }.items():
        with pytest.raises(UserError) as problem:
            lookup.kind_of(word)
        assert said in str(problem.value)


def test_every_option_says_what_it_is_and_whose() -> None:
    for word in sorted(lookup.every_option()):
        text = lookup.option(word)
        for kind in lookup.PARTS:
            for name, part in registry.parts(kind).items():
                own = part.option(word)
                assert (own is None) or (own.doc in text and f"{kind} {name}" in text), (word, name)


def test_an_option_of_two_meanings_has_both() -> None:
    text = lookup.option("beta")
    assert "objective dpo" in text and "stage reinforce" in text and text.count("\n  of ") >= 3
    assert lookup.option("warmup").startswith("warmup  Fraction  default 0.1\n  share of the steps")
    assert "default none" in lookup.option("lora_rank") and "required" in lookup.option("model")


def test_a_name_of_another_systems_brings_the_option_that_it_is_here() -> None:
    text = lookup.option("grad_clip")
    assert (
        text.startswith("verl's grad_clip is 'max_grad_norm' here.\nmax_grad_norm  Positive")
        and "objective" not in text
    )
    assert "of objective grpo\n" in (text := lookup.option("epsilon")) + "\n" and "stage" not in text
    with pytest.raises(UserError, match=r"unknown option 'lerning_rate'\. Did you mean 'learning_rate'"):
        lookup.option("lerning_rate")
