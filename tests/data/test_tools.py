"""The tools of a row: lists, JSON text of lists, `functions`, tables with nulls; all else refused with row and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truing.data.formats.loading import load, without_tools
from truing.errors import DataError

ROW = {"messages": [{"role": "user", "content": "rain?"}, {"role": "assistant", "content": "yes"}]}


def tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


RAIN, ADD = tool("rain", city={"type": "string"}), tool("add", a={"type": "integer"}, b={"type": "integer"})
BARE = {"name": "rain", "parameters": {"type": "object"}}


def read(write: Any, **columns: Any) -> Any:
    return load(write([ROW | columns])).records[0].meta.get("tools")


@pytest.mark.parametrize(
    "value",
    [
        [RAIN, ADD],
        json.dumps([RAIN, ADD]),
        [json.dumps(RAIN), json.dumps(ADD)],
        json.dumps([json.dumps(RAIN), ADD]),
        json.dumps(json.dumps([RAIN, ADD])),
    ],
)
def test_every_writing_of_tools_is_the_same_list(write: Any, value: Any) -> None:
    assert read(write, tools=value) == [RAIN, ADD]


@pytest.mark.parametrize("value", [None, "", "  ", [], "[]", "null"])
def test_no_tools_are_none(write: Any, value: Any) -> None:
    assert read(write, tools=value) is None


def test_one_tool_bare_ones_and_functions(write: Any) -> None:
    assert read(write, tools=RAIN) == read(write, tools=json.dumps(RAIN)) == [RAIN]
    assert read(write, tools=[BARE]) == [BARE]
    for functions in ([BARE], json.dumps([BARE])):
        assert read(write, functions=functions, tools=None) == [{"type": "function", "function": BARE}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tools": "[{'type': 'function'}]"}, "field tools: is text that is no JSON"),
        ({"tools": "rain"}, "field tools: is text that is no JSON"),
        ({"tools": "3"}, r"field tools: is a number, not a list of tools \(in its JSON text\)"),
        ({"tools": 3}, "field tools: is a number, not a list of tools"),
        ({"tools": [RAIN, 3]}, r"field tools\[1\]: is a number, not a tool"),
        ({"tools": [RAIN, "{"]}, r"field tools\[1\]: is text that is no JSON"),
        ({"tools": [{"type": "function"}]}, r"field tools\[0\]: is a tool without a name; it has type"),
        ({"tools": [{"type": "function", "function": "rain"}]}, r"field tools\[0\]: is no tool"),
        ({"tools": [RAIN], "functions": [BARE]}, "field functions: stands beside tools"),
        ({"available_tools": [RAIN]}, r"say columns: {tools: available_tools}"),
    ],
)
def test_what_is_no_tool_is_refused_with_row_and_field(write: Any, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"row 1, {message}" if message.startswith("field") else message):
        read(write, **columns)


def test_nulls_that_a_table_puts_into_tools_are_no_keys(tmp_path: Path) -> None:
    """In Parquet every tool has the keys of all: a null is what another tool's parameter leaves."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [ROW | {"tools": [RAIN]}, ROW | {"tools": [ADD]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert [r.meta["tools"] for r in load(str(tmp_path / "rows.parquet")).records] == [[RAIN], [ADD]]


def test_what_a_user_writes_as_text_keeps_its_nulls(write: Any) -> None:
    told = tool("rain", city={"type": "string", "default": None})
    assert read(write, tools=json.dumps([told])) == [told]


def test_prompts_with_tools_are_not_answered_without_them(write: Any) -> None:
    rows = [{"prompt": "rain?", "tools": "[]"}, {"prompt": "rain?", "tools": json.dumps([RAIN])}]
    records = load(write(rows), want="prompts")
    with pytest.raises(DataError, match="row 2, field tools: names tools, and a prompt is answered without any"):
        without_tools(records)
    assert without_tools(load(write(rows[:1]), want="prompts")).rows == (1,)
