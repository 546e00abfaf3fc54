"""What must not ship: a policy that beats its own last stage, and not the model that its user began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truing.recipe.check import check
from truing.run import runner as running
from truing.run.deciding import foreseen

CASES = Path(__file__).parent
GOOD = """\
from truing.registry import reward


@reward(scope="response")
def good(responses):
    return [float("good" in text) for text in responses]
"""
BASE = """\
title: base
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: taught.jsonl}
stages:
  model: {do: sft, model: $base, data: taught.jsonl, steps: 150, rows_per_step: 8, learning_rate: 5e-3}
"""
WORSE = """\
title: worse
base: BASE
stages:
  warm: {do: sft, model: $base, data: toy.jsonl, steps: 12, rows_per_step: 8, learning_rate: 5e-3}
  direct: {do: prefer, model: $warm, data: pairs.jsonl, steps: 40, rows_per_step: 8, learning_rate: 5e-4}
  exam:
    do: evaluate
    models: [$direct]
    against: [$warm, $base]
    prompts: asked.jsonl
    judge: {good.py:good: {}}
    exact: true
    max_new_tokens: 8
  blind: {do: gate, evidence: $exam, rules: blind.yaml}
  release: {do: gate, evidence: $exam, rules: seeing.yaml}
"""
WARM = "{check: win_rate, model: direct, against: warm, min: 0.5}"
PRODUCTION = "{check: win_rate, model: direct, against: base, min: 0.5}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows of a model that answers well, of a fine-tuning that makes it worse, and pairs that win a part of that back."""
    taught = [{"prompt": f"question {i}", "response": f"good {i}"} for i in range(120)]
    toy = [{"prompt": f"question {i}", "response": f"bad {i}" if i % 4 else f"good {i}"} for i in range(120, 180)]
    pairs = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(180, 260)]
    asked = [{"prompt": f"question {i}"} for i in range(300, 420)]
    for name, rows in (("taught", taught), ("toy", toy), ("pairs", pairs), ("asked", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "blind.yaml").write_text(f"rules: [{WARM}]\n")
    (tmp_path / "seeing.yaml").write_text(f"rules: [{WARM}, {PRODUCTION}]\n")
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "worse.yaml").write_text(WORSE.replace("BASE", str(tmp_path / "base/model/model")))
    return tmp_path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_policy_that_is_worse_than_its_users_model_does_not_ship(folder: Path) -> None:
    """By the truth it beats its own fine-tuning, and loses to the base: rules that ask of the first alone shipped it."""
    assert running.run(check(folder / "base.yaml"), folder / "base", quiet=True) == 0
    assert running.run(check(folder / "worse.yaml"), folder / "run", quiet=True) == 1
    rows = read(folder / "run/exam/findings.json")["findings"]
    won = {f["against"]: f["interval"] for f in rows if f["check"] == "win_rate"}
    assert won["warm"][0] > 0.5 and won["base"][1] < 0.5
    blind, release = (read(folder / f"run/{gate}/decision.json") for gate in ("blind", "release"))
    assert [r["state"] for r in blind["results"]] == ["passed", "missing"] and blind["verdict"] == "undecided"
    assert PRODUCTION in blind["results"][1]["text"]
    assert [r["state"] for r in release["results"]] == ["passed", "failed"] and release["verdict"] == "hold"


def test_the_case_at_its_own_size_says_before_training_that_its_blind_gate_cannot_decide() -> None:
    (text,) = foreseen(check(CASES / "worse_than_base.yaml"))
    assert text.startswith("stage 'blind' cannot decide: no rule of blind_rules.yaml compares with base")
