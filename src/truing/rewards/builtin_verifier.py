"""The reward of a right answer, by comparison with the right answer in the prompt's row."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeAlias

from truing.errors import UserError
from truing.records import NotRead
from truing.registry import reward
from truing.rewards.answers import Unread, compare, final, forms, structure

Form: TypeAlias = Literal["number", "math", "text"]


def check_row(row: Mapping[str, Any], *, answer: Form = "number", column: str = "answer") -> None:
    """Raise UserError for a row whose answer is missing, or cannot be read in the form that `answer` asks for."""
    wanted(row, answer, column)


@reward(scope="response", deterministic=True, check=check_row)
def verifier(
    response: str,
    row: Mapping[str, Any],
    *,
    answer: Annotated[
        Literal["number", "math", "text"], "whether answers are compared as one number, any mathematics, or words"
    ] = "number",
    column: Annotated[str, "the column of the prompt's row that holds the right answer"] = "answer",
    right: Annotated[float, "reward where the answers are the same"] = 1.0,
    wrong: Annotated[float, "reward where they differ or nothing can be read"] = 0.0,
) -> float:
    """`right` where the answer is that of the prompt's row, else `wrong`: numbers exactly, or words without case.

    `number` takes rows whose answer is one number: 42, 1,250, 3/4, \\frac{1}{2}, 2\\sqrt{3}, 50\\%, 12 cm. `math` takes
    tuples, intervals, sets, matrices, equations, expressions in letters and words too. `text` compares words.

    A response's answer is what stands last in \\boxed{...}, behind #### or `the answer is`; without these the last
    number with the expression that it is part of, or for `text` all of it. Thoughts, to </think>, are ignored.
    The row's own answer is read in the same way; one that is missing, or cannot be read, is an error of the data. A
    response whose answer cannot be read is worth `wrong` and counted (`unread_verifier`): nothing is guessed from a
    part of it.

    >>> verifier("7 * 6 is #### 42.0", {"answer": 42}), verifier("I do not know", {"answer": "42"})
    (1.0, 0.0)
    >>> [verifier("so \\\\boxed{\\\\frac{1}{2}}", {"answer": truth}) for truth in ("1/2", 0.5, "2")]
    [1.0, 1.0, 0.0]
    >>> [verifier(text, {"answer": "(3, 4]"}, answer="math") for text in ("so (3, 4]", "so [3, 4]", "so 4")]
    [1.0, 0.0, 0.0]
    """
    truth = wanted(row, answer, column)
    try:
        if answer == "text":
            return right if words(response) == truth else wrong
        extracted = marked_or_whole(response) if answer == "math" and is_words(truth) else answer_of(response)
        return right if compare.agree(truth, extracted, answer == "number") else wrong
    except Unread:
        return NotRead(wrong)


def wanted(row: Mapping[str, Any], answer: Form, column: str) -> str:
    """Return the right answer of a row, as it is compared. UserError where there is none that can be read."""
    value = row.get(column)
    if value is None or value == "":
        there = ", ".join(map(str, row)) or "none"
        raise UserError(
            f"reward 'verifier': a prompt's row has no '{column}' to compare answers with; its columns: {there}"
        )
    if isinstance(value, list | tuple | Mapping):
        raise UserError(f"reward 'verifier': the row's '{column}' is {value!r}, and has to be one answer")
    try:
        return truth_of(str(value), answer)
    except Unread as problem:
        why, subject = f"'{column}': {problem}", f"reward 'verifier': the right answer {str(value)[:200]!r}"
    if answer == "number":
        raise UserError(
            f"{subject} is no number; set answer: text to compare words, or answer: math for tuples, intervals, sets "
            f"and expressions ({why})"
        )
    raise UserError(f"{subject} cannot be read; leave the row out, or set answer: text to compare words ({why})")


@functools.lru_cache(4096)
def truth_of(text: str, answer: Form) -> str:
    """The part of a row's text that is the right answer. Unread where it cannot be read."""
    if answer == "text":
        return words(text)
    part = _marked(text)
    if part is None:
        part = text if _readable(text) or len(final.numbers(text)) != 1 else answer_of(text)
    parsed = structure.read(part, short_units=answer == "number")
    if answer == "number" and not is_number(parsed):
        raise Unread("it is something else")
    return part


def _marked(text: str) -> str | None:
    """The marked answer of a text, if it has one."""
    visible = final.without_thoughts(text)
    boxed = final.in_box(visible)
    if boxed is not None:
        return boxed
    return None if final.behind_mark(visible) is None else answer_of(text)


def _readable(text: str) -> bool:
    for short in (False, True):
        with contextlib.suppress(Unread):
            structure.read(text, short_units=short)
            return True
    return False


def answer_of(text: str) -> str:
    """The part of a text that is its answer. Of prose around a single number it is that number; a box, or
    mathematics, is read whole or not at all."""
    part = final.final(text)
    if part.exact or part.plain or _readable(part.text):
        return part.text
    if _readable(start := final.beginning(part.text)):
        return start
    if len(final.numbers(part.text)) == 1 and final.is_prose(part.text):
        return final.last_number(part.text).text
    raise Unread(f"{part.text[:80]!r}")


def is_number(answer: forms.Answer) -> bool:
    """True if an answer is one number, with or without a unit or a name."""
    if isinstance(answer, forms.Based):
        return True
    value = forms.value_of(answer)
    return value is not None and not value.letters and not any(a.name == "infinity" for a in value.atoms)


def number(text: str) -> Fraction | None:
    """The rational number that a text's answer is, exactly, or None.

    >>> number("so 1,250 or \\\\boxed{-3/4}"), number("#### 18 apples"), number("none")
    (Fraction(-3, 4), Fraction(18, 1), None)
    """
    try:
        value = forms.value_of(structure.read(answer_of(text)))
    except Unread:
        return None
    return None if value is None else value.number


def is_words(truth: str) -> bool:
    """True if a right answer is words, and no mathematics."""
    return isinstance(structure.read(truth), forms.Words)


def marked_or_whole(text: str) -> str:
    """The part of a text that is marked as its answer, or all of it."""
    visible = final.without_thoughts(text)
    boxed = final.in_box(visible)
    if boxed is not None:
        return boxed
    marked = final.behind_mark(visible)
    return visible if marked is None else marked.text


def words(text: str) -> str:
    """The words of a text's answer, without case, white space and markup. Unread where there are none."""
    plain = structure.words(marked_or_whole(text))
    if not plain:
        raise Unread("no answer")
    return plain
