"""The type words of options: the name of each type's values, and the conversion of a value to it.

The words are those of `truing.records` (`Positive`, `Count`, ...), plain `int float str bool None`, `Literal[...]`,
`list[...]`, `dict`, unions of them, and a recipe's references (`Model`, `Data`, ...).
"""

from __future__ import annotations

import ast
import functools
import math
import sys
import types
import typing
from typing import Any, Literal

from truing import records
from truing.errors import UserError, nearest

REFERENCES: dict[str, tuple[frozenset[str], str]] = {
    "Model": (frozenset({"model"}), "a model ($stage, $base, a Hub name, a folder or world:...)"),
    "RewardModel": (frozenset({"reward"}), "a reward model ($stage or a folder), or a list of them"),
    "Models": (frozenset({"model", "reward"}), "a list of models"),
    "Rivals": (frozenset({"model"}), "a model ($stage, $base, a Hub name, a folder or world:...), or a list of them"),
    "Data": (frozenset({"data"}), "data ($stage.part, $inputs.name, a file, a Hub name or world:...)"),
    "Findings": (frozenset({"findings"}), "findings ($stage or a JSON file)"),
    "Evidence": (frozenset({"findings"}), "findings ($stage or a JSON file), or a list of them"),
    "Rules": (frozenset(), "a rules file"),
}
WHOLE = 2.0**53
"""Largest whole number: beyond it not all of them are numbers of fp64, nor seeds."""
NUMBERS: dict[str, tuple[str, bool, float, float]] = {
    # type word: what it is called, whole numbers only, lowest, highest
    "Positive": ("a number above 0", False, sys.float_info.min, math.inf),  # training flushes smaller ones to 0
    "NonNegative": ("a number from 0 up", False, 0.0, math.inf),
    "Fraction": ("a number from 0 to 1", False, 0.0, 1.0),
    "BelowOne": ("a number from 0 up and below 1", False, 0.0, math.nextafter(1, 0)),
    "PositiveFraction": ("a number above 0, up to 1", False, sys.float_info.min, 1.0),
    "Clip": ("a number above 0 and below 1", False, sys.float_info.min, math.nextafter(1, 0)),
    "Cap": ("a number from 1 up", False, 1.0, math.inf),
    "DualClip": ("a number above 1", False, math.nextafter(1, 2), math.inf),
    "Smoothing": ("a number of at least 0 and below 0.5", False, 0.0, math.nextafter(0.5, 0)),
    "PositiveSmoothing": ("a number of at least 1e-06 and below 0.5", False, 1e-6, math.nextafter(0.5, 0)),
    "float": ("a number", False, -math.inf, math.inf),
    "Count": ("a whole number from 1 up", True, 1, WHOLE),
    "int": ("a whole number", True, -WHOLE, WHOLE),
}
WHY: dict[str, str] = {
    "PositiveFraction": "at 0 there is nothing left",
    "BelowOne": "at 1 nothing else is left",
    "Clip": "from 1 on the ratio has no lower bound, at 0 it cannot move (dapo's clip_high alone may be wide)",
    "Cap": "below 1 it cuts off what has not moved at all",
    "DualClip": "at 1 or below it takes the gradient of every response that did badly",
    "Smoothing": "at 0.5 the labels teach nothing, above it their opposite",
    "PositiveSmoothing": "at 0 the loss is infinite, at 0.5 the labels teach nothing, above it their opposite",
}
"""Reasons for the ends of a type word's range, where its name does not tell."""
OTHERS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "str": ("text", str),
    "bool": ("true or false", bool),
    "None": ("none", type(None)),
    "dict": ("a mapping", dict),
    "Columns": ("a mapping of roles to a file's columns, such as {chosen: better, rejected: worse}", dict),
    "RewardSpec": ("a reward's name, {name: {option: value}}, or a list of these", (str, dict, list, tuple)),
    "ObjectiveSpec": ("an objective's name, {name: {option: value}}, or a list of these", (str, dict, list, tuple)),
}
PLURAL = frozenset({"Models", "Rivals"})


@functools.lru_cache(maxsize=512)
def parse_type(text: str) -> ast.expr:
    """The annotation `text` as a tree, every word of it known; UserError where it is not."""
    tree = ast.parse(text, mode="eval").body
    problem = trouble(tree)
    if problem:
        raise UserError(f"the type '{text}' is not one an option may have: {problem}")
    return tree


