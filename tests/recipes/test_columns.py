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
    assert desk.read("exam/findings.json")["findings"][0]["n"] == 60
    losses = [json.loads((desk.out / name / "metrics.jsonl").read_text())["loss"] for name in ("warm", "direct", "rm")]
    twin = RECIPE.replace(", columns: NAMES", "").replace("other.jsonl", "pairs.jsonl").replace("held_out", "pairs")
    desk.write(twin.replace("  exam", "  none").split("  none")[0])
    assert desk.run("--overwrite") == 0, desk.said
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
            "columns names the columns of a file, and data is world:",
        ),
        ("$first.train", "{chosen: better}", "columns names the columns of a file, and data is $first.train"),
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


def test_what_no_convention_reads_is_named_in_the_stage_and_refused_or_left_out_by_name(desk) -> None:
    """A column that says which answer is better stops the run; null leaves it out, and the summary keeps what became of
    every column beside the convention's own."""
    rows = [
        {"question": f"q{i}", "system": "s", "answer_a": f"a{i}", "answer_b": f"b{i}", "winner": i % 2, "source": "x"}
        for i in range(6)
    ]
    (desk.folder / "arena.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = "{prompt: question, chosen: answer_a, rejected: answer_b}"
    recipe = (
        "base: {new: llama, hidden: 64, layers: 1, vocab: 300, text: pairs.jsonl}\n"
        f"stages: {{direct: {{do: prefer, model: $base, data: arena.jsonl, steps: 1, columns: {columns}}}}}\n"
    )
    desk.write(recipe)
    assert desk.run() == 2
    assert "arena.jsonl: column 'winner' may say which response is better, and nobody reads it" in desk.said
    assert "columns: {winner: null} leaves the column out" in desk.said
    desk.write(recipe.replace("answer_b}", "answer_b, winner: null}"))
    assert desk.run() == 0, desk.said
    notes = desk.read("direct/summary.json")["notes"]
    for line in (
        "arena.jsonl: column 'system' read as the system message (6 rows)",
        "arena.jsonl: column 'source' not read (6 rows)",
        "arena.jsonl: column 'winner' not read, as asked (6 rows)",
    ):
        assert line in notes and desk.said.count(line) == 1


def test_a_split_names_columns_once_and_its_report_too(desk) -> None:
    rows = [{"prompt": f"q{i}", "response": f"a{i}", "idx": i} for i in range(6)]
    (desk.folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    desk.write("stages: {data: {do: split, data: asked.jsonl, eval: 0.5}}\n")
    assert desk.run() == 0, desk.said
    assert desk.said.count("column 'idx' not read (6 rows)") == 1
    assert desk.read("data/summary.json")["data"]["columns"] == ["column 'idx' not read (6 rows)"]
    assert "column &#39;idx&#39; not read (6 rows)" in desk.page()
    assert desk("split", str(desk.folder / "asked.jsonl"), "--out", str(desk.out / "parts")) == 0
    assert desk.said.count("column 'idx' not read (6 rows)") == 1
