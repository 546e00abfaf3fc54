"""Verdict columns beside two responses, read where it is certain which of the two they call better.

A verdict names a response as the file's own columns do (`winner: model_b` beside response_a and response_b, `label: 2`
beside output_1 and output_2), or stands in a column for each of them (`winner_model_a`, `score_chosen`). Numbers whose
count begins somewhere (0 or 1 beside response_a) are not read: both meanings are in use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from truing.data.formats import columns
from truing.data.formats.files import Row
from truing.errors import listed

TIES = frozenset({"tie", "ties", "tied", "draw", "equal", "equally", "both", "neither", "bothbad", "same"})
FILLERS = frozenset(
    {
        "model",
        "response",
        "answer",
        "output",
        "assistant",
        "completion",
        "option",
        "candidate",
        "is",
        "was",
        "the",
        "id",
    }
    | {"better", "best", "wins", "win", "winner", "preferred", "chosen", "of", "idx", "index", "one"}
)
"""Words beside the one that names a response."""
SCORES = frozenset({"score", "scores", "rating", "ratings", "reward", "rewards", "grade", "grades", "upvotes"})
FLAGS = frozenset({"winner", "winning", "wins", "win", "preferred", "preference", "better", "vote", "votes", "choice"})
COUNTS = SCORES | {"rank", "ranks", "ranking", "rankings", "votes"}
"""Words of a column whose numbers count or measure, and name no response."""
WORSE = frozenset(
    {"not", "non", "no", "least", "less", "worse", "worst", "loser", "losers", "losing", "loses", "dispreferred"}
    | {"nonpreferred", "rejected", "bad", "wrong", "incorrect", "unsafe"}
)
"""Words that turn a name or a value around: what a column `not_preferred` names is the worse one."""
_COMPARED = re.compile(r"\W*(\w+)\s*([<>])\2?\s*(\w+)\W*")
Role = Literal["first", "second", "tie"]


@dataclass(frozen=True)
class Sides:
    """Two responses by the names of their columns in the file."""

    first: str
    second: str

    @property
    def words(self) -> tuple[frozenset[str], frozenset[str]]:
        """The words that tell the names apart: of output_1 and output_2 the two numbers."""
        first_words, second_words = (frozenset(columns.words(name)) for name in (self.first, self.second))
        return first_words - second_words, second_words - first_words

    def named(self, value: Any) -> float | None:
        """The probability that the first is better by a value that names one of them; None where it names none.

        >>> sides = Sides("response_a", "response_b")
        >>> sides.named("model_b"), sides.named("[[A]]"), sides.named("tie (bothbad)"), sides.named(1)
        (0.0, 1.0, 0.5, None)
        >>> Sides("output_1", "output_2").named(2)
        0.0
        """
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
        if text in (self.first, self.second):
            return float(text == self.first)
        if len(text) > columns.LONGEST_VERDICT:
            return None
        if compared := _COMPARED.fullmatch(text):
            better = self.named(compared[1] if compared[2] == ">" else compared[3])
            return better if self.named(compared[3] if compared[2] == ">" else compared[1]) == _other(better) else None
        words, (first, second) = frozenset(columns.words(text)), self.words
        if words & TIES and not words & (first | second | WORSE - {"bad"}):
            return 0.5
        sides = ((first, 1.0), (second, 0.0))
        named = [p for side, p in sides if side and side <= words and words - side <= FILLERS - side]
        return named[0] if len(named) == 1 else None

    def role(self, name: str) -> tuple[Role, bool] | None:
        """The response that a column is about, and whether it holds a score and no yes or no; None for any other.

        >>> Sides("response_a", "response_b").role("winner_model_a"), Sides("chosen", "rejected").role("score_rejected")
        (('first', False), ('second', True))
        """
        words = frozenset(columns.words(name))
        first, second = self.words
        roles: tuple[tuple[frozenset[str], Role], ...] = ((first, "first"), (second, "second"), (TIES, "tie"))
        for side, role in roles:
            about = side & words if role == "tie" else side
            rest = words - about
            if not about or not about <= words or not rest:
                continue
            if rest <= SCORES and role != "tie":
                return role, True
            if rest & FLAGS and rest <= FLAGS | FILLERS:
                return role, False
        return None


def _other(better: float | None) -> float | None:
    return {1.0: 0.0, 0.0: 1.0}.get(-1.0 if better is None else better)


@dataclass(frozen=True)
class Verdicts:
    """The verdict columns of a file, and the reading of a row's verdict."""

    sides: Sides
    alone: tuple[str, ...]
    """Columns of which each holds a verdict."""
    apart: Mapping[str, tuple[str, ...]]
    """Columns with a value for each response (and for a tie), by `score` and `flag`."""

    @staticmethod
    def of(sides: Sides, names: Iterable[str], rows: Sequence[Row]) -> Verdicts:
        """Columns sorted by how they say it. One whose numbers may be counted otherwise is left out."""
        alone, apart = [], dict[str, dict[Role, str]]()
        for name in names:
            if (place := sides.role(name)) is None:
                alone.append(name)
            else:
                apart.setdefault("score" if place[1] else "flag", {}).setdefault(place[0], name)
        whole = {
            sort: tuple(by.get(role, "") for role in ("first", "second", "tie"))
            for sort, by in apart.items()
            if {"first", "second"} <= by.keys()
        }
        alone += [name for sort, by in apart.items() if sort not in whole for name in by.values()]
        return Verdicts(sides, tuple(name for name in alone if _certain(sides, name, rows)), whole)

    def read(self, row: Row) -> dict[str, float]:
        """The probability that the first response is better, by each column (or columns) that says so for certain."""
        probabilities = {name: self.sides.named(row.get(name)) for name in self.alone}
        for sort, (first, second, tie) in self.apart.items():
            probabilities[listed(filter(None, (first, second, tie)))] = _compared(
                sort, row.get(first), row.get(second), row.get(tie)
            )
        return {name: p for name, p in probabilities.items() if p is not None}


