"""A rules file: what it may say, and how its mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from truing.errors import UserError
from truing.gate.rules import parse_rules, read_rules


def test_yaml_and_json_say_the_same(tmp_path: Path) -> None:
    y, j = tmp_path / "r.yaml", tmp_path / "r.json"
    y.write_text(
        "rules:\n  - {check: held_out_win_delta, end: lower, min: 0.0, samples: 200}\n"
        "  - {check: mean_length_delta_tokens, end: upper, max: 20}\n"
    )
    j.write_text(
        '{"rules": [{"check": "held_out_win_delta", "end": "lower", "min": 0.0, "samples": 200},'
        ' {"check": "mean_length_delta_tokens", "end": "upper", "max": 20}]}'
    )
    assert read_rules(y) == read_rules(j)
    assert read_rules(y)[0].bounds() == [("lower", "min", 0.0)]


@pytest.mark.parametrize(("text", "number"), [("3e-5", 3e-5), ("'3e-5'", 3e-5), ("010", 10.0), ("1.", 1.0)])
def test_numbers_are_those_of_yaml_1_2(text: str, number: float) -> None:
    assert parse_rules(f"rules: [{{check: kl, max: {text}}}]")[0].max == number


def test_words_that_were_truth_values_in_yaml_1_1_are_words() -> None:
    rule = parse_rules("rules: [{check: kl, max: 1, model: on, against: no, slice: off}]")[0]
    assert (rule.model, rule.against, rule.slice) == ("on", "no", "off")


def test_without_an_end_the_cautious_one_is_held_against_the_bound() -> None:
    rule = parse_rules("rules: [{check: kl, min: 0, max: 1}]")[0]
    assert rule.bounds() == [("lower", "min", 0.0), ("upper", "max", 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{chek: a, min: 0}]", "r, rule 1, line 1: unknown key 'chek'. Did you mean 'check'?"),
        ("rules: [{check: a, mn: 0}]", "unknown key 'mn'. Did you mean 'min'?"),
        ("rules:\n- {check: a, min: 0}\n- {check: a, mim: 0}", "r, rule 2, line 3: unknown key 'mim'"),
        ("rule: [{check: a, min: 0}]", "needs a list under 'rules'"),
        ("rules: [{check: a, min: 0}]\nruls: 1", "unknown key 'ruls'. Did you mean 'rules'?"),
        ("rules: []", "at least one rule"),
        ("", "needs a list under 'rules'"),
        ("rules: [{check: a}]", "needs 'min' or 'max'"),
        ("rules: [{min: 0}]", "check: Field required"),
        ("rules: [{check: a, min: 2, max: 1}]", "nothing could pass"),
        ("rules: [{check: a, min: .nan}]", "min: Input should be a finite number"),
        ("rules: [{check: a, min: true}]", "a number is needed, not true or false"),
        ("rules: [{check: a, min: few}]", "(given: 'few')"),
        ("rules: [{check: a, min: 0, samples: 0}]", "samples: Input should be greater than or equal to 1"),
        ("rules: [{check: a, min: 0, end: left}]", "Input should be 'lower' or 'upper'"),
        ("rules: [7]", "a rule is a mapping"),
        ("rules: [{check: a, min: 0, min: 1}]", "r, line 1: 'min' stands twice (first on line 1)"),
        ("rules: [{check: a", "r, line 1"),
        ("rules: [{? [a] : b}]", "rule 1"),
        (
            "rules: [!!python/object/apply:os.system [ls]]",
            "r, line 1: a rules file has no tags (tag:yaml.org,2002:python/object/apply:os.system)",
        ),
        ("[" * 1500, "r, line 1: is nested too deeply"),
        ("rules: [{check: a, min: 2024-99-99}]", "r, rule 1, line 1: min: Input should be a valid number"),
        (
            "rules:\n- {check: a, <<: {min: 0}}",
            "r, line 2: a rules file has no merge keys (<<): write the merged entries",
        ),
        ("rules:\n- &a {check: a, min: 0}\n- *a", "r, line 2: a rules file has no anchors (&) and aliases (*)"),
        ("rules: [{check: a, min: yes}]", "(given: 'yes')"),
        ("rules: [{check: a, min: 1:30}]", "(given: '1:30')"),
        ("#" * 300_001, "r: has 300,001 characters, and a rules file has at most 300,000"),
    ],
)
def test_mistakes_are_told_with_place_and_way_out(text: str, message: str) -> None:
    with pytest.raises(UserError) as e:
        parse_rules(text, "r")
    assert message in str(e.value) or (message == "rule 1" and "r" in str(e.value))


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(UserError) as e:
        parse_rules("rules: [{check: a}, {chek: b}, {check: c, min: x}]", "r")
    assert len(str(e.value).split("\n")) == 3


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_rules(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_rules(tmp_path / "b.yaml")
