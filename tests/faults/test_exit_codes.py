"""Fifty faults and how the command ends at each: docs/exits.md holds the same table, and this reads it.

A fault is a function of the folder with the models in it; it makes the fault and gives the command's words.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from planted_bombs import gzip_bomb, parquet_bomb

PAGE = (Path(__file__).parents[2] / "docs" / "exits.md").read_text(encoding="utf-8")
TABLE = re.findall(r"^\| (\d+) \| (.+?) \| (\d+) \| (.+?) \|$", PAGE, re.MULTILINE)
Fault = Callable[[Any], tuple[object, ...]]
FAULTS: dict[str, Fault] = {}
SPLIT = ("--out", "parts")
SCORE = ("rows.jsonl", "--out", "scored.jsonl")
GOOD = {"check": "win_rate", "value": 0.6, "interval": [0.55, 0.65], "n": 200, "model": "new", "against": "base"}
RULE = "rules: [{check: win_rate, model: new, min: 0.5}]"
SFT = "warm: {do: sft, model: model, data: rows.jsonl, steps: 1}"
BROKEN = """\
from torch import Tensor

from truing.registry import objective


@objective(source="ours")
def mine(chosen_logp_B: Tensor, rejected_logp_B: Tensor) -> Tensor:
    \'\'\'Adds the rows together, which an objective may not.\'\'\'
    return (rejected_logp_B - chosen_logp_B).sum()
"""
RAISING = """\
from truing.registry import reward


@reward("response")
def mine(response):
    raise ConnectionError("no answer")
"""


def fault(name: str) -> Callable[[Fault], Fault]:
    """Put a fault into the table under its name in the page."""

    def put(make: Fault) -> Fault:
        FAULTS[name] = make
        return make

    return put


def changed(name: str, text: str, *arguments: object) -> None:
    """A fault that is one file of this content, and the command that reads it."""

    def make(place: Any) -> tuple[object, ...]:
        place.write(text, next(str(word) for word in arguments if "." in str(word)))
        return arguments

    FAULTS[name] = make


def recipe(name: str, text: str) -> None:
    """A fault of a recipe, of which `check` tells."""
    changed(name, text, "check", "r.yaml")


def spoilt(name: str, change: Callable[[Path], Any], model: str = "model") -> None:
    """A fault of a model's folder, which `score` reads."""

    def make(place: Any) -> tuple[object, ...]:
        change(place.spoilt(source=model))
        return "score", "spoilt", *SCORE

    FAULTS[name] = make


def evidence(name: str, finding: dict[str, Any], rules: str = RULE) -> None:
    """A fault of findings or rules, which `gate` reads."""

    def make(place: Any) -> tuple[object, ...]:
        place.write(json.dumps({"findings": [finding]}), "findings.json")
        place.write(rules, "rules.yaml")
        return "gate", "findings.json", "--rules", "rules.yaml"

    FAULTS[name] = make


