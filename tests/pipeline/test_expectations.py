"""The expect block means what a gate's rule means: whole intervals, and never a bare value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from truing.errors import RecipeError, UserError
from truing.recipe.check import check
from truing.records import Finding
from truing.run.expectations import Expected, unmet


def won(value: float, half: float | None, against: str = "warm", slice: str = "all", **more) -> Finding:
    ends = None if half is None else (value - half, value + half)
    return Finding("win_rate", "direct", value, against, slice, ends, n=400, **more)


@pytest.fixture
def left(tmp_path: Path):
    def leave(*findings: Finding) -> Path:
        (tmp_path / "exam").mkdir(exist_ok=True)
        text = json.dumps({"findings": [f.as_json() for f in findings]})
        (tmp_path / "exam" / "findings.json").write_text(text)
        return tmp_path

    return leave


PATH = "exam.direct.win_rate"


@pytest.mark.parametrize(
    ("finding", "state", "text"),
    [
        (won(0.6, 0.04), None, ""),
        (won(0.56, 0.04), "open", "0.560 [0.520, 0.600], which reaches over an end of [0.55, 1.0]"),
        (won(0.54, 0.04), "open", "reaches over"),
        (won(0.5, 0.04), "missed", "all of it outside"),
        (won(0.9, None), "open", "without an interval"),
        (won(0.2, None), "open", "without an interval"),
        (won(0.9, 0.04, reservation="its judge is a coin"), "open", "nothing is decided by it: its judge is a coin"),
    ],
)
def test_the_whole_interval_is_held_against_the_bounds(left, finding: Finding, state: str | None, text: str) -> None:
    troubles = unmet({PATH: (0.55, 1.0)}, left(finding))
    assert [t.state for t in troubles] == ([state] if state else [])
    assert all(text in t.text for t in troubles)


def test_a_line_names_one_finding(left) -> None:
    root = left(won(0.6, 0.04), won(0.45, 0.04, "base"), won(0.3, 0.04, "warm", "safety"))
    (several,) = unmet({PATH: (0.55, 1.0)}, root)
    assert several.state == "missed" and "names 2 findings: add @warm or @base" in several.text
    assert unmet({f"{PATH}@warm": (0.55, 1.0), f"{PATH}@base": (0.4, 0.5), f"{PATH}#safety": (0.2, 0.4)}, root) == []
    assert unmet({f"{PATH}@nobody": (0, 1)}, root)[0].text == f"{PATH}@nobody was not measured"


def test_findings_that_contradict_each_other_meet_nothing(left) -> None:
    with pytest.raises(UserError, match="has two values"):
        unmet({PATH: (0.55, 1.0)}, left(won(0.6, 0.04), won(0.7, 0.04)))


def test_a_path_in_its_parts() -> None:
    assert Expected.read("exam.base best of 4.win_rate#clear") == Expected(
        "exam", "base best of 4", "win_rate", "", "clear"
    )
    assert Expected.read("exam.org/new.v2.win_rate@old.v1") == Expected("exam", "org/new.v2", "win_rate", "old.v1")
    assert Expected.read("exam.win_rate") is None


RECIPE = """\
base: world:desk/tiny
stages:
  warm: {do: sft, model: $base, data: "world:demonstrations?n=20"}
  direct: {do: prefer, model: $warm, data: "world:comparisons?n=20"}
  exam: {do: evaluate, models: [$direct], against: [$warm, $base], prompts: "world:prompts?n=20&split=eval"}
expect: {EXPECTED: [0.5, 1.0]}
"""


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("exam.direct.win_rate", "could be against warm or base: say 'exam.direct.win_rate@warm'"),
        ("exam.direct.win_rate@bse", "unknown opponent 'bse'. Did you mean 'base'?"),
        ("exam.direct.win_rate@direct", "unknown opponent 'direct'"),
        ("exam.direkt.win_rate@base", "unknown model 'direkt'. Did you mean 'direct'?"),
        ("exam.direct", "is not of the form stage.model.check"),
    ],
)
def test_a_path_that_names_nothing_or_too_much_is_a_mistake_before_anything_runs(path: str, message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        check(RECIPE.replace("EXPECTED", path))
    assert message in str(refused.value)


def test_a_path_that_names_one_finding_is_taken() -> None:
    for path in ("exam.direct.win_rate@base", "exam.direct.truncated_share", "exam.direct.kl_to_reference"):
        assert list(check(RECIPE.replace("EXPECTED", path)).expect) == [path]
