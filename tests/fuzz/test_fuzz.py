"""A thousand spoilt files: only documented exit codes, no traceback, no hang, no NaN in a JSON, no terminal escapes.

`make fuzz` does it a hundred thousand times, and 300 times through the command. What it has found is in kept.jsonl.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from mutations import EDITS, VALUES, apply, changed, draw, places
from targets import BY_NAME, TARGETS, Target, as_command, copied, files_of, in_process, inside, judge, problem

KEPT = [json.loads(line) for line in (Path(__file__).parent / "kept.jsonl").read_text().splitlines()]
COMMANDS = ("model", "adapter", "pairs", "recipe", "rules", "findings")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_nothing_is_wrong_with_passes(target: Target, template: Path, tmp_path: Path) -> None:
    code, wrong = judge(target, template, tmp_path, lambda _: None)
    assert not wrong and code == (4 if target.name == "evidence" else 0)  # so few rows decide nothing


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_whatever_a_file_holds_the_end_is_a_documented_one(
    target: Target, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work, files = tmp_path_factory.mktemp("work"), files_of(target, template)
    ends = set()

    @settings(
        max_examples=target.share,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def spoil(rng) -> None:
        edits = draw(template / target.within, files, rng)
        note(json.dumps({"target": target.name, "edits": edits}))
        code, wrong = judge(target, template, work, lambda place: apply(place, edits))
        ends.add(code)
        assert not wrong

    spoil()
    assert 2 in ends or target.name in ("report", "lineage")  # made of what there is, and a lineage may be unknown


@pytest.mark.parametrize("case", KEPT, ids=lambda case: f"{case['target']}: {case['was']}")
def test_what_was_found_stays_mended(case, template: Path, tmp_path: Path) -> None:
    code, wrong = judge(BY_NAME[case["target"]], template, tmp_path, lambda place: apply(place, case["edits"]))
    assert not wrong, (code, wrong)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_ends_as_it_does_in_process(name: str, template: Path, tmp_path: Path) -> None:
    target = BY_NAME[name]
    edits = [{"file": target.files[0], "do": "emptied"}]
    ends = [judge(target, template, tmp_path, lambda place: apply(place, edits), by) for by in (in_process, as_command)]
    assert ends == [(2, "")] * 2


def test_the_fuzz_sees_what_must_not_be(template: Path, tmp_path: Path) -> None:
    target = BY_NAME["pairs"]
    with copied(template, tmp_path, target, lambda _: None) as place, inside(place):
        assert "KeyError: 'x' in truing/a.py/3/f" in problem(
            target, place, 3, "Traceback\n  File \"/x/truing/a.py\", line 3, in f\nKeyError: 'x'\n"
        )
        assert "exit code 1" in problem(target, place, 1, "truing: no")
        assert "without a word" in problem(target, place, 2, "")
        assert "U+001B" in problem(target, place, 0, "\x1b[2J")
        (place / "parts").mkdir()
        (place / "parts" / "train.jsonl").write_text('{"score": NaN}\n')
        assert "no number" in problem(target, place, 0, "")


def test_a_mutation_is_data_and_does_what_it_says(template: Path, tmp_path: Path) -> None:
    value = {"a": [1, {"b": 2}], "c": 3}
    assert [list(way) for way in places(value)] == [[], ["a"], ["c"], ["a", 0], ["a", 1], ["a", 1, "b"]]
    assert changed(json.loads(json.dumps(value)), {"do": "removed", "at": ["a", 1, "b"]}) == {"a": [1, {}], "c": 3}
    assert changed({"a": 1}, {"do": "set", "at": ["a"], "value": "half"}) == {"a": 0.5}
    assert changed({"a": 1}, {"do": "renamed", "at": ["a"], "to": "b"}) == {"b": 1}
    assert changed({"a": 1, "b": 2}, {"do": "swapped", "at": ["a"], "with": ["b"]}) == {"a": 2, "b": 1}
    assert VALUES["a thousand digits"] > 10**999 and len(EDITS) > 20
