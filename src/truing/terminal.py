"""What reaches a terminal or a log: without keys, and with nothing in it that a terminal would act on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from truing.errors import redacted, visible


def say(text: object, *, err: bool = False, end: str = "\n") -> None:
    """Print a text that may hold what files and other programs say."""
    print(visible(redacted(str(text))), end=end, file=sys.stderr if err else sys.stdout, flush=True)


class Redacting:
    """A stream that takes keys out of what is written to it: also what libraries log and a reward prints."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without keys; gives the length of the text itself, as streams do."""
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write texts one after the other."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redacting(stream: TextIO) -> TextIO:
    """The stream, with keys taken out of what is written to it."""
    return stream if isinstance(stream, Redacting) else cast("TextIO", Redacting(stream))


@contextmanager
def guarded() -> Iterator[None]:
    """Within this block nothing that Python writes to stdout or stderr holds a key."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(redacting, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
