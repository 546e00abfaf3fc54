"""Limits on the size of a data file: no file that people train on comes near, and one made to fill a machine goes
beyond.

A compressed file is read through once before anything of it is kept, so that what is refused has cost no memory.
"""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from truing import door
from truing.errors import DataError

MEGABYTE = 1_000_000
UNPACKED = 400 * MEGABYTE
"""Bytes that every compressed file may unpack to, however small it is."""
RATIO = 100
"""Beyond that, a compressed file may unpack to this multiple of its own size. Logs that repeat themselves reach 60,
text 3."""
ROWS = 1_000_000
"""Rows that every file may hold, however small it is."""
PLAIN_ROW, PACKED_ROW = 16, 4
"""Average bytes a row must take on disk in a file of more rows than that: as text, and compressed."""
ROW_BYTES = 20 * MEGABYTE
"""Longest row in bytes: five million tokens."""
VALUES = 1_000_000
"""Values a row may hold."""
COLUMNS = 10_000
NAME = 1000
"""Longest column name, in characters."""
LINES = 5
"""Lines a row of a CSV file may have, on average."""
WHOLE = 2000 * MEGABYTE
"""Bytes of a file that is read whole: a JSON array, before or after it is unpacked."""
MALFORMED = 10_000
"""After so many rows of which none can be read, the file is none of its kind."""
TOO_DEEP = "nested too deeply"
_PIECE = MEGABYTE
_WINDOW = 65_536
"""Characters of a JSON array that are parsed at a time, unless an element is longer."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_ENDED = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_WORD = 16
"""Longer than what JSON writes without quotation marks; what is wrong so near to the end of a window may be its end."""
_BLANKS = re.compile(r"[ \t\n\r]*")


def check_rows(source: str, count: int, size: int, packed: bool) -> None:
    """DataError where `count` rows are more than a file of `size` bytes may hold."""
    most = most_rows(size, packed)
    if count > most:
        raise DataError(
            source,
            f"has more than {most:,} rows in {size:,} bytes: such rows are next to empty",
            f"A file may have {ROWS:,} rows, and more where each takes {PACKED_ROW if packed else PLAIN_ROW} bytes.",
        )


def most_rows(size: int, packed: bool = False) -> int:
    """Return the most rows that a file of `size` bytes on disk may hold."""
    return max(ROWS, size // (PACKED_ROW if packed else PLAIN_ROW))


def check_unpacked(source: str, total: int, size: int) -> None:
    """DataError where `total` bytes are more than a compressed file of `size` bytes may hold."""
    most = max(UNPACKED, RATIO * size)
    if total > most:
        raise DataError(
            source,
            f"is {size:,} bytes that unpack to more than {most:,}",
            f"A compressed file may hold {UNPACKED // MEGABYTE} MB, or {RATIO} times its size. If it is meant, give it "
            "unpacked.",
        )


def check_columns(place: str, names: Collection[str]) -> None:
    """DataError for more columns than anybody reads, and for a name that is none."""
    if len(names) > COLUMNS:
        raise DataError(place, f"has {len(names):,} columns, and at most {COLUMNS:,} are read", "Leave the others out.")
    long = next((name for name in names if len(name) > NAME), None)
    if long is not None:
        raise DataError(
            place,
            f"a column has a name of {len(long):,} characters, and at most {NAME:,} are read: {door.shown(long)}",
            "The first line of a CSV file names its columns, the keys of an object name those of a row.",
        )


def parse(text: str) -> Any:
    """The value of the JSON text of a row, or of a cell. ValueError, in words, for what is no JSON, is nested too
    deeply or holds more than a row may.
    """
    check_values(text)
    try:
        return door.ROWS.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(door.malformed(error)) from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def elements(text: str, start: int) -> Iterator[Any]:
    """The elements of the JSON array in `text` that begins at `start`, each checked before it is made: the next piece
    of the text is read, and a larger one where an element does not end in it. ValueError as of `parse`.
    """
    place, wide = _skip(text, start + 1), _WINDOW
    if text[place : place + 1] == "]":
        _check_end(text, place + 1)
        return
    while True:
        window, whole = text[place : place + wide], place + wide >= len(text)
        check_values(window)
        at, made = 0, 0
        while (parsed := _element(text, place, window, at, whole)) is not None:
            value, at = parsed
            made += 1
            yield value
            if window[at] == "]":
                _check_end(text, place + at + 1)
                return
            at = _skip(window, at + 1)
            if wide > _WINDOW:
                break
        if not made and wide >= ROW_BYTES:
            raise ValueError(f"a row has more than {ROW_BYTES:,} characters")
        place, wide = place + at, _WINDOW if made else min(2 * wide, ROW_BYTES)


def _element(text: str, place: int, window: str, at: int, whole: bool) -> tuple[Any, int] | None:
    """The value at `at` of a window and the place of the delimiter behind it; None where the window ends before
    that."""
    try:
        value, end = door.ROWS.raw_decode(window, at)
    except json.JSONDecodeError as error:
        if not whole and (error.msg.startswith("Unterminated") or error.pos > len(window) - _WORD):
            return None
        raise ValueError(door.malformed(json.JSONDecodeError(error.msg, text, place + error.pos))) from None
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    end = _skip(window, end)
    if window[end : end + 1] in (",", "]") and end < len(window):
        return value, end
    if end < len(window) or whole:
        raise ValueError(door.malformed(json.JSONDecodeError("Expecting ',' delimiter", text, place + end)))
    return None


def _check_end(text: str, place: int) -> None:
    rest = _skip(text, place)
    if rest < len(text):
        raise ValueError(door.malformed(json.JSONDecodeError("Extra data", text, rest)))


def _skip(text: str, place: int) -> int:
    """The next place in a text where no blank stands."""
    blanks = _BLANKS.match(text, place)
    return blanks.end() if blanks else place


def check_values(text: str) -> None:
    """ValueError for the JSON text of a row that is longer, or holds more values, than a row may."""
    if len(text) <= VALUES:
        return
    if len(text) > ROW_BYTES:
        raise ValueError(f"it has {len(text):,} characters, and a row has at most {ROW_BYTES:,}")
    if sum(map(text.count, ",[{")) > VALUES and values(text) > VALUES:
        raise ValueError(f"it holds more than {VALUES:,} values")


def values(text: str) -> int:
    """Upper bound on the values in a JSON text: its commas and brackets outside strings."""
    outside = text.replace("\\\\", "").replace('\\"', "").split('"')[::2]
    return sum(part.count(sign) for part in outside for sign in ",[{")


def check_compressed(source: str, path: Path) -> None:
    """Read a compressed file through and keep nothing of it: DataError where it holds more than it may."""
    size, total = path.stat().st_size, 0
    with unpacked(source, path) as file:
        while piece := file.read(_PIECE):
            total += len(piece)
            check_unpacked(source, total, size)


@contextmanager
def unpacked(source: str, path: Path) -> Iterator[IO[bytes]]:
    """Open a gzip file for reading its contents; DataError where it turns out to be damaged."""
    with door.opened(path, source) as raw:
        try:
            with gzip.open(raw, "rb") as file:
                yield cast(IO[bytes], file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(source, f"the compressed file is damaged or cut off ({error})") from error


def lines(source: str, file: IO[bytes], most: int) -> Iterator[bytes]:
    """The lines of a file, of which none is longer than a row may be; DataError also for more than `most` of them."""
    number = 0
    while line := file.readline(ROW_BYTES + 1):
        number += 1
        if len(line) > ROW_BYTES:
            raise DataError(
                f"{source}, line {number}",
                f"is longer than {ROW_BYTES:,} bytes, the most a row has",
                "Write a row a line.",
            )
        if number > most:
            raise DataError(
                source, f"has more than {most:,} lines, most of them next to nothing", "Leave out empty lines."
            )
        yield line


class Text:
    """The lines of a CSV file as texts, which end where CSV ends a line (at a lone carriage return too). `begin_row` is
    called before each row is read, and a row is no longer than it may be: a quotation mark that is missing makes one of
    all that follows.
    """

    def __init__(self, source: str, raw_lines: Iterable[bytes]) -> None:
        self.source, self.line, self.first, self.taken = source, 0, 0, 0
        self._texts = self._decoded(raw_lines)

    def begin_row(self) -> None:
        """Count from here."""
        self.first, self.taken = self.line, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text = next(self._texts)
        self.taken += len(text)
        if self.taken > ROW_BYTES or self.line - self.first > VALUES:
            raise DataError(
                f"{self.source}, line {self.first + 1}",
                f"begins a row of more than {ROW_BYTES:,} characters or {VALUES:,} lines",
                "Is a quotation mark missing at the end of a cell?",
            )
        return text

    def _decoded(self, raw_lines: Iterable[bytes]) -> Iterator[str]:
        for raw in raw_lines:
            self.line += 1
            text = decoded(self.source, raw.removeprefix(codecs.BOM_UTF8) if self.line == 1 else raw, self.line)
            if "\r" in text[:-2]:
                yield from _ENDED.findall(text)
            else:
                yield text


def decoded(source: str, raw: bytes, line: int = 1) -> str:
    """Decode UTF-8; the error names the line of the first byte that is not. `line` is the number of their first
    line."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        way_out = "The file looks like UTF-16. " if raw.startswith(UTF16) else ""
        raise DataError(f"{source}, line {line}", not_text(raw, error), way_out + "Save the file as UTF-8.") from error


def not_text(raw: bytes, error: UnicodeDecodeError) -> str:
    """Describe the byte of a line that is not UTF-8."""
    byte = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
    return f"not UTF-8: byte 0x{raw[error.start]:02x} at place {byte} of the line"
