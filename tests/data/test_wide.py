"""Files of very many columns, very long names and names that are no words: refused or read, quickly, in few words."""

from __future__ import annotations

import json
import time

import pytest

from pace import pace
from truing.data.formats import bounds, loading
from truing.errors import DataError, listed, nearest, unknown

MANY = 200_000
SECONDS = 10
"""What any of these may take; a second is usual."""


@pytest.fixture(autouse=True)
def quick():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SECONDS * pace()


def load(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return loading.load(str(path))


def refused(folder, name, content, match):
    with pytest.raises(DataError, match=match) as caught:
        load(folder, name, content)
    assert len(str(caught.value)) < 5000
    return str(caught.value)


def header(count):
    return ",".join(f"column{i}" for i in range(count))


def test_a_csv_file_of_200_000_columns(tmp_path):
    content = f"{header(MANY)}\n{','.join('1' * MANY)}\n"
    refused(tmp_path, "p.csv", content, r"p.csv: has 200,000 columns, and at most 10,000 are read")
    refused(tmp_path, "p.csv", header(MANY) + "\n", "200,000 columns")
    refused(tmp_path, "p.csv", "," * MANY + "\n", "200,001 columns")


def test_json_rows_of_200_000_keys(tmp_path):
    row = json.dumps({f"column{i}": i for i in range(MANY)})
    for name, content in (("p.jsonl", row + "\n"), ("p.json", f"[{row}]"), ("p.json", row)):
        refused(tmp_path, name, content, r"row 1: has 200,000 columns, and at most 10,000 are read")


def test_rows_that_each_have_columns_of_their_own(tmp_path):
    rows = "".join(json.dumps({"prompt": "q", f"a{i}": 1, f"b{i}": 2}) + "\n" for i in range(20_000))
    refused(tmp_path, "p.jsonl", rows, r"row 5000: has 10,001 columns")


def test_a_parquet_file_of_200_000_columns(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = [f"c{i}" for i in range(20_000)]
    parquet.write_table(pa.table({name: [1] for name in names}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="has 20,000 columns, and at most 10,000 are read"):
        loading.load(str(tmp_path / "p.parquet"))


def test_as_many_columns_as_are_read_and_none_that_fits(tmp_path):
    wide = header(bounds.COLUMNS)
    said = refused(
        tmp_path, "p.csv", f"{wide}\n{','.join('1' * bounds.COLUMNS)}\n" * 2, "none of its own has a known name"
    )
    assert "column19 and 9,980 more" in said


def test_as_many_columns_as_are_read_in_every_row(tmp_path):
    wide = header(bounds.COLUMNS - 2)
    rows = f"prompt,response,{wide}\n" + f"q,a,{','.join('1' * (bounds.COLUMNS - 2))}\n" * 20
    assert len(load(tmp_path, "p.csv", rows)) == 20


def test_rows_that_lack_a_column_among_very_many(tmp_path):
    extra = {f"column{i}": 1 for i in range(2000)}
    rows = [{"prompt": "q", "response": "a"}, *({"prompt": "q", "responses": 1} | extra for _ in range(300))]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    with pytest.raises(
        DataError, match=r"missing column 'response' \(found columns: prompt, responses, column0"
    ) as why:
        load(tmp_path, "p.jsonl", content)
    assert len(str(why.value)) < 20 * 1000


@pytest.mark.parametrize("name", ["p.csv", "p.jsonl"])
def test_a_name_of_a_megabyte(tmp_path, name):
    long = "x" * 1_000_000
    content = f"prompt,{long}\nq,a\n" if name == "p.csv" else json.dumps({"prompt": "q", long: "a"}) + "\n"
    refused(tmp_path, name, content, "a column has a name of 1,000,000 characters, and at most 1,000 are read: 'xxx")


def test_names_with_line_breaks_stay_on_their_line(tmp_path):
    said = refused(tmp_path, "p.csv", 'prompt,"a\nship: yes"\nq,a\n', "found columns|has prompts")
    assert "\nship" not in said
    said = refused(tmp_path, "p.jsonl", json.dumps({"a\r\nship: yes": 1, "\x1b[31m": 2}) + "\n", "found columns")
    assert "\nship" not in said and "\x1b" not in said


def test_what_a_message_holds_is_said_in_few_words(tmp_path):
    long = "x" * 3_000_000
    for message in ({"role": long, "content": "a"}, {long: "a"}, {"role": "user", "content": {long: long}}):
        rows = json.dumps({"messages": [message]}) + "\n"
        refused(tmp_path, "p.jsonl", rows * 2, r"p.jsonl")
    keyed = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", long: 1}]
    assert len(loading.describe(load(tmp_path, "p.jsonl", json.dumps({"messages": keyed}) + "\n"))) < 1000


def test_hints_do_not_grow_with_what_is_known():
    names = [f"column{i}" for i in range(MANY)]
    assert nearest("colunm1", names) == "column1"
    assert nearest("x" * 1_000_000, names) == "" and nearest("column1", ["c" * 1_000_000]) == ""
    assert len(unknown("column", "y" * 1_000_000, names)) < 10_000
    assert listed(names, 2) == "column0, column1 and 199,998 more"
    assert listed(["a\nb", "c" * 200], 2) == f"a⟨U+000A⟩b, {'c' * 100}..."