def settings(path: Path, **entries: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def judged(place: Any, more: str = "") -> str:
    """Write a recipe that trains on half of the rows and measures on the others; gives its name."""
    name = place.recipe(
        "data: {do: split, data: rows.jsonl, eval: 0.5}",
        "direct: {do: prefer, model: $base, data: $data.train, steps: 1}",
        "exam: {do: evaluate, models: [$direct], against: $base, data: $data.eval}",
    )
    place.write(f"base: model\n{more}\n" + (place.folder / name).read_text(), name)
    return str(name)


def not_a_number(folder: Path) -> None:
    """Put a NaN into the first weight."""
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


# 0, 1 and 4: done, the answer is no, and a gate that cannot decide.


@fault("rows that cannot be used, left out with `--on-bad-row drop`")
def _(place: Any) -> tuple[object, ...]:
    place.write([*place.rows, {"prompt": "a"}])
    return "split", "rows.jsonl", *SPLIT, "--on-bad-row", "drop"


evidence("an interval that lies outside of its bound", GOOD | {"value": 0.4, "interval": [0.35, 0.45]})
evidence("an interval that straddles its bound", GOOD | {"value": 0.52, "interval": [0.45, 0.59]})
evidence("a finding without an interval", GOOD | {"interval": None})
evidence("a rule without a matching finding", GOOD | {"check": "reward"})
evidence("a finding of fewer than ten items", GOOD | {"n": 9})


@fault("a custom objective that breaks the contract")
def _(place: Any) -> tuple[object, ...]:
    place.write(BROKEN, "mine.py")
    return "verify", "mine.py"


@fault("an expectation that is not met")
def _(place: Any) -> tuple[object, ...]:
    rows = [{"prompt": f"question {i}", "chosen": f"yes {i}", "rejected": f"no {i * 7}"} for i in range(80)]
    place.write(rows)
    return "run", judged(place, "expect: {exam.direct.implicit_accuracy: [2, 3]}"), "--out", "out"


# 2: the user's mistake. Recipes.

recipe("a word of a recipe that is misspelt", "stages: {warm: {do: sfft, model: model, data: rows.jsonl, steps: 1}}")
recipe("an option that does not exist", "stages: {warm: {do: sft, model: model, data: rows.jsonl, stepps: 1}}")
recipe("an option of another type", "stages: {warm: {do: sft, model: model, data: rows.jsonl, steps: many}}")
recipe(
    "a number that is NaN", "stages: {warm: {do: sft, model: model, data: rows.jsonl, steps: 1, max_grad_norm: .nan}}"
)
recipe("a recipe that is not YAML", "stages: {warm: [")
recipe("a duplicate key", "title: a\ntitle: b\nstages: {}\n")
recipe("a recipe without stages", "title: a\n")
recipe(
    "a stage that reads a later one", "stages: {a: {do: sft, model: $b, data: rows.jsonl}, b: {do: sft, model: model}}"
)
recipe("a file that is not there", "stages: {warm: {do: sft, model: model, data: nothing.jsonl, steps: 1}}")
recipe("an API key in a recipe", "# hf_abcdefghijklmnopqrstuvwxyz0123\nstages: {}\n")
recipe("a recipe with aliases that expand to millions", "\n".join(
    ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
))  # fmt: skip
changed("a recipe that is not UTF-8", b"title: \xff\n", "check", "r.yaml")  # type: ignore[arg-type]


@fault("a recipe that is a pipe")
def _(place: Any) -> tuple[object, ...]:
    os.mkfifo(place.folder / "pipe.yaml")
    return "check", "pipe.yaml"


@fault("a stage's folder that truing did not make")
def _(place: Any) -> tuple[object, ...]:
    (place.out / "warm").mkdir(parents=True)
    (place.out / "warm" / "letter.txt").write_text("dear")
    return "run", place.recipe(SFT), "--out", "out"


# Data.

changed("a data file that is not there", "", "split", "no.jsonl", *SPLIT)
FAULTS["a data file that is not there"] = lambda _: ("split", "no.jsonl", *SPLIT)
changed("a row that is not JSON", '{"prompt": "a"', "split", "rows.jsonl", *SPLIT)
changed("a data file without rows", "", "split", "rows.jsonl", *SPLIT)
changed("a data file of an unknown kind", "a", "split", "rows.docx", *SPLIT)
changed("half a surrogate pair in a text", '{"prompt": "\\ud800", "response": "b"}\n', "split", "rows.jsonl", *SPLIT)
changed("columns of unknown meaning", '{"a": "b", "c": "d"}\n', "split", "rows.jsonl", *SPLIT)
changed("a duplicate column", "prompt,prompt\na,b\n", "split", "rows.csv", *SPLIT)
changed("a compressed file that is damaged", b"\x1f\x8b\x08\0", "split", "rows.jsonl.gz", *SPLIT)  # type: ignore[arg-type]


@fault("a compressed file that would fill the memory")
def _(place: Any) -> tuple[object, ...]:
    gzip_bomb(place.folder / "rows.jsonl.gz")
    return "split", "rows.jsonl.gz", *SPLIT


@fault("a Parquet file of more rows than its bytes can hold")
def _(place: Any) -> tuple[object, ...]:
    parquet_bomb(place.folder / "rows.parquet")
    return "split", "rows.parquet", *SPLIT


# Models.

FAULTS["a model's folder that is not there"] = lambda _: ("score", "./nothing", *SCORE)
spoilt("a model without a config", lambda folder: (folder / "config.json").unlink())
spoilt("a config that is a list", lambda folder: (folder / "config.json").write_text("[]"))
spoilt("a config that asks to run its own code", lambda folder: settings(folder / "config.json", auto_map={"A": "b.C"}))
spoilt("a config that asks for a billion layers", lambda f: settings(f / "config.json", num_hidden_layers=10**9))
spoilt("weights that are cut off", lambda folder: cut(folder / "model.safetensors"))
spoilt("weights that are a pointer of Git LFS", lambda folder: (folder / "model.safetensors").write_text(
    "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
))  # fmt: skip
spoilt("weights that are pickled", lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"))
spoilt("a weight that is NaN", not_a_number)
spoilt("a tokenizer that cannot be read", lambda folder: (folder / "tokenizer.json").write_text('{"model": 1}'))
spoilt("a tokenizer without a chat template, and a system message", lambda folder: (
    (folder / "chat_template.jinja").unlink(),
    (folder.parent / "rows.jsonl").write_text('{"system": "s", "prompt": "q", "response": "a"}\n'),
))  # fmt: skip
spoilt("a template that does not end", lambda folder: (folder / "chat_template.jinja").write_text(
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
))  # fmt: skip


@fault("an adapter whose base is not there")
def _(place: Any) -> tuple[object, ...]:
    folder = place.folder / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "./gone", "target_modules": ["q_proj"], "r": 2})
    )
    save_file(load_file(place.folder / "model" / "model.safetensors"), folder / "adapter_model.safetensors")
    return "score", "adapter", *SCORE


