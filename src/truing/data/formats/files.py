"""Raw rows from a data file or the Hub: what is in the file, with the row number a person would count to.

A JSON Lines file is split at line feeds only, so a U+2028 inside a string survives; CRLF and a byte order mark are
tolerated. Everything else that is odd (bytes that are not UTF-8, half a surrogate pair, NUL, a number that is not one)
is said with its place, never repaired in silence.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from truing import door
from truing.data.formats import bounds, file_nature, parquet, written
from truing.door import kind
from truing.errors import DataError, listed, nearest, one_line, short

Row = dict[str, Any]
OnBad = Callable[[int, str, str], None]

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")
DEEPEST = 100
"""Levels that a row may be nested."""
LISTS = (
    "messages", "conversations", "responses", "completions", "labels", "ratings", "ranking", "comparisons", "score",
    "scores", "tools",
)  # fmt: skip
_PLACE = 200
"""Characters of a field's place that an error shows."""
_LOOKED_AT = 1000
"""Names of a folder that are read for a hint."""
_LIST = "Write [row, row, ...], or one object per line in a .jsonl file."
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[^\s/]+)?")


def rows(source: str, on_bad: OnBad | None = None) -> Iterator[tuple[int, Row]]:
    """The rows of a file (.jsonl .json .csv .parquet, the first three also .gz) or of a Hub data set `org/name:split`.

    Rows are numbered from 1. A file that cannot be read is a DataError. So is a single bad row, unless `on_bad` is
    given: then it is called with row number, field and problem, and reading goes on.
    """
    path = Path(source).expanduser()
    on_hub = not os.path.exists(path) and _is_hub_name(source, path)
    numbered = _from_hub(source) if on_hub else _from_file(source, path)
    count, columns = 0, set[str]()
    for number, row, problem in numbered:
        count += 1
        if new := row.keys() - columns:
            columns |= new
            bounds.check_columns(place(source, number), columns)
        field = ""
        if not problem:
            field, problem = _bad_value(row)
        if not problem:
            yield number, row
        elif on_bad is None:
            raise DataError(place(source, number, field), problem)
        else:
            on_bad(number, field, problem)
    if not count:
        raise DataError(source, "the file is empty: there is no row in it")


def place(source: str, row: int, field: str = "") -> str:
    """The place of a value, for people: `pairs.jsonl, row 12, field chosen`."""
    return f"{source}, row {row}" + (f", field {field}" if field else "")


_NumberedRows = Iterator[tuple[int, Row, str]]


def _is_hub_name(source: str, path: Path) -> bool:
    if source.endswith(SUFFIXES) or source.startswith((".", "/", "~")):
        return False
    return bool(_HUB.fullmatch(source)) and not os.path.isdir(path.parent)


def check_exists(source: str, path: Path) -> None:
    """DataError, with what may have been meant, where there is no file of that name."""
    if not os.path.exists(path):  # also of a name that no file can have
        if not os.path.exists(path.parent):
            raise DataError(source, f"no such file: there is no folder '{short(str(path.parent))}'")
        there = [p.name for p in islice(path.parent.iterdir(), _LOOKED_AT)] if os.path.isdir(path.parent) else []
        guess = nearest(path.name, there)
        raise DataError(source, "no such file", f"Did you mean '{path.with_name(guess)}'?" if guess else "")
    if path.is_dir():
        file_nature.check_saved(source, path)
        inside = sorted(p.name for p in islice(path.iterdir(), _LOOKED_AT) if p.name.endswith(SUFFIXES))
        raise DataError(source, "is a folder, not a file", f"Data files in it: {listed(inside, 10) or 'none'}")
    door.check_file(path, source)


