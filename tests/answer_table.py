"""Fraction, tuple, interval and unit answers with right variants and wrong neighbours of each, by fixed rules on their text.

The rules know nothing of the verifier: they change one thing in the text of an answer (a numerator, an order, a bracket,
a unit, a sign, an element), or only how it is written.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

SAID = (
    r"So the answer is $\boxed{ANSWER}$.",
    "The answer is $ANSWER$.",
    "Work: 7 * 8 = 56.\n#### ANSWER",
    r"<think>Is it \boxed{17}? No.</think> Therefore \[ANSWER\]",
)


class Case(NamedTuple):
    """A row's answer, a response to it, whether it is right, which rule made it, and its answer without the rest."""

    kind: str
    truth: str
    response: str
    right: bool
    rule: str
    text: str = ""


def real_answers(data: Path) -> list[str]:
    """The answers of the mathematics test set, each once."""
    with gzip.open(data / "math_test/problems.dev.jsonl.gz", "rt", encoding="utf-8") as file:
        return sorted({json.loads(line)["answer"].strip() for line in file})


def made_answers() -> list[str]:
    """As many of every kind again, of small numbers in all positions."""
    numbers = range(1, 8)
    fractions = [rf"\frac{{{a}}}{{{b + 7}}}" for a in numbers for b in (1, 3, 4)]
    pairs = [f"({a},{b})" for a in (-3, 0, 2, 5) for b in (1, 4, 7)] + [f"({a}, {a + 2}, -{a})" for a in numbers]
    edges = [rf"{left}{a},\frac{{{a + 7}}}{{2}}{right}" for a in (0, 2) for left in "([" for right in ")]"]
    open_ended = [rf"(-\infty,{a}] \cup [{a + 3},\infty)" for a in numbers] + [rf"[{a},\infty)" for a in numbers]
    units = [rf"{a}\text{{ {name}}}" for a in (3, 12) for name in ("cm", "hours", "square feet", "kg", "m/s", "cents")]
    return [*fractions, *pairs, *edges, *open_ended, *units, r"45^\circ", r"\$2.50", r"80\%"]


def cases(answers: list[str]) -> Iterator[Case]:
    """All cases of the answers that are of one of the four kinds."""
    for i, truth in enumerate(answers):
        for kind, rules in (("fraction", fraction), ("tuple", tuples), ("interval", intervals), ("unit", units)):
            variants = list(rules(truth))
            for j, (text, right, rule) in enumerate(variants):
                said = SAID[(i + j) % len(SAID)].replace("ANSWER", text)
                yield Case(kind, truth, said, right, rule, text)
            if variants:
                break


def fraction(truth: str) -> Iterator[tuple[str, bool, str]]:
    """Variants of a plain fraction."""
    match = re.fullmatch(r"(-?)\\[dt]?frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))", truth)
    if match is None:
        return
    sign, a, b = match[1], int(match[2] or match[3]), int(match[4] or match[5])
    value, other = Fraction(a, b), "" if sign else "-"
    yield truth, True, "itself"
    yield rf"{sign}\dfrac{{{a}}}{{{b}}}", True, "dfrac"
    yield f"{sign}{a}/{b}", True, "slash"
    yield rf"{sign}\frac{{{3 * a}}}{{{3 * b}}}", True, "expanded"
    yield rf"x = {sign}\frac{{{a}}}{{{b}}}", True, "named"
    if 10**6 % b == 0:
        yield f"{sign}{float(value):.6f}", True, "decimal"
    if a > b:
        yield rf"{sign}{a // b}\frac{{{a % b}}}{{{b}}}", True, "mixed"
    yield rf"{sign}\frac{{{a + 1}}}{{{b}}}", False, "other numerator"
    yield rf"{sign}\frac{{{a}}}{{{b + 1}}}", False, "other denominator"
    yield rf"{other}\frac{{{a}}}{{{b}}}", False, "other sign"
    yield f"{sign}{b}", False, "denominator alone"
    yield f"{sign}{float(value):.2f}1", False, "rounded"
    if a != b:
        yield rf"{sign}\frac{{{b}}}{{{a}}}", False, "turned over"


def bare(truth: str) -> str:
    """An answer without commands of size and its outer space."""
    return re.sub(r"\\left|\\right|\\!", "", truth).strip()


