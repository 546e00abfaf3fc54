"""Exact values in a form that is one for each value: sums of products with rational factors, and ratios of such sums.

A product is made of letters, pi, e, i and roots of primes, which no rational relation joins (Besicovitch 1940 for the
roots), so two values of these alone are equal just where their forms are. Anything else (sin 3x, a root of a sum) is an
opaque atom: equal forms are equal values, and different ones decide nothing yet (see `numeric`). All work is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from truing.rewards.answers import Unread

TERMS = 120
"""The most products that a sum may have."""
PRODUCTS = 3_000
"""The most products that one multiplication may make."""
BITS = 1 << 16
"""The size of the largest numbers, in bits."""
POWER = 10_000
"""The largest exponent of a letter or a sum."""
SIEVE = 1_000
"""Roots of numbers that have no prime factor below this, and are larger than its square, are opaque."""


class Atom(NamedTuple):
    """A factor of a product: a letter, a constant, the root of a prime, or (`opaque`) a function of values."""

    kind: str
    name: str
    arguments: tuple[Value, ...] = ()

    @property
    def opaque(self) -> bool:
        """True if different atoms of this kind may be equal, or related to others."""
        return self.kind == "function"


Product: TypeAlias = tuple[tuple[Atom, Fraction], ...]
Sum: TypeAlias = tuple[tuple[Product, Fraction], ...]
UNIT: Sum = (((), Fraction(1)),)
"""The sum that is 1."""


@dataclass(frozen=True)
class Value:
    """A ratio of two sums; `below` is 1 unless it has several products."""

    above: Sum
    below: Sum = UNIT

    def __add__(self, other: Value) -> Value:
        if self.below == other.below:
            return made(_plus(self.above, other.above), self.below)
        return made(
            _plus(_times(self.above, other.below), _times(other.above, self.below)), _times(self.below, other.below)
        )

    def __mul__(self, other: Value) -> Value:
        return made(_times(self.above, other.above), _times(self.below, other.below))

    def __neg__(self) -> Value:
        return self * rational(-1)

    def __sub__(self, other: Value) -> Value:
        return self + -other

    def __truediv__(self, other: Value) -> Value:
        if not other.above:
            raise Unread("a division by 0")
        return made(_times(self.above, other.below), _times(self.below, other.above))

    @property
    def number(self) -> Fraction | None:
        """The rational number that it is, if it is one."""
        if not self.above:
            return Fraction(0)
        alone = len(self.above) == 1 and self.below == UNIT and self.above[0][0] == ()
        return self.above[0][1] if alone else None

    @property
    def atoms(self) -> set[Atom]:
        """All atoms, those in arguments of functions among them."""
        direct = {atom for side in (self.above, self.below) for product, _ in side for atom, _ in product}
        return direct | {inner for atom in direct for argument in atom.arguments for inner in argument.atoms}

    @property
    def letters(self) -> set[str]:
        """The names of its letters."""
        return {atom.name for atom in self.atoms if atom.kind == "letter"}


def made(above: Sum, below: Sum) -> Value:
    """Make a ratio; a denominator of one product goes into the sum above."""
    if below == UNIT:
        return Value(above)
    if len(below) != 1:
        lead = below[0][1]
        return Value(tuple((p, c / lead) for p, c in above), tuple((p, c / lead) for p, c in below))
    (product, factor), *_ = below
    turned = (tuple((atom, -exponent) for atom, exponent in product), 1 / factor)
    return Value(_times(above, (_tidy(*turned),)))


def rational(number: Fraction | int) -> Value:
    """A rational number."""
    exact = Fraction(number)
    if max(exact.numerator.bit_length(), exact.denominator.bit_length()) > BITS:
        raise Unread("a number that is too large")
    return Value((((), exact),) if exact else ())


def letter(name: str) -> Value:
    """An unknown."""
    return _of(Atom("letter", name))


def constant(name: str) -> Value:
    """One of pi, e, i and infinity."""
    return _of(Atom("constant", name))


def function(name: str, *arguments: Value) -> Value:
    """A function's value, as an opaque atom."""
    return _of(Atom("function", name, arguments))


def power(base: Value, exponent: Value) -> Value:
    """A value to the power of another, exact where the exponent is whole, or a fraction and the base a number."""
    to = exponent.number
    if to is None or not base.above:
        if to is not None and to > 0:
            return base
        if not base.above:
            raise Unread("0 to a power that is not above 0")
        return function("power", base, exponent)
    if to.denominator == 1:
        return _whole_power(base, to.numerator)
    if base.number is not None:
        return _root(base.number, to) or function("power", base, exponent)
    return _pulled(base, to)


