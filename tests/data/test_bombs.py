"""Files made to fill a machine: each is refused by name, in seconds and in little memory, and what is like them and honest
is read. Every one is small on the disk.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib

import pytest

from pace import pace
from truing.data.formats import bounds, loading
from truing.errors import DataError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

SECONDS, MEGABYTES = 20, 600
"""What the refusal of a bomb may cost. Most take a tenth; the machines of CI are slow and shared."""

CHILD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4_000_000_000, 4_000_000_000))
from truing.data.formats import loading
from truing.errors import DataError
try:
    loading.load(sys.argv[1])
    print("read")
except DataError as error:
    print(error)
print(next(int(line.split()[1]) // 1000 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def refusal(path):
    """What a child process says of a file, after no more than the seconds and the memory that a refusal may cost."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", CHILD, path], capture_output=True, text=True, timeout=10 * SECONDS)
    assert not done.returncode, done.stderr[-2000:]
    said, _, peak = done.stdout.rstrip().rpartition("\n")
    assert time.monotonic() - began < SECONDS * pace(), said[:500]
    assert int(peak) < MEGABYTES, said[:500]
    assert len(said) < 5000
    return said


def repeated(piece, count, head=b"", tail=b""):
    """gzip of a piece over and over, made without ever holding it unpacked."""
    pack = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [pack.compress(head), *(pack.compress(piece) for _ in range(count)), pack.compress(tail), pack.flush()]
    return b"".join(parts)


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


MILLION = b"\0" * 1_000_000
ROW = b'{"prompt": "q", "chosen": "a", "rejected": "b"}\n'


@pytest.mark.parametrize(
    ("name", "make", "problem"),
    [
        ("p.jsonl.gz", lambda: repeated(b"a" * 1_000_000, 3000, b'{"text": "'), "unpack to more than"),
        ("p.json.gz", lambda: repeated(b"{}," * 300_000, 3000, b"["), "unpack to more than"),
        ("p.csv.gz", lambda: repeated(b"a" * 1_000_000, 3000, b'text\n"'), "unpack to more than"),
        ("members.jsonl.gz", lambda: repeated(ROW * 20_000, 5) * 300, "unpack to more than"),
        ("p.jsonl.gz", lambda: repeated(b"a" * 1_000_000, 100, b'{"text": "'), "line 1: is longer than 20,000,000"),
        ("p.csv.gz", lambda: repeated(b"a" * 1_000_000, 100, b'text\n"'), "line 2: is longer than 20,000,000"),
        ("p.csv.gz", lambda: repeated(b"a" * 999 + b"\n", 100_000, b'text\n"'), "line 2: begins a row of more than"),
        ("p.csv.gz", lambda: repeated(b"\n" * 1_000_000, 3, b'text\n"'), "begins a row of more than"),
        ("p.jsonl.gz", lambda: repeated(b"\n" * 1_000_000, 300), "more than 1,000,000 lines"),
        ("p.csv.gz", lambda: repeated(b"\n" * 1_000_000, 300, b"text\n"), "more than 5,000,000 lines"),
        ("p.jsonl.gz", lambda: repeated(b'{"a":1}\n' * 100_000, 30), "more than 1,000,000"),
        ("p.json.gz", lambda: repeated(b"{}," * 100_000, 30, b"[", b"{}]"), "more than 1,000,000 rows"),
        ("p.json.gz", lambda: repeated(b"[]," * 1_000_000, 3, b"[[", b"0]]"), "holds more than 1,000,000 values"),
        ("p.json.gz", lambda: repeated(b"a" * 1_000_000, 90, b'["'), "a row has more than 20,000,000 characters"),
        ("p.json.gz", lambda: repeated(b" " * 1_000_000, 90, b"[1", b"]"), "a row has more than 20,000,000"),
        ("p.jsonl.gz", lambda: repeated(b"1\n" * 100_000, 9), "row is a number"),
        ("p.jsonl.gz", lambda: repeated(b"x\n" * 100_000, 9), "none of its first 10,000 lines is JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_compressed_bomb_is_refused_before_it_is_in_memory(tmp_path, name, make, problem):
    path = put(tmp_path, name, make())
    assert path.stat().st_size < 5_000_000
    said = refusal(path)
    assert name in said and problem in said


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("p.json", b"[" + b"{}," * 1_200_000 + b"{}]", "more than 1,000,000 rows"),
        ("p.jsonl", b"{}\n" * 1_200_000, "more than 1,000,000"),
        ("p.csv", b"text\n" + b"a\n" * 1_200_000, "more than 1,000,000 rows"),
        ("p.json", b'{"train": [' + b"{}," * 1_600_000 + b"{}]}", "holds more than 1,000,000 values"),
        ("p.jsonl", b'{"prompt": [' + b"{}," * 1_600_000 + b"{}]}", "holds more than 1,000,000 values"),
        ("p.csv", b'messages\n"[' + b"{}," * 1_600_000 + b'{}]"\n', "row 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_that_say_nothing_are_no_data(tmp_path, name, content, problem):
    assert len(content) < 5_000_000
    said = refusal(put(tmp_path, name, content))
    assert name in said and problem in said


TEXT = "x" * 1_000_000


def table(kind):
    """A Parquet bomb: small on the disk, for what is written once stands in every row."""
    if kind == "rows":
        return pa.table({"text": pa.array([""]).take(pa.array([0] * 3_000_000))})
    if kind == "text":
        return pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * 500_000, pa.int32()), [TEXT])})
    if kind == "numbers":
        flat = pa.array([0] * 20_000_000, pa.int8())
        return pa.table({"text": pa.ListArray.from_arrays([0, 20_000_000], flat)})
    said = pa.DictionaryArray.from_arrays(pa.array([0] * 500_000, pa.int32()), [TEXT])
    message = pa.StructArray.from_arrays([said, said], ["role", "content"])
    return pa.table({"messages": pa.ListArray.from_arrays(list(range(0, 500_001, 10)), message)})


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("rows", "more than 1,000,000 rows"),
        ("text", "unpack to more than"),
        ("nested", "unpack to more than"),
        ("numbers", "holds 20,000,000 values"),
    ],
)
def test_parquet_is_weighed_before_it_is_made(tmp_path, kind, problem):
    path = tmp_path / "rows.parquet"
    parquet.write_table(table(kind), path, compression="zstd", row_group_size=10_000_000)
    assert path.stat().st_size < 5_000_000
    said = refusal(path)
    assert "rows.parquet" in said and problem in said


