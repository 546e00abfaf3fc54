"""Ways to spoil the files of a folder, as data: what found something can be kept, shown and done again.

A mutation is a list of edits; each is a JSON object that names a file, what is done to it and where. `draw` makes one
by a source of random numbers, Python's or hypothesis's own, which then finds the smallest that still fails.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Edit: TypeAlias = dict[str, Any]
VALUES: dict[str, Any] = {
    "null": None,
    "empty text": "",
    "empty list": [],
    "empty object": {},
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "minus one": -1,
    "seven": 7,
    "half": 0.5,
    "minus zero": -0.0,
    "least": 5e-324,
    "a billion": 10**9,
    "2 to the 31": 2**31,
    "2 to the 63": 2**63,
    "a huge whole number": 10**30,
    "a thousand digits": 10**1000,
    "a huge number": 1e308,
    "infinity": float("inf"),
    "not a number": float("nan"),
    "text": "x",
    "number as text": "12",
    "control characters": "a\x1b[31m\r\nb\u202e\0",
    "half a surrogate pair": "\ud800",
    "wide letters": "ｑｕｅｓｔｉｏｎ １",
    "long text": "long " * 20_000,
    "a way up": "../../../etc/passwd",
    "a whole path": "/etc/passwd",
    "an address": "https://host.invalid/x?token=abcdefgh12345678",
    "a template": "{{ ''.__class__.__mro__ }}{% for i in range(10**9) %}a{% endfor %}",
    "a slow pattern": "(a+)+$",
    "a class": "os.system",
    "list of null": [None],
    "list of numbers": [1, -2, 3.5],
    "list of text": ["a", "b"],
    "nested lists": [[["a"]]],
    "object": {"a": 1},
    "object of lists": {"a": [{"b": None}]},
    "auto_map": {"AutoModel": "mine.Model", "AutoTokenizer": ["mine.Tokenizer", None]},
    "half precision": "float16",
    "a Hub name": "nobody/nothing",
}
MISFIT = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OSError, EOFError, struct.error,
    zlib.error, yaml.YAMLError,
)  # fmt: skip
"""What an edit raises that does not fit what an edit before it has left."""
DEEP = 3000
SMALLEST_FILE = 3
"""Of shorter files nothing is cut or turned."""


def draw(folder: Path, names: list[str], rng: random.Random) -> list[Edit]:
    """One to three edits of these files of a folder."""
    return [_edit(folder, rng.choice(names), rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]


def apply(folder: Path, edits: list[Edit]) -> None:
    """Do a mutation's edits, one after another; what does not fit any more, for an edit before has taken it away, is
    left out."""
    for edit in edits:
        path = folder / edit["file"]
        if path.is_symlink() or not path.exists() or not stat.S_ISREG(path.stat().st_mode):
            continue
        try:
            EDITS[edit["do"]](path, edit)
        except MISFIT:
            continue


def _edit(folder: Path, name: str, rng: random.Random) -> Edit:
    """One edit of a file: mostly of what is in it, by its kind, else of its bytes, or of the file as a whole."""
    chance = rng.random()
    if chance < 0.06:
        return _of_file(folder, name, rng)
    if chance < 0.25:
        return _of_bytes(folder / name, rng)
    for suffix, make in KINDS.items():
        if name.endswith(suffix):
            try:
                return make(folder / name, rng) | {"file": name}
            except MISFIT:
                break
    return _of_bytes(folder / name, rng)


# The file as a whole.


def _of_file(folder: Path, name: str, rng: random.Random) -> Edit:
    do = rng.choice(("gone", "emptied", "folder", "pipe", "link to nothing", "link to itself", "copy of", "copied to"))
    edit: Edit = {"file": name, "do": do}
    if do == "copy of":
        edit["of"] = rng.choice(sorted(p.name for p in folder.iterdir() if p.is_file()))
    if do == "copied to":
        edit["to"] = rng.choice(ADDED)
    return edit


ADDED = (
    "pytorch_model.bin", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_config.json",
    "adapter_model.safetensors", "chat_template.json", "chat_template.jinja", "added_tokens.json", "vocab.json",
    "special_tokens_map.json", "generation_config.json", "heads.json", "processor_config.json", "tokenizer.model",
    "preprocessor_config.json", "custom_generate", "modeling.py", "learned.json", "lineage.json",
)  # fmt: skip
"""Names of files that a program which reads a folder may look for."""


def _gone(path: Path, _: Edit) -> None:
    path.unlink()


def _emptied(path: Path, _: Edit) -> None:
    path.write_bytes(b"")


def _folder(path: Path, _: Edit) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path, _: Edit) -> None:
    path.unlink()
    os.mkfifo(path)


def _link_to_nothing(path: Path, _: Edit) -> None:
    path.unlink()
    path.symlink_to("nothing")


def _link_to_itself(path: Path, _: Edit) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _copy_of(path: Path, edit: Edit) -> None:
    shutil.copyfile(path.parent / edit["of"], path)


def _copied_to(path: Path, edit: Edit) -> None:
    shutil.copyfile(path, path.parent / edit["to"])


# Its bytes.


def _of_bytes(path: Path, rng: random.Random) -> Edit:
    size = path.stat().st_size if path.is_file() else 0
    if size < SMALLEST_FILE:
        return {"file": path.name, "do": "emptied"}
    do = rng.choice(("cut", "flipped", "inserted", "repeated", "taken out"))
    edit: Edit = {"file": path.name, "do": do, "place": rng.randrange(min(size, rng.choice((64, 1 << 40))))}
    if do == "flipped":
        edit["bit"] = rng.randrange(8)
    if do == "inserted":
        edit["bytes"] = rng.choice(INSERTED).hex()
    if do in ("repeated", "taken out"):
        edit["length"] = rng.choice((1, 7, 100, 5000))
    return edit


INSERTED = (
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n\r\n", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\",
    b"\\ud800", b"\xed\xa0\x80", b"NaN", b"1e999", b"\x1b[2J", b"\t", b"- ", b"&a ", b"*a", b"!!python/object:os.system ",
    b"<html>", b"version https://git-lfs.github.com/spec/v1\n", b"\x1f\x8b\x08\x00", b"PK\x03\x04", b"PAR1", b"GGUF",
)  # fmt: skip


def _cut(path: Path, edit: Edit) -> None:
    path.write_bytes(path.read_bytes()[: edit["place"]])


def _flipped(path: Path, edit: Edit) -> None:
    content = bytearray(path.read_bytes())
    content[edit["place"]] ^= 1 << edit["bit"]
    path.write_bytes(content)


def _inserted(path: Path, edit: Edit) -> None:
    content, place = path.read_bytes(), edit["place"]
    path.write_bytes(content[:place] + bytes.fromhex(edit["bytes"]) + content[place:])


def _repeated(path: Path, edit: Edit) -> None:
    content, end = path.read_bytes(), edit["place"] + edit["length"]
    path.write_bytes(content[:end] + content[edit["place"] :])


def _taken_out(path: Path, edit: Edit) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: edit["place"]] + content[edit["place"] + edit["length"] :])


# What is in it: values of JSON, YAML, JSON Lines, the header of safetensors.


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within a value, at most 5,000 of them."""
    waiting = [(at, value)]
    for _ in range(5000):
        if not waiting:
            return
        where, inner = waiting.pop(0)
        yield where
        if isinstance(inner, dict):
            waiting += [((*where, key), part) for key, part in inner.items()]
        elif isinstance(inner, list):
            waiting += [((*where, i), part) for i, part in enumerate(inner[:50])]