def trouble(tree: ast.expr) -> str:
    """Describe the part of an annotation that is not understood; an empty string if all of it is."""
    match tree:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return trouble(left) or trouble(right)
        case ast.Constant(value=None):
            return ""
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            constants = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return "" if all(isinstance(c, ast.Constant) for c in constants) else "a Literal holds constants"
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return trouble(inner)
        case ast.Name(id=word):
            words = [*NUMBERS, *OTHERS, *REFERENCES]
            hint = nearest(word, words)
            return "" if word in words else f"unknown word '{word}'" + (f", did you mean '{hint}'?" if hint else "")
    return f"'{ast.unparse(tree)}' is not understood"


def type_and_doc(annotation: ast.expr) -> tuple[str, str]:
    """The type of an option and the sentence beside it, empty where there is none; text is read as the code it holds.

    >>> type_and_doc(ast.Constant("Annotated[Positive, 'nats']"))
    ('Positive', 'nats')
    """
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return type_and_doc(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).rpartition(".")[2] == "Annotated":
        inner, *notes = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        last = notes[-1] if notes else None
        doc = last.value if isinstance(last, ast.Constant) and isinstance(last.value, str) else ""
        return type_and_doc(inner)[0], doc
    return ast.unparse(annotation), ""


def words_and_doc(annotation: Any) -> tuple[str, str]:
    """The same of an annotation at run time, whether or not the module postpones annotations.

    >>> words_and_doc(typing.Annotated[records.Positive, "nats"]), words_and_doc(records.Positive)
    (('Positive', 'nats'), ('Positive', ''))
    """
    if isinstance(annotation, str):
        return type_and_doc(ast.Constant(annotation))
    notes = getattr(annotation, "__metadata__", ())
    if not notes or named(annotation.__origin__, notes):
        return type_words(annotation), ""
    # Annotated in Annotated is one flat Annotated: what stands before the last note is the type word's own.
    return named(annotation.__origin__, notes[:-1]) or type_words(annotation.__origin__), str(notes[-1])


def named(origin: Any, notes: tuple[Any, ...]) -> str:
    """The type word of `truing.records` that is this type with these notes, or an empty string."""
    words = ((word, getattr(records, word, None)) for word in NUMBERS)
    return next(
        (w for w, t in words if (getattr(t, "__origin__", 0), getattr(t, "__metadata__", 0)) == (origin, notes)), ""
    )


def type_words(annotation: Any) -> str:
    """An annotation without a sentence as the text it was written in.

    >>> type_words(records.Count | None)
    'Count | None'
    """
    if isinstance(annotation, str):
        return annotation
    if word := named(getattr(annotation, "__origin__", None), getattr(annotation, "__metadata__", ())):
        return word
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_words(a) for a in arguments)
    if origin is list:
        return f"list[{type_words(arguments[0])}]"
    return "None" if annotation is type(None) else getattr(annotation, "__name__", repr(annotation))


def members(tree: ast.expr) -> list[ast.expr]:
    """The alternatives of a union, from left to right."""
    if isinstance(tree, ast.BinOp):
        return members(tree.left) + members(tree.right)
    return [tree]


def choices(tree: ast.expr) -> list[Any]:
    """The constants a `Literal` allows."""
    assert isinstance(tree, ast.Subscript)
    inner = tree.slice.elts if isinstance(tree.slice, ast.Tuple) else [tree.slice]
    return [c.value for c in inner if isinstance(c, ast.Constant)]


def words_in(tree: ast.expr) -> frozenset[str]:
    """The type words of an annotation, within unions and lists too.

    >>> sorted(words_in(parse_type("list[Model] | Literal['gold'] | None")))
    ['Model']
    """
    return frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)) - {"Literal", "list"}


def choices_in(tree: ast.expr, depth: int = 0) -> tuple[Any, ...]:
    """The constants that the `Literal`s of an annotation allow, of a value itself or of an item of `depth` lists.

    >>> tree = parse_type("list[Model | Literal['all']] | Literal['gold']")
    >>> choices_in(tree), choices_in(tree, 1)
    (('gold',), ('all',))
    """
    inner = [member for member in members(tree) if isinstance(member, ast.Subscript)]
    if depth:
        return tuple(choice for each in inner if is_list(each) for choice in choices_in(each.slice, depth - 1))
    return tuple(choice for literal in inner if not is_list(literal) for choice in choices(literal))


