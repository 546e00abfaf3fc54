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
"""How many characters a pattern may have. What trainers write has 500."""
NAME = 64
"""How long the names are that patterns are matched with, about; a repetition without end can end at so many places."""
MOST_WAYS = 8 * NAME**4
"""In so many ways a pattern may be tried on one name: four `.*` in a row and a few choices, hundredths of a second."""

REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT)


def trouble(pattern: str) -> str:
    """Why a pattern is not matched; empty where it is.

    >>> trouble(r".*layers\\.[0-9]+\\.(q_proj|v_proj)$")
    ''
    >>> trouble("(a+)+$")
    'repeats a part that varies itself, which may take for ever'
    >>> trouble("(q_proj")
    'is no pattern: missing ), unterminated subpattern at position 0'
    """
    if len(pattern) > LONGEST:
        return f"has {len(pattern):,} characters, and at most {LONGEST:,} are read"
    try:
        with warnings.catch_warnings(action="ignore"):
            parts = parser.parse(pattern)
        ways = _ways_in_a_row(parts)
    except (re.error, OverflowError, RecursionError) as error:
        return f"is no pattern: {error}"
    except ValueError as error:
        return str(error)
    return "can be tried in too many ways, which may take for ever" if ways > MOST_WAYS else ""


def _ways_in_a_row(parts: Sequence[Any]) -> int:
    """In how many ways parts that follow each other can match, an upper bound; ValueError where there is none."""
    ways = 1
    for part in parts:
        ways *= _ways(*part)
        if ways > MOST_WAYS:
            break
    return ways


def _ways(code: Any, argument: Any) -> int:
    if code in REPEATS:
        return _repeated(*argument)
    if code is codes.BRANCH:
        return _either(argument[1])
    if code is codes.SUBPATTERN:
        return _ways_in_a_row(argument[-1])
    if code is codes.ATOMIC_GROUP:
        return _ways_in_a_row(argument)
    if code in (codes.ASSERT, codes.ASSERT_NOT):
        return _ways_in_a_row(argument[1])
    if code in (codes.GROUPREF, codes.GROUPREF_EXISTS):
        raise ValueError("refers back to what it matched, which may take for ever")
    return 1  # a character, a set of them, a place


def _repeated(least: int, most: Any, part: Sequence[Any]) -> int:
    ways = _ways_in_a_row(part)
    if most == 1:
        return ways + 1
    if ways > 1 or _can_be_empty(part):
        raise ValueError("repeats a part that varies itself, which may take for ever")
    return max(1, min(int(most), NAME) - least + 1)


def _can_be_empty(part: Sequence[Any]) -> bool:
    return part.getwidth()[0] == 0  # type: ignore[attr-defined, no-any-return]


def _either(alternatives: Sequence[Sequence[Any]]) -> int:
    """Of words none of which begins another at most one matches; of anything else all may."""
    ways = [_ways_in_a_row(alternative) for alternative in alternatives]
    texts = ["".join(chr(a) if c is codes.LITERAL else "\0" for c, a in alternative) for alternative in alternatives]
    plain = not any("\0" in text for text in texts)
    if plain and not any(a != b and b.startswith(a) for a in texts for b in texts) and len(set(texts)) == len(texts):
        return 1
    return sum(ways)
