"""Output to a terminal or a log: without keys, and with nothing in it that a terminal would act on."""

from __future__ import annotations

import codecs
import os
import re
import sys
import threading
from collections.abc import Iterable
from typing import Any, TextIO, cast

from truing.errors import redacted, visible

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BACK = re.compile(r"(\r(?:\x1b\[K)?)")
"""Back to the beginning of the line, emptying it where that is said: what a progress line begins with."""
_PEM_BEGINS = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----")
_PEM_ENDS = re.compile(r"-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"\s*[A-Za-z0-9+/=]+\s*")
_PEM_LINES = 400
"""No private key is longer; a text that names the beginning of one would otherwise silence all that follows."""
_MOST = 1 << 16
"""Characters that are kept back for the end of their line."""


def say(text: object, *, err: bool = False, end: str = "\n") -> None:
    """Print a text that may hold what files and other programs say."""
    print(visible(redacted(str(text))), end=end, file=sys.stderr if err else sys.stdout, flush=True)


def moves(stream: TextIO) -> bool:
    """Return whether a line on this stream may be written anew: it is a terminal that knows how, and nobody asked for
    plain lines (NO_COLOR, TERM=dumb) or reads them later as a log (CI)."""
    if any(os.environ.get(name) for name in ("NO_COLOR", "CI")) or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return stream.isatty() and "utf" in (stream.encoding or "").lower()


class Redacting:
    """A stream that takes keys out of what is written to it, and shows what a terminal would act on: what libraries log
    and a reward prints, too.

    A key may come in pieces (`print(name, key)` writes each by itself), so a line is written when it is whole, when it
    begins anew (carriage return), or at `flush`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.buffer = _Bytes(self)
        self._process, self._lock = os.getpid(), threading.RLock()
        self._pending: list[str] = []
        self._pending_size = 0
        self._pem = 0

    def _process_lock(self) -> threading.RLock:
        """The lock of this process: that of a fork's parent may be held by a thread which the fork does not have."""
        if self._process != os.getpid():
            self._process, self._lock = os.getpid(), threading.RLock()
        return self._lock

    def write(self, text: str) -> int:
        """Take a text and write the lines that are whole; gives the length of the text itself, as streams do."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._process_lock():
            at_once = "\r" in text.replace("\r\n", "") or self._pending_size + len(text) > _MOST
            end = len(text) if at_once else text.rfind("\n") + 1
            if end:
                self._emit(text[:end])
            if text[end:]:
                self._pending.append(text[end:])
                self._pending_size += len(text) - end
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what was kept back."""
        with self._process_lock():
            self._emit("")
            self._stream.flush()

    def _emit(self, text: str) -> None:
        whole = "".join([*self._pending, text])
        self._pending, self._pending_size = [], 0
        if not whole:
            return
        whole = _COLOUR.sub("", whole)  # first: a colour within a key would hide it
        if self._pem or "PRIVATE KEY" in whole:
            whole = "".join(map(self._beside_pem, whole.splitlines(keepends=True)))
        parts = _BACK.split(redacted(whole))
        self._stream.write("".join(part if i % 2 else visible(part) for i, part in enumerate(parts)))

    def _beside_pem(self, line: str) -> str:
        """A line without what belongs to a private key that is written line by line."""
        begins = [match.start() for match in _PEM_BEGINS.finditer(line)]
        if self._pem:
            if ends := _PEM_ENDS.search(line):
                self._pem = 0
                return self._beside_pem(line[ends.end() :])
            self._pem -= 1
            return "" if _PEM_BODY.fullmatch(line) else re.sub("[A-Za-z0-9+/=]{16,}", "⟨key⟩", line)
        if begins and not _PEM_ENDS.search(line, begins[-1]):
            self._pem = _PEM_LINES
            rest = redacted(line)  # takes out all behind the beginning, with the end of the line
            return rest if rest.endswith("\n") or not line.endswith("\n") else rest + "\n"
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Bytes:
    """The bytes below a guarded stream, which go the same way as its text."""

    def __init__(self, stream: Redacting) -> None:
        self._text = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, data: bytes) -> int:
        """Write bytes as the text that they are."""
        self._text.write(self._decoder.decode(bytes(data)))
        return len(data)

    def writelines(self, lines: Iterable[bytes]) -> None:
        """Write bytes one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what was kept back."""
        self._text.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._text._stream.buffer, name)


def redacting(stream: TextIO) -> TextIO:
    """The stream, with keys taken out of what is written to it."""
    return stream if isinstance(stream, Redacting) else cast("TextIO", Redacting(stream))


def guard() -> None:
    """From now on nothing that Python writes to stdout or stderr holds a key: until the process ends, for threads and
    what is called at exit print as well."""
    for name, fallback in (("stdout", "__stdout__"), ("stderr", "__stderr__")):
        stream, first = getattr(sys, name), getattr(sys, fallback)
        if stream is not None:
            setattr(sys, name, redacting(stream))
        if first is not None:  # what Python falls back to when it takes its modules down
            setattr(sys, fallback, sys.__dict__[name] if first is stream else redacting(first))
