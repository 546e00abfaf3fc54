"""Patterns that a stranger's file brings: none that could take `re` for ever is given to it.

`re` searches in C, where no time limit arrives, so a pattern is judged by its parse before anything is matched. What
counts is in how many ways it could come to nothing on one name: parts that vary multiply, parts that vary within parts
that are repeated have no bound at all.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

LONGEST = 2_000
"""Longest pattern, in characters. What trainers write has 500."""
NAME = 64
"""Length of the names that patterns are matched with, about; a repetition without end can end at so many places."""
ENDLESS = 16
"""Weight of a repetition without end: four in a row can end in some 800,000 places of a name, and not in NAME**4."""
MOST_WAYS = 8 * ENDLESS**4
"""Ways in which a pattern may be tried on one name: four `.*` in a row and a few choices, hundredths of a second."""

REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT)


def trouble(pattern: str, *, strict: bool = True) -> str:
    """Why a pattern is not matched; empty where it is. Without `strict` it is one of another dialect, for longer texts:
    refused are repetitions whose only content varies itself, and nothing that `re` cannot read.

    >>> trouble(r".*layers\\.[0-9]+\\.(q_proj|v_proj)$")
    ''
    >>> trouble("(a+)+$")
    'repeats a part that varies itself, which may take for ever'
    >>> trouble("(q_proj")
    'is no pattern: missing ), unterminated subpattern at position 0'
    """
    if strict and len(pattern) > LONGEST:
        return f"has {len(pattern):,} characters, and at most {LONGEST:,} are read"
    try:
        with warnings.catch_warnings(action="ignore"):
            parts = parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no pattern: {error}" if strict else ""
    try:
        ways = _ways_in_a_row(parts, strict)
    except ValueError as error:
        return str(error)
    return "can be tried in too many ways, which may take for ever" if strict and ways > MOST_WAYS else ""


def _ways_in_a_row(parts: Sequence[Any], strict: bool) -> int:
    """Number of ways in which parts that follow each other can match, an upper bound; ValueError where there is
    none."""
    ways = 1
    for code, argument in parts:
        ways = min(ways * _ways(code, argument, strict), 2 * MOST_WAYS)
    return ways


def _ways(code: Any, argument: Any, strict: bool) -> int:
    if code in REPEATS:
        least, most, part = argument
        return _repeated(least, most, part, strict)
    if code is codes.BRANCH:
        return _either(argument[1], strict)
    if code is codes.SUBPATTERN:
        return _ways_in_a_row(argument[-1], strict)
    if code is codes.ATOMIC_GROUP:
        return _ways_in_a_row(argument, strict)
    if code in (codes.ASSERT, codes.ASSERT_NOT):
        return _ways_in_a_row(argument[1], strict)
    if code in (codes.GROUPREF, codes.GROUPREF_EXISTS):
        raise ValueError("refers back to what it matched, which may take for ever")
    return 1  # a character, a set of them, a place


def _repeated(least: int, most: Any, part: Sequence[Any], strict: bool) -> int:
    ways = _ways_in_a_row(part, strict)
    if most == 1:
        return ways + 1
    kinds = {code for code, _ in part}
    held = not strict and kinds & {codes.LITERAL, codes.IN} and kinds <= {codes.LITERAL, codes.IN, *REPEATS}
    if (ways > 1 and not held) or part.getwidth()[0] == 0:  # type: ignore[attr-defined]
        raise ValueError("repeats a part that varies itself, which may take for ever")
    return ENDLESS if most is codes.MAXREPEAT else max(1, min(int(most), NAME) - least + 1)


def _either(alternatives: Sequence[Sequence[Any]], strict: bool) -> int:
    """Number of ways in which alternatives can match: of words none of which begins another at most one does; of
    anything else all may."""
    ways = [_ways_in_a_row(alternative, strict) for alternative in alternatives]
    texts = ["".join(chr(a) if c is codes.LITERAL else "\0" for c, a in alternative) for alternative in alternatives]
    plain = not any("\0" in text for text in texts)
    if plain and not any(a != b and b.startswith(a) for a in texts for b in texts) and len(set(texts)) == len(texts):
        return 1
    return sum(ways)
