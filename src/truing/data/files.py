"""Raw rows from a data file or the Hub: what is in the file, with the row number a person would count to.

A JSON Lines file is split at line feeds only, so a U+2028 inside a string survives; CRLF and a byte order mark are
tolerated. Everything else that is odd (bytes that are not UTF-8, half a surrogate pair, NUL, a number that is not one)
is said with its place, never repaired in silence.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import importlib
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from truing.data import file_nature
from truing.errors import DataError, UserError, nearest

Row = dict[str, Any]
OnBad = Callable[[int, str, str], None]

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")
DEEPEST = 100
"""How deep a row may be nested."""
LISTS = (
    "messages", "conversations", "responses", "completions", "labels", "ratings", "ranking", "comparisons", "score",
    "scores", "tools",
)  # fmt: skip
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[^\s/]+)?")


def rows(source: str, on_bad: OnBad | None = None) -> Iterator[tuple[int, Row]]:
    """The rows of a file (.jsonl .json .csv .parquet, the first three also .gz) or of a Hub data set `org/name:split`.

    Rows are numbered from 1. A file that cannot be read is a DataError. So is a single bad row, unless `on_bad` is
    given: then it is called with row number, field and problem, and reading goes on.
    """
    path = Path(source).expanduser()
    if not path.is_file() and _is_hub_name(source, path):
        found = _from_hub(source)
    else:
        _check_exists(source, path)
        found = _from_file(source, path)
    count = 0
    for number, row, problem in found:
        count += 1
        field = ""
        if not problem:
            field, problem = _bad_text(row)
        if not problem:
            yield number, row
        elif on_bad is None:
            raise DataError(place(source, number, field), problem)
        else:
            on_bad(number, field, problem)
    if not count:
        raise DataError(source, "the file is empty: there is no row in it")


def place(source: str, row: int, field: str = "") -> str:
    """How a person finds a value: `pairs.jsonl, row 12, field chosen`."""
    return f"{source}, row {row}" + (f", field {field}" if field else "")


_Found = Iterator[tuple[int, Row, str]]


def _is_hub_name(source: str, path: Path) -> bool:
    if path.exists() or source.endswith(SUFFIXES) or source.startswith((".", "/", "~")):
        return False
    return bool(_HUB.fullmatch(source)) and not path.parent.is_dir()


def _check_exists(source: str, path: Path) -> None:
    if path.is_dir():
        file_nature.check_saved(source, path)
        inside = sorted(p.name for p in path.iterdir() if p.name.endswith(SUFFIXES))
        raise DataError(source, "is a folder, not a file", f"Data files in it: {', '.join(inside[:10]) or 'none'}")
    if path.is_file():
        return
    if not path.parent.is_dir():
        raise DataError(source, f"no such file: there is no folder '{path.parent}'")
    guess = nearest(path.name, [p.name for p in path.parent.iterdir() if p.is_file()])
    raise DataError(source, "no such file", f"Did you mean '{path.with_name(guess)}'?" if guess else "")


def _from_file(source: str, path: Path) -> _Found:
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise DataError(source, f"unknown kind of file '{path.suffix}'", file_nature.other_kind(path.suffix, SUFFIXES))
    try:
        file_nature.check(source, path)
        if name.endswith(".parquet"):
            yield from _parquet(source, path)
            return
        suffix = name.removesuffix(".gz").rsplit(".", 1)[-1]
        with gzip.open(path, "rb") if name.endswith(".gz") else path.open("rb") as file:
            if suffix == "jsonl":
                yield from _json_lines(source, file)
            elif suffix == "json":
                yield from _json(source, file.read())
            else:
                yield from _csv(source, file.read())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(source, f"the compressed file is damaged or cut off ({error})") from error
    except OSError as error:
        raise DataError(source, f"cannot be read ({error.strerror or error})") from error


def _text(source: str, raw: bytes, line: int = 1) -> str:
    """Decode, or say where the first byte that is not UTF-8 stands. `line` is the number of the first line in `raw`."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        way_out = "The file looks like UTF-16. " if raw.startswith(_UTF16) else ""
        raise DataError(f"{source}, line {line}", _not_text(raw, error), way_out + "Save the file as UTF-8.") from error


def _not_text(raw: bytes, error: UnicodeDecodeError) -> str:
    byte = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
    return f"not UTF-8: byte 0x{raw[error.start]:02x} at place {byte} of the line"


