"""Files of another kind than their name says: pointers, archives, web pages, half downloads, data sets in one object."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from truing.data.formats.files import rows
from truing.data.formats.loading import load
from truing.errors import DataError, UserError
from truing.run.inputs import read_lines

ROWS = [{"prompt": f"q{i}", "chosen": "good", "rejected": "bad"} for i in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 1234567\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("rows.jsonl", LINES)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("rows.jsonl")
        entry.size = len(LINES)
        archive.addfile(entry, io.BytesIO(LINES))
    return out.getvalue()


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.csv", "r.parquet", "r.jsonl.gz"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (POINTER, "is a Git LFS pointer and not the file itself\n  Fetch the file: git lfs install && git lfs pull"),
        (b"/annex/objects/SHA256E-s12--4d.parquet\n", "is a git-annex pointer"),
        (PAGE, r"is a web page \(HTML\).*\n.*/resolve/ and not /blob/"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML document"),
        (zipped(), "is a zip archive"),
        (tarred(), "is a tar archive"),
        (lzma.compress(LINES), "is xz-compressed"),
        (bz2.compress(LINES), "is bzip2-compressed"),
        (b"\x28\xb5\x2f\xfd" + bytes(30), "is zstd-compressed"),
        (b"\0" * 600, "is nothing but NUL bytes"),
        (b"\x80\x04\x95", "is pickled"),
        (b"ARROW1\0\0" + bytes(9), "is an Arrow .*\n.*as Parquet"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_a_file_is_named_for_what_it_is(write: Any, content: bytes, what: str, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: {what}"):
        list(rows(write(content, name)))


@pytest.mark.parametrize(
    ("content", "name", "what"),
    [
        (gzip.compress(LINES, mtime=0), "r.jsonl", "is gzip-compressed\n  Call it by a name that ends in .gz"),
        (gzip.compress(LINES, mtime=0), "r.csv", "is gzip-compressed"),
        (LINES, "r.jsonl.gz", "is no gzip file, though its name ends in .gz"),
        (gzip.compress(POINTER, mtime=0), "r.jsonl.gz", "is a Git LFS pointer"),
        (gzip.compress(gzip.compress(LINES, mtime=0), mtime=0), "r.jsonl.gz", "is compressed twice"),
        (LINES, "r.parquet", "not a readable Parquet file: it begins with other bytes"),
        (b"", "r.parquet", r"is empty \(0 bytes\)"),
        (b"PAR1\x15\x04" + bytes(40), "r.parquet", "the Parquet file is cut off: its end is missing"),
        (b"PAR1\x15\x04" + bytes(40), "r.jsonl", "is a Parquet file\n  Call it by a name that ends in .parquet"),
        (json.dumps(ROWS).encode(), "r.jsonl", "holds one JSON list of 3 rows, not one object a line\n  Call it .json"),
        (json.dumps(ROWS, indent=1).encode(), "r.jsonl", "holds a JSON list written over several lines"),
        (json.dumps(ROWS[0], indent=1).encode(), "r.jsonl", "holds JSON objects written over several lines"),
        (b"[" + LINES.replace(b"\n", b",\n")[:-2] + b"]", "r.jsonl", "holds a JSON list written over several lines"),
        (json.dumps({"train": ROWS, "test": ROWS}).encode(), "r.json", r"lists of rows in it \(train, test\)"),
        (json.dumps({"train": ROWS}, indent=1).encode(), "r.json", r"lists of rows in it \(train\)"),
        (json.dumps({"train": ROWS, "test": ROWS}).encode(), "r.jsonl", r"lists of rows in it \(train, test\)"),
        (json.dumps({"version": "1", "data": ROWS}).encode(), "r.json", r"lists of rows in it \(data\)"),
        (b'{"prompt": {"0": "a", "1": "b"}, "response": {"0": "c", "1": "d"}}', "r.json", "holds columns .*, not rows"),
        (LINES, "r.ndjson", "unknown kind of file '.ndjson'\n  It is JSON Lines: call it .jsonl"),
        (LINES, "r.tsv", "unknown kind of file '.tsv'\n  Write it as CSV"),
        (LINES, "r.jsonl.zst", "unknown kind of file '.zst'\n  Unpack it first"),
        (LINES, "r.feather", "unknown kind of file '.feather'\n  Write it as Parquet"),
    ],
)
def test_a_file_of_another_form_than_its_name(write: Any, content: bytes, name: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        load(write(content, name))


def test_rows_that_hold_lists_of_objects_are_rows(write: Any) -> None:
    """What looks like a data set in one object, and is a row: messages, tools, and lists beside a prompt."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    for row in ({"messages": turns}, {"prompt": "q", "response": "a", "examples": [{"input": "x"}]}):
        for name in ("r.jsonl", "r.json"):
            assert len(load(write(json.dumps(row), name))) == 1


def test_a_folder_of_save_to_disk_is_named_with_the_way_to_a_file(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list(ROWS)
    one.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(
        DataError, match=r"save_to_disk wrote .*\n.*load_from_disk\('.*one'\).to_parquet\('rows.parquet'\)"
    ):
        load(str(tmp_path / "one"))
    with pytest.raises(
        DataError, match=r"one for each of test, train\n.*load_from_disk\('.*both'\)\['train'\].to_parquet"
    ):
        load(str(tmp_path / "both"))
    datasets.load_from_disk(str(tmp_path / "both"))["train"].to_parquet(str(tmp_path / "rows.parquet"))
    assert len(load(str(tmp_path / "rows.parquet"))) == 3


@pytest.mark.parametrize("content", [POINTER, PAGE, gzip.compress(b"hello\n", mtime=0)])
def test_a_text_file_of_prompts_is_looked_at_too(write: Any, content: bytes) -> None:
    with pytest.raises(UserError, match=r"p.txt: is "):
        read_lines(write(content, "p.txt"))
    assert read_lines(write(b"one\n\ntwo\n", "p.txt")) == ["one", "two"]


@pytest.mark.parametrize("first", ["<html> what is this tag?", "<head> of state?", "<body>", "<error> 404, why?"])
def test_prompts_may_ask_about_a_tag(write: Any, first: str) -> None:
    """Only a document as a whole is refused; a line of prompts that begins with a tag is a prompt."""
    assert read_lines(write(first.encode() + b"\nother\n", "p.txt")) == [first, "other"]
    with pytest.raises(UserError, match=r"p.txt: is (a web page|an XML document)"):
        read_lines(write(f"{first}\nother\n</{'error' if 'error' in first else 'html'}>\n".encode(), "p.txt"))


def test_lines_of_prompts_end_as_text_files_end_them(write):
    content = b"\xef\xbb\xbfone\r\n\r\ntwo\rthree\n \n four"
    assert read_lines(write(content, "p.txt")) == ["one", "two", "three", " four"]
    with pytest.raises(DataError, match=r"p.txt, line 2: not UTF-8: byte 0xff at place 1"):
        read_lines(write(b"one\n\xff\n", "p.txt"))


def test_prompts_are_no_pipe_and_no_folder(tmp_path):
    os.mkfifo(tmp_path / "p.txt")
    (tmp_path / "q.txt").mkdir()
    for name, word in (("p.txt", "is no file but a pipe"), ("q.txt", "is a folder"), ("qq.txt", "Did you mean")):
        with pytest.raises(DataError, match=word):
            read_lines(str(tmp_path / name))
