"""The kind of a file, whatever its name says: pointers, archives, web pages, half downloads, whole data sets in one
object.

None of them is read: what was meant is a guess, and each is refused with the way to a file that is.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from truing import door
from truing.data.formats import bounds
from truing.errors import DataError, listed, short

ENOUGH = 512
"""Bytes at the beginning of a file that tell its kind."""

LFS = b"version https://git-lfs.github.com/spec/"


class Nature(NamedTuple):
    """A kind of file, in words that follow "is", and how its owner gets the file that was meant."""

    what: str
    way_out: str


_UNPACK = "Unpack it first ({0})."
_FEATHER = "Write it as Parquet: pyarrow.parquet.write_table(pyarrow.feather.read_table(FILE), 'rows.parquet')."
_STREAM = "Write it as Parquet: datasets.Dataset.from_file(FILE).to_parquet('rows.parquet')."
_TABLE = "Save its table as CSV."
_ROWS = "Write its rows as Parquet or JSON Lines."

_BEGINNINGS: tuple[tuple[bytes, Nature], ...] = (
    (LFS, Nature("a Git LFS pointer and not the file itself", "Fetch the file: git lfs install && git lfs pull")),
    (b"/annex/objects/", Nature("a git-annex pointer and not the file itself", "Fetch the file: git annex get FILE")),
    (b"\x1f\x8b", Nature("gzip-compressed", "Call it by a name that ends in .gz, or unpack it (gunzip).")),
    (b"PK\x03\x04", Nature("a zip archive (or an office document)", _UNPACK.format("unzip"))),
    (b"PK\x05\x06", Nature("an empty zip archive", "Make it again.")),
    (b"\xfd7zXZ\x00", Nature("xz-compressed", _UNPACK.format("xz -d"))),
    (b"\x28\xb5\x2f\xfd", Nature("zstd-compressed (.zst)", _UNPACK.format("zstd -d"))),
    (b"\x04\x22\x4d\x18", Nature("lz4-compressed", _UNPACK.format("lz4 -d"))),
    (b"7z\xbc\xaf\x27\x1c", Nature("a 7z archive", _UNPACK.format("7z x"))),
    (b"Rar!\x1a\x07", Nature("a RAR archive", _UNPACK.format("unrar x"))),
    (b"PAR1\x15", Nature("a Parquet file", "Call it by a name that ends in .parquet.")),
    (b"ARROW1\0\0", Nature("an Arrow (Feather) file", _FEATHER)),
    (b"\xff\xff\xff\xff", Nature("an Arrow stream (.arrow)", _STREAM)),
    (b"Obj\x01", Nature("an Avro file", _ROWS)),
    (b"SQLite format 3\x00", Nature("an SQLite database", _TABLE)),
    (b"\xd0\xcf\x11\xe0", Nature("an office document (.xls, .doc)", _TABLE)),
    (b"%PDF-", Nature("a PDF document", "Give the text as JSON Lines.")),
    (b"\x89HDF", Nature("an HDF5 file", _ROWS)),
    (b"\x93NUMPY", Nature("a NumPy array", _ROWS)),
    *((b"GGUF" + bytes([n, 0]), Nature("a GGUF model", "Give the model's safetensors files.")) for n in (1, 2, 3)),
    *((f"BZh{n}1AY".encode(), Nature("bzip2-compressed", _UNPACK.format("bzip2 -d"))) for n in range(1, 10)),
    *(
        (b"\x80" + bytes([protocol]), Nature("pickled, and a pickle can run code when it is read", "It is not read."))
        for protocol in (2, 3, 4, 5)
    ),
)
_PAGE = Nature(
    "a web page (HTML), as a store sends it in place of a file",
    "Download it again, by the address of the file itself (on the Hub /resolve/ and not /blob/), signed in if need be.",
)
_XML = Nature("an XML document, as a store sends it in place of a file", _PAGE.way_out)
_TAR = Nature("a tar archive", _UNPACK.format("tar xf"))
_HOLE = Nature("nothing but NUL bytes: a download that was cut off", "Download it again.")
_TWICE = Nature("compressed twice", "Unpack it once (gunzip).")
_EMPTY = Nature("empty (0 bytes)", "Download or write it again.")


def nature(head: bytes) -> Nature | None:
    """Return the kind of a file by its first bytes; None for text, and for what they do not tell.

    >>> nature(b"version https://git-lfs.github.com/spec/v1\\noid sha256:4d").what
    'a Git LFS pointer and not the file itself'
    >>> nature(b'{"prompt": "a"}') is None
    True
    """
    if not head:
        return _EMPTY
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[257:262] == b"ustar":
        return _TAR
    if not head.strip(b"\0"):
        return _HOLE
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return _PAGE
    return _XML if text.startswith((b"<?xml", b"<error>")) else None


def check(source: str, path: Path) -> None:
    """Refuse a file that is something else than its name says: a pointer, an archive, a web page, half a download.

    An empty file is none of these, but for a Parquet file, which is never empty. Raises DataError.
    """
    head, name = first_bytes(path), path.name.lower()
    kind, parquet = nature(head), name.endswith(".parquet")
    if name.endswith(".gz") and head.startswith(b"\x1f\x8b"):
        with bounds.unpacked(source, path) as file:
            head = file.read(ENOUGH)
        kind = _TWICE if head.startswith(b"\x1f\x8b") else nature(head)
    elif name.endswith(".gz") and head and kind is None:
        raise DataError(source, "is no gzip file, though its name ends in .gz", "Take .gz off its name.")
    elif parquet and head.startswith(b"PAR1"):
        if path.stat().st_size < 12 or _last_bytes(path, 4) != b"PAR1":
            raise DataError(source, "the Parquet file is cut off: its end is missing", "Download or write it again.")
        return
    elif parquet and kind is None:
        raise DataError(source, "not a readable Parquet file: it begins with other bytes", "Name it for what it is.")
    if kind in (_PAGE, _XML) and name.endswith(".txt") and not _is_document(head, path):
        return  # lines of text, of which the first asks about a tag
    if kind is not None and (head or parquet):
        raise DataError(source, f"is {kind.what}", kind.way_out)


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file, enough to tell its kind."""
    with door.opened(path) as file:
        return file.read(ENOUGH)


