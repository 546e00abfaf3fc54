"""A decision is about what stands in production: rules that do not read that comparison decide nothing."""

from __future__ import annotations

import pytest

from truing.gate.decide import decide
from truing.gate.rules import Rule
from truing.types import Finding


def won(model: str, against: str, value: float = 0.6, check: str = "win_rate") -> Finding:
    return Finding(check, model, value, against, interval=(value - 0.05, value + 0.05), n=400)


WARM = Rule(check="win_rate", model="direct", against="warm", min=0.5)
BASE = Rule(check="win_rate", model="direct", against="base", min=0.5)


def test_a_model_that_only_beats_its_own_stage_does_not_ship() -> None:
    """The case found: 0.6 over its own SFT stage, 0.45 over the base that its user began with."""
    beside = [won("direct", "warm"), won("direct", "base", 0.45)]
    blind = decide(beside, [WARM], production="base")
    assert blind.verdict == "undecided" and blind.exit_code == 4
    assert "add to the rules: {check: win_rate, model: direct, against: base, min: 0.5}" in blind.text()
    assert decide(beside, [WARM, BASE], production="base").verdict == "undecided"  # [0.40, 0.50]
    worse = [won("direct", "warm"), won("direct", "base", 0.4)]
    assert decide(worse, [WARM, BASE], production="base").verdict == "hold"
    better = [won("direct", "warm"), won("direct", "base", 0.62)]
    assert decide(better, [WARM, BASE], production="base").verdict == "ship"


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
    decision = decide(beside, [WARM, rule], production="base")
    assert decision.verdict == "undecided" and "no rule reads how direct compares with base" in decision.text()


def test_what_was_not_measured_is_said_too() -> None:
    text = decide([won("direct", "warm")], [WARM], production="base").text()
    assert "name base under 'against' of the evaluate stage too" in text


def test_any_measure_of_better_will_do() -> None:
    for check, level in (("win_delta", 0.0), ("pass_at_1_delta", 0.0), ("mean_score_delta", 0.0)):
        beside = [won("direct", "base", 0.1, check)]
        assert decide(beside, [Rule(check=check, min=level)], production="base").verdict == "ship"
        lenient = decide(beside, [Rule(check=check, min=level - 0.1)], production="base")
        assert (
            lenient.verdict == "undecided"
            and f"{{check: {check}, model: direct, against: base, min: 0}}" in lenient.text()
        )


def test_every_model_that_would_ship_is_compared() -> None:
    """One that no rule is about is not decided about."""
    beside = [won("a", "base"), won("b", "base"), won("b", "base", 3.0, "mean_length_delta_tokens")]
    rules = [Rule(check="win_rate", model="a", against="base", min=0.5)]
    assert decide(beside, rules, production="base").verdict == "ship"
    rules += [Rule(check="mean_length_delta_tokens", model="b", max=20)]
    assert "how b compares with base" in decide(beside, rules, production="base").text()
    assert decide(beside, [Rule(check="win_rate", min=0.5)], production="base").verdict == "ship"


def test_nothing_stands_beside_a_reward_model() -> None:
    accuracy = Finding("held_out_accuracy", "rm", 0.7, interval=(0.65, 0.75), n=300)
    assert decide([accuracy], [Rule(check="held_out_accuracy", min=0.6)], production="base").verdict == "ship"