def _of_value(value: Any, rng: random.Random) -> Edit:
    """An edit of one place in a value; places near the top are as likely as all below them."""
    ways = list(places(value))
    near = [way for way in ways if len(way) <= 1]
    at = list(rng.choice(near if rng.random() < 0.5 else ways))
    do = rng.choice(("set", "set", "set", "removed", "renamed", "doubled", "swapped", "deepened"))
    edit: Edit = {"do": do, "at": at}
    if do == "set":
        edit["value"] = rng.choice(sorted(VALUES))
    if do == "renamed":
        edit["to"] = rng.choice(("", "x", "a\nb", "Ｎａｍｅ", *(str(way[-1]) for way in near if way)))
    if do == "swapped":
        edit["with"] = list(rng.choice(ways))
    return edit


def changed(value: Any, edit: Edit) -> Any:
    """The value with an edit done to it."""
    at, do = edit["at"], edit["do"]
    if not at:
        if do == "deepened":
            return [value]
        return VALUES[edit["value"]] if do == "set" else {} if do == "removed" else [value, value]
    holder = value
    for step in at[:-1]:
        holder = holder[step]
    last = at[-1]
    if do == "set":
        holder[last] = VALUES[edit["value"]]
    elif do == "removed":
        del holder[last]
    elif do == "renamed":
        holder[edit["to"]] = holder.pop(last)
    elif do == "doubled":
        holder[last] = [holder[last], holder[last]]
    elif do == "swapped":
        other = value
        for step in edit["with"][:-1]:
            other = other[step]
        holder[last], other[edit["with"][-1]] = other[edit["with"][-1]], holder[last]
    else:
        deep: Any = holder[last]
        for _ in range(300):
            deep = [deep]
        holder[last] = deep
    return value


