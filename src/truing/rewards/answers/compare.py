"""The comparison of two answers: values exactly, tuples in order, sets in any, brackets and units as written.

12 cm = 12 = 0.12 m, and not 12 m       a unit may be left out; where both have one they measure the same
50\\% = 0.5 = 50                         the sign may be left out above 1
x = 5 is 5, y = 2x + 3 is 2x + 3        a name may be left out, and is no other name
2 < x <= 5 is (2, 5]                    an inequality is its interval
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from truing.rewards.answers import Unread
from truing.rewards.answers.equality import same
from truing.rewards.answers.forms import Answer, Named, Words, value_of
from truing.rewards.answers.grammar import Quantity
from truing.rewards.answers.structure import read, words
from truing.rewards.answers.tokens import rewritten

_THOUSANDS = re.compile(r"\$?[\d.,]+\s*[kKMBT]")
_BESIDE = re.compile(r"\d[a-zA-Z]")


def agree(truth: str, response: str, measured: bool = False) -> bool:
    """Return True if two texts give the same answer; the truth may be `measured`, its last letter a unit (5 m). Unread
    where one of them cannot be read, or they cannot be compared."""
    expected = read(truth, measured)
    if isinstance(expected, Words):
        return expected.text == worded(response)
    other = _responded(response, expected)
    if isinstance(other, Words):
        return words(truth) == other.text
    if same(expected, other):
        return True
    if _closed(expected) and not _measured(expected) and not _closed(other):
        return _with_a_letter_left_out(expected, response, measured)
    return any(same(a, b) for a, b in _with_short_units(expected, truth, other, response))


def _responded(response: str, truth: Answer) -> Answer:
    """The answer of a response; if it is unread with its last letter as an unknown (1/2 m), with it as a unit."""
    try:
        return read(response)
    except Unread:
        reread = read(response, short_units=True)
        if _closed(truth) and _measured(reread) and _closed(reread):
            return reread
        raise


def _with_a_letter_left_out(truth: Answer, response: str, measured: bool) -> bool:
    """True if a response is the truth, a number, but for the letter of a unit behind it (18 m). Unread where that
    letter may be something else: an unknown beside its factor (18m), or thousands (18 K)."""
    try:
        reread = read(response, short_units=True)
    except Unread:
        return False
    if not (_measured(reread) and _closed(reread)):
        if _THOUSANDS.fullmatch(rewritten(response)):
            raise Unread("thousands, millions or a unit")
        return False
    if not same(truth, reread):
        return False
    if not measured and _BESIDE.search(rewritten(response)):
        raise Unread("a letter beside a number, a unit or an unknown")
    return True


def _closed(answer: Answer) -> bool:
    value = value_of(answer)
    return value is not None and not value.letters


def worded(text: str) -> str:
    """The words of a text, or the letter of its choice."""
    try:
        answer = read(text)
    except Unread:
        return words(text)
    return answer.text if isinstance(answer, Words) else words(text)


def _with_short_units(expected: Answer, truth: str, other: Answer, response: str) -> Sequence[tuple[Answer, Answer]]:
    """The same two answers, if one of them has a unit: a letter behind the other is read as a unit."""
    a, b = _measured(expected), _measured(other)
    try:
        if a and not b:
            return [(expected, read(response, short_units=True))]
        if b and not a:
            return [(read(truth, short_units=True), other)]
    except Unread:
        pass
    return []


def _measured(answer: Answer) -> bool:
    if isinstance(answer, Named):
        return _measured(answer.value)
    return isinstance(answer, Quantity) and answer.unit is not None
