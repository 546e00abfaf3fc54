"""`chat_template_kwargs` of a recipe: in every text of the run, in its stages' keys, in the models that it leaves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from small_templates import HYBRID, model

RECIPE = """\
title: thinking
base: base
chat_template_kwargs: {enable_thinking: false}
stages:
  warm: {do: sft, model: $base, data: pairs.jsonl, steps: 1, max_length: 200}
  asked: {do: sample, model: $warm, prompts: pairs.jsonl, samples_per_prompt: 1, max_new_tokens: 2}
"""


def test_values_are_kept_and_change_the_stages(desk: Any) -> None:
    model(desk.folder / "base", HYBRID)
    rows = [{"prompt": f"question {i}", "response": f"good {i}"} for i in range(4)]
    (desk.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    desk.write(RECIPE)
    assert desk.run() == 0, desk.said
    template = (desk.out / "warm" / "model" / "chat_template.jinja").read_text()
    assert template.count("enable_thinking = false") == 1 and template.endswith(HYBRID)
    first = desk.read("manifest.json")["stages"][0]["key"]
    assert desk.run("chat_template_kwargs.enable_thinking=true", "--overwrite") == 0, desk.said
    assert desk.read("manifest.json")["stages"][0]["key"] != first
    template = (desk.out / "warm" / "model" / "chat_template.jinja").read_text()
    assert template.count("enable_thinking = true") == 1 and "= false" not in template.replace(HYBRID, "")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ("{enable_thinking: [1]}", "enable_thinking is text, a number, true, false or null"),
        ("{depth: .inf}", "depth is text, a number, true, false or null"),
        ("{messages: a}", "'messages' is no name that a template lets others set"),
        ("yes", "chat_template_kwargs is a mapping such as"),
    ],
)
def test_mistakes_are_said_when_the_recipe_is_checked(desk: Any, values: str, why: str) -> None:
    desk.write(RECIPE.replace("{enable_thinking: false}", values))
    assert desk("check", str(desk.folder / "r.yaml")) == 2 and "r.yaml:3: chat_template_kwargs" in desk.said
    assert why in desk.said


def test_a_base_whose_template_reads_no_such_name_ends_the_run(desk: Any) -> None:
    desk.write(RECIPE.replace("base: base", "base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}"))
    assert desk.run() == 2
    assert "its chat template reads no 'enable_thinking', so chat_template_kwargs has no effect" in desk.said
