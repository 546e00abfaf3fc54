"""A decision is about what stands in production: rules that do not read that comparison decide nothing."""

from __future__ import annotations

import pytest

from truing.gate.decide import decide
from truing.gate.rules import Rule
from truing.records import Finding


def won(model: str, against: str, value: float = 0.6, check: str = "win_rate") -> Finding:
    return Finding(check, model, value, against, interval=(value - 0.05, value + 0.05), n=400)


WARM = Rule(check="win_rate", model="direct", against="warm", min=0.5)
BASE = Rule(check="win_rate", model="direct", against="base", min=0.5)


def test_a_model_that_only_beats_its_own_stage_does_not_ship() -> None:
    """The case found: 0.6 over its own SFT stage, 0.45 over the base that its user began with."""
    beside = [won("direct", "warm"), won("direct", "base", 0.45)]
    blind = decide(beside, [WARM], production=["base"])
    assert blind.verdict == "undecided" and blind.exit_code == 4
    assert "add to the rules: {check: win_rate, model: direct, against: base, min: 0.5}" in blind.text()
    assert decide(beside, [WARM, BASE], production=["base"]).verdict == "undecided"  # [0.40, 0.50]
    worse = [won("direct", "warm"), won("direct", "base", 0.4)]
    assert decide(worse, [WARM, BASE], production=["base"]).verdict == "hold"
    better = [won("direct", "warm"), won("direct", "base", 0.62)]
    assert decide(better, [WARM, BASE], production=["base"]).verdict == "ship"


@pytest.mark.parametrize(
    "rule",
    [
        Rule(check="win_rate", model="direct", against="base", min=0.4),  # lets a worse one through
        Rule(check="win_rate", model="direct", against="base", max=0.9),  # asks for no more than a limit
        Rule(check="mean_length_delta_tokens", model="direct", against="base", max=20),
    ],
)
def test_a_rule_that_a_worse_model_could_meet_is_no_comparison(rule: Rule) -> None:
    beside = [won("direct", "warm"), won("direct", "base", 0.6), won("direct", "base", 3.0, "mean_length_delta_tokens")]
    decision = decide(beside, [WARM, rule], production=["base"])
    assert decision.verdict == "undecided" and "no rule reads how direct compares with base" in decision.text()


def test_what_was_not_measured_is_said_too() -> None:
    text = decide([won("direct", "warm")], [WARM], production=["$base"]).text()
    assert "No exam of this evidence measured it: name base under 'against' of the evaluate stage too" in text


def test_any_measure_of_better_will_do() -> None:
    for check, level in (("win_delta", 0.0), ("pass_at_1_delta", 0.0), ("mean_score_delta", 0.0)):
        beside = [won("direct", "base", 0.1, check)]
        assert decide(beside, [Rule(check=check, min=level)], production=["base"]).verdict == "ship"
        lenient = decide(beside, [Rule(check=check, min=level - 0.1)], production=["base"])
        assert (
            lenient.verdict == "undecided"
            and f"{{check: {check}, model: direct, against: base, min: 0}}" in lenient.text()
        )


def test_every_model_that_would_ship_is_compared() -> None:
    beside = [won("a", "base"), won("b", "base")]
    rules = [Rule(check="win_rate", model="a", against="base", min=0.5)]
    assert "how b compares with base" in decide(beside, rules, production=["base"]).text()
    assert decide(beside, [Rule(check="win_rate", min=0.5)], production=["base"]).verdict == "ship"


def test_a_slice_is_not_all_prompts() -> None:
    """Nor is one head of a judge."""
    beside = [won("direct", "base", 0.35), Finding("win_rate", "direct", 0.7, "base", "helpful", (0.6, 0.8), 400)]
    rules = [Rule(check="win_rate", model="direct", against="base", slice="helpful", min=0.5)]
    assert decide(beside, rules, production=["base"]).verdict == "undecided"


def test_rules_that_look_away_do_not_ship_what_lies_beside() -> None:
    """The evidence has a model that was compared: rules about a reward model, or about production itself, do not
    decide about it."""
    accuracy = Finding("held_out_accuracy", "rm", 0.7, interval=(0.65, 0.75), n=300)
    apart = Finding("disagreement", "direct", 0.1, interval=(0.05, 0.2), n=300)
    score = Finding("mean_score", "base", 0.7, interval=(0.65, 0.75), n=300)
    beside = [won("direct", "base", 0.35), accuracy, apart, score]
    for rule in (
        Rule(check="held_out_accuracy", min=0.6),
        Rule(check="disagreement", max=1),
        Rule(check="mean_score", min=0),
    ):
        assert decide(beside, [rule], production=["base"]).verdict == "undecided", rule


def test_findings_by_hand_do_not_stand_for_the_comparison() -> None:
    by_hand = won("direct", "base", 0.6)
    rules = [WARM, BASE]
    measured = [won("direct", "warm")]
    assert decide([*measured, by_hand], rules, production=["base"], vouched=measured).verdict == "undecided"
    assert decide([*measured, by_hand], rules, production=["base"]).verdict == "ship"


def test_a_name_that_no_exam_measured_is_nobodys() -> None:
    """A stage or folder that happens to be called as the model in production is not that model."""
    beside = [won("direct", "bot2")]
    rules = [Rule(check="win_rate", model="direct", against="bot2", min=0.5)]
    assert decide(beside, rules, production=["$prod/bot2"]).verdict == "undecided"


def test_nothing_stands_beside_a_reward_model() -> None:
    accuracy = Finding("held_out_accuracy", "rm", 0.7, interval=(0.65, 0.75), n=300)
    assert decide([accuracy], [Rule(check="held_out_accuracy", min=0.6)], production=["base"]).verdict == "ship"
