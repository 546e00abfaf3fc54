"""Writing YAML that readers of 1.1 and 1.2 take for the same."""

from __future__ import annotations

import math
import re
from typing import Any

ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
CONSTANTS = {"None": "null", "True": "true", "False": "false"}
SIMPLE_KEY = 1000
"""Most characters of a key with its colon on the same line; YAML itself allows 1,024."""
MARKS = re.compile(r": | #|[: ]$")
"""Within text these would end it, or begin a mapping or a comment."""
AMBIGUOUS = re.compile(r"[-+.0-9<=~].*|y|n|yes|no|on|off|true|false|null|", re.IGNORECASE | re.DOTALL)
"""Text that a reader of YAML 1.1 or 1.2 takes for a number, a date, a truth value or null: it is written in quotes."""


def write(value: Any, *, ascii_only: bool = False) -> str:
    """Return plain values as YAML that `reading.read` gives back, and that a reader of YAML 1.1 takes for the same.

    >>> print(write({"learning_rate": 1e-5, "title": "on", "data": ["world:pairs?n=5"]}), end="")
    learning_rate: 1.0e-05
    title: 'on'
    data:
    - world:pairs?n=5
    """
    return "".join(f"{line}\n" for line in _lines(value, ascii_only))


def _lines(value: Any, ascii_only: bool) -> list[str]:
    if isinstance(value, dict) and value:
        lines = []
        for key, part in value.items():
            name = _written(key, ascii_only)
            lines += [f"{name}:"] if len(name) <= SIMPLE_KEY else [f"? {name}", ":"]
            _append(lines, part, ascii_only)
        return lines
    if isinstance(value, list | tuple) and value:
        lines = []
        for part in value:
            lines.append("-")
            _append(lines, part, ascii_only)
        return lines
    return [_written(value, ascii_only)]


def _append(lines: list[str], part: Any, ascii_only: bool) -> None:
    """Put a value behind the key or dash that ends the lines, or below a key where it has lines of its own."""
    first, *rest = _lines(part, ascii_only)
    if lines[-1].endswith(":") and isinstance(part, dict | list | tuple) and part:
        indent = "  " if isinstance(part, dict) else ""
        lines += [f"{indent}{line}" for line in (first, *rest)]
    else:
        lines[-1] += f" {first}"
        lines += [f"  {line}" for line in rest]


def _written(value: Any, ascii_only: bool) -> str:
    """A scalar, or an empty collection, in letters that every YAML reads alike (1.1 wants the point of `1.0e-05`)."""
    if isinstance(value, str):
        return _quoted(value, ascii_only)
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, float) and "." not in repr(value):
        return repr(value).replace("e", ".0e")
    if value is None or isinstance(value, bool | int | float):
        return CONSTANTS.get(repr(value), repr(value))
    if isinstance(value, dict | list | tuple) and not value:
        return "{}" if isinstance(value, dict) else "[]"
    raise TypeError(f"{type(value).__name__} has no form in YAML")


def _quoted(text: str, ascii_only: bool) -> str:
    """Text as it is where nobody can take it for anything else, else in quotes."""
    if not text.isprintable() or (ascii_only and not text.isascii()):
        return '"' + "".join(_escaped(letter, ascii_only) for letter in text) + '"'
    begins = text[:1].isalpha() or text[:1] in ("$", "/", "_")
    if begins and not AMBIGUOUS.fullmatch(text) and not MARKS.search(text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _escaped(letter: str, ascii_only: bool) -> str:
    if letter in ESCAPES:
        return ESCAPES[letter]
    if letter.isprintable() and (letter.isascii() or not ascii_only):
        return letter
    return f"\\x{ord(letter):02x}" if letter <= "\xff" else f"\\U{ord(letter):08x}"