def is_list(tree: ast.expr) -> bool:
    """Return whether an annotation is `list[...]`."""
    return isinstance(tree, ast.Subscript) and isinstance(tree.value, ast.Name) and tree.value.id == "list"


def word_of(tree: ast.expr) -> str:
    """The type word of a leaf annotation."""
    return tree.id if isinstance(tree, ast.Name) else "None"


def describe(tree: ast.expr) -> str:
    """Describe a value of this type, in words for a person.

    >>> describe(parse_type("Count | None"))
    'a whole number from 1 up or none'
    """
    if isinstance(tree, ast.BinOp):
        return " or ".join(describe(member) for member in members(tree))
    if is_list(tree):
        assert isinstance(tree, ast.Subscript)
        return f"a list, each {describe(tree.slice)}"
    if isinstance(tree, ast.Subscript):
        return "one of " + ", ".join(map(str, choices(tree)))
    word = word_of(tree)
    return (NUMBERS.get(word) or OTHERS.get(word) or REFERENCES[word][::-1])[0]


def reason(tree: ast.expr, value: Any) -> str:
    """Why a number outside the range of its type is none of its values; empty where its name says enough."""
    reasons = [WHY[word_of(m)] for m in members(tree) if isinstance(m, ast.Name) and word_of(m) in WHY]
    return f": {reasons[0]}" if reasons and isinstance(value, int | float) and not isinstance(value, bool) else ""


def guess(tree: ast.expr, value: Any) -> str:
    """A hint for a misspelt choice."""
    words = [str(c) for m in members(tree) if isinstance(m, ast.Subscript) and not is_list(m) for c in choices(m)]
    hint = nearest(value, words) if isinstance(value, str) else ""
    return f". Did you mean '{hint}'?" if hint else ""


def convert(tree: ast.expr, value: Any) -> Any:
    """`value` as the type wants it, or a ValueError."""
    if isinstance(tree, ast.BinOp):
        return convert_union(tree, value)
    if is_list(tree):
        assert isinstance(tree, ast.Subscript)
        if not isinstance(value, list | tuple):
            raise ValueError("not a list")
        return [convert(tree.slice, item) for item in value]
    if isinstance(tree, ast.Subscript):
        if not any(value == c and type(value) is type(c) for c in choices(tree)):
            raise ValueError("not one of the choices")
        return value
    word = word_of(tree)
    if word in NUMBERS:
        return number(word, value)
    if word in REFERENCES:
        return reference(word, value)
    if not isinstance(value, OTHERS[word][1]):
        raise ValueError("of another type")
    return value


def convert_union(tree: ast.expr, value: Any) -> Any:
    """`value` as the first alternative that takes it."""
    for member in members(tree):
        try:
            return convert(member, value)
        except ValueError:
            continue
    raise ValueError("none of the alternatives")


def number(word: str, value: Any) -> float | int:
    """A number in range. Text that is a number, as `1_000` or one in quotes, is taken as one."""
    _, whole, low, high = NUMBERS[word]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    try:
        figure = float(value)
    except OverflowError as error:
        raise ValueError("out of range") from error
    if not math.isfinite(figure) or not low <= figure <= high or (whole and figure != int(figure)):
        raise ValueError("out of range")
    if whole:
        return value if isinstance(value, int) else int(figure)
    return figure


def reference(word: str, value: Any) -> Any:
    """A reference: text, or something already resolved (a Ref, a Policy); lists where the type is a plural."""
    if isinstance(value, list | tuple) and word in (*PLURAL, "Evidence", "RewardModel"):
        if not value:
            raise ValueError("an empty list")
        return [reference("Model", item) for item in value]
    if isinstance(value, dict) and "new" in value and word in ("Model", *PLURAL):
        return [value] if word in PLURAL else value
    if value is None or isinstance(value, bool | int | float | list | tuple | dict) or value == "":
        raise ValueError("not a reference")
    return [value] if word in PLURAL else value
