"""Sums, differences and products with their results, for a small base model to learn before a verifier teaches it.

A problem is `17 * 94 =` or, as often, `17*94=`. One in five, by its numbers and whatever its blanks, belongs to
`split="eval"`.
"""

from __future__ import annotations

import hashlib
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Annotated

from truing.errors import UserError, unknown
from truing.records import Demonstration, Message, Records, digest
from truing.world import options

VERSION = 1
"""Part of every digest: raise it when the same parameters come to mean other problems."""
MOST, PRODUCT = 9, 3
"""The most numbers of a problem, and of a product."""
SPLITS, SHOWN = ("train", "eval"), ("answer", "steps", "columns", "either")
OPERATIONS: Mapping[str, tuple[str, Callable[[int, int], int]]] = MappingProxyType(
    {"sum": ("+", operator.add), "difference": ("-", operator.sub), "product": ("*", operator.mul)}
)


def arithmetic(
    n: options.Rows = 1000,
    seed: options.Seed = 0,
    split: options.Split = "train",
    digits: Annotated[int, "digits of the largest number of sums and differences; more are harder"] = 3,
    terms: Annotated[int, "the most numbers of a problem; more are harder"] = 5,
    shown: Annotated[str, "answer, steps, columns or either: how much of the reckoning is written out"] = "answer",
    lines: Annotated[int, "problems of a row that is a text and no conversation; 0 makes conversations"] = 0,
) -> Records:
    """Problems of 2 to `terms` whole numbers and one operation, each with its result.

    The numbers of sums and differences go up to 10 ** digits, those of products (of at most three) up to a tenth of
    it. With `shown=steps` the results after each number stand before the last one: `714 + 432 + 348 =` is answered by
    `1146 1494`. With `shown=columns` sums and differences are written out as on paper, last digits first (see
    `columns`); with `shown=either` half of them are, and half are answered at once. The column `answer` has the result
    alone. With `lines` a row is no conversation but a text of so many problems with their results, a line each, for
    pretraining. UserError for a parameter out of range.
    """
    _check(n, split, digits, terms, shown, lines)
    rngs = (random.Random(f"arithmetic/{seed}/{i}") for i in range(n))
    rows = [
        _text(r, split, digits, terms, shown, lines) if lines else _row(r, split, digits, terms, shown) for r in rngs
    ]
    params = {"n": n, "seed": seed, "split": split, "digits": digits, "terms": terms, "shown": shown, "lines": lines}
    query = "&".join(f"{key}={value}" for key, value in params.items())
    numbers = tuple(range(1, n + 1))
    return Records(f"world:arithmetic?{query}", tuple(rows), numbers, digest=digest(["arithmetic", params, VERSION]))


def results(form: str, numbers: Sequence[int]) -> list[int]:
    """The running results of a sum, difference or product, after each number but the first.

    >>> results("difference", [225, 459, 603])
    [-234, -837]
    """
    return list(accumulate(numbers, OPERATIONS[form][1]))[1:]


def columns(numbers: Sequence[int], totals: Sequence[int], width: int) -> str:
    """A sum or difference on paper: after each number the digits of what there was, of the number and of the result,
    column by column (`width` of them) from the last one, then the result's sign; at the end the last result.

    >>> columns([714, 32], [746], 4)
    '426,134,707,000+ 746'
    """
    rows = zip((numbers[0], *totals), numbers[1:], totals, strict=False)
    return " ".join([*(_paper(row, width) for row in rows), str(totals[-1])])


def _paper(row: tuple[int, int, int], width: int) -> str:
    digits = zip(*(str(abs(number)).zfill(width)[::-1] for number in row), strict=True)
    return ",".join(map("".join, digits)) + ("-" if row[-1] < 0 else "+")


def held_out(form: str, numbers: Sequence[int]) -> bool:
    """Return whether a problem belongs to `eval`: one in five, by a stable hash of its numbers in their order."""
    text = OPERATIONS[form][0].join(map(str, numbers))
    return hashlib.sha256(text.encode()).digest()[0] % 5 == 0


def _row(rng: random.Random, split: str, digits: int, terms: int, shown: str) -> Demonstration:
    form, problem, numbers = _problem(rng, split, digits, terms)
    totals = results(form, numbers)
    meta = {"kind": "arithmetic", "form": form, "split": split, "columns": {"answer": str(totals[-1])}}
    return Demonstration(
        (Message("user", problem),), (Message("assistant", _worked(rng, form, numbers, shown, digits)),), meta
    )


def _text(rng: random.Random, split: str, digits: int, terms: int, shown: str, lines: int) -> Demonstration:
    drawn = [_problem(rng, split, digits, terms) for _ in range(lines)]
    text = "\n".join(f"{problem} {_worked(rng, form, numbers, shown, digits)}" for form, problem, numbers in drawn)
    meta = {"kind": "arithmetic", "form": "text", "split": split, "plain": True}
    return Demonstration((), (Message("assistant", text),), meta)


def _worked(rng: random.Random, form: str, numbers: Sequence[int], shown: str, digits: int) -> str:
    """The answer to a problem, with the steps to it that `shown` asks for."""
    totals = results(form, numbers)
    if shown == "either":
        shown = rng.choice(("columns", "answer"))
    if shown == "columns" and form != "product":
        return columns(numbers, totals, digits + 1)
    return str(totals[-1]) if shown == "answer" else " ".join(map(str, totals))


def _problem(rng: random.Random, split: str, digits: int, terms: int) -> tuple[str, str, list[int]]:
    """The kind of a problem, its text, and its numbers."""
    while True:
        form = rng.choice(tuple(OPERATIONS))
        product = form == "product"
        count = rng.randint(2, min(terms, PRODUCT) if product else terms)
        numbers = [rng.randint(0, 10 ** (digits - product)) for _ in range(count)]
        if held_out(form, numbers) == (split == "eval"):
            break
    blank = rng.choice((" ", ""))
    problem = f"{blank}{OPERATIONS[form][0]}{blank}".join(map(str, numbers)) + f"{blank}="
    return form, problem, numbers


def _check(n: int, split: str, digits: int, terms: int, shown: str, lines: int) -> None:
    if n < 1:
        raise UserError(f"n={n}: ask for at least one row")
    if lines < 0:
        raise UserError(f"lines={lines}: a text has at least one line")
    for what, value, choices in (("split", split, SPLITS), ("value of shown", shown, SHOWN)):
        if value not in choices:
            raise UserError(unknown(what, value, choices))
    if not 2 <= digits <= MOST:
        raise UserError(f"digits={digits}: numbers have from 2 to {MOST} digits")
    if not 2 <= terms <= MOST:
        raise UserError(f"terms={terms}: a problem has from 2 to {MOST} numbers")
