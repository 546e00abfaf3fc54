"""What a stage depends on: a changed file, plug-in or model is never taken for the old one; and what options do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from truing.data.batch import Branch, Tree
from truing.settings import Training
from truing.train.source import DataSource

PLUG_IN = """\
from truing.registry import objective


@objective(source="mine")
def my_nll(logp_BT, mask_BT):
    '''Mine.'''
    return FACTOR * logp_BT * mask_BT
"""


EXPECT = "expect: {exam.rm.win_rate: [0, 1], exam.rm.held_out_accuracy: [0, 1]}\n"


def reused(desk) -> set[str]:
    return {name for name, state in desk.states().items() if state == "reused"}


def test_a_changed_rules_file_beside_the_recipe_is_a_new_decision(desk) -> None:
    assert desk.run() == 0
    (desk.folder / "lax.yaml").write_text((desk.folder / "strict.yaml").read_text())
    assert desk.run() == 1
    assert reused(desk) == {"data", "warm", "rm", "exam"}


def test_a_changed_plug_in_is_run_again(desk) -> None:
    mine = desk.folder / "mine.py"
    mine.write_text(PLUG_IN.replace("FACTOR", "-1"))
    override = "warm.objective=mine.py:my_nll"
    assert desk.run(override) == 0
    assert desk.run(override) == 0 and len(reused(desk)) == 5
    mine.write_text(PLUG_IN.replace("FACTOR", "-2"))
    assert desk.run(override, "--overwrite") == 0
    assert reused(desk) == {"data"}


def test_a_changed_module_that_a_plug_in_imports_is_run_again(desk, monkeypatch) -> None:
    monkeypatch.syspath_prepend(desk.folder)
    (desk.folder / "mine.py").write_text("from factor_of_mine import FACTOR\n" + PLUG_IN)
    module, override = desk.folder / "factor_of_mine.py", "warm.objective=mine.py:my_nll"
    module.write_text("FACTOR = -1\n")
    assert desk.run(override) == 0
    assert desk.run(override) == 0 and len(reused(desk)) == 5
    module.write_text("FACTOR = -2\n")
    assert desk.run(override, "--overwrite") == 0
    assert reused(desk) == {"data"}


def test_a_changed_model_folder_is_read_again(desk) -> None:
    assert desk.run() == 0
    model = Path(shutil.copytree(desk.out / "warm" / "model", desk.folder / "mine"))  # a stage's own may not change
    desk.write(
        "stages:\n"
        f"  rm: {{do: fit_reward, model: {model}, data: pairs.jsonl, steps: 1}}\n"
        f"  direct: {{do: prefer, model: {model}, data: pairs.jsonl, steps: 1}}\n"
    )
    other = ("run", str(desk.folder / "r.yaml"), "--out", str(desk.folder / "other"))
    assert desk(*other) == 0 and desk(*other) == 0
    assert desk.said.count("unchanged, not run again") == 2
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"initializer_range": 0.03}))
    assert desk(*other, "--overwrite") == 0 and "unchanged" not in desk.said


def test_a_failing_plug_in_is_named_with_its_line(desk) -> None:
    mine = desk.folder / "mine.py"
    mine.write_text(PLUG_IN.replace("FACTOR", "{}['no such key']"))
    assert desk.run("warm.objective=mine.py:my_nll") == 3
    assert f"{mine}:my_nll (line 7): KeyError: 'no such key'" in desk.said
    assert "fault of truing" not in desk.said and "Traceback" not in desk.said
    mine.write_text(PLUG_IN.replace("return FACTOR * logp_BT * mask_BT", "return (logp_BT * mask_BT).sum()"))
    assert desk.run("warm.objective=mine.py:my_nll") == 3
    assert "my_nll gave a Tensor of shape [], not one loss per row or token: leave out its mean or sum" in desk.said


@pytest.mark.parametrize("form", ["found.json", "[$exam]", "[$exam, found.json]"])
def test_every_form_of_evidence(desk, form) -> None:
    finding = {"check": "held_out_accuracy", "model": "elsewhere", "value": 0.5, "interval": [0.2, 0.8], "n": 10}
    (desk.folder / "found.json").write_text(json.dumps({"findings": [finding]}))
    desk.change("evidence: $exam", f"evidence: {form}")
    assert desk.run() == 0
    models = {f["model"] for f in desk.read("decision.json")["findings"]}
    assert models == ({"rm"} if "$exam" in form else set()) | ({"elsewhere"} if "json" in form else set())


def test_a_split_can_be_split(desk) -> None:
    desk.change(
        "  warm: {do: sft, model: $base, data: $data.train",
        "  again: {do: split, data: $data.train, eval: 0.5}\n  warm: {do: sft, model: $base, data: $again.train",
    )
    assert desk.run() == 0
    outer, inner = desk.read("data/split.json"), desk.read("again/split.json")
    assert sorted(inner["train"] + inner["eval"]) == sorted(outer["train"])
    assert inner["train"] and inner["eval"]


def test_an_expectation_of_what_was_not_measured_is_not_met(desk) -> None:
    desk.write((desk.folder / "r.yaml").read_text() + EXPECT)
    assert desk.run() == 1
    assert "expected, and not met: exam.rm.win_rate was not measured" in desk.said
    assert "held_out_accuracy was" not in desk.said and (desk.out / "report.html").exists()


@pytest.mark.parametrize(("option", "rows"), [("rows_per_step=4", 4), ("tokens_per_step=1000000", 48)])
def test_one_way_to_size_a_step_takes_the_default_of_the_other_away(desk, option, rows) -> None:
    """`sft` has tokens_per_step by default, which would win silently."""
    assert desk.run(f"warm.{option}") == 0
    first = json.loads((desk.out / "warm" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["rows"] == rows


def test_the_recipes_seed_changes_the_order(desk) -> None:
    rows = [{"prompt": "count", "response": "x " * (i + 1)} for i in range(20)]
    (desk.folder / "counts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def tokens(*more: str) -> list[int]:
        """How many each step read: which row it was."""
        assert desk.run("warm.data=counts.jsonl", "warm.rows_per_step=1", "--overwrite", *more) == 0
        return [json.loads(x)["tokens"] for x in (desk.out / "warm" / "metrics.jsonl").read_text().splitlines()]

    zero = tokens()
    assert tokens("seed=1") != zero
    assert tokens("seed=0") == zero


def test_the_order_is_a_function_of_both_seeds() -> None:
    trees = [Tree((i,), (Branch("response", (1,), (True,)),), index=i, row=i) for i in range(20)]

    def order(run: int, stage: int) -> list[int]:
        return [t.row for step in DataSource(trees, Training(seed=stage, rows_per_step=1), run).epoch(0) for t in step]

    pinned = np.random.Generator(np.random.Philox(key=[0, 0])).permutation(20).tolist()
    assert order(0, 0) == pinned, "seed 0 is the order it always was"
    assert order(3, 4) == order(7, 0) == order(0, 7) != pinned
    assert sorted(order(1, 0)) == list(range(20)) and order(1, 0) != pinned