def _from_file(source: str, path: Path) -> _NumberedRows:
    check_exists(source, path)
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise DataError(source, f"unknown kind of file '{path.suffix}'", file_nature.other_kind(path.suffix, SUFFIXES))
    try:
        file_nature.check(source, path)
        packed, size = name.endswith(".gz"), path.stat().st_size
        if name.endswith(".parquet"):
            yield from ((number, row, "") for number, row in parquet.rows(source, path))
            return
        if packed:
            bounds.check_compressed(source, path)
        with bounds.unpacked(source, path) if packed else door.opened(path, source) as file:
            most = bounds.most_rows(size, packed)
            for number, row, problem in _rows_of(source, name.removesuffix(".gz"), file, most):
                bounds.check_rows(source, number, size, packed)
                yield number, row, problem
    except OSError as error:
        raise DataError(source, f"cannot be read ({error.strerror or error})") from error


def _rows_of(source: str, name: str, file: IO[bytes], most: int) -> _NumberedRows:
    """The rows of an open file whose name says that it is JSON Lines, CSV or JSON."""
    if name.endswith(".jsonl"):
        return _json_lines(source, bounds.lines(source, file, most))
    if name.endswith(".csv"):
        return _csv(source, bounds.lines(source, file, most * bounds.LINES))
    raw = file.read(bounds.WHOLE + 1)
    if len(raw) > bounds.WHOLE:
        raise DataError(source, f"has more than {bounds.WHOLE:,} bytes", "Write JSON Lines, which is read row by row.")
    return _json(source, raw, most)


def _json_lines(source: str, lines: Iterable[bytes]) -> _NumberedRows:
    number = bad = 0
    for line, raw in enumerate(lines, start=1):
        if line == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if not raw.strip():
            continue
        number += 1
        if line == 1 and raw.startswith(bounds.UTF16):
            bounds.decoded(source, raw)
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield number, {}, f"(line {line}) {bounds.not_text(raw, error)}"
            continue
        try:
            value = bounds.parse(text)
        except ValueError as error:
            if number == 1 and bounds.TOO_DEEP not in str(error):
                file_nature.check_spread(source, text)
            bad += 1
            if bad == number == bounds.MALFORMED:
                raise DataError(source, f"none of its first {bad:,} lines is JSON: line {line}: {error}") from error
            yield number, {}, f"(line {line}) malformed JSON: {error}"
            continue
        if number == 1:
            file_nature.check_whole(source, value)
        yield number, value if isinstance(value, dict) else {}, _not_object(value)


def _json(source: str, raw: bytes, most: int) -> _NumberedRows:
    text = bounds.decoded(source, raw.removeprefix(codecs.BOM_UTF8))
    begin = len(text) - len(text.lstrip())
    if begin == len(text):
        return
    if text[begin] == "{" and len(text) > bounds.ROW_BYTES and "\n" not in text.strip():
        raise DataError(source, f"holds one object of {len(text):,} characters, not a list of rows", _LIST)
    try:
        if text[begin] == "[":
            for number, row in enumerate(bounds.elements(text, begin), start=1):
                yield number, row if isinstance(row, dict) else {}, _not_object(row)
            return
        value = None if _is_lines(text, begin) else bounds.parse(text)
    except ValueError as error:
        if text[begin] != "{" or "Extra data" not in str(error):
            raise DataError(source, f"malformed JSON: {error}") from error
        value = None
    if value is None and text[begin] == "{":  # JSON Lines under the name .json
        yield from _json_lines(source, bounds.lines(source, io.BytesIO(raw), most))
        return
    file_nature.check_whole(source, value)
    if isinstance(value, dict) and text.strip().count("\n") == 0:
        yield 1, value, ""
        return
    raise DataError(source, f"the file holds {kind(value)}, not a list of rows", _LIST)


def _is_lines(text: str, begin: int) -> bool:
    """True if the first of several lines is an object by itself."""
    end = text.find("\n", begin)
    if end < 0 or end - begin > bounds.ROW_BYTES or text[begin] != "{" or not text[end:].strip():
        return False
    try:
        bounds.parse(text[begin:end])
    except ValueError:
        return False
    return True


