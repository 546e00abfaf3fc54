"""Whether two answers are the same: values exactly, tuples in order, sets in any, brackets and units as they stand.

12 cm = 12 = 0.12 m, and not 12 m       a unit may be left out; where both have one they measure the same
50\\% = 0.5 = 50                         the sign may be left out above 1
x = 5 is 5, y = 2x + 3 is 2x + 3        a name may be left out, and is no other name
2 < x <= 5 is (2, 5]                    an inequality is its interval
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from truing.rewards.answers import Unread
from truing.rewards.answers.exact import Value, letter
from truing.rewards.answers.grammar import Quantity
from truing.rewards.answers.numeric import equal, evaluated
from truing.rewards.answers.structure import (
    Answer,
    Based,
    Bracketed,
    Collection,
    Matrix,
    Named,
    Ratio,
    Relation,
    Union,
    Words,
    read,
    value_of,
    words,
)
from truing.rewards.answers.tokens import rewritten

_THOUSANDS = re.compile(r"\$?[\d.,]+\s*[kKMBT]")
_BESIDE = re.compile(r"\d[a-zA-Z]")
TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}


def agree(truth: str, response: str, measured: bool = False) -> bool:
    """Whether two texts give the same answer; the truth may be `measured`, its last letter a unit (5 m). Unread where
    one of them cannot be read, or they cannot be compared."""
    one = read(truth, measured)
    if isinstance(one, Words):
        return one.text == worded(response)
    other = _responded(response, one)
    if isinstance(other, Words):
        return words(truth) == other.text
    if same(one, other):
        return True
    if _closed(one) and not _measured(one) and not _closed(other):
        return _with_a_letter_left_out(one, response, measured)
    return any(same(a, b) for a, b in _with_short_units(one, truth, other, response))


def _responded(response: str, truth: Answer) -> Answer:
    """What a response says; where it is unread with its last letter as an unknown (1/2 m), with it as a unit."""
    try:
        return read(response)
    except Unread:
        found = read(response, short_units=True)
        if _closed(truth) and _measured(found) and _closed(found):
            return found
        raise


def _with_a_letter_left_out(truth: Answer, response: str, measured: bool) -> bool:
    """Whether a response is the truth, a number, but for the letter of a unit behind it (18 m). Unread where that
    letter may be something else: an unknown beside its factor (18m), or thousands (18 K)."""
    try:
        found = read(response, short_units=True)
    except Unread:
        return False
    if not (_measured(found) and _closed(found)):
        if _THOUSANDS.fullmatch(rewritten(response)):
            raise Unread("thousands, millions or a unit")
        return False
    if not same(truth, found):
        return False
    if not measured and _BESIDE.search(rewritten(response)):
        raise Unread("a letter beside a number, a unit or an unknown")
    return True


def _closed(found: Answer) -> bool:
    value = value_of(found)
    return value is not None and not value.letters


def worded(text: str) -> str:
    """A text's words, or the letter of the choice that it is."""
    try:
        found = read(text)
    except Unread:
        return words(text)
    return found.text if isinstance(found, Words) else words(text)


def _with_short_units(one: Answer, truth: str, other: Answer, response: str) -> Sequence[tuple[Answer, Answer]]:
    """The two again, a letter behind the one that has no unit read as a unit, where the other has one."""
    a, b = _measured(one), _measured(other)
    try:
        if a and not b:
            return [(one, read(response, short_units=True))]
        if b and not a:
            return [(read(truth, short_units=True), other)]
    except Unread:
        pass
    return []


def _measured(found: Answer) -> bool:
    if isinstance(found, Named):
        return _measured(found.value)
    return isinstance(found, Quantity) and found.unit is not None


def same(truth: Answer, other: Answer) -> bool:
    """Whether two answers are the same."""
    if isinstance(truth, Named) or isinstance(other, Named):
        return _named(truth, other)
    if isinstance(truth, Relation) or isinstance(other, Relation):
        return _related(truth, other)
    if isinstance(truth, Quantity) != isinstance(other, Quantity):
        return _intervals(truth, other)
    if isinstance(truth, Quantity) and isinstance(other, Quantity):
        return quantities(truth, other)
    if isinstance(truth, Matrix) or isinstance(other, Matrix):
        return _matrices(truth, other)
    if isinstance(truth, Bracketed) and isinstance(other, Bracketed):
        return (truth.left, truth.right) == (other.left, other.right) and _in_order(truth.items, other.items)
    truth, other = _as_union(truth), _as_union(other)
    if isinstance(truth, Collection) and isinstance(other, Collection):
        return _in_any_order(truth.items, other.items)
    if isinstance(truth, Union) and isinstance(other, Union):
        return _in_any_order(truth.parts, other.parts)
    if isinstance(truth, Ratio) and isinstance(other, Ratio):
        return _ratios(truth, other)
    return isinstance(truth, Based | Words) and truth == other


def quantities(truth: Quantity, other: Quantity) -> bool:
    """Whether two quantities are the same; where one has a unit and the other none, its number may count as it is."""
    one, two = truth.unit, other.unit
    if truth.capitals and other.capitals and truth.capitals != other.capitals:
        return False
    if one is not None and two is not None:
        alike = one.measures == two.measures
        return alike and equal(truth.value * one.factor, other.value * two.factor)
    unit = one or two
    if unit is None:
        return equal(truth.value, other.value)
    if unit.share and equal(
        truth.value * unit.factor if one else truth.value, other.value * unit.factor if two else other.value
    ):
        return True
    if unit.percent and _at_most_one(truth.value):
        return False  # 0.5 % is no 0.5
    return equal(truth.value, other.value)