def tuples(truth: str) -> Iterator[tuple[str, bool, str]]:
    """Variants of a tuple of numbers. A pair that has an end at infinity, or has no two brackets alike, is none."""
    match = re.fullmatch(r"\(([^()\[\]]*,[^()\[\]]*)\)", bare(truth))
    if match is None or "infty" in truth:
        return
    items = [item.strip() for item in match[1].split(",")]
    yield truth, True, "itself"
    yield rf"\left({' , '.join(items)}\right)", True, "sized"
    yield f"({','.join(items)})", True, "close"
    yield f"P = ({', '.join(items)})", True, "named"
    if all(re.fullmatch(r"-?\d+", item) for item in items):
        yield "(" + ", ".join(rf"\frac{{{2 * int(item)}}}{{2}}" for item in items) + ")", True, "fractions"
    yield f"[{', '.join(items)}]", False, "other brackets"
    yield f"({', '.join(items)}]", False, "another bracket"
    yield rf"\{{{', '.join(items)}\}}", False, "a set"
    yield items[-1], False, "last element"
    yield f"({', '.join([*items, '1'])})", False, "one element more"
    yield f"({', '.join([*items[:-1], items[-1] + '+1'])})", False, "another element"
    if len(items) > 2:
        yield f"({', '.join(items[:-1])})", False, "missing element"
    if items[0] != items[-1]:
        yield f"({', '.join([items[-1], *items[1:-1], items[0]])})", False, "other order"
    if items[0] not in ("0", "i"):
        yield f"({', '.join(['-(' + items[0] + ')', *items[1:]])})", False, "other sign"


def intervals(truth: str) -> Iterator[tuple[str, bool, str]]:
    """Variants of an interval, or a union of several, by its first and last bracket."""
    text = bare(truth)
    if not re.fullmatch(r"[(\[][^()\[\]]*,[^()\[\]]*[)\]](?:\s*\\cup\s*[(\[][^()\[\]]*,[^()\[\]]*[)\]])*", text):
        return
    parts = [part.strip() for part in text.split(r"\cup")]
    first, last = parts[0], parts[-1]
    left = {"(": "[", "[": "("}[first[0]] + first[1:]
    right = last[:-1] + {")": "]", "]": ")"}[last[-1]]
    yield truth, True, "itself"
    yield r" \cup ".join(rf"\left{p[0]} {p[1:-1].replace(',', ' , ')} \right{p[-1]}" for p in parts), True, "sized"
    yield r" \cup ".join(reversed(parts)), True, "other order"
    yield r"x \in " + text, True, "named"
    yield r"\cup".join([left, *parts[1:]]), False, "left bracket"
    yield r"\cup".join([*parts[:-1], right]), False, "right bracket"
    yield first[1:-1], False, "no brackets"
    yield first[1:-1].split(",")[1].strip(), False, "last end"
    yield r"\cup".join([*parts[:-1], last.replace(",", "+1,")]), False, "another end"
    if len(parts) > 1:
        yield first, False, "missing part"
        yield ", ".join(parts), False, "a list"


OTHER = {"cm": "mm", "hours": "minutes", "square feet": "feet", "kg": "g", "m/s": "m", "cents": "dollars", "km": "cm"}


def units(truth: str) -> Iterator[tuple[str, bool, str]]:
    """Variants of a number with a unit."""
    if match := re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*\^\{?\\circ\}?", truth):
        yield from of_unit(truth, match[1], [rf"{match[1]}\text{{ degrees}}", f"{match[1]}°"], r"\text{ radians}")
    elif match := re.fullmatch(r"\\\$\s*(\d+(?:\.\d+)?)", truth):
        yield from of_unit(truth, match[1], [rf"{match[1]} \text{{ dollars}}", f"${match[1]}"], r"\text{ cents}")
    elif match := re.fullmatch(r"(\d+(?:\.\d+)?)\\%", truth):
        yield from of_unit(truth, match[1], [rf"{match[1]}\text{{ percent}}", f"{match[1]}%"], r"^\circ")
    elif match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:\\,)?\s*\\(?:text|mbox)\s*\{([a-z /]+)\}(\^\d)?", truth):
        number, name, power = match[1], match[2].strip(), match[3] or ""
        said = [rf"{number}\ \mathrm{{{name}}}{power}", f"{number} {name}{power}"]
        yield from of_unit(truth, number, said, rf"\text{{ {OTHER.get(name, 'miles')}}}")


def of_unit(truth: str, number: str, said: list[str], other: str) -> Iterator[tuple[str, bool, str]]:
    """The variants, with how else it may be said and another unit."""
    yield truth, True, "itself"
    for text in said:
        yield text, True, "other writing"
    yield number, True, "without its unit"
    yield number + other, False, "another unit"
    yield number + r"\text{ cubic inches}", False, "of another kind"
    yield truth.replace(number, number + "1", 1), False, "another number"
    yield "-" + truth, False, "other sign"
    yield rf"\frac{{{number}}}{{7}}", False, "a part of it"
