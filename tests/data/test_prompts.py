"""Files of prompts alone: accepted where prompts are asked for, and nowhere taken for something to learn from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from truing.data.formats.loading import load
from truing.errors import DataError
from truing.records import Demonstration, Message
from truing.run.inputs import Reading

Write = Callable[..., str]
ASKED = [(Message("user", "one"),), (Message("user", "two"),)]
ROWS: list[dict[str, Any]] = [{"prompt": "one"}, {"prompt": [{"role": "user", "content": "two"}]}]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.parquet"])
@pytest.mark.parametrize("more", [{}, {"category": "refunds"}])
def test_prompts_alone_are_read_from_every_kind_of_file(write: Write, name: str, more: dict[str, str]) -> None:
    rows = [row | more for row in ROWS]
    if name.endswith("jsonl"):
        source = write(rows, name)
    elif name.endswith("json"):
        source = write(json.dumps(rows), name)
    elif name.endswith("csv"):
        source = write("prompt,category\none,a\ntwo,b\n" if more else "prompt\none\ntwo\n", name)
    else:
        source = write("", name)
        parquet.write_table(pa.table({"prompt": ["one", "two"]} | {k: [v, v] for k, v in more.items()}), source)
    assert Reading().prompts(source) == ASKED


def test_prompts_come_from_every_other_kind_of_row_too(write: Write) -> None:
    pairs = [{"prompt": "one", "chosen": "a", "rejected": "b"}, {"prompt": "two", "chosen": "a", "rejected": "b"}]
    assert Reading().prompts(write(pairs)) == ASKED
    assert (
        Reading().prompts(
            write([{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "a"}]}])
        )
        == ASKED[:1]
    )


def test_a_file_of_prompts_can_be_divided_but_is_no_demonstration_and_no_pair(write: Write) -> None:
    [record] = load(write([{"prompt": "one", "group": "g"}])).records
    assert record == Demonstration(ASKED[0], (), {"group": "g"})
    for want in ("pairs", "demonstrations"):
        with pytest.raises(DataError, match=rf"has prompts \(prompt\), but {want} are wanted"):
            load(write([{"prompt": "one"}]), want=want)  # type: ignore[arg-type]


def test_a_misspelt_column_is_not_taken_for_a_file_of_prompts(write: Write) -> None:
    with pytest.raises(DataError, match="Did you mean 'chosen' by 'choosen'") as caught:
        load(write([{"prompt": "q", "choosen": "a", "rejected": "b"}]))
    assert "Rename the columns of the file to one of these, or map them by columns." in str(caught.value)
    with pytest.raises(DataError, match="missing column 'prompt'; found columns: promt"):
        load(write([{"promt": "q"}]), want="prompts")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "there is no prompt in it"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "no such file"),
    ],
)
def test_a_text_file_without_prompts_is_an_error(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=problem):
        Reading().prompts(str(path))


def test_a_text_file_has_a_prompt_on_each_line_that_says_something(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("\ufeffone\r\n\r\ntwo\none\n".encode())
    assert Reading().prompts(str(tmp_path / "p.txt")) == ASKED
