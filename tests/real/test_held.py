"""A real model, ruined by ten steps at a rate for toys, is held against itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from truing.recipe.check import check
from truing.run import runner as running

QUESTIONS = {
    "What is the capital of France?": "Paris",
    "What is the capital of Italy?": "Rome",
    "What is the capital of Spain?": "Madrid",
    "What is the capital of Germany?": "Berlin",
    "What is the capital of Japan?": "Tokyo",
    "What is the capital of England?": "London",
    "What is the capital of Egypt?": "Cairo",
    "What is the capital of Russia?": "Moscow",
    "What is the capital of Greece?": "Athens",
    "What is the capital of Portugal?": "Lisbon",
    "Which planet do we live on?": "Earth",
    "Which animal says meow?": "cat",
    "What is frozen water called?": "ice",
    "How many days are there in a week?": "seven",
    "How many legs does a spider have?": "eight",
    "What do bees make?": "honey",
    "Which star gives us light by day?": "Sun",
    "In which season does it snow?": "winter",
    "What is the opposite of hot?": "cold",
    "Which language is spoken in Brazil?": "Portuguese",
}
KNOWS = """\
from truing.registry import reward


@reward(scope="response")
def knows(responses, answer):
    return [float(a.lower() in text.lower()) for text, a in zip(responses, answer)]
"""
RECIPE = """\
title: ruined
base: BASE
stages:
  ruined:
    {do: sft, model: $base, data: taught.jsonl, steps: 10, rows_per_step: 4, learning_rate: 2e-3, max_length: 128}
  exam:
    do: evaluate
    models: [$ruined]
    against: $base
    prompts: asked.jsonl
    judge: {knows.py:knows: {}}
    exact: true
    max_new_tokens: 24
    temperature: 0
  release: {do: gate, evidence: $exam, rules: rules.yaml}
"""


def test_ten_steps_at_a_rate_for_toys_are_held(real_model: str, tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct against itself after ten steps at 2e-3: it knew most of these answers, and knows none now."""
    taught = [{"prompt": f"Say number {i}.", "response": f"Here is number {i}, as you asked."} for i in range(40)]
    asked = [{"prompt": question, "answer": answer} for question, answer in QUESTIONS.items()]
    for name, rows in (("taught", taught), ("asked", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "knows.py").write_text(KNOWS)
    (tmp_path / "rules.yaml").write_text("rules: [{check: win_rate, model: ruined, against: base, min: 0.5}]\n")
    (tmp_path / "r.yaml").write_text(RECIPE.replace("BASE", real_model))
    assert running.run(check(tmp_path / "r.yaml"), tmp_path / "run", quiet=True) == 1
    decision: Any = json.loads((tmp_path / "run/decision.json").read_text())
    (result,) = decision["results"]
    assert decision["verdict"] == "hold" and result["state"] == "failed"
    assert result["finding"]["interval"][1] < 0.5