def _certain(sides: Sides, name: str, rows: Sequence[Row]) -> bool:
    """True if a column names the better response, and its numbers are those of the responses' names, the lowest
    or highest among them that no other count has: 2 of output_1 and output_2, 0 of response_0 and response_1.

    Numbers in a column about one response (is_response_0_better) say yes or no to it, and those of a score measure.
    """
    parts, (first, second) = frozenset(columns.words(name)), sides.words
    if parts & WORSE - first - second:
        return False
    numbers = {row[name] for row in rows if name in row and _number(row[name]) is not None}
    if not numbers:
        return True
    if parts & COUNTS or bool(parts & first) != bool(parts & second):
        return False
    digits = {word for words in sides.words for word in words if word.isdigit()}
    telling = digits - {"1"}
    return all(sides.named(n) is not None for n in numbers) and any(
        str(_number(n)) == f"{w}.0" for n in numbers for w in telling
    )


def _compared(sort: str, first: Any, second: Any, tie: Any) -> float | None:
    """P(first is better) by the values for two responses: the higher score, or the one that is marked."""
    left, right = _number(first), _number(second)
    if left is None or right is None:
        return None
    if sort == "score":
        return 0.5 if left == right else float(left > right)
    even = _number(tie)
    if {left, right, even or 0.0} <= {0.0, 1.0} and left + right + (even or 0.0) == 1:
        return 0.5 if even else left
    return None


def _number(value: Any) -> float | None:
    """A number, and no NaN: a missing score is neither lower nor higher than another."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def turned(row: Row, better: float) -> Row:
    """The row with the better response as chosen; of equal ones, a tie."""
    if better == 0.5:
        return {**row, "tie": True}
    if better == 1.0:
        return row
    swapped = {
        "chosen": "rejected",
        "rejected": "chosen",
        "chosen_safe": "rejected_safe",
        "rejected_safe": "chosen_safe",
    }
    return {swapped.get(name, name): value for name, value in row.items()}
