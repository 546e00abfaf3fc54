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
"""What a value is called, a letter of it for a word or a letter."""
CHOICE = re.compile(r"\(?\s*([A-Z])\s*\)?|\(?([A-Z])\s*[).:]\)?\s+\S.*", re.DOTALL)
MARKUP = re.compile(r"\\(?:text|mbox|hbox|textbf|textit|textrm|mathrm|mathbf|boldsymbol)(?![a-zA-Z])|[{}$*]|\\[()\[\]]")


@functools.lru_cache(8192)
def read(text: str, short_units: bool = False) -> Answer:
    """What a text says as an answer. Unread where it says nothing, or nothing that has one reading."""
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
    """The words of a text, without marks of how they look, and without case where they are to `fold`."""
    plain = " ".join(MARKUP.sub(" ", re.sub(r"\\[,;:! ]|~", " ", text)).split()).strip(" .")
    return plain.casefold() if fold else plain


def answer(found: Sequence[Token], deep: int) -> Answer:
    """Tokens as an answer, or as several side by side."""
    if deep > DEEPEST:
        raise Unread("expressions too deep in each other")
    pieces = split(turned([t for t in found if t.kind != "end"]), separates)
    items = [item for piece in pieces for item in items_of(piece, deep)]
    if not items:
        raise Unread("an answer that says nothing")
    if items[1:] and any(isinstance(item, Words) and PARTS.fullmatch(item.text.rpartition(" ")[2]) for item in items):
        raise Unread("a part of a number, in words")
    return items[0] if len(items) == 1 else Collection(tuple(items))


def split(found: Sequence[Token], at: Callable[[Token], bool]) -> list[list[Token]]:
    """Tokens in the pieces between those that separate them, outside all brackets."""
    pieces: list[list[Token]] = [[]]
    depth, joined = 0, False
    for token in found:
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
    """Whether a token opens a bracket."""
    return token.kind in ("sign", "command") and (token.text in OPENING or token.text.startswith("begin "))


def closes(token: Token) -> bool:
    """Whether a token closes one."""
    return token.kind in ("sign", "command") and (token.text in CLOSED or token.text.startswith("end "))


def separates(token: Token) -> bool:
    """Whether a token stands between two answers."""
    if token.kind in ("word", "text"):
        return token.text.strip(" ,;").casefold() in ("and", "or")
    return token.kind == "sign" and token.text in (",", ";")


def items_of(found: list[Token], deep: int) -> list[Answer]:
    """One answer, or the two that a plus-or-minus makes of it."""
    places = [i for i, t in enumerate(found) if t.kind in ("sign", "command") and t.text in RELATIONS]
    if places and (chain := split(found, lambda t: t.kind in ("sign", "command") and t.text in RELATIONS))[1:]:
        signs = [RELATIONS[found[i].text] for i in outside(found, places)]
        return related(chain, signs, deep)
    return side(found, deep)


def outside(found: Sequence[Token], places: Sequence[int]) -> list[int]:
    """Those of the places that are outside all brackets."""
    kept, depth = [], 0
    for i, token in enumerate(found):
        depth += opens(token) - closes(token)
        if i in places and not depth:
            kept.append(i)
    return kept


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
    """The last of several sides that say the same. Unread where they do not: `2 + 3 = 6` says two things."""
    last = sides[-1]
    for each in sides[:-1]:
        if len(each) != len(last):
            raise Unread("sides that say different things")
        for one, other in zip(each, last, strict=True):
            if not (close(one, other) if roughly else same(one, other)):
                raise Unread("sides that say different things")
    return sides[0] if roughly else last


def close(one: Answer, other: Answer) -> bool:
    """Whether a number and its decimal are within a hundredth of each other."""
    if not isinstance(one, Quantity) or not isinstance(other, Quantity):
        return False
    a, b = evaluated(one.value, {}), evaluated(other.value, {})
    return bool(abs(a - b) <= abs(a) / 100)


def is_name(found: Sequence[Token]) -> bool:
    """Whether tokens are what a value is called: a letter, f(x), AB, a word, a tuple of letters, an angle."""
    marks = ("w" if t.kind in ("word", "text") else "a" if t.kind == "letter" else t.text for t in found)
    return bool(NAME.fullmatch("".join(marks))) and any(t.kind in ("word", "text", "letter") for t in found)