def _last_bytes(path: Path, count: int) -> bytes:
    with door.opened(path) as file:
        file.seek(-min(count, path.stat().st_size), io.SEEK_END)
        return file.read()


def _is_document(head: bytes, path: Path) -> bool:
    """True if a file that begins with a tag is a document to its end."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if text.startswith((b"<!doctype html", b"<?xml")):
        return True
    return _last_bytes(path, ENOUGH).rstrip().lower().endswith((b"</html>", b"</body>", b"</error>"))


_OTHER = {
    ".ndjson": "It is JSON Lines: call it .jsonl.",
    ".jsonlines": "It is JSON Lines: call it .jsonl.",
    ".tsv": "Write it as CSV, with commas between the cells.",
    ".arrow": _STREAM,
    ".feather": _FEATHER,
    ".xlsx": _TABLE,
    ".xls": _TABLE,
} | dict.fromkeys((".zst", ".xz", ".bz2", ".zip", ".tar", ".tgz", ".7z", ".lz4"), "Unpack it first.")


def other_kind(suffix: str, suffixes: Sequence[str]) -> str:
    """The way from a file whose name ends in a `suffix` that is not read to one that is."""
    return f"{_OTHER.get(suffix.lower(), '')} Known: {', '.join(suffixes)}".strip()


def check_saved(source: str, folder: Path) -> None:
    """DataError for a folder that `save_to_disk` wrote, which says how its rows become a file."""
    whole = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    if not whole and not (folder / "dataset_dict.json").is_file():
        return
    names = [] if whole else sorted(p.name for p in folder.iterdir() if p.is_dir())
    part = f"['{'train' if 'train' in names else names[0]}']" if names else ""
    raise DataError(
        source,
        "is a folder that save_to_disk wrote (Arrow files)"
        + (f", one for each of {listed(names, 20)}" if names else ""),
        f"Write its rows as one file: datasets.load_from_disk('{folder}'){part}.to_parquet('rows.parquet')",
    )


def check_spread(source: str, line: str) -> None:
    """Refuse a .jsonl file whose first line, which is no JSON by itself, opens JSON that is spread over several."""
    opens = line.strip()
    if opens in ("[", "{") or (opens.startswith("[{") and not opens.endswith("}]")):
        what = "a JSON list" if opens[0] == "[" else "JSON objects"
        raise DataError(
            source,
            f"holds {what} written over several lines, and .jsonl is one object a line",
            "Call it .json." if opens[0] == "[" else "Write each object on a line of its own.",
        )


def check_whole(source: str, value: Any) -> None:
    """Refuse one JSON value that holds a whole data set: a list of rows in a .jsonl file, or an object of splits, of
    columns, or with the rows under a name."""
    if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
        raise DataError(source, f"holds one JSON list of {len(value)} rows, not one object a line", "Call it .json.")
    if not isinstance(value, Mapping) or not value:
        return
    tables = [str(name) for name, part in value.items() if _is_table(part)]
    wrapped = tables and tables[0].lower() in WRAPPERS and not PROMPTS & value.keys()
    if tables and (len(tables) == len(value) or wrapped):
        raise DataError(
            source,
            f"holds one object with lists of rows in it ({listed(tables, 20)}), not a list of rows",
            f"Write each as a file of its own: [row, row, ...] of '{short(tables[0])}'.",
        )
    if all(isinstance(part, Mapping) and part and all(key.isdigit() for key in part) for part in value.values()):
        raise DataError(
            source,
            f"holds columns ({listed(value, 20)}), not rows",
            "Write rows, of pandas by to_json(FILE, orient='records', lines=True).",
        )


WRAPPERS = frozenset({"data", "rows", "examples", "instances", "records", "train", "test", "validation", "dev", "eval"})
"""Names under which one object holds the rows of a data set, or of its splits."""
PROMPTS = frozenset({"prompt", "messages", "conversations", "text", "instruction", "question", "input", "chosen"})
"""Columns of one row, beside which a list of objects is a column too and no data set."""
MESSAGES = frozenset({"role", "from"})


def _is_table(part: Any) -> bool:
    """True if a value is a list of rows, and not the messages of one row or its tools."""
    if not isinstance(part, list) or not part or not all(isinstance(row, Mapping) for row in part):
        return False
    return not any(MESSAGES & row.keys() or "function" in row for row in part)
