"""Raw rows: every kind of file gives the same rows, and every damaged one says what and where."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from truing.data.formats.files import rows
from truing.errors import DataError, UserError

Write = Callable[..., str]
ROWS = [{"prompt": "a\u2028b", "response": "ü, 😀"}, {"prompt": 'say "x,\ny"', "response": "c"}]


def as_csv() -> str:
    return 'prompt,response\r\n"a\u2028b","ü, 😀"\r\n"say ""x,\ny""",c\r\n'


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_every_kind_of_file_gives_the_same_rows(write: Write, kind: str, packed: bool, bom: bytes) -> None:
    lines = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    raw = bom + {"jsonl": lines, "json": json.dumps(ROWS), "csv": as_csv()}[kind].encode()
    name = f"rows.{kind}" + (".gz" if packed else "")
    assert list(rows(write(gzip.compress(raw, mtime=0) if packed else raw, name))) == [(1, ROWS[0]), (2, ROWS[1])]


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    assert list(rows(str(tmp_path / "rows.parquet"))) == [(1, ROWS[0]), (2, ROWS[1])]


def test_json_lines_under_the_name_json_are_read(write: Write) -> None:
    assert [n for n, _ in rows(write(ROWS, "rows.json"))] == [1, 2]


def test_lists_in_csv_cells_are_read(write: Write) -> None:
    text = 'messages,labels,prompt\n"[{""role"": ""user"", ""content"": ""hi""}]","[true, false]",[1] is a list\n'
    [(_, row)] = rows(write(text, "a.csv"))
    assert row["messages"] == [{"role": "user", "content": "hi"}]
    assert (row["labels"], row["prompt"]) == ([True, False], "[1] is a list")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b'{"a": 1}\n{"a": 2,}\n', "r.jsonl", r"r.jsonl, row 2: \(line 2\) malformed JSON: .* at column \d+"),
        (b'{"a": 1}\n\n{"a": NaN}\n', "r.jsonl", r"row 2: \(line 3\) malformed JSON: NaN is not a number"),
        (b'{"a": "x"}\n{"a": "\xff"}\n', "r.jsonl", r"row 2: \(line 2\) not UTF-8: byte 0xff at place 8 of the line"),
        (b"a,b\n1,2\n3,\xe9\n", "r.csv", r"r.csv, line 3: not UTF-8: byte 0xe9 at place 3 of the line"),
        ('{"a": "x"}'.encode("utf-16"), "r.jsonl", "The file looks like UTF-16. Save the file as UTF-8"),
        (b'{"a": {"b": ["x", "\\ud800"]}}', "r.jsonl", r"row 1, field a.b\[1\]: holds half a surrogate pair \(U\+D800"),
        (b'{"a": "x\\u0000"}', "r.jsonl", "row 1, field a: holds a NUL character"),
        (b"", "r.jsonl", "the file is empty"),
        (b"\n\n", "r.jsonl", "the file is empty"),
        (b"", "r.json", "the file is empty"),
        (b"[]", "r.json", "the file is empty"),
        (b"a,b\n", "r.csv", "the file is empty"),
        (b'{"a": 1}\n[1]\n', "r.jsonl", "row 2: the row is a list, not an object with named columns"),
        (b'[{"a": 1}, "x"]', "r.json", "row 2: the row is text, not an object"),
        (b'"x"', "r.json", "the file holds text, not a list of rows"),
        (b'[{"a": 1}', "r.json", r"malformed JSON: Expecting .* at column 10"),
        (b"[" * 100_000, "r.jsonl", "nested too deeply"),
        (b'a,b\n1,2\n1,"2\n', "r.csv", "malformed CSV"),
        (b"a,b\n1,2\n1\n", "r.csv", "row 2: 1 cells where the header has 2"),
        (b"a,a\n1,2\n", "r.csv", "column 'a' stands twice in the header"),
        (b"x", "r.txt", r"unknown kind of file '.txt'\n  Known: .jsonl, .json, .csv, .parquet"),
        (b"x", "r.parquet", "not a readable Parquet file"),
        (b"x", "r.jsonl.gz", "is no gzip file, though its name ends in .gz"),
        (gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:-12], "r.jsonl.gz", "the compressed file is damaged or cut off"),
    ],
)
def test_a_damaged_file_says_what_and_where(write: Write, content: bytes, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(rows(write(content, name)))


def test_bad_rows_can_be_collected(write: Write) -> None:
    bad: list[tuple[int, str, str]] = []
    source = write(b'{"a": 1}\n{\n{"a": "\\u0000"}\n{"a": 4}\n')
    assert [n for n, _ in rows(source, lambda *place: bad.append(place))] == [1, 4]
    assert [(row, field) for row, field, _ in bad] == [(2, ""), (3, "a")]


def test_a_missing_file_names_the_nearest(write: Write) -> None:
    path = Path(write(ROWS, "pairs.jsonl"))
    with pytest.raises(DataError, match=r"no such file\n  Did you mean '.*pairs.jsonl'"):
        list(rows(str(path.with_name("pair.jsonl"))))
    with pytest.raises(DataError, match=r"there is no folder '.*nowhere'"):
        list(rows(str(path.parent / "nowhere" / "pairs.jsonl")))
    with pytest.raises(DataError, match=r"is a folder, not a file\n  Data files in it: pairs.jsonl"):
        list(rows(str(path.parent)))


def test_a_hub_name_without_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(name: str, split: str) -> Any:
        asked.append((name, split))
        if split == "all":
            raise ConnectionError("Couldn't reach the Hub")
        if split == "wrong":
            raise ValueError('Unknown split "wrong"')
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert [n for n, _ in rows("org/name")] == [1, 2]
    assert [n for n, _ in rows("org/name:test")] == [1, 2]
    assert asked == [("org/name", "train"), ("org/name", "test")]
    with pytest.raises(DataError, match=r"no network, or not found .*\n  Pass a local file instead"):
        list(rows("org/name:all"))
    with pytest.raises(DataError, match=r"Unknown split \"wrong\"\n  A split is named so: org/name:split"):
        list(rows("org/name:wrong"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"need the package 'datasets': pip install 'truing\[train\]'"):
        list(rows("org/name"))


def test_reading_and_splitting_need_no_torch() -> None:
    code = "import sys, truing.data.formats.loading, truing.data.split; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
