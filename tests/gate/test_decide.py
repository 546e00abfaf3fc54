"""The gate's table of verdicts, its exit codes and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.errors import UserError
from truing.evaluate import intervals
from truing.gate.decide import FEWEST, decide, each_once, write_decision
from truing.gate.evidence import read_findings
from truing.gate.rules import Rule
from truing.records import Finding

LOW = Rule(check="win_delta", end="lower", min=0.0, samples=200)
SHORT = Rule(check="mean_length_delta_tokens", end="upper", max=20)


def delta(value: float, half: float | None, n: int = 500, model: str = "direct") -> Finding:
    ends = None if half is None else (value - half, value + half)
    return Finding("win_delta", model, value, "warm", interval=ends, n=n)


@pytest.mark.parametrize(
    ("findings", "rules", "verdict", "code"),
    [
        ([delta(0.12, 0.04)], [LOW], "ship", 0),
        ([delta(0.04, 0.04)], [LOW], "ship", 0),  # the end lies on the bound
        ([delta(0.02, 0.04)], [LOW], "undecided", 4),  # straddles, however many samples
        ([delta(-0.02, 0.04)], [LOW], "undecided", 4),
        ([delta(-0.04, 0.04)], [LOW], "undecided", 4),  # its upper end lies on the bound
        ([delta(-0.12, 0.04)], [LOW], "hold", 1),  # all of it lies beyond
        ([delta(0.12, 0.04, n=199)], [LOW], "undecided", 4),
        ([delta(-0.12, 0.04, n=199)], [LOW], "undecided", 4),
        ([delta(0.12, 0.04, n=200)], [LOW], "ship", 0),
        ([delta(0.12, 0.04, n=0)], [LOW], "undecided", 4),
        ([], [LOW], "undecided", 4),
        ([delta(0.12, 0.04)], [LOW, SHORT], "undecided", 4),
        ([delta(-0.12, 0.04)], [LOW, SHORT], "hold", 1),  # a failure outweighs what is missing
        ([delta(0.12, 0.04), delta(-0.1, 0.04, model="b")], [LOW], "hold", 1),  # every finding must pass
        ([delta(0.12, 0.04), delta(-0.1, 0.04, model="b")], [LOW.model_copy(update={"model": "direct"})], "ship", 0),
        ([delta(0.12, 0.2)], [Rule(check="win_delta", end="upper", max=0.3)], "undecided", 4),
        ([delta(0.12, 0.1)], [Rule(check="win_delta", min=0.0, max=0.3)], "ship", 0),
        ([delta(0.12, 0.1)], [Rule(check="win_delta", min=0.3, max=0.4)], "hold", 1),
    ],
)
def test_verdicts(findings: list[Finding], rules: list[Rule], verdict: str, code: int) -> None:
    decision = decide(findings, rules)
    assert (decision.verdict, decision.exit_code) == (verdict, code)
    assert decision.text().endswith("conditions met") and verdict in decision.text()


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        (delta(0.01, None, n=1), "too few"),  # one prompt
        (delta(0.1, 0.0, n=9), "too few"),
        (delta(0.1, None, n=12), "no interval"),  # twelve equal deltas
        (delta(-0.4, None, n=500), "no interval"),  # nor does it fail on its value
        (Finding("win_delta", "direct", 0.4, "warm", interval=(0.3, 0.5), n=500, reservation="a coin"), "reserved"),
    ],
)
def test_a_value_without_an_interval_decides_nothing(finding: Finding, state: str) -> None:
    """The kind: what does not say how sure it is decides nothing, whichever side it lies on."""
    decision = decide([finding], [Rule(check="win_delta", min=0.0)])
    assert (decision.verdict, decision.results[0].state) == ("undecided", state)


def test_it_says_what_it_would_take_on_fresh_prompts() -> None:
    # The half-width 0.04 of 500 must shrink to 0.02: four times the samples.
    result = decide([delta(0.02, 0.04)], [LOW]).results[0]
    assert result.samples_needed == 2000 and "about 2000 fresh samples would settle it" in result.text
    assert "other prompts, not these again" in result.text
    below = decide([delta(-0.02, 0.04)], [LOW]).results[0]
    assert below.samples_needed == 2000
    few = decide([delta(0.1, 0.04, n=120)], [LOW]).results[0]
    assert few.samples_needed == 200 and "from 120 samples; 80 more are needed" in few.text
    upper = decide([Finding("mean_length_delta_tokens", "a", 10.0, interval=(-10.0, 30.0), n=50)], [SHORT]).results[0]
    assert upper.samples_needed == 200
    on = decide([delta(0.0, 0.04)], [LOW]).results[0]
    assert on.samples_needed is None and "no number of samples is expected to settle it" in on.text


def test_nothing_is_decided_by_fewer_items_than_give_an_interval() -> None:
    assert FEWEST == intervals.FEWEST


def test_missing_evidence_names_what_is_near() -> None:
    assert "Did you mean 'win_delta'?" in decide([delta(0.1, 0.01)], [Rule(check="win_dlta", min=0)]).text()
    text = decide([delta(0.1, 0.01)], [Rule(check="win_delta", model="other", min=0)]).text()
    assert "was measured for direct against warm" in text
    assert "Measured: nothing." in decide([], [LOW]).text()


def test_what_a_file_says_cannot_command_a_terminal() -> None:
    name = "a\x1b[2J\rship: 9 of 9 conditions met\nb\u202e"
    rules = [LOW.model_copy(update={"model": name}), Rule(check="win_delta", model="other\x1b]0;x\x07", min=0)]
    text = decide([delta(-0.1, 0.01, model=name)], rules).text()
    assert not any(ord(c) < 32 and c != "\n" for c in text) and "\u202e" not in text
    assert "a⟨U+001B⟩[2J ship: 9 of 9 conditions met b⟨U+202E⟩ against warm: -0.1" in text
    assert text.count("\n") == 4, "two lines for each of two results, and the verdict"


def test_no_rules_and_no_numbers_are_refused() -> None:
    with pytest.raises(UserError, match="at least one rule"):
        decide([], [])


def test_one_place_says_one_thing_and_names_a_model() -> None:
    with pytest.raises(UserError, match="has two values for win_delta of direct against warm"):
        each_once([delta(0.12, 0.04), delta(0.13, 0.04)], "findings.json")
    with pytest.raises(UserError, match="names no model"):
        decide([delta(0.12, 0.04, model=" ")], [LOW])
    assert decide([delta(0.12, 0.04), delta(0.12, 0.04)], [LOW]).verdict == "ship"
    both = decide([delta(0.12, 0.04), delta(-0.12, 0.04)], [LOW])
    assert [r.state for r in both.results] == ["passed", "failed"], "of two exams, each has to pass"


@pytest.mark.parametrize(
    ("value", "half", "bound"), [(1e-170, 1e-3, 0.0), (3e-17, 0.01, 0.0), (1e308, 1e307, 1e308), (-3e-17, 0.01, 0.0)]
)
def test_what_no_number_of_samples_settles_is_not_given_one(value: float, half: float, bound: float) -> None:
    finding = Finding("score", "direct", value, interval=(value - half, value + half), n=500)
    result = decide([finding], [Rule(check="score", min=bound)]).results[0]
    assert result.samples_needed is None and "no number of samples" in result.text


def test_decision_file_round_trip(tmp_path: Path) -> None:
    found = [delta(0.12, 0.04)]
    decision = decide(found, [LOW, SHORT])
    path = write_decision(decision, tmp_path / "run" / "decision.json")
    stored = json.loads(path.read_text())
    assert stored["verdict"] == "undecided" and stored["exit_code"] == 4
    assert [r["state"] for r in stored["results"]] == ["passed", "missing"]
    assert stored["rules"][0] == {"check": "win_delta", "end": "lower", "min": 0.0, "samples": 200}
    assert len(stored["evidence_hash"]) == 16
    assert stored["evidence_hash"] != decide([delta(0.13, 0.04)], [LOW, SHORT]).as_json()["evidence_hash"]
    assert read_findings(path) == found
    assert [p.name for p in path.parent.iterdir()] == ["decision.json"]


def test_a_run_folder_gives_every_finding_once(tmp_path: Path) -> None:
    rows = [delta(0.1, 0.02).as_json(), delta(0.2, 0.02, model="b").as_json()]
    for stage, these in (("exam", rows), ("deep/again", rows[:1])):
        (tmp_path / stage).mkdir(parents=True)
        (tmp_path / stage / "findings.json").write_text(json.dumps({"findings": these}))
    assert len(read_findings(tmp_path)) == 2
    assert read_findings(tmp_path / "exam" / "findings.json")[0] == delta(0.1, 0.02)
    (tmp_path / "none").mkdir()
    assert read_findings(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "no list under 'findings'; give a run's folder, or the findings.json of an evaluate stage"),
        ('{"findings": {}}', "no list under 'findings'"),
        ('{"findings": [3]}', "finding 1: is not an object"),
        ('{"findings": [{"value": 1}]}', "has no check"),
        ('{"findings": [{"check": "a", "value": "1"}]}', "finding 1: value must be a number"),
        ('{"findings": [{"check": "a", "value": true}]}', "value must be a number"),
        ('{"findings": [{"check": "a", "value": NaN}]}', "NaN is not a number"),
        ('{"findings": [{"check": "a", "value": 1, "interval": [1]}]}', "interval must be"),
        ('{"findings": [{"check": "a", "value": 1, "interval": [2, 1]}]}', "the wrong way round"),
        ('{"findings": [{"check": "a", "value": 1, "n": 1.5}]}', "n must be a whole number"),
        ('{"findings": [{"check": "a", "value": 1, "n": -1}]}', "n must be a whole number"),
        ('{"findings": [{"check": "a", "value": 1' + "0" * 350 + "}]}", "value must be a number"),
        ('{"findings": [{"check": "a", "value": 1, "n": 1' + "0" * 350 + "}]}", "a count is from 0 to"),
        ('{"findings": [{"check": "a", "value": 1, "bound": "0"}]}', "bound must be a number"),
        ('{"findings": [{"check": "a", "value": 1, "interval": [2, 3]}]}', "outside its own interval"),
        ('{"findings": [{"check": "win_rate", "value": 7}]}', "value 7 is outside \\[0, 1\\]"),
        ('{"findings": [{"check": "a", "value": 1, "intervall": [0, 2]}]}', "unknown key 'intervall'. Did you mean"),
        ('{"findings": [{"check": "a", "value": 1, "model": 3}]}', "model must be text"),
    ],
)
def test_malformed_findings_are_the_users_to_mend(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_findings(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_findings(tmp_path / "absent.json")