def _json(path: Path, rng: random.Random) -> Edit:
    if rng.random() < 0.03:
        return {"do": "deep text"}
    return _of_value(json.loads(path.read_text(encoding="utf-8")), rng)


def _lines(path: Path, rng: random.Random) -> Edit:
    lines = path.read_text(encoding="utf-8").splitlines()
    number = rng.randrange(len(lines))
    return {**_of_value(json.loads(lines[number]), rng), "line": number}


def _yaml(path: Path, rng: random.Random) -> Edit:
    text = path.read_text(encoding="utf-8")
    if rng.random() < 0.3:
        do = rng.choice(("line gone", "line doubled", "line moved in"))
        return {"do": do, "line": rng.randrange(len(text.splitlines()))}
    return _of_value(yaml.safe_load(text), rng)


def _in_value(path: Path, edit: Edit) -> None:
    """Do an edit to what a file holds, by the file's kind."""
    if "tensor" in edit:
        _in_tensors(path, edit)
    elif path.suffix == ".safetensors":
        header, data = _safetensors(path)
        _write_safetensors(path, changed(header, edit), data)
    elif "line" in edit:
        lines = path.read_text(encoding="utf-8").splitlines()
        lines[edit["line"]] = json.dumps(changed(json.loads(lines[edit["line"]]), edit))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".yaml":
        value = changed(yaml.safe_load(path.read_text(encoding="utf-8")), edit)
        path.write_text(yaml.dump(value, allow_unicode=False, sort_keys=False), encoding="utf-8")
    else:
        path.write_text(json.dumps(changed(json.loads(path.read_text(encoding="utf-8")), edit)), encoding="utf-8")


def _deep_text(path: Path, _: Edit) -> None:
    path.write_text('{"a":' * DEEP + "1" + "}" * DEEP, encoding="utf-8")


