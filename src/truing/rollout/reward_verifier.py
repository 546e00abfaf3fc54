"""Rewards of whether an answer is right, by what the prompt's row says is right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Literal

from truing.data.thoughts import answer_of
from truing.errors import UserError
from truing.registry import reward

NUMBER = re.compile(
    r"(?:(?<![\w).])[-+−])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:\s*/\s*\d+)?"
)
MARKERS = (re.compile(r"\\boxed\{([^{}]*)\}"), re.compile(r"####([^\n]*)"))


@reward(scope="response", deterministic=True)
def verifier(
    response: str,
    row: Mapping[str, Any],
    *,
    answer: Literal["number", "text"] = "number",
    column: str = "answer",
    right: float = 1.0,
    wrong: float = 0.0,
) -> float:
    """`right` where the answer is that of the prompt's row, else `wrong`: numbers as numbers, words without case.

    What comes after a thought (`<think>...</think>`) is read. What it says is what stands last in \\\\boxed{...} or
    behind ####; without either its last number, or all of its text. The row's own answer is read in the same way. An
    answer that says no number is wrong: `wrong` is the lowest value. A row without an answer is an error of the data.

    >>> verifier("7 * 6 is #### 42.0", {"answer": 42}), verifier("I do not know", {"answer": "42"})
    (1.0, 0.0)
    """
    if row.get(column) in (None, ""):
        there = ", ".join(map(str, row)) or "none"
        raise UserError(f"reward 'verifier': a prompt's row has no '{column}' to hold answers to; its columns: {there}")
    truth, response = str(row[column]), answer_of(response)
    if answer == "text":
        return right if words(response) == words(truth) else wrong
    wanted = number(truth)
    if wanted is None:
        raise UserError(f"reward 'verifier': the right answer {truth!r} is no number; set answer: text")
    return right if number(response) == wanted else wrong


def number(text: str) -> Fraction | None:
    """The number a text ends in, exactly, or None.

    >>> number("so 1,250 or \\\\boxed{-3/4}"), number("#### 18 apples"), number("none")
    (Fraction(-3, 4), Fraction(18, 1), None)
    """
    found = NUMBER.findall(marked(text))
    if not found:
        return None
    above, _, below = re.sub(r"[,\s]", "", found[-1]).replace("−", "-").partition("/")
    try:
        return Fraction(above) / Fraction(below or "1")
    except (ValueError, ZeroDivisionError):
        return None


def words(text: str) -> str:
    """What a text says, without case and white space around it."""
    return " ".join(marked(text).split()).casefold().rstrip(".")


def marked(text: str) -> str:
    """What stands in the last mark of an answer, or the whole text where nothing is marked."""
    for marker in MARKERS:
        if found := marker.findall(text):
            return str(found[-1])
    return text