def _at_most_one(value: Value) -> bool:
    return not value.letters and bool(abs(evaluated(value, {})) <= 1)


def _in_order(one: Sequence[Answer], other: Sequence[Answer]) -> bool:
    return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))


def _in_any_order(one: Sequence[Answer], other: Sequence[Answer]) -> bool:
    left = list(other)
    for item in one:
        place = next((i for i, candidate in enumerate(left) if same(item, candidate)), None)
        if place is None:
            return False
        del left[place]
    return not left


def _matrices(truth: Answer, other: Answer) -> bool:
    """Whether two matrices are the same; a column is also the tuple of its entries."""
    one, two = (_as_rows(found) for found in (truth, other))
    return one is not None and two is not None and _in_order(one, two)


def _as_rows(found: Answer) -> list[Answer] | None:
    if isinstance(found, Matrix):
        column = all(len(row) == 1 for row in found.rows)
        return [row[0] if column else Bracketed("", row, "") for row in found.rows]
    if isinstance(found, Bracketed) and (found.left, found.right) == ("(", ")"):
        return list(found.items)
    return None


def _ratios(truth: Ratio, other: Ratio) -> bool:
    """Whether two ratios are the same: 3:1 is 6:2."""
    if len(truth.parts) != len(other.parts):
        return False
    first, second = truth.parts[0].value, other.parts[0].value
    return all(equal(a.value * second, b.value * first) for a, b in zip(truth.parts[1:], other.parts[1:], strict=True))


def _named(truth: Answer, other: Answer) -> bool:
    if isinstance(truth, Named) and isinstance(other, Named):
        if truth.name == other.name:
            return same(truth.value, other.value)
        return _zeros(truth, other) if len(truth.name) == len(other.name) == 1 else False
    if isinstance(truth, Relation) or isinstance(other, Relation):
        return _zeros(truth, other) or _intervals(truth, other)
    return same(*(found.value if isinstance(found, Named) else found for found in (truth, other)))


def _zeros(truth: Answer, other: Answer) -> bool:
    """Whether two equations are the same but for a factor."""
    one, two = _zero(truth), _zero(other)
    if one is None or two is None or not (one.letters and two.letters and one.above and two.above):
        return False
    ratio = one / two
    return not ratio.letters or any(
        equal(one, two * Value((((), factor),))) for factor in {one.above[0][1] / two.above[0][1]}
    )


def _zero(found: Answer) -> Value | None:
    """What an equation says is 0."""
    if isinstance(found, Named) and len(found.name) == 1 and found.name.isalpha():
        value = value_of(found)
        return None if value is None else letter(found.name) - value
    if isinstance(found, Relation) and found.signs == ("=",):
        left, right = (value_of(each) for each in found.sides)
        return None if left is None or right is None else left - right
    return None


def _related(truth: Answer, other: Answer) -> bool:
    if _zeros(truth, other) or _intervals(truth, other):
        return True
    if not (isinstance(truth, Relation) and isinstance(other, Relation)):
        return False
    sides, signs = other.sides, other.signs
    back = tuple(reversed(sides)), tuple(TURNED.get(sign, "") for sign in reversed(signs))
    return any(truth.signs == s and _in_order(truth.sides, each) for each, s in ((sides, signs), back))


def _intervals(truth: Answer, other: Answer) -> bool:
    """Whether two answers are the same set of numbers, at least one of them given by inequalities."""
    one, two = interval(truth), interval(other)
    if one is None or two is None or (one[0] and two[0] and one[0] != two[0]):
        return False
    return same(one[1], two[1])


def interval(found: Answer) -> tuple[str, Answer] | None:
    """The letter and the interval of an inequality; of a set the set, with no letter."""
    if isinstance(found, Bracketed | Union):
        return "", found
    if _unknown(found) == "mathbb R":
        return "", read("(-\\infty, \\infty)")
    if isinstance(found, Named) and isinstance(found.value, Bracketed | Union):
        return found.name, found.value
    if not isinstance(found, Relation) or not set(found.signs) <= {"<", ">", "<=", ">="}:
        return None
    sides, signs = list(found.sides), list(found.signs)
    if signs[0].startswith(">"):
        sides, signs = sides[::-1], [TURNED[sign] for sign in reversed(signs)]
    if not all(sign.startswith("<") for sign in signs) or len(sides) > 3:
        return None
    at = next((i for i, each in enumerate(sides) if _unknown(each)), None)
    if at is None or (len(sides) == 3 and at != 1):
        return None
    endless = read("\\infty"), read("-\\infty")
    below = sides[at - 1] if at else endless[1]
    above = sides[at + 1] if at + 1 < len(sides) else endless[0]
    left = "[" if at and signs[at - 1] == "<=" else "("
    right = "]" if at + 1 < len(sides) and signs[at] == "<=" else ")"
    return _unknown(sides[at]), Bracketed(left, (below, above), right)


def _unknown(found: Answer) -> str:
    """The name of an answer that is one letter."""
    value = value_of(found)
    names = value.letters if value is not None else set()
    return next(iter(names)) if value is not None and len(names) == 1 and value == letter(*names) else ""


def _as_union(found: Answer) -> Answer:
    """Several inequalities of one letter as the union of their intervals."""
    if not isinstance(found, Collection) or not found.items:
        return found
    parts = [interval(item) if isinstance(item, Relation) else None for item in found.items]
    if any(part is None for part in parts) or len({part[0] for part in parts if part}) != 1:
        return found
    return Union(tuple(part[1] for part in parts if part))
