"""The comparison of two exact values: by their forms where these decide it, else by sixty digits of both.

Forms that hold a function (a sine, a root of a sum) may differ and be equal all the same. Their values are then
compared to forty digits, the letters in them replaced by fixed numbers of both signs. A decimal so long that it could
agree to that many digits and still be wrong is not read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from hashlib import sha256
from typing import Any

from mpmath.ctx_mp import MPContext

from truing.rewards.answers import Unread
from truing.rewards.answers.exact import Atom, Sum, Value

DIGITS, AGREE = 60, 40
LONGEST = 1 << 80
"""The largest denominator that a number may have beside a function's value: a decimal could hit any value else."""
HUGE = 1e4
"""The size of the largest values, as the logarithm to base 2."""
SIGNS = ((1, 1), (-1, -1), (1, -1))
"""The signs of the letters at each place where two values are compared; every second letter has the second."""
CONTEXT: Any = MPContext()
CONTEXT.dps = DIGITS
BASE = 7.3890625
"""The base of a logarithm that names none: a number that no other logarithm has as its base."""


def equal(left: Value, right: Value) -> bool:
    """True if two values are the same. Unread where that cannot be decided."""
    if (left.above, left.below) == (right.above, right.below):
        return True
    apart = Value(left.above) * Value(right.below) - Value(right.above) * Value(left.below)
    if not apart.above:
        return True
    atoms = left.atoms | right.atoms
    if not any(atom.opaque for atom in atoms):
        return False
    for value in (left, right):
        if any(factor.denominator > LONGEST for _, factor in value.above):
            raise Unread("a decimal that is too long to be held against a function's value")
    return _alike(left, right, sorted(left.letters | right.letters))


def _alike(left: Value, right: Value, letters: list[str]) -> bool:
    compared = 0
    for turn, signs in enumerate(SIGNS):
        place = {name: signs[i % 2] * somewhere(name, turn) for i, name in enumerate(letters)}
        try:
            a, b = evaluated(left, place), evaluated(right, place)
        except (ArithmeticError, ValueError, TypeError):  # outside of what a function is defined on
            continue
        if abs(a - b) > CONTEXT.mpf(10) ** -AGREE * max(1, abs(a), abs(b)):
            return False
        compared += 1
    if not compared:
        raise Unread("a value that cannot be computed")
    return True


def somewhere(name: str, turn: int) -> Any:
    """A number between 1 and 2 that stands for a letter."""
    drawn = int.from_bytes(sha256(f"{turn} {name}".encode()).digest()[:8], "big")
    return 1 + CONTEXT.sqrt(CONTEXT.mpf(drawn)) / 2**32


def evaluated(value: Value, place: Mapping[str, Any]) -> Any:
    """A value to sixty digits, its letters replaced."""
    return _sum(value.above, place) / _sum(value.below, place)


def _sum(terms: Sum, place: Mapping[str, Any]) -> Any:
    total = CONTEXT.mpf(0)
    for product, factor in terms:
        term = CONTEXT.mpf(factor.numerator) / factor.denominator
        for atom, exponent in product:
            term *= _power(_atom(atom, place), CONTEXT.mpf(exponent.numerator) / exponent.denominator)
        total += term
    return total


def _power(base: Any, exponent: Any) -> Any:
    size = abs(exponent) * (abs(CONTEXT.log(abs(base), 2)) + 8) if base else 0
    if size > HUGE:
        raise Unread("a value that is too large to be computed")
    return CONTEXT.power(base, exponent)


def _atom(atom: Atom, place: Mapping[str, Any]) -> Any:
    if atom.kind == "letter":
        return place[atom.name]
    if atom.kind == "prime":
        return CONTEXT.mpf(int(atom.name))
    if atom.kind == "constant":
        if atom.name == "infinity":
            raise ValueError("infinity has no value")
        return {"pi": CONTEXT.pi, "e": CONTEXT.e, "i": CONTEXT.j}[atom.name] * 1
    arguments = [evaluated(argument, place) for argument in atom.arguments]
    if any(abs(a) > 2**64 for a in arguments) and atom.name != "power":
        raise Unread("a value that is too large to be computed")
    if atom.name == "power" and (exponent := atom.arguments[1].number) is not None:
        return _rational_power(arguments[0], exponent)
    return FUNCTIONS[atom.name](*arguments)


def _rational_power(base: Any, exponent: Fraction) -> Any:
    """A power; the root of odd degree of a negative number is the real one."""
    to = CONTEXT.mpf(exponent.numerator) / exponent.denominator
    if exponent.denominator % 2 and not CONTEXT.im(base) and CONTEXT.re(base) < 0:
        return (-1) ** (exponent.numerator % 2) * _power(-CONTEXT.re(base), to)
    return _power(base, to)


def _unknown(name: str) -> Any:
    """Some fixed function in place of an unknown one."""
    scale = somewhere(name, len(SIGNS))
    return lambda x: CONTEXT.sin(scale * x) + CONTEXT.cos(x * x / scale)


TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "asin", "acos", "atan")
APPLIED = tuple("fghpqFGHPQ")
"""Letters that are functions where a bracket follows."""
FUNCTIONS: dict[str, Any] = {
    **{name: getattr(CONTEXT, name) for name in TRIGONOMETRIC},
    **{f"apply {name}": _unknown(name) for name in APPLIED},
    "power": _power,
    "ln": CONTEXT.log,
    "log": lambda x, base=BASE: CONTEXT.log(x) / CONTEXT.log(base),
    "abs": abs,
    "floor": CONTEXT.floor,
    "ceil": CONTEXT.ceil,
    "factorial": CONTEXT.factorial,
}


def whole(value: Value) -> int | None:
    """The whole number that a value is, if it is one."""
    number = value.number
    return number.numerator if number is not None and number.denominator == 1 else None


def combinations(above: int, below: int) -> Fraction:
    """The number of ways to choose `below` of `above`, for moderate numbers."""
    if not 0 <= above <= 4096 or below < 0:
        raise Unread("a number of combinations that is too large")
    return Fraction(math.comb(above, below))
