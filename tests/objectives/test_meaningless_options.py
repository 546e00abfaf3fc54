"""Values of options that make a method meaningless are refused, from Python and in a recipe, with range and reason:
those by which a gradient vanishes, turns, or is divided by zero."""

from __future__ import annotations

import ast

import pytest
import torch

import truing.objectives as o
from truing import registry
from truing.contract.example import example, learned
from truing.errors import RecipeError, UserError
from truing.objectives import advantage
from truing.recipe.check import check
from truing.schema.option import Option
from truing.schema.type_words import NUMBERS, WHY, members, parse_type, word_of

HEAD = "base: world:desk/tiny\nstages:\n  warm: {do: sft, model: $base, data: world:demonstrations}\n"
PREFER = HEAD + "  next: {do: prefer, model: $warm, data: world:comparisons, objective: %s}\n"
LEARN = HEAD + "  next: {do: reinforce, model: $warm, prompts: world:prompts, rewards: gold, objective: %s}\n"

REFUSED = [
    ("cdpo", "label_smoothing", 0.5, "below 0.5, got 0.5: at 0.5 the labels teach nothing, above it their opposite"),
    ("cdpo", "label_smoothing", 0.7, "below 0.5, got 0.7: at 0.5 the labels teach nothing, above it their opposite"),
    ("robust_dpo", "label_smoothing", 0.5, "above it their opposite"),
    ("exo", "label_smoothing", 0.6, "at least 1e-06 and below 0.5, got 0.6"),
    ("exo", "label_smoothing", 0.0, "at 0 the loss is infinite"),
    ("dpo", "beta", 0.0, "beta must be a number above 0, got 0.0"),
    ("ipo", "tau", 0.0, "tau must be a number above 0"),
    ("f_dpo", "alpha", 1.5, "alpha must be a number above 0, up to 1, got 1.5"),
    ("orpo", "weight", 0.0, "weight must be a number above 0"),
    ("kto", "desirable_weight", 0.0, "desirable_weight must be a number above 0"),
    ("kldo", "correction", 0.0, "correction must be a number above 0, up to 1, got 0.0: at 0 there is nothing left"),
    ("bco", "rate", 0, "rate must be a number above 0, up to 1"),
    (
        "ppo",
        "dual_clip",
        1.0,
        "dual_clip must be a number above 1 or none, got 1.0: at 1 or below it takes the gradient",
    ),
    ("ppo", "dual_clip", 0.5, "of every response that did badly"),
    ("ppo", "clip", 1.0, "clip must be a number above 0 and below 1, got 1.0: from 1 on the ratio has no lower bound"),
    ("grpo", "clip", 0.0, "at 0 it cannot move"),
    ("dapo", "clip_low", 1.5, "clip_low must be a number above 0 and below 1"),
    ("gspo", "clip_low", 1.0, "clip_low must be a number above 0 and below 1"),
    ("rloo", "clip", 2, "clip must be a number above 0 and below 1"),
    ("lite_ppo", "clip", -0.2, "clip must be a number above 0 and below 1"),
    (
        "cispo",
        "clip_high",
        0.2,
        "clip_high must be a number from 1 up, got 0.2: below 1 it cuts off what has not moved",
    ),
    ("awr", "max_weight", 0.1, "max_weight must be a number from 1 up"),
]


@pytest.mark.parametrize(("name", "option", "value", "said"), REFUSED)
def test_a_value_that_makes_the_method_meaningless_is_refused_everywhere(name, option, value, said) -> None:
    objective = registry.load(name, "objective")
    with pytest.raises(UserError, match=f"objective '{name}': ") as direct:
        objective(**example(objective), **{option: value})
    with pytest.raises(UserError) as bound:
        objective.bind({option: value})
    part = registry.parts("objective")[name]
    recipe = LEARN if part.advantage else PREFER
    with pytest.raises(RecipeError) as written:
        check(recipe % f"{{{name}: {{{option}: {value}}}}}")
    for problem in (direct, bound, written):
        assert said in str(problem.value)


EVERY = [(p.name, o) for p in registry.parts("objective").values() for o in p.options if not o.type.startswith("L")]


def edges(option: Option) -> list[float]:
    """Numbers at the ends of an option's range, where it has an end."""
    words = [word_of(m) for m in members(parse_type(option.type)) if isinstance(m, ast.Name)]
    ranges = [NUMBERS[word] for word in words if word in NUMBERS]
    inner = {0.0, 1e-6, 0.49, 0.5, 0.999, 1.0, 1.0 + 1e-9, 2.0}
    return [x for _, _, low, high in ranges for x in sorted(inner | {low if low > 1e-6 else 1e-6}) if low <= x <= high]


