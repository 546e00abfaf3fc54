"""The first look of an exam: a table of its first prompts that comes before the rest and changes nothing."""

from __future__ import annotations

import json
import re

import pytest

from recipes.conftest import Desk

RECIPE = """\
base: {new: llama, hidden: 32, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
  warm: {do: sft, model: $base, data: pairs.jsonl, steps: 6, rows_per_step: 8, learning_rate: 1e-2}
  exam: {do: evaluate, models: [$warm], against: $base, prompts: asked.jsonl, judge: mine.py:mine,
         exact: true, samples: 40, max_new_tokens: 8PREVIEW}
"""
MINE = """\
from truing.registry import reward


@reward("response")
def mine(response):
    return -float(len(response))
"""
INTERVAL = re.compile(r"warm over base +\S+ % \(([\d.]+) to ([\d.]+)\)")


@pytest.fixture
def asked(desk: Desk) -> Desk:
    """A folder with prompts to answer."""
    prompts = "".join(json.dumps({"prompt": f"asked {i}"}) + "\n" for i in range(40))
    (desk.folder / "asked.jsonl").write_text(prompts)
    (desk.folder / "mine.py").write_text(MINE)
    return desk


def test_the_first_table_comes_early_and_changes_no_result(asked: Desk) -> None:
    asked.write(RECIPE.replace("PREVIEW", ", preview: 12"))
    assert asked.run() == 0, asked.said
    early, _, late = asked.said.partition("warm answers 40 prompts")
    assert "preview, 12 of 40 prompts, so intervals are wider" in early and "preview, " not in late
    ((low, high),) = INTERVAL.findall(early)
    ((least, most),) = INTERVAL.findall(late)
    assert float(high) - float(low) > float(most) - float(least)
    rows = [line.split()[:3] for text in (early, late) for line in text.splitlines() if " over " in line]
    assert len(rows) == 2 and rows[0] == rows[1], "the same rows"
    found, examples = asked.read("exam/findings.json")["findings"], asked.read("exam/examples.json")
    assert all(f["n"] == 40 for f in found if f["check"] == "win_rate")
    asked.out = asked.folder / "whole"
    asked.write(RECIPE.replace("PREVIEW", ""))
    assert asked.run() == 0 and "preview, " not in asked.said
    assert asked.read("exam/findings.json")["findings"] == found and asked.read("exam/examples.json") == examples
    asked.write(RECIPE.replace("PREVIEW", ", preview: 5"))
    assert asked.run() == 0 and asked.states() == {"warm": "reused", "exam": "reused"}, "it is no other exam"


def test_a_first_look_at_everything_is_none(asked: Desk) -> None:
    asked.write(RECIPE.replace("PREVIEW", ", preview: 40"))
    assert asked.run() == 0 and "preview, " not in asked.said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("prompts: asked.jsonl, judge: mine.py:mine,\n         exact: true, samples: 40, "
         "max_new_tokens: 8", "data: pairs.jsonl", "'preview' has no effect without 'prompts'"),
        ("preview: 5", "preview: 0", "preview must be a whole number from 1 up"),
    ],
)  # fmt: skip
def test_a_first_look_at_nothing_is_a_mistake(asked: Desk, old: str, new: str, said: str) -> None:
    asked.write(RECIPE.replace("PREVIEW", ", preview: 5").replace(old, new))
    assert asked.run() == 2 and said in asked.said, asked.said