# Rules, findings, the command line.

evidence("a rule that is misspelt", GOOD, "rules: [{chekc: win_rate, min: 0.5}]")
evidence("a finding that contradicts itself", GOOD | {"value": 0.7})
evidence("a finding without a model", GOOD | {"model": ""})
FAULTS["a command that does not exist"] = lambda _: ("trian", "r.yaml")
FAULTS["an option of a command that does not exist"] = lambda _: ("split", "rows.jsonl", "--outt", "parts")


@fault("a file where a folder is to be written")
def _(place: Any) -> tuple[object, ...]:
    place.write("mine", "parts")
    return "split", "rows.jsonl", *SPLIT


@fault("a stage's file that was changed after the run")
def _(place: Any) -> tuple[object, ...]:
    assert place("run", judged(place), "--out", "out") == 0, place.said
    body = json.loads((place.out / "exam" / "findings.json").read_text())
    body["findings"][0]["value"] = 0.0
    (place.out / "exam" / "findings.json").write_text(json.dumps(body))
    place.write("rules: [{check: implicit_accuracy, max: 1}]", "rules.yaml")
    return "gate", "out", "--rules", "rules.yaml"


# 3: the run failed.


@fault("a loss that is not a number")
def _(place: Any) -> tuple[object, ...]:
    stage = SFT.replace("steps: 1", "steps: 40, rows_per_step: 4, learning_rate: 1e12, max_grad_norm: 1e12")
    return "run", place.recipe(stage), "--out", "out"


@fault("a reward that raises")
def _(place: Any) -> tuple[object, ...]:
    place.write(RAISING, "mine.py")
    stage = "{do: reinforce, model: model, prompts: rows.jsonl, rewards: [mine.py:mine], steps: 1, group_size: 2"
    return "run", place.recipe(f"learn: {stage}, max_new_tokens: 4}}"), "--out", "out"


@fault("a checkpoint of which nothing is whole")
def _(place: Any) -> tuple[object, ...]:
    with place.monkeypatch.context() as patched:
        patched.setattr("truing.stages.training.heads.save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert place.run(SFT.replace("steps: 1", "steps: 2, checkpoint_every: 1")) == 130
    for folder in (place.out / "warm" / "checkpoints").glob("step-*"):
        shutil.rmtree(folder)
        folder.mkdir()
    return "run", "r.yaml", "--out", "out", "--resume"


@fault("a finished stage under a changed option")
def _(place: Any) -> tuple[object, ...]:
    assert place.run(SFT) == 0
    return "run", place.recipe(SFT.replace("steps: 1", "steps: 2")), "--out", place.out


@fault("a GGUF where a file is already")
def _(place: Any) -> tuple[object, ...]:
    place.write("years of work", "model.gguf")
    return "export", "model", "--gguf", "model.gguf"


def test_the_page_and_the_faults_are_the_same() -> None:
    assert [name for _, name, _, _ in TABLE] == list(FAULTS)
    assert [int(number) for number, *_ in TABLE] == [*range(1, len(TABLE) + 1)] and len(TABLE) >= 50


@pytest.mark.parametrize(("name", "code", "words"), [row[1:] for row in TABLE], ids=[row[1] for row in TABLE])
def test_the_command_ends_as_the_page_says(place, good_rows, name: str, code: str, words: str) -> None:
    place.rows = good_rows()
    place.write(place.rows)
    command = FAULTS[name](place)
    ended = place(*command)
    assert ended == int(code), place.said
    told = " ".join(place.said.split())
    assert all(word in told for word in re.findall(r"`([^`]+)`", words)), (words, place.said)
    assert "fault of truing" not in place.said
