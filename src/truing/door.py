"""The door for files that others made: what is let in is a file of its kind, whole, and no larger than it may be.

Whoever reads a file that truing has not written itself (a model's folder, an adapter, rows, a recipe, rules, evidence)
reads it through here. What does not pass is a DataError that names the file, the place in it and the way out.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from truing.errors import DataError, one_line, visible

MEGABYTE = 1_000_000
DEEPEST = 100
"""Levels of lists and objects within each other."""
SETTINGS_BYTES = 10 * MEGABYTE
"""Largest file of settings: a config, an index, a recipe, rules."""
VOCABULARY_BYTES = 200 * MEGABYTE
"""Largest file of a tokenizer. The largest in use has 34 MB."""
EVIDENCE_BYTES = 100 * MEGABYTE
"""Largest file of findings."""
LOG_BYTES = 1000 * MEGABYTE
"""Largest file with a line for every step of a run."""
DIGITS = 400
"""Digits of a number: more digits than any value of fp64 has before its point."""


def check_file(path: Path, name: str = "", most: int | None = None) -> None:
    """DataError where `path` is no file, or one of more than `most` bytes. A pipe would be waited for, and a device may
    never end; a link to a file is a file, for caches of models are made of links.
    """
    name = name or str(path)
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(name, f"cannot be read ({why(error)})") from error
    if stat.S_ISDIR(facts.st_mode):
        raise DataError(name, "is a folder, not a file")
    if not stat.S_ISREG(facts.st_mode):
        raise DataError(name, "is no file but a pipe, a socket or a device", "Give a file.")
    if most is not None and facts.st_size > most:
        raise DataError(name, f"has {facts.st_size:,} bytes, and at most {most:,} are read of a file of this kind")


@contextmanager
def opened(path: Path, name: str = "", most: int | None = None) -> Iterator[IO[bytes]]:
    """A file that passes `check_file`, open for reading; the same is checked of what was opened, without waiting for
    it. An OSError while it is read is a DataError too."""
    name = name or str(path)
    check_file(path, name, most)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise DataError(name, "is no file but a pipe, a socket or a device", "Give a file.")
            yield file
    except OSError as error:
        raise DataError(name, f"cannot be read ({why(error)})") from error


def read_bytes(path: Path, name: str = "", most: int = SETTINGS_BYTES) -> bytes:
    """The content of a file of at most `most` bytes, also where it grows while it is read."""
    with opened(path, name, most) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DataError(
            name or str(path), f"has more than {most:,} bytes, the most that is read of a file of this kind"
        )
    return content


def read_text(path: Path, name: str = "", most: int = SETTINGS_BYTES) -> str:
    """The text of a UTF-8 file, with or without a byte order mark."""
    content = read_bytes(path, name, most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8 text (line {line}: {error.reason})"
        raise DataError(name or str(path), problem, "Save it as UTF-8.") from error


def read_json(path: Path, name: str = "", most: int = SETTINGS_BYTES, *, strict: bool = False) -> Any:
    """The value in a JSON file. `strict` is for what decides something: every key once, and every number one.

    Without it NaN and Infinity, which transformers writes into configs, pass as what they are.
    """
    try:
        return parse_json(read_text(path, name, most), strict=strict)
    except ValueError as error:
        raise DataError(name or str(path), f"is not JSON that can be read: {error}") from error


def read_object(path: Path, name: str = "", most: int = SETTINGS_BYTES, *, strict: bool = False) -> dict[str, Any]:
    """The object (names and values) in a JSON file."""
    value = read_json(path, name, most, strict=strict)
    if not isinstance(value, dict):
        raise DataError(name or str(path), f"holds {kind(value)} where an object {{...}} is needed")
    return value


def read_log(path: Path, name: str = "") -> list[tuple[str, dict[str, Any]]]:
    """The lines of a run's log, each with the object in it, which says its `step`. What is behind the last line's end
    was cut off by a kill, and is no line."""
    rows = []
    for number, line in enumerate(read_text(path, name, LOG_BYTES).split("\n"), start=1):
        if not line.endswith("}"):
            continue
        try:
            row = parse_json(line, strict=False)
        except ValueError as error:
            raise DataError(f"{name or path}, line {number}", f"is not JSON that can be read: {error}") from error
        step = row.get("step") if isinstance(row, dict) else None
        if isinstance(step, bool) or not isinstance(step, int):
            raise DataError(f"{name or path}, line {number}", "does not say which step it is about")
        rows.append((line, row))
    return rows


def parse_json(text: str, *, strict: bool = True) -> Any:
    """The value that a JSON text says. ValueError, in words, for what is no JSON, is nested more than DEEPEST deep or
    holds a number too long to be one; `strict` as in `read_json`.

    >>> parse_json('{"loss": 1e999}')
    Traceback (most recent call last):
    ValueError: 1e999 is too large for a number
    """
    try:
        value = (STRICT if strict else LENIENT).decode(text)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(malformed(error)) from None
    if deeper(value, DEEPEST):
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    return value


def malformed(error: json.JSONDecodeError) -> str:
    """Describe the error in a JSON text, and its place."""
    text = error.doc
    where = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
    return f"{error.msg} at {where}: {text[max(0, error.pos - 20) : error.pos + 20]!r}"


def deeper(value: Any, most: int) -> bool:
    """Return whether lists and objects stand within each other more than `most` deep."""
    level = [value]
    for _ in range(most + 1):
        level = [
            part
            for item in level
            if isinstance(item, dict | list)
            for part in (item.values() if isinstance(item, dict) else item)
            if isinstance(part, dict | list)
        ]
        if not level:
            return False
    return True


def kind(value: Any) -> str:
    """The type of a value, in the words of JSON."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    names |= {list: "a list", dict: "an object", tuple: "a list"}
    return names.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """A value from such a file as an error shows it: short, on one line, with nothing that a terminal obeys."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = "a number of thousands of digits"
    return text if len(text := one_line(visible(text))) <= 80 else text[:77] + "..."


def why(error: Exception) -> str:
    """The message of an OSError, without the path, which stands before it."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is too large for a number")
    return number


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits is too large")
    return int(digits)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{one_line(twice)}' stands twice in one object")
    return body


LENIENT = json.JSONDecoder(parse_int=_whole)
STRICT = json.JSONDecoder(
    parse_constant=_no_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_each_once
)
ROWS = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)
"""For rows: of a key that stands twice the last value counts, as everywhere in the ecosystem."""