def _line(path: Path, edit: Edit) -> None:
    """Take out a line of a text, say it twice, or move it in by a blank."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    number = edit["line"]
    if edit["do"] == "line gone":
        del lines[number]
    elif edit["do"] == "line doubled":
        lines.insert(number, lines[number])
    else:
        lines[number] = " " + lines[number]
    path.write_text("".join(lines), encoding="utf-8")


def _text(path: Path, rng: random.Random) -> Edit:
    if rng.random() < 0.4:
        return {"do": "text", "text": rng.choice(TEXTS)}
    do = rng.choice(("line gone", "line doubled", "line moved in"))
    return {"do": do, "line": rng.randrange(len(path.read_text(encoding="utf-8").splitlines()))}


TEXTS = (
    "{% for i in range(10**9) %}a{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{{ messages[0].content.__class__.__base__.__subclasses__() }}",
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{{ messages }}",
    "{{ raise_exception('no') }}",
    "{{ 1 / 0 }}",
    "{% include 'x' %}",
    "{% set ns = namespace(x=0) %}{% for a in range(99999) %}{% for b in range(99999) %}{% set ns.x = 1 %}{% endfor %}{% endfor %}",
    "{{ strftime_now('%Y') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}",
    "",
    "\0",
    "{% macro a(x) %}{{ a(x) }}{% endmacro %}{{ a(1) }}",
    "prompt,chosen,rejected\n\"a",
    "prompt,prompt\na,b\n",
)  # fmt: skip


def _rewritten(path: Path, edit: Edit) -> None:
    path.write_text(edit["text"], encoding="utf-8")


# Tensors.


def _safetensors(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _write_safetensors(path: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def _tensors(path: Path, rng: random.Random) -> Edit:
    header, _ = _safetensors(path)
    if rng.random() < 0.4:
        return _of_value(header, rng)
    name = rng.choice(sorted(key for key in header if key != "__metadata__"))
    how = rng.choice(("not a number", "infinity", "largest", "zero", "integers", "fp8", "left out", "renamed"))
    return {"do": "set", "tensor": name, "how": how, "at": []}


def _in_tensors(path: Path, edit: Edit) -> None:
    """Spoil one fp32 tensor of a file: numbers in it, its type, its name."""
    header, data = _safetensors(path)
    entry, how = header[edit["tensor"]], edit["how"]
    begin, end = entry["data_offsets"]
    numbers = {"not a number": float("nan"), "infinity": float("inf"), "largest": 3.4e38, "zero": 0.0}
    if how in numbers:
        filled = struct.pack("<f", numbers[how]) * ((end - begin) // 4 if how in ("largest", "zero") else 1)
        data = data[:begin] + filled + data[begin + len(filled) :]
    elif how == "integers":
        entry["dtype"] = "I32"
    elif how == "fp8":
        entry["dtype"], entry["shape"] = "F8_E4M3", [*entry["shape"][:-1], entry["shape"][-1] * 4]
    elif how == "left out":
        del header[edit["tensor"]]
    else:
        header[edit["tensor"] + ".x"] = header.pop(edit["tensor"])
    _write_safetensors(path, header, data)


def _compressed(path: Path, rng: random.Random) -> Edit:
    size = len(gzip.decompress(path.read_bytes()))
    return {
        "do": "inflated",
        "place": rng.randrange(size),
        "bytes": rng.choice(INSERTED).hex(),
        "times": rng.choice((1, 10**6)),
    }


def _inflated(path: Path, edit: Edit) -> None:
    content, place = gzip.decompress(path.read_bytes()), edit["place"]
    path.write_bytes(gzip.compress(content[:place] + bytes.fromhex(edit["bytes"]) * edit["times"] + content[place:], 1))


KINDS: dict[str, Callable[[Path, random.Random], Edit]] = {
    ".jsonl": _lines,
    ".json": _json,
    ".yaml": _yaml,
    ".safetensors": _tensors,
    ".jinja": _text,
    ".csv": _text,
    ".gz": _compressed,
}
EDITS: dict[str, Callable[[Path, Edit], None]] = {
    "gone": _gone,
    "emptied": _emptied,
    "folder": _folder,
    "pipe": _pipe,
    "link to nothing": _link_to_nothing,
    "link to itself": _link_to_itself,
    "copy of": _copy_of,
    "copied to": _copied_to,
    "cut": _cut,
    "flipped": _flipped,
    "inserted": _inserted,
    "repeated": _repeated,
    "taken out": _taken_out,
    "line gone": _line,
    "line doubled": _line,
    "line moved in": _line,
    "deep text": _deep_text,
    "text": _rewritten,
    "inflated": _inflated,
    **dict.fromkeys(("set", "removed", "renamed", "doubled", "swapped", "deepened"), _in_value),
}