def _whole_power(base: Value, to: int) -> Value:
    if to < 0:
        return _whole_power(ONE / base, -to)
    if to > POWER and base.number not in (0, 1, -1):
        raise Unread("a power that is too large")
    if len(base.above) == 1 and base.below == UNIT:
        (product, factor), *_ = base.above
        if max(factor.numerator.bit_length(), factor.denominator.bit_length()) * to > BITS and abs(factor) != 1:
            raise Unread("a power that is too large")
        return Value((_tidy(tuple((atom, exponent * to) for atom, exponent in product), factor**to),))
    raised = ONE
    while to:
        raised, to = (raised * base, to - 1) if to & 1 else (raised, to)
        if to:
            base, to = base * base, to >> 1
    return raised


def _pulled(base: Value, to: Fraction) -> Value:
    """A root of what is no number: the root of its positive factor, times an opaque one."""
    factor = abs(base.above[0][1])
    root = _root(factor, to)
    if len(base.above) == 1 and base.below == UNIT and root is not None:
        return root * function("power", base / rational(factor), rational(to))
    return function("power", base, rational(to))


def _root(number: Fraction, to: Fraction) -> Value | None:
    """A rational number to a power that is not whole, as roots of primes; None where it has too large factors."""
    if number < 0:
        if to.denominator % 2:
            raise Unread("a negative number to the power of a fraction, which is real in one reading only")
        inner = _root(-number, to) if to.denominator == 2 else None
        return None if inner is None else inner * _whole_power(IMAGINARY, to.numerator % 4)
    exponents: dict[int, Fraction] = {}
    for whole, sign in ((number.numerator, 1), (number.denominator, -1)):
        factors = factored(whole)
        if factors is None:
            return None
        for prime, times in factors.items():
            exponents[prime] = exponents.get(prime, Fraction(0)) + sign * times * to
    if any(abs(exponent) * prime.bit_length() > BITS for prime, exponent in exponents.items()):
        raise Unread("a power that is too large")
    return Value((_tidy(tuple((Atom("prime", str(p)), e) for p, e in exponents.items()), Fraction(1)),))


def factored(whole: int) -> dict[int, int] | None:
    """The prime factors of a positive whole number; None where one is too large to be found."""
    if whole.bit_length() > 256:
        return None
    factors: dict[int, int] = {}
    for divisor in range(2, SIEVE + 1):
        while whole % divisor == 0:
            factors[divisor], whole = factors.get(divisor, 0) + 1, whole // divisor
    if whole >= SIEVE * SIEVE:
        return None
    return factors | ({whole: 1} if whole > 1 else {})


def _of(atom: Atom) -> Value:
    return Value(((((atom, Fraction(1)),), Fraction(1)),))


def _tidy(powers: Iterable[tuple[Atom, Fraction]], factor: Fraction) -> tuple[Product, Fraction]:
    """A product in its one form: atoms in order, roots of primes below 1, i once at most."""
    exponents: dict[Atom, Fraction] = {}
    for atom, exponent in powers:
        exponents[atom] = exponents.get(atom, Fraction(0)) + exponent
    for atom, exponent in exponents.items():
        if atom.kind == "prime":
            whole = exponent.numerator // exponent.denominator
            factor *= Fraction(int(atom.name)) ** whole
            exponents[atom] = exponent - whole
        elif atom == I_ATOM:
            turns = exponent.numerator % 4
            factor *= -1 if turns >= 2 else 1
            exponents[atom] = Fraction(turns % 2)
        elif abs(exponent) > POWER:
            raise Unread("a power that is too large")
    if max(factor.numerator.bit_length(), factor.denominator.bit_length()) > BITS:
        raise Unread("a number that is too large")
    nonzero = ((atom, exponent) for atom, exponent in exponents.items() if exponent)
    return tuple(sorted(nonzero, key=lambda power: repr(power[0]))), factor


def _plus(left: Sum, right: Sum) -> Sum:
    if not left or not right:
        return left or right
    return _collected([*left, *right])


def _times(left: Sum, right: Sum) -> Sum:
    if left == UNIT or right == UNIT:
        return right if left == UNIT else left
    if len(left) * len(right) > PRODUCTS:
        raise Unread("an expression that is too large")
    return _collected(_tidy((*p, *q), c * d) for p, c in left for q, d in right)


def _collected(terms: Iterable[tuple[Product, Fraction]]) -> Sum:
    factors: dict[Product, Fraction] = {}
    for product, factor in terms:
        factors[product] = factors.get(product, Fraction(0)) + factor
    return _ordered(factors)


def _ordered(factors: Mapping[Product, Fraction]) -> Sum:
    nonzero = [(product, factor) for product, factor in factors.items() if factor]
    if len(nonzero) > TERMS:
        raise Unread("an expression that is too large")
    return tuple(nonzero) if len(nonzero) < 2 else tuple(sorted(nonzero, key=lambda term: repr(term[0])))


I_ATOM = Atom("constant", "i")
ONE, IMAGINARY, PI, INFINITY = rational(1), constant("i"), constant("pi"), constant("infinity")
