"""The forms an answer may have: a quantity, tuple, interval, set, union, matrix, ratio, relation, or words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from truing.rewards.answers.exact import Value
from truing.rewards.answers.grammar import Quantity


@dataclass(frozen=True)
class Bracketed:
    """A tuple, a vector or an interval: its items in order, and its brackets."""

    left: str
    items: tuple[Answer, ...]
    right: str


@dataclass(frozen=True)
class Collection:
    """A set, or several answers side by side: their order has no meaning."""

    items: tuple[Answer, ...]


@dataclass(frozen=True)
class Union:
    """Several sets as one."""

    parts: tuple[Answer, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of quantities."""

    rows: tuple[tuple[Answer, ...], ...]


@dataclass(frozen=True)
class Ratio:
    """A ratio: 3 to 1."""

    parts: tuple[Quantity, ...]


@dataclass(frozen=True)
class Based:
    """A number in the digits of a base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Named:
    """A value with its name: x = 5, f(x) = 2x."""

    name: str
    value: Answer


@dataclass(frozen=True)
class Relation:
    """Quantities with a sign of relation between each and the next."""

    sides: tuple[Answer, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """Words and no mathematics: a day, a name, the letter of a choice."""

    text: str


Answer: TypeAlias = Quantity | Bracketed | Collection | Union | Matrix | Ratio | Based | Named | Relation | Words


def value_of(answer: Answer) -> Value | None:
    """The value of a quantity, also of one that has a name."""
    if isinstance(answer, Named):
        return value_of(answer.value)
    return answer.value if isinstance(answer, Quantity) else None
