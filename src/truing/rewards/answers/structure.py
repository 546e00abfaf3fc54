"""A whole answer: a quantity, a tuple or interval, a set or list, a union, a matrix, a ratio, a relation, or words."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence

from truing.rewards.answers import Unread
from truing.rewards.answers.equality import same
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
)
from truing.rewards.answers.grammar import DEEPEST, Grammar, Quantity
from truing.rewards.answers.numeric import evaluated
from truing.rewards.answers.tokens import Token, rewritten, tokens
from truing.rewards.answers.units import PARTS

OPENING, CLOSED = ("(", "[", "{", "\\{", "langle"), (")", "]", "}", "\\}", "rangle")
RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "in": "in", "approx": "~", "equiv": "="}
BASED = re.compile(r"(-?\d[0-9A-Za-z]*(?:\.[0-9A-Za-z]+)?)\s*_\s*(?:\{\s*(\d+)\s*\}|(\d+))")
RANGE = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:\s*-\s*\d+(?:,\d{3})*(?:\.\d+)?)+")
"""Numbers with dashes between them, which are seldom a difference."""
NAME = re.compile(
    r"(?:w|a|angle|triangle|overline|theta|alpha|beta|_|\d|\{|\}|')+|a(?:_.)?\((?:a|\d+|,|w)+\)|\(a(?:,a)+\)|w\(.*\)"
)
"""The name of a value, with w for each word and a for each letter."""
CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)?|\(?([A-Z])\s*[).:]\)?\s+\S.*", re.DOTALL)
MARKUP = re.compile(r"\\(?:text|mbox|hbox|textbf|textit|textrm|mathrm|mathbf|boldsymbol)(?![a-zA-Z])|[{}$*]|\\[()\[\]]")


@functools.lru_cache(8192)
def read(text: str, short_units: bool = False) -> Answer:
    """Parse a text as an answer. Unread where it is empty, or has no single reading."""
    plain = rewritten(text)
    if choice := CHOICE.fullmatch(words(text, fold=False)):
        return Words((choice[1] or choice[2]).casefold())
    if (based := BASED.fullmatch(plain)) and int(based[2] or based[3]) != 10:
        return Based(based[1].casefold(), int(based[2] or based[3]))
    if RANGE.fullmatch(plain):
        raise Unread("a range, a date or a difference")
    plain = re.sub(r"(?<=\d)\s*_\s*(?:\{\s*10\s*\}|10)$", "", plain)
    try:
        return answer(tokens(plain, short_units), 0)
    except RecursionError as problem:
        raise Unread("expressions too deep in each other") from problem


def words(text: str, fold: bool = True) -> str:
    """The words of a text, without markup, and with `fold` without case."""
    plain = " ".join(MARKUP.sub(" ", re.sub(r"\\[,;:! ]|~", " ", text)).split()).strip(" .")
    return plain.casefold() if fold else plain


def answer(span: Sequence[Token], deep: int) -> Answer:
    """Parse tokens as an answer, or as several side by side."""
    if deep > DEEPEST:
        raise Unread("expressions too deep in each other")
    pieces = split(turned([t for t in span if t.kind != "end"]), separates)
    items = [item for piece in pieces for item in items_of(piece, deep)]
    if not items:
        raise Unread("an empty answer")
    if items[1:] and any(isinstance(item, Words) and PARTS.fullmatch(item.text.rpartition(" ")[2]) for item in items):
        raise Unread("a part of a number, in words")
    return items[0] if len(items) == 1 else Collection(tuple(items))


def split(span: Sequence[Token], at: Callable[[Token], bool]) -> list[list[Token]]:
    """Split tokens at separators outside all brackets."""
    pieces: list[list[Token]] = [[]]
    depth, joined = 0, False
    for token in span:
        depth += opens(token) - closes(token)
        if not depth and not closes(token) and at(token):
            word = token.kind in ("word", "text")
            if word and not pieces[-1]:
                continue  # the `and` of `1, 2, and 3`
            pieces.append([])
            joined = True
        else:
            pieces[-1].append(token)
    if depth or (joined and not all(pieces)):
        raise Unread("brackets that do not close" if depth else "an answer that is missing between two others")
    return pieces


def opens(token: Token) -> bool:
    """True if a token opens a bracket."""
    return token.kind in ("sign", "command") and (token.text in OPENING or token.text.startswith("begin "))


def closes(token: Token) -> bool:
    """True if a token closes a bracket."""
    return token.kind in ("sign", "command") and (token.text in CLOSED or token.text.startswith("end "))


def separates(token: Token) -> bool:
    """True if a token separates two answers."""
    if token.kind in ("word", "text"):
        return token.text.strip(" ,;").casefold() in ("and", "or")
    return token.kind == "sign" and token.text in (",", ";")


def items_of(span: list[Token], deep: int) -> list[Answer]:
    """One answer, or the two that a plus-or-minus makes of it."""
    places = [i for i, t in enumerate(span) if t.kind in ("sign", "command") and t.text in RELATIONS]
    if places and (chain := split(span, lambda t: t.kind in ("sign", "command") and t.text in RELATIONS))[1:]:
        signs = [RELATIONS[span[i].text] for i in outside(span, places)]
        return related(chain, signs, deep)
    return side(span, deep)


def outside(span: Sequence[Token], places: Sequence[int]) -> list[int]:
    """The places that are outside all brackets."""
    outer, depth = [], 0
    for i, token in enumerate(span):
        depth += opens(token) - closes(token)
        if i in places and not depth:
            outer.append(i)
    return outer


def related(chain: list[list[Token]], signs: list[str], deep: int) -> list[Answer]:
    """A name and its values, or a relation."""
    first, *rest = chain
    if signs[0] in ("=", "in") and set(signs[1:]) <= {"="} and is_name(first):
        name = spelt(first)
        return [Named(name, value) for value in agreed([side(piece, deep) for piece in rest])]
    sides = [side(piece, deep) for piece in chain]
    if set(signs) <= {"=", "~"} and all(closed(value) for each in sides for value in each):
        return agreed(sides, "~" in signs)
    if len(chain) == 2 and signs == ["="] and is_name(rest[0]) and all(map(closed, sides[0])):
        return [Named(spelt(rest[0]), value) for value in sides[0]]
    if any(len(each) != 1 for each in sides) or "~" in signs:
        raise Unread("a relation with several readings")
    return [Relation(tuple(each[0] for each in sides), tuple(signs))]


def agreed(sides: list[list[Answer]], roughly: bool = False) -> list[Answer]:
    """The last of several sides that are the same. Unread where they are not: `2 + 3 = 6` has two values."""
    last = sides[-1]
    for each in sides[:-1]:
        if len(each) != len(last):
            raise Unread("sides that have different values")
        for a, b in zip(each, last, strict=True):
            if not (close(a, b) if roughly else same(a, b)):
                raise Unread("sides that have different values")
    return sides[0] if roughly else last


def close(exact: Answer, decimal: Answer) -> bool:
    """True if a number and its decimal are within a hundredth of each other."""
    if not isinstance(exact, Quantity) or not isinstance(decimal, Quantity):
        return False
    a, b = evaluated(exact.value, {}), evaluated(decimal.value, {})
    return bool(abs(a - b) <= abs(a) / 100)


def is_name(span: Sequence[Token]) -> bool:
    """True if tokens are the name of a value: a letter, f(x), AB, a word, a tuple of letters, an angle."""
    marks = ("w" if t.kind in ("word", "text") else "a" if t.kind == "letter" else t.text for t in span)
    return bool(NAME.fullmatch("".join(marks))) and any(t.kind in ("word", "text", "letter") for t in span)


def spelt(span: Sequence[Token]) -> str:
    """A name as text."""
    return words("".join(t.text for t in span), fold=False).replace(" ", "")


def closed(candidate: Answer) -> bool:
    """True if an answer is a quantity without unknowns."""
    return isinstance(candidate, Quantity) and not candidate.value.letters


def side(span: list[Token], deep: int) -> list[Answer]:
    """Parse one side of a relation: words, sets, a matrix, a ratio or a quantity."""
    if not span:
        raise Unread("an empty answer")
    if all(t.kind in ("word", "text") for t in span):
        return [worded(span, deep)]
    span = turned(span)
    parts = split(span, lambda t: t.kind == "command" and t.text == "cup")
    if parts[1:]:
        return [Union(tuple(member for part in parts for member in side(part, deep + 1)))]
    ratio = split(span, lambda t: t.kind == "sign" and t.text == ":")
    if ratio[1:]:
        return [Ratio(tuple(Grammar(part).quantity() for part in ratio))]
    if span[0].text.startswith("begin "):
        return [matrix(span, deep)]
    if span[0].text == "emptyset" and not span[1:]:
        return [Collection(())]
    if opens(span[0]) and (inner := inside(span)) is not None:
        bracketed = in_brackets(span, inner, deep)
        if bracketed is not None:
            return [bracketed]
    return quantities(span)


def quantities(span: list[Token]) -> list[Answer]:
    """A quantity, or the two of a plus-or-minus."""
    grammar = Grammar(span)
    quantity = grammar.quantity()
    if span[1:] and all(t.kind == "letter" and len(t.text) == 1 and t.text.isupper() for t in span):
        return [Quantity(quantity.value, quantity.unit, "".join(t.text for t in span))]
    return [quantity, Grammar(span, -1).quantity()] if grammar.both else [quantity]


def worded(span: list[Token], deep: int) -> Answer:
    """Words; the content of a single \\text{...} is parsed as an answer of its own, if it is one."""
    text = " ".join(t.text for t in span)
    if len(span) == 1 and span[0].kind == "text" and re.search(r"[\d,]", text):
        try:
            return answer(tokens(text), deep + 1)
        except Unread:
            pass
    return Words(words(text))


def turned(span: list[Token]) -> list[Token]:
    """The brackets of ]a, b[ as those of (a, b)."""
    if len(span) < 3 or (span[0].text != "]" and span[-1].text != "["):
        return span
    first = Token("sign", "(") if span[0].text == "]" else span[0]
    last = Token("sign", ")") if span[-1].text == "[" else span[-1]
    return [first, *span[1:-1], last]


def inside(span: list[Token]) -> list[Token] | None:
    """The tokens between the first bracket and the last, if these belong together."""
    depth = 0
    for i, token in enumerate(span):
        depth += opens(token) - closes(token)
        if not depth:
            return span[1:-1] if i == len(span) - 1 else None
    raise Unread("brackets that do not close")


def in_brackets(span: list[Token], inner: list[Token], deep: int) -> Answer | None:
    """A set, tuple or interval; None for brackets around one expression."""
    left, right = span[0].text, span[-1].text
    if left == "{" or right == "}":
        return answer(inner, deep + 1) if (left, right) == ("{", "}") else None
    if (left, right) == ("\\{", "\\}"):
        held = answer(inner, deep + 1) if inner else Collection(())
        return held if isinstance(held, Collection) else Collection((held,))
    pieces = split(inner, separates)
    if not pieces[1:]:
        if left == "langle" or (left, right) in (("(", "]"), ("[", ")")):
            raise Unread("brackets around one value")
        return None
    if "\\{" in (left, right) or "\\}" in (left, right):
        raise Unread("brackets that do not belong together")
    items = tuple(entry for piece in pieces for entry in items_of(piece, deep + 1))
    if len(items) != len(pieces):
        raise Unread("a plus-or-minus between brackets")
    return Bracketed("(" if left == "langle" else left, items, ")" if right == "rangle" else right)


def matrix(span: list[Token], deep: int) -> Matrix:
    """A matrix."""
    frame = span[0].text.removeprefix("begin ")
    inner = inside(span)
    if frame not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array") or inner is None:
        raise Unread(f"a {frame}")
    rows = split(inner, lambda t: t.text == "\\\\")
    cells = [split(row, lambda t: t.text == "&") for row in rows]
    read_rows = tuple(tuple(entry for cell in row for entry in items_of(cell, deep + 1)) for row in cells)
    if len({len(row) for row in read_rows}) != 1:
        raise Unread("a matrix with rows of different lengths")
    return Matrix(read_rows)