@pytest.mark.parametrize(("name", "option"), EVERY, ids=lambda x: getattr(x, "name", x))
def test_every_value_that_is_taken_teaches_something_finite(name, option) -> None:
    """At every end of every option's range the gradient is finite and not all zero."""
    objective = registry.load(name, "objective")
    for value in edges(option):
        given = {option.name: option.check(value)}
        signals = example(objective, rows=12, **given)
        losses = objective(**signals, **given)
        grads = [g for g in torch.autograd.grad(losses.sum(), learned(signals), allow_unused=True) if g is not None]
        assert all(bool(g.isfinite().all()) for g in [losses, *grads]), value
        assert any(bool(g.any()) for g in grads), f"{name} learns nothing at {option.name}={value}"


def test_smoothing_never_turns_a_preference() -> None:
    """Up to the last value that is taken the slope at the reference is down with the margin, and shrinks to nothing."""
    for name in ("cdpo", "robust_dpo", "exo"):
        for e in (1e-6, 0.1, 0.4, 0.4999):
            chosen, zero = torch.zeros(1, dtype=torch.float64, requires_grad=True), torch.zeros(1, dtype=torch.float64)
            getattr(o, name)(chosen, zero, zero, zero, label_smoothing=e).sum().backward()
            assert chosen.grad < 0, (name, e)


def test_f_dpo_becomes_dpo_as_alpha_falls() -> None:
    """In fp32 too, where 1 - u^-alpha would be lost."""
    rows = [torch.tensor([v], requires_grad=v == -6.5) for v in (-6.5, -9.0, -7.0, -8.0)]
    wanted = torch.autograd.grad(o.dpo(*rows).sum(), rows[0])[0]
    for alpha in (1e-3, 1e-8, 1e-20):
        loss = o.f_dpo(*rows, divergence="alpha", alpha=alpha)
        assert loss.item() == pytest.approx(o.dpo(*rows).item(), rel=2e-3)
        assert torch.autograd.grad(loss.sum(), rows[0])[0].item() == pytest.approx(wanted.item(), rel=2e-3)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: advantage.gae(x, x, x, gamma=1.5), "gamma must be within 0 to 1"),
        (lambda x: advantage.gae(x, x, x, gae_lambda=-0.1), "gae_lambda must be within 0 to 1"),
        (lambda x: advantage.returns(x, x, gamma=1.1), "gamma must be within 0 to 1"),
        (lambda x: advantage.standardised(x[0], x[0], floor=-1.0), "floor must be 0 or more"),
        (lambda x: advantage.process(x, x, floor=-1.0), "floor must be 0 or more"),
        (lambda x: advantage.lagrangian(x, x, multiplier=-1.0), "multiplier must be 0 or more"),
    ],
)
def test_functions_refuse_what_turns_an_advantage(call, said) -> None:
    with pytest.raises(UserError, match=said):
        call(torch.ones(1, 3))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (PREFER % "{dpo: {weight: 0}}", "every term of the objective has weight 0, so nothing is learned"),
        (LEARN % "[{dapo: {weight: 0.0}}, {kl_k2: {weight: 0}}]", "every term of the objective has weight 0"),
        ((LEARN % "grpo").replace("}\n", "}\n", 1).replace("objective:", "sampler_cap: 0.5, objective:"), "from 1 up"),
    ],
)
def test_a_recipe_that_could_learn_nothing_is_refused(recipe, said) -> None:
    with pytest.raises(RecipeError, match=said):
        check(recipe)


@pytest.mark.parametrize("objective", ["[dpo, {nll: {weight: 0}}]", "{cpo: {weight: 0}}", "{orpo: {likelihood: 0}}"])
def test_a_term_of_no_weight_beside_others_is_taken(objective) -> None:
    check(PREFER % objective)


def test_every_range_with_an_end_says_why() -> None:
    assert set(WHY) == set(NUMBERS) - {"Positive", "NonNegative", "Fraction", "float", "Count", "int"}


# --- confidence: the median of a step, in the numbers it was taken in ------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [0.0, 10.0, 17.5, 20.0, 30.0, -30.0, -90.0])
def test_half_of_a_step_is_hardened_to_one_however_far_out(dtype, far) -> None:
    rewards = torch.tensor([far, far + 1, far + 2, far + 3], dtype=dtype)
    threshold = o.confidence.statistics({"reward_B": rewards}, {}, {})["threshold_B"].expand(4)
    zero = torch.zeros_like(rewards)
    own = (o.confidence(rewards, zero, threshold, weight=0.0) - o.confidence(rewards, zero, threshold, weight=0.5)) * 2
    assert (own / rewards.where(rewards != 0, 1)).round().abs().tolist() == [0, 0, 1, 1]
