"""The comparison of two parsed answers: values exactly, tuples in order, sets in any."""

from __future__ import annotations

from collections.abc import Sequence

from truing.rewards.answers.exact import INFINITY, Value, letter
from truing.rewards.answers.forms import (
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
    value_of,
)
from truing.rewards.answers.grammar import Quantity
from truing.rewards.answers.numeric import equal, evaluated

TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
ENDLESS = Quantity(INFINITY), Quantity(Value(()) - INFINITY)


def same(truth: Answer, other: Answer) -> bool:
    """True if two answers are the same."""
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
    """True if two quantities are the same; if one has a unit and the other none, its number may count as it is."""
    truth_unit, other_unit = truth.unit, other.unit
    if truth.capitals and other.capitals and truth.capitals != other.capitals:
        return False
    if truth_unit is not None and other_unit is not None:
        alike = truth_unit.measures == other_unit.measures
        return alike and equal(truth.value * truth_unit.factor, other.value * other_unit.factor)
    unit = truth_unit or other_unit
    if unit is None:
        return equal(truth.value, other.value)
    if unit.share and equal(
        truth.value * unit.factor if truth_unit else truth.value,
        other.value * unit.factor if other_unit else other.value,
    ):
        return True
    if unit.percent and _at_most_one(truth.value):
        return False  # 0.5 % is no 0.5
    return equal(truth.value, other.value)


def _at_most_one(value: Value) -> bool:
    return not value.letters and bool(abs(evaluated(value, {})) <= 1)


def _in_order(items: Sequence[Answer], others: Sequence[Answer]) -> bool:
    return len(items) == len(others) and all(same(a, b) for a, b in zip(items, others, strict=True))


def _in_any_order(items: Sequence[Answer], others: Sequence[Answer]) -> bool:
    unmatched = list(others)
    for item in items:
        place = next((i for i, candidate in enumerate(unmatched) if same(item, candidate)), None)
        if place is None:
            return False
        del unmatched[place]
    return not unmatched


def _matrices(truth: Answer, other: Answer) -> bool:
    """True if two matrices are the same; a column is also the tuple of its entries."""
    rows, others = _as_rows(truth), _as_rows(other)
    return rows is not None and others is not None and _in_order(rows, others)


def _as_rows(answer: Answer) -> list[Answer] | None:
    if isinstance(answer, Matrix):
        column = all(len(row) == 1 for row in answer.rows)
        return [row[0] if column else Bracketed("", row, "") for row in answer.rows]
    if isinstance(answer, Bracketed) and (answer.left, answer.right) == ("(", ")"):
        return list(answer.items)
    return None


def _ratios(truth: Ratio, other: Ratio) -> bool:
    """True if two ratios are the same: 3:1 is 6:2."""
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
    return same(*(answer.value if isinstance(answer, Named) else answer for answer in (truth, other)))


def _zeros(truth: Answer, other: Answer) -> bool:
    """True if two equations are the same but for a factor."""
    left, right = _zero(truth), _zero(other)
    if left is None or right is None or not (left.letters and right.letters and left.above and right.above):
        return False
    ratio = left / right
    return not ratio.letters or any(
        equal(left, right * Value((((), factor),))) for factor in {left.above[0][1] / right.above[0][1]}
    )


def _zero(answer: Answer) -> Value | None:
    """The value that an equation sets to 0."""
    if isinstance(answer, Named) and len(answer.name) == 1 and answer.name.isalpha():
        value = value_of(answer)
        return None if value is None else letter(answer.name) - value
    if isinstance(answer, Relation) and answer.signs == ("=",):
        left, right = (value_of(each) for each in answer.sides)
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
    """True if two answers are the same set of numbers, at least one of them given by inequalities."""
    left, right = interval(truth), interval(other)
    if left is None or right is None or (left[0] and right[0] and left[0] != right[0]):
        return False
    return same(left[1], right[1])


def interval(answer: Answer) -> tuple[str, Answer] | None:
    """The letter and the interval of an inequality; of a set the set, with no letter."""
    if isinstance(answer, Bracketed | Union):
        return "", answer
    if _unknown(answer) == "mathbb R":
        return "", Bracketed("(", ENDLESS[::-1], ")")
    if isinstance(answer, Named) and isinstance(answer.value, Bracketed | Union):
        return answer.name, answer.value
    if not isinstance(answer, Relation) or not set(answer.signs) <= {"<", ">", "<=", ">="}:
        return None
    sides, signs = list(answer.sides), list(answer.signs)
    if signs[0].startswith(">"):
        sides, signs = sides[::-1], [TURNED[sign] for sign in reversed(signs)]
    if not all(sign.startswith("<") for sign in signs) or len(sides) > 3:
        return None
    at = next((i for i, each in enumerate(sides) if _unknown(each)), None)
    if at is None or (len(sides) == 3 and at != 1):
        return None
    below = sides[at - 1] if at else ENDLESS[1]
    above = sides[at + 1] if at + 1 < len(sides) else ENDLESS[0]
    left = "[" if at and signs[at - 1] == "<=" else "("
    right = "]" if at + 1 < len(sides) and signs[at] == "<=" else ")"
    return _unknown(sides[at]), Bracketed(left, (below, above), right)


def _unknown(answer: Answer) -> str:
    """The name of an answer that is one letter."""
    value = value_of(answer)
    names = value.letters if value is not None else set()
    return next(iter(names)) if value is not None and len(names) == 1 and value == letter(*names) else ""


def _as_union(answer: Answer) -> Answer:
    """Several inequalities of one letter as the union of their intervals."""
    if not isinstance(answer, Collection) or not answer.items:
        return answer
    parts = [interval(item) if isinstance(item, Relation) else None for item in answer.items]
    if any(part is None for part in parts) or len({part[0] for part in parts if part}) != 1:
        return answer
    return Union(tuple(part[1] for part in parts if part))
