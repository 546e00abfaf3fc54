"""Turns of a loop as a user meets them: run, raised, killed and gone on with; and a reference that is held."""

import json
import math
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from truing.policy import fresh
from truing.recipe.check import check
from truing.run import runner as running

HOME = Path(__file__).parent.parent.parent
TINY = [
    "base=world:desk/tiny",
    "data=world:comparisons?n=40",
    "prompts=world:prompts?n=4&seed=$turn",
    "warm.data=world:demonstrations?n=16",
    "warm.steps=2",
    "rm.steps=1",
    "loop.repeat=2",
    "loop.answers.max_new_tokens=12",
    "loop.answers.samples_per_prompt=3",
    "loop.pairs.truncated=keep",
    "exam.samples=4",
    "exam.prompts=world:prompts?n=4&split=eval",
    "exam.max_new_tokens=5",
]
TURNS = """\
title: turns
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}
stages:
  warm: {do: sft, model: $base, data: pairs.jsonl, steps: 2, rows_per_step: 2}
  loop:
    repeat: 2
    carry: {policy: $warm}
    stages:
      policy: {do: prefer, model: $policy, data: pairs.jsonl, seed: $turn, steps: 3, rows_per_step: 2, checkpoint_every: 1}
  exam: {do: evaluate, models: [$loop.policy], against: $warm, data: held.jsonl}
expect: {exam.loop.policy.implicit_accuracy: [0.0, 1.0]}
"""
SIZE = {"new": "llama", "hidden": 64, "layers": 1}
HELD = "".join(f'{{"prompt": "another {i}", "chosen": "good", "rejected": "bad"}}\n' for i in range(12))


@pytest.fixture
def turns(desk):
    """The desk with a recipe of two turns."""
    (desk.folder / "held.jsonl").write_text(HELD)
    desk.write(TURNS)
    return desk


def weights(desk, stage):
    """What a stage's model came to."""
    return load_file(desk.out / stage / "model" / "model.safetensors")


def first_step(folder):
    """The metrics of a stage's first step."""
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])


def same(one, other):
    """Whether two sets of weights are bitwise the same."""
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def test_the_recipe_learns_from_answers_of_the_turn_before(tmp_path):
    recipe = check(HOME / "recipes" / "iterative_dpo.yaml", TINY)
    assert running.run(recipe, tmp_path) == 0
    asked = []
    for turn in (1, 2):
        rows = [json.loads(r) for r in (tmp_path / f"loop-{turn}-pairs" / "data.jsonl").read_text().splitlines()]
        assert rows
        asked.append({json.dumps(row["prompt"]) for row in rows})
        begins = first_step(tmp_path / f"loop-{turn}-policy")
        assert begins["loss"] == pytest.approx(math.log(2), abs=1e-5)  # its reference is the policy it received
    assert not asked[0] & asked[1]  # other prompts in every turn
    found = json.loads((tmp_path / "exam" / "findings.json").read_text())["findings"]
    assert {f["model"] for f in found if f["check"] == "win_rate"} == {"loop-1-policy", "loop-2-policy"}


def test_raising_repeat_runs_the_new_turns_alone(turns):
    assert turns.run() == 0, turns.said
    before = weights(turns, "loop-2-policy")
    assert not same(weights(turns, "loop-1-policy"), before)
    assert turns.run("loop.repeat=3", "--overwrite") == 0, turns.said
    assert "all 1 expectations" in turns.said and "loop-3-policy" in turns.page()
    reused = {name for name, state in turns.states().items() if state == "reused"}
    assert reused == {"warm", "loop-1-policy", "loop-2-policy"}
    assert same(weights(turns, "loop-2-policy"), before)
    assert not same(weights(turns, "loop-3-policy"), before)


def test_a_killed_turn_goes_on_to_the_same_weights(turns, dies):
    assert turns.run() == 0, turns.said
    whole = weights(turns, "loop-2-policy")
    turns.out = turns.folder / "again"
    dies(2 + 3 + 2, KeyboardInterrupt())  # warm has two steps, a turn three
    assert turns.run() == 130, turns.said
    assert turns.states() == {"warm": "done", "loop-1-policy": "done", "loop-2-policy": "stopped", "exam": "pending"}
    assert turns.run("--resume") == 0, turns.said
    assert same(weights(turns, "loop-2-policy"), whole)


def test_a_reference_is_held_at_a_model_that_the_policy_has_left(turns):
    assert turns.run("loop.policy.reference=$warm", "loop.policy.learning_rate=1e-2") == 0, turns.said
    first, second = (first_step(turns.out / f"loop-{n}-policy") for n in (1, 2))
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)  # it is its own reference in the first turn
    assert abs(second["loss"] - math.log(2)) > 1e-3 and abs(second["chosen_log_ratio"]) > 1e-2
    stored = [load_file(turns.out / f"loop-{n}-policy" / "reference.safetensors") for n in (1, 2)]
    assert same(*stored)  # the same rows under the same weights


def test_a_held_reference_of_other_weights_than_it_was_is_refused(turns, dies):
    given = ("loop.policy.reference=$warm", "loop.repeat=1")
    dies(2 + 2, KeyboardInterrupt())
    assert turns.run(*given) == 130
    path = turns.out / "warm" / "model" / "model.safetensors"
    save_file({name: value + 1e-3 for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    assert turns.run(*given, "--resume") == 2
    assert "model.safetensors: was changed after it was written" in turns.said


def test_a_reference_that_reads_other_tokens_or_fewer_is_refused(turns):
    rows = [json.loads(row) for row in (turns.folder / "pairs.jsonl").read_text().splitlines()]
    own = [row[key] for row in rows for key in ("prompt", "chosen", "rejected")]
    given = ("loop.policy.reference=stranger", "loop.repeat=1")
    turns.monkeypatch.chdir(turns.folder)
    fresh.make(SIZE | {"vocab": 280}, own, turns.folder / "stranger", positions=64)
    assert turns.run(*given, "loop.policy.max_length=64") == 2
    assert "different tokenizers or chat templates" in turns.said and "stranger" in turns.said
    base = next(turns.out.glob("base-*"))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (turns.folder / "stranger" / name).write_bytes((base / name).read_bytes())
    assert turns.run(*given, "loop.policy.max_length=128") == 2
    assert "max_length 128 is beyond the 64 tokens that its reference reads" in turns.said
