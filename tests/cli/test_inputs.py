"""`split`, `score` and `sample` read data as a recipe does: the options that their errors advise are theirs, and what
becomes of columns is said alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from small_models import build
from truing.errors import UserError
from truing.run.inputs import Reading

ASKED = [{"question": f"what is {i}?", "answer": f"it is {i}", "source": "web"} for i in range(6)]
MAPPED = ("--columns", "prompt=question", "--columns", "response=answer")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", ["what is 1? it is 2, it is 3"] * 9, tmp_path_factory.mktemp("model"), vocab=300)


@pytest.fixture
def truing(tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in a folder with asked.jsonl; gives its exit code and all that it said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ASKED))

    return command


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def spoil(name: str = "asked.jsonl") -> None:
    """A row that cannot be used behind the others."""
    with open(name, "a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "q", "answer": ""}) + "\n")


def test_split_maps_columns_and_leaves_out_bad_rows(truing: Any) -> None:
    code, said = truing("split", "asked.jsonl", "--out", "parts")
    assert code == 2 and "columns: {prompt: question, response: answer}" in said
    spoil()
    code, said = truing("split", "asked.jsonl", "--out", "parts", *MAPPED)
    assert code == 2 and "row 7, field response: is empty" in said
    code, said = truing("split", "asked.jsonl", "--out", "parts", *MAPPED, "--on-bad-row", "drop")
    assert code == 0 and "7 rows read, 6 usable" in said
    assert "column 'source' not read (6 rows)" in said
    assert sum(len(rows(f"parts/{name}.jsonl")) for name in ("train", "eval")) == 6


def test_score_maps_columns_and_names_the_rows_it_is_left(truing: Any, model: Path) -> None:
    spoil()
    command = ("score", model, "asked.jsonl", "--out", "s.jsonl", "--columns", "{prompt: question, response: answer}")
    code, said = truing(*command)
    assert code == 2 and "set on_bad_row: drop" in said
    code, said = truing(*command, "--on-bad-row", "drop")
    assert code == 0 and "dropped 1: response is empty (row 7)" in said
    assert "column 'source' not read (6 rows)" in said
    dropped = rows("s.jsonl")
    assert [row["row"] for row in dropped] == [1, 2, 3, 4, 5, 6]
    Path("good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ASKED))
    code, _ = truing("score", model, "good.jsonl", "--out", "g.jsonl", *MAPPED)
    assert code == 0
    assert rows("g.jsonl") == [{k: v for k, v in row.items() if k != "row"} for row in dropped]


def test_score_leaves_out_what_cannot_be_read_whole_where_it_may(truing: Any, model: Path) -> None:
    long = {"question": "q", "answer": "it is " * 3000}
    Path("long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (long, ASKED[0])))
    command = ("score", model, "long.jsonl", "--out", "s.jsonl", *MAPPED)
    code, said = truing(*command)
    assert code == 2 and "not every row can be scored whole" in said
    code, said = truing(*command, "--on-bad-row", "drop")
    assert code == 0 and "left out" in said
    assert [row["row"] for row in rows("s.jsonl")] == [2]


def test_sample_maps_columns_and_leaves_out_what_no_template_writes(truing: Any, model: Path) -> None:
    with open("asked.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"question": "a control token <|end|>"}) + "\n")
    command = (
        "sample",
        model,
        "asked.jsonl",
        "--out",
        "o.jsonl",
        "--max-new-tokens",
        2,
        "--columns",
        "prompt=question",
    )
    code, said = truing(*command)
    assert code == 2 and "on_bad_row: drop" in said
    code, said = truing(*command, "--on-bad-row", "drop")
    assert code == 0 and "dropped 1 of 7 prompts; the first: asked.jsonl, prompt 7, message 1 (user): holds" in said
    assert len(rows("o.jsonl")) == 6


def test_columns_are_a_recipes(truing: Any) -> None:
    said = Reading.of("drop", ["prompt=question", "winner=null"])
    assert said == Reading("drop", {"prompt": "question", "winner": None})
    assert Reading.of(columns=["{prompt: question, winner: null}"]).columns == said.columns
    assert Reading.of() == Reading("error", None)
    for texts, why in (
        (["prompt"], "is ROLE=COLUMN"),
        (["prompt=a", "prompt=b"], "names 'prompt' twice"),
        (["promt=a"], "unknown column role 'promt'. Did you mean 'prompt'"),
        (["question=a"], "By 'question' the role 'prompt' may be meant"),
        (["{prompt: 3}"], "no mapping of roles to columns"),
        (["{prompt: [}"], "no mapping"),
    ):
        with pytest.raises(UserError, match=why):
            Reading.of(columns=texts)


@pytest.mark.parametrize("data", ["world:desk/pairs", "lines.txt"])
def test_columns_of_what_has_none_are_refused(truing: Any, model: Path, data: str) -> None:
    Path("lines.txt").write_text("one\n")
    code, said = truing("sample", model, data, "--out", "o.jsonl", "--columns", "prompt=question")
    assert code == 2 and f"--columns has no effect on {data}" in said


def test_a_type_of_weights_without_a_file_that_has_it_is_refused(truing: Any, model: Path) -> None:
    code, said = truing("export", model, "--out", "whole", "--dtype", "bf16")
    assert code == 2 and "--dtype has no effect without --gguf" in said
    assert not Path("whole").exists()