def test_parquet_pages_that_pack_a_thousand_times_are_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    part = pa.table({"text": [TEXT] * 50})
    with parquet.ParquetWriter(path, part.schema, compression="zstd", use_dictionary=False) as file:
        for _ in range(9):
            file.write_table(part)
    assert path.stat().st_size < 5_000_000
    assert "unpack to more than" in refusal(path)


def test_an_archive_or_gzip_in_gzip_is_named(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p.jsonl", MILLION)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("p.jsonl"))
    twice = gzip.compress(repeated(MILLION, 40))
    for content, word in ((packed.getvalue(), "zip archive"), (tarred.getvalue(), "tar archive"), (twice, "twice")):
        with pytest.raises(DataError, match=f"p.jsonl.gz: is .*{word}"):
            loading.load(str(put(tmp_path, "p.jsonl.gz", content)))


def test_a_log_that_repeats_itself_is_read_through(tmp_path):
    """300 MB from 5 MB pass: that is 60 times, and lines of a log take no more."""
    bounds.check_unpacked("log.jsonl.gz", 300_000_000, 5_000_000)
    bounds.check_unpacked("log.jsonl.gz", 300_000_000, 500_000)
    bounds.check_rows("log.jsonl.gz", 1_000_000, 5_000_000, packed=True)
    path = put(tmp_path, "log.jsonl.gz", repeated(ROW * 10_000, 600))
    assert path.stat().st_size < 1_000_000
    bounds.check_compressed("log.jsonl.gz", path)
    with pytest.raises(DataError, match=r"log.jsonl.gz: is 5,000,000 bytes that unpack to more than 500,000,000"):
        bounds.check_unpacked("log.jsonl.gz", 500_000_001, 5_000_000)


def test_an_honest_file_that_packs_well_is_read(tmp_path):
    rows = [{"prompt": f"question {i}", "chosen": "yes " * 200, "rejected": "no " * 200} for i in range(2000)]
    path = put(tmp_path, "p.jsonl.gz", gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet", compression="zstd")
    assert 1_000_000 / path.stat().st_size > 50
    packed, columns = loading.load(str(path)), loading.load(str(tmp_path / "p.parquet"))
    assert len(packed) == 2000 and packed.digest == columns.digest


def test_rows_of_several_megabytes_are_read(tmp_path):
    long = "word, [and] {more} " * 300_000
    rows = [{"prompt": "q", "response": long}, {"prompt": "q", "response": "short"}] * 2
    put(tmp_path, "p.json", json.dumps(rows).encode())
    put(tmp_path, "p.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    put(tmp_path, "p.csv", ("prompt,response\n" + f'q,"{long}"\nq,short\n' * 2).encode())
    digests = {loading.load(str(tmp_path / name)).digest for name in ("p.json", "p.jsonl", "p.csv")}
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.parquet", "p.jsonl.gz", "p.json.gz", "p.csv.gz"])
def test_what_is_no_file_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: is no file but a pipe"):
        loading.load(str(tmp_path / name))
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match=f"{name}: is no file but a pipe, a socket or a device"):
        loading.load(str(tmp_path / name))


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a/" + "x" * 300, "x" * 300 + "/a", "p\0.jsonl", "a/b\0", "p.jsonl/q.jsonl"]
)
def test_a_name_that_no_file_can_have_is_said(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").touch()
    with pytest.raises(DataError) as why:
        loading.load(name if name.endswith(".jsonl") else f"{name}.jsonl")
    assert len(str(why.value)) < 3000 and "\0" not in str(why.value)


def test_values_of_a_parquet_file_that_python_or_json_does_not_have(tmp_path):
    path = tmp_path / "p.parquet"
    rows = {"prompt": ["q", "r"], "response": ["a", "b"]}
    for more, problem in (
        ({"score": [float("nan"), 1.0]}, ""),
        ({"score": [float("inf"), 1.0]}, "row 1, field score: is inf, which is no number"),
        ({"scores": [[1.0, float("nan")], [1.0]]}, r"row 1, field scores\[1\]: is nan, which is no number"),
        ({"time": pa.array([2**62, 0], pa.timestamp("us"))}, "not a readable Parquet file"),
        ({"time": pa.array([0, 0], pa.timestamp("s", tz="No/Where"))}, "not a readable Parquet file"),
    ):
        parquet.write_table(pa.table(rows | more), path)
        if problem:
            with pytest.raises(DataError, match=problem):
                loading.load(str(path), want="demonstrations")
        else:
            assert len(loading.load(str(path), want="demonstrations")) == 2
    twice = pa.Table.from_arrays(
        [pa.array(["q"]), pa.array(["a"]), pa.array(["b"])], ["prompt", "response", "response"]
    )
    parquet.write_table(twice, path)
    with pytest.raises(DataError, match="column 'response' stands twice"):
        loading.load(str(path))
