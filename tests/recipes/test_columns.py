"""A file whose columns are called otherwise: `columns` in a recipe says which is which."""

from __future__ import annotations

import json

import pytest

RECIPE = """\
base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: other.jsonl, columns: NAMES}
stages:
  data: {do: split, data: other.jsonl, eval: 0.2, columns: NAMES}
  warm: {do: sft, model: $base, data: other.jsonl, steps: 1, columns: NAMES}
  rm: {do: fit_reward, model: $warm, data: $data.train, eval: $data.eval, steps: 1}
  direct: {do: prefer, model: $warm, data: other.jsonl, steps: 1, columns: NAMES}
  exam: {do: evaluate, models: [$rm], against: $warm, data: held_out.jsonl, columns: NAMES}
"""
NAMES = "{prompt: asked, chosen: better, rejected: worse}"


def test_a_file_of_other_columns_gives_what_its_twin_gives(desk) -> None:
    renamed = {"prompt": "asked", "chosen": "better", "rejected": "worse"}
    rows = [json.loads(line) for line in (desk.folder / "pairs.jsonl").read_text().splitlines()]
    other = [{renamed[name]: value for name, value in row.items()} for row in rows]
    (desk.folder / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    (desk.folder / "held_out.jsonl").write_text(
        "".join(json.dumps(r | {"asked": "new " + r["asked"]}) + "\n" for r in other)
    )
    desk.write(RECIPE.replace("NAMES", NAMES))
    assert desk.run() == 0, desk.said
    assert desk.read("exam/findings.json")["findings"][0]["n"] == 30
    losses = [json.loads((desk.out / name / "metrics.jsonl").read_text())["loss"] for name in ("warm", "direct", "rm")]
    twin = RECIPE.replace(", columns: NAMES", "").replace("other.jsonl", "pairs.jsonl").replace("held_out", "pairs")
    desk.write(twin.replace("  exam", "  none").split("  none")[0])
    assert desk.run() == 0, desk.said
    again = [json.loads((desk.out / name / "metrics.jsonl").read_text())["loss"] for name in ("warm", "direct", "rm")]
    assert losses == again


@pytest.mark.parametrize(
    ("data", "columns", "told"),
    [
        ("pairs.jsonl", "{chosn: better}", "columns: unknown column role 'chosn'. Did you mean 'chosen'?"),
        ("pairs.jsonl", "{chosen: 3}", "columns: 'chosen' is a column's name, not 3"),
        ("pairs.jsonl", "better", "columns must be a mapping of roles to a file's columns"),
        (
            "world:comparisons?n=9",
            "{chosen: better}",
            "columns says how a file's columns are called, and data is world:",
        ),
        ("$first.train", "{chosen: better}", "columns says how a file's columns are called, and data is $first.train"),
    ],
)
def test_columns_that_say_nothing_are_a_mistake(desk, data, columns, told) -> None:
    desk.write(
        "stages:\n  first: {do: split, data: pairs.jsonl}\n"
        f"  data: {{do: split, data: '{data}', columns: {columns}}}\n"
    )
    assert desk("check", str(desk.folder / "r.yaml")) == 2
    assert f"r.yaml:3: stage 'data': {told}" in desk.said


def test_a_column_that_is_not_there_is_said(desk) -> None:
    desk.write("stages: {data: {do: split, data: pairs.jsonl, columns: {chosen: better}}}\n")
    assert desk.run() == 2
    assert (
        "pairs.jsonl: columns: unknown column 'better'" in desk.said and "Known: chosen, prompt, rejected" in desk.said
    )