def spelt(found: Sequence[Token]) -> str:
    """A name as text."""
    return words("".join(t.text for t in found), fold=False).replace(" ", "")


def closed(found: Answer) -> bool:
    """Whether it is a quantity without unknowns."""
    return isinstance(found, Quantity) and not found.value.letters


def side(found: list[Token], deep: int) -> list[Answer]:
    """What stands on one side of a relation: words, sets, a matrix, a ratio or a quantity."""
    if not found:
        raise Unread("an answer that says nothing")
    if all(t.kind in ("word", "text") for t in found):
        return [worded(found, deep)]
    found = turned(found)
    parts = split(found, lambda t: t.kind == "command" and t.text == "cup")
    if parts[1:]:
        return [Union(tuple(one for part in parts for one in side(part, deep + 1)))]
    ratio = split(found, lambda t: t.kind == "sign" and t.text == ":")
    if ratio[1:]:
        return [Ratio(tuple(Grammar(part).quantity() for part in ratio))]
    if found[0].text.startswith("begin "):
        return [matrix(found, deep)]
    if found[0].text == "emptyset" and not found[1:]:
        return [Collection(())]
    if opens(found[0]) and (inner := inside(found)) is not None:
        bracketed = in_brackets(found, inner, deep)
        if bracketed is not None:
            return [bracketed]
    return quantities(found)


def quantities(found: list[Token]) -> list[Answer]:
    """A quantity, or the two of a plus-or-minus."""
    grammar = Grammar(found)
    one = grammar.quantity()
    if found[1:] and all(t.kind == "letter" and len(t.text) == 1 and t.text.isupper() for t in found):
        return [Quantity(one.value, one.unit, "".join(t.text for t in found))]
    return [one, Grammar(found, -1).quantity()] if grammar.both else [one]


def worded(found: list[Token], deep: int) -> Answer:
    """Words; what stands in one \\text{...} alone is read like an answer of its own where it is one."""
    text = " ".join(t.text for t in found)
    if len(found) == 1 and found[0].kind == "text" and re.search(r"[\d,]", text):
        try:
            return answer(tokens(text), deep + 1)
        except Unread:
            pass
    return Words(words(text))


def turned(found: list[Token]) -> list[Token]:
    """The brackets of ]a, b[ as those of (a, b)."""
    if len(found) < 3 or (found[0].text != "]" and found[-1].text != "["):
        return found
    first = Token("sign", "(") if found[0].text == "]" else found[0]
    last = Token("sign", ")") if found[-1].text == "[" else found[-1]
    return [first, *found[1:-1], last]


def inside(found: list[Token]) -> list[Token] | None:
    """What stands between the first bracket and the last, where these belong together."""
    depth = 0
    for i, token in enumerate(found):
        depth += opens(token) - closes(token)
        if not depth:
            return found[1:-1] if i == len(found) - 1 else None
    raise Unread("brackets that do not close")


def in_brackets(found: list[Token], inner: list[Token], deep: int) -> Answer | None:
    """A set, tuple or interval; None for brackets around one expression."""
    left, right = found[0].text, found[-1].text
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
    items = tuple(one for piece in pieces for one in items_of(piece, deep + 1))
    if len(items) != len(pieces):
        raise Unread("a plus-or-minus between brackets")
    return Bracketed("(" if left == "langle" else left, items, ")" if right == "rangle" else right)


def matrix(found: list[Token], deep: int) -> Matrix:
    """A matrix."""
    frame = found[0].text.removeprefix("begin ")
    inner = inside(found)
    if frame not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array") or inner is None:
        raise Unread(f"a {frame}")
    rows = split(inner, lambda t: t.text == "\\\\")
    cells = [split(row, lambda t: t.text == "&") for row in rows]
    read_rows = tuple(tuple(one for cell in row for one in items_of(cell, deep + 1)) for row in cells)
    if len({len(row) for row in read_rows}) != 1:
        raise Unread("a matrix with rows of different lengths")
    return Matrix(read_rows)
