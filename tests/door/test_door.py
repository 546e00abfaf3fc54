"""What comes through the door: files of their kind, whole, and no larger than they may be."""

from __future__ import annotations

import json
import os
import socket

import pytest

from truing import door
from truing.errors import DataError


def put(folder, text, name="config.json"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(DataError, match=r"config.json: is no file but a pipe"):
        door.read_bytes(tmp_path / "config.json")


def test_a_device_a_socket_a_folder_and_nothing_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("here.sock")
        (tmp_path / "zero.json").symlink_to("/dev/zero")
        (tmp_path / "folder.json").mkdir()
        (tmp_path / "round.json").symlink_to("round.json")
        wrong = {"here.sock": "socket", "zero.json": "device", "folder.json": "folder", "none.json": "No such file"}
        for name, word in {**wrong, "round.json": "symbolic links", "a\0b": "null byte"}.items():
            with pytest.raises(DataError, match=word):
                door.read_bytes(tmp_path / name)


def test_a_link_to_a_file_is_a_file(tmp_path):
    put(tmp_path, "{}", "blob")
    (tmp_path / "config.json").symlink_to("blob")
    assert door.read_object(tmp_path / "config.json") == {}


def test_a_file_has_at_most_so_many_bytes(tmp_path):
    path = put(tmp_path, b"12345")
    assert door.read_bytes(path, most=5) == b"12345"
    with pytest.raises(DataError, match="has 5 bytes, and at most 4"):
        door.read_bytes(path, most=4)
    with pytest.raises(DataError, match="more than 4 bytes"):  # procfs says that its files have none
        door.read_bytes(type(path)("/proc/self/status"), most=4)


def test_what_is_no_text_is_refused_with_its_line(tmp_path):
    with pytest.raises(DataError, match=r"pairs: is not UTF-8 text \(line 2: invalid start byte\)"):
        door.read_text(put(tmp_path, b"a\n\xff"), "pairs")
    assert door.read_text(put(tmp_path, b"\xef\xbb\xbfa")) == "a"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "nested more than 100 deep"),
        ("[" * 102 + "]" * 102, "nested more than 100 deep"),
        ("9" * 5000, "a number of 5,000 digits"),
        ("-" + "9" * 401, "digits is too large"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": [-1e400]}', "-1e400 is too large for a number"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
    ],
)
def test_json_that_decides_something_is_read_strictly(text, problem, tmp_path):
    with pytest.raises(ValueError, match=problem):
        door.parse_json(text)
    with pytest.raises(DataError, match=problem):
        door.read_json(put(tmp_path, text), strict=True)


def test_a_config_may_hold_infinity_as_transformers_writes_it(tmp_path):
    path = put(tmp_path, '{"time_step_limit": [0.0, Infinity], "model_max_length": 1000000000000000019884624838656}')
    assert door.read_object(path) == {"time_step_limit": [0.0, float("inf")], "model_max_length": int(1e30)}
    with pytest.raises(DataError, match="nested"):
        door.read_object(put(tmp_path, '{"a":' * 100_000))


@pytest.mark.parametrize(("value", "word"), [([], "a list"), (1, "a number"), (None, "null"), ("a", "text")])
def test_an_object_is_an_object(value, word, tmp_path):
    with pytest.raises(DataError, match=f"holds {word} where an object"):
        door.read_object(put(tmp_path, json.dumps(value)))


def test_depth_is_counted_as_it_is_written():
    for levels in (1, 50, 100, 101):
        value = json.loads("[" * levels + "]" * levels)
        assert door.deeper(value, levels - 2) and not door.deeper(value, levels - 1)


def test_a_strange_value_is_shown_short_and_on_one_line():
    assert door.shown("a\n\x1b[31m") == "'a\\n\\x1b[31m'"
    assert len(door.shown("x" * 1000)) == 80
    assert door.shown(10**5000) == "a number of thousands of digits"