def _json_lines(source: str, lines: Iterable[bytes]) -> _Found:
    number = 0
    for line, raw in enumerate(lines, start=1):
        if line == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if not raw.strip():
            continue
        number += 1
        if line == 1 and raw.startswith(_UTF16):
            _text(source, raw)
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield number, {}, f"(line {line}) {_not_text(raw, error)}"
            continue
        try:
            value = _parse(text)
        except (ValueError, RecursionError) as error:
            if number == 1 and isinstance(error, ValueError):
                file_nature.check_spread(source, text)
            yield number, {}, f"(line {line}) malformed JSON: {_why(error, text)}"
            continue
        if number == 1:
            file_nature.check_whole(source, value)
        yield number, value if isinstance(value, dict) else {}, _not_object(value)


def _json(source: str, raw: bytes) -> _Found:
    text = _text(source, raw.removeprefix(codecs.BOM_UTF8))
    if not text.strip():
        return
    try:
        value = _parse(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and "Extra data" in str(error):  # JSON Lines under the name .json
            yield from _json_lines(source, raw.split(b"\n"))
            return
        raise DataError(source, f"malformed JSON: {_why(error, text)}") from error
    if not isinstance(value, list):
        file_nature.check_whole(source, value)
        if isinstance(value, dict) and text.strip().count("\n") == 0:
            yield 1, value, ""
            return
        raise DataError(
            source,
            f"the file holds {kind(value)}, not a list of rows",
            "Write [row, row, ...], or one object per line in a .jsonl file.",
        )
    for number, row in enumerate(value, start=1):
        yield number, row if isinstance(row, dict) else {}, _not_object(row)


def _parse(text: str) -> Any:
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _why(error: Exception, text: str) -> str:
    if isinstance(error, json.JSONDecodeError):
        where = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        return f"{error.msg} at {where}: {text[max(0, error.pos - 20) : error.pos + 20]!r}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _not_object(value: Any) -> str:
    return "" if isinstance(value, dict) else f"the row is {kind(value)}, not an object with named columns"


def kind(value: Any) -> str:
    """What a value is, in the words of JSON."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    names |= {list: "a list", dict: "an object", tuple: "a list"}
    return names.get(type(value), type(value).__name__)


def _csv(source: str, raw: bytes) -> _Found:
    text = _text(source, raw.removeprefix(codecs.BOM_UTF8))
    limit = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        table = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except csv.Error as error:
        raise DataError(source, f"malformed CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)
    if not table:
        return
    header = [name.strip() for name in table[0]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(source, f"column '{twice[0]}' stands twice in the header")
    for number, cells in enumerate(table[1:], start=1):
        if len(cells) != len(header):
            yield number, {}, f"{len(cells)} cells where the header has {len(header)}"
            continue
        yield number, {name: _cell(name, cell) for name, cell in zip(header, cells, strict=True)}, ""


def _cell(name: str, cell: str) -> Any:
    """A CSV cell: text, or the list (of messages, steps, scores, ...) or the scores by name written in it as JSON."""
    opens = cell.lstrip()
    if opens.startswith("[{") or (name in LISTS and opens.startswith(("[", "{"))):
        try:
            return _parse(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _parquet(source: str, path: Path) -> _Found:
    parquet, arrow = _module("pyarrow.parquet", "Parquet files"), _module("pyarrow", "Parquet files")
    try:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row, ""
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(source, f"not a readable Parquet file ({error})") from error


def _from_hub(source: str) -> _Found:
    hub = _module("datasets", "data sets of the Hub")
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
    except (ValueError, RuntimeError) as error:
        raise DataError(
            source, f"the Hub data set could not be loaded: {error}", "A split is named so: org/name:split"
        ) from error
    for number, row in enumerate(data, start=1):
        yield number, dict(row), ""


def _module(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".", maxsplit=1)[0]
        raise UserError(f"{what} need the package '{package}': pip install 'truing[train]'") from error


def _bad_text(value: Any, field: str = "") -> tuple[str, str]:
    """The place and problem of the first text in a row that is no text: half a surrogate pair, or a NUL."""
    if isinstance(value, str):
        if "\0" in value:
            return field, f"holds a NUL character (at place {value.index(chr(0)) + 1})"
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            code = f"U+{ord(value[error.start]):04X}"
            return field, f"holds half a surrogate pair ({code} at place {error.start + 1}), which is no text"
        return "", ""
    if isinstance(value, dict):
        parts: Iterable[tuple[str, Any]] = ((f"{field}.{k}" if field else str(k), v) for k, v in value.items())
    elif isinstance(value, list | tuple):
        parts = ((f"{field}[{i}]", v) for i, v in enumerate(value))
    else:
        return "", ""
    if field.count(".") + field.count("[") > DEEPEST:
        return field[:40], f"is nested more than {DEEPEST} deep"
    return next((bad for name, part in parts if (bad := _bad_text(part, name))[1]), ("", ""))