def _not_object(value: Any) -> str:
    return "" if isinstance(value, dict) else f"the row is {kind(value)}, not an object with named columns"


def _csv(source: str, raw_lines: Iterable[bytes]) -> _NumberedRows:
    table = _cells(source, raw_lines)
    header = [name.strip() for name in next(table, [])]
    bounds.check_columns(source, header)
    twice = sorted(name for name, count in Counter(header).items() if count > 1)
    if twice:
        raise DataError(source, f"column '{one_line(twice[0])}' stands twice in the header")
    for number, cells in enumerate(table, start=1):
        if len(cells) != len(header):
            yield number, {}, f"{len(cells)} cells where the header has {len(header)}"
            continue
        yield number, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)}, ""


def _cells(source: str, raw_lines: Iterable[bytes]) -> Iterator[list[str]]:
    """The rows of a CSV file that are not empty, as texts."""
    read = bounds.Text(source, raw_lines)
    reader = csv.reader(read, strict=True)
    while True:
        read.begin_row()
        before = csv.field_size_limit(bounds.ROW_BYTES)  # one number for all readers of a process
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(source, f"malformed CSV: {error}") from error
        finally:
            csv.field_size_limit(before)
        if cells is None:
            return
        if cells:
            yield cells


def _cell(name: str, cell: str) -> Any:
    """A CSV cell: text, or the list (of messages, steps, scores, ...) or the scores by name written in it as JSON, or
    as Python shows it."""
    opens = cell.lstrip()
    if opens.startswith("[{") or (name in LISTS and opens.startswith(("[", "{"))):
        try:
            return bounds.parse(cell)
        except ValueError:
            return written.shown(cell) if name in LISTS else written.cell(cell)
    return written.cell(cell)


def _from_hub(source: str) -> _NumberedRows:
    hub = parquet.module("datasets", "data sets of the Hub")
    name, _, split = source.partition(":")
    try:
        data = hub.load_dataset(name, split=split or "train")
    except (ConnectionError, OSError, TimeoutError) as error:
        raise DataError(
            source,
            f"neither a file here nor a data set of the Hub that could be reached: no network, or not found "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            f"Pass a local file instead ({', '.join(SUFFIXES[:4])}).",
        ) from error
    except (ValueError, RuntimeError, LookupError, TypeError) as error:
        raise DataError(
            source, f"the Hub data set could not be loaded: {error}", "A split is named so: org/name:split"
        ) from error
    for number, row in enumerate(data, start=1):
        yield number, dict(row), ""


def _bad_value(value: Any, deep: int = 0) -> tuple[str, str]:
    """The place and problem of the first value in a row that is none: half a surrogate pair, a NUL, infinity."""
    if isinstance(value, str):
        return "", "" if value.isascii() and "\0" not in value and len(value) <= bounds.ROW_BYTES else _bad_text(value)
    if isinstance(value, float):
        return "", "" if math.isfinite(value) else f"is {value}, which is no number"
    if deep > DEEPEST:
        return "", f"is nested more than {DEEPEST} deep"
    if isinstance(value, dict):
        for name, part in value.items():
            field, problem = _bad_value(part, deep + 1)
            if problem:
                return (f"{name}.{field}" if field and field[0] != "[" else f"{name}{field}")[:_PLACE], problem
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            field, problem = _bad_value(part, deep + 1)
            if problem:
                return (f"[{i}].{field}" if field and field[0] != "[" else f"[{i}]{field}")[:_PLACE], problem
    return "", ""


def _bad_text(value: str) -> str:
    if len(value) > bounds.ROW_BYTES:
        return f"has {len(value):,} characters, and at most {bounds.ROW_BYTES:,} are read"
    if "\0" in value:
        return f"holds a NUL character (at place {value.index(chr(0)) + 1})"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(value[error.start]):04X}"
        return f"holds half a surrogate pair ({code} at place {error.start + 1}), which is no text"
    return ""
