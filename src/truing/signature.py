"""The signature is the schema: options and signals of a part, read from its source text without running it.

Nothing is declared twice. The type words an option may use are those of `truing.types` (`Positive`, `Count`, ...),
plain `int float str bool None`, `Literal[...]`, `list[...]`, `dict`, unions of them, and a recipe's references, below.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import truing.types
from truing.errors import UserError, nearest
from truing.types import Mean, Per, default_mean, per_of

Kind: TypeAlias = Literal["objective", "stage"]

REFERENCES: dict[str, tuple[frozenset[str], str]] = {
    "Model": (frozenset({"model"}), "a model ($stage, $base, a Hub name, a folder or world:...)"),
    "RewardModel": (frozenset({"reward"}), "a reward model ($stage or a folder)"),
    "Models": (frozenset({"model", "reward"}), "a list of models"),
    "Data": (frozenset({"data"}), "data ($stage.part, $inputs.name, a file, a Hub name or world:...)"),
    "Findings": (frozenset({"findings"}), "findings ($stage or a JSON file)"),
    "Evidence": (frozenset({"findings"}), "findings ($stage or a JSON file), or a list of them"),
    "Rules": (frozenset(), "a rules file"),
}
NUMBERS: dict[str, tuple[str, bool, float, float]] = {
    # type word: what it is called, whole numbers only, lowest, highest
    "Positive": ("a number above 0", False, sys.float_info.min, math.inf),  # training flushes smaller ones to 0
    "NonNegative": ("a number from 0 up", False, 0.0, math.inf),
    "Fraction": ("a number from 0 to 1", False, 0.0, 1.0),
    "float": ("a number", False, -math.inf, math.inf),
    "Count": ("a whole number from 1 up", True, 1, math.inf),
    "int": ("a whole number", True, -math.inf, math.inf),
}
OTHERS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "str": ("text", str),
    "bool": ("true or false", bool),
    "None": ("none", type(None)),
    "dict": ("a mapping", dict),
    "Columns": ("a mapping of roles to a file's columns, such as {chosen: better, rejected: worse}", dict),
    "ObjectiveSpec": ("an objective's name, {name: {option: value}}, or a list of these", (str, dict, list, tuple)),
}
PLURAL = frozenset({"Models"})


@dataclass(frozen=True)
class Option:
    """A keyword-only parameter: its name, the words of its type, its default, and whether it must be given."""

    name: str
    type: str
    default: Any = None
    required: bool = False

    def check(self, value: Any) -> Any:
        """The value in its own type, or a ValueError that says what was expected.

        >>> Option("learning_rate", "Positive").check("3e-5")
        3e-05
        >>> Option("learning_rate", "Positive").check(-1)
        Traceback (most recent call last):
        ValueError: learning_rate must be a number above 0, got -1
        """
        tree = parse_type(self.type)
        try:
            return convert(tree, value)
        except ValueError:
            shown = "none" if value is None else repr(value)
            raise ValueError(f"{self.name} must be {describe(tree)}, got {shown}{guess(tree, value)}") from None

    @property
    def reference(self) -> str:
        """The kind of reference it takes (`Model`, `Data`, ...), or an empty string."""
        words = [node.id for node in ast.walk(parse_type(self.type)) if isinstance(node, ast.Name)]
        return next((word for word in words if word in REFERENCES), "")


@dataclass(frozen=True)
class Part:
    """What a recipe has to know of an objective or a stage; the same facts `truing list` and `truing show` print."""

    name: str
    kind: Kind
    source: str
    needs: tuple[str, ...]
    optional: tuple[str, ...]
    options: tuple[Option, ...]
    doc: str
    file: str
    line: int
    mean: Mean = "row"
    coupled: tuple[str, ...] = ()
    gives: str = ""
    outputs: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    differs: str = ""

    @property
    def per(self) -> Per:
        """Whether it gives one loss per row, per token or per step of a solution."""
        return per_of(self.mean)

    def option(self, name: str) -> Option | None:
        """The option of that name, or None."""
        return next((option for option in self.options if option.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """The stable form that `truing list --json` prints."""
        options = [dataclasses.asdict(option) for option in self.options]
        return {
            "name": self.name,
            "source": self.source,
            "needs": list(self.needs),
            "options": options,
            "doc": self.doc,
            "kind": self.kind,
            "optional": list(self.optional),
        }


@functools.lru_cache(maxsize=512)
def parse_type(text: str) -> ast.expr:
    """The annotation `text` as a tree, every word of it known; UserError where it is not."""
    tree = ast.parse(text, mode="eval").body
    problem = trouble(tree)
    if problem:
        raise UserError(f"the type '{text}' is not one an option may have: {problem}")
    return tree


def trouble(tree: ast.expr) -> str:
    """What in an annotation is not understood, or an empty string."""
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
            known = [*NUMBERS, *OTHERS, *REFERENCES]
            hint = nearest(word, known)
            return "" if word in known else f"unknown word '{word}'" + (f", did you mean '{hint}'?" if hint else "")
    return f"'{ast.unparse(tree)}' is not understood"


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


def is_list(tree: ast.expr) -> bool:
    """Whether an annotation is `list[...]`."""
    return isinstance(tree, ast.Subscript) and isinstance(tree.value, ast.Name) and tree.value.id == "list"


def word_of(tree: ast.expr) -> str:
    """The type word of a leaf annotation."""
    return tree.id if isinstance(tree, ast.Name) else "None"


def describe(tree: ast.expr) -> str:
    """What a value of this type is, in words for a person.

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
    """A number in range. YAML reads `3e-5` as text, so text that is a number is taken as one."""
    _, whole, low, high = NUMBERS[word]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a number")
    try:
        found = float(value)
    except OverflowError as error:
        raise ValueError("out of range") from error
    if not math.isfinite(found) or not low <= found <= high or (whole and found != int(found)):
        raise ValueError("out of range")
    if whole:
        return value if isinstance(value, int) else int(found)
    return found


def reference(word: str, value: Any) -> Any:
    """A reference: text, or something already resolved (a Ref, a Policy); lists where the type is a plural."""
    if isinstance(value, list | tuple) and word in (*PLURAL, "Evidence"):
        if not value:
            raise ValueError("an empty list")
        return [reference("Model", item) for item in value]
    if isinstance(value, dict) and "new" in value and word == "Model":
        return value
    if value is None or isinstance(value, bool | int | float | list | tuple | dict) or value == "":
        raise ValueError("not a reference")
    return [value] if word in PLURAL else value


# --- reading functions from source text ------------------------------------------------------------------------------


def read_parts(file: Path, kind: Kind) -> dict[str, Part]:
    """Every function of `file` decorated with `@objective` or `@stage`, without executing the file."""
    try:
        module = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (SyntaxError, UnicodeDecodeError, OSError) as problem:
        raise UserError(f"{file}: cannot be read as Python: {problem}") from None
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    found = {name: (node, decoration(node, kind)) for name, node in functions.items()}
    return {n: read_function(f, kind, said, file, functions) for n, (f, said) in found.items() if said is not None}


def decoration(node: ast.FunctionDef, kind: Kind) -> dict[str, ast.expr] | None:
    """The arguments of the decorator `@objective(...)` or `@stage(...)`; None where the function has none."""
    first = {"objective": "source", "stage": "gives"}[kind]
    for call in node.decorator_list:
        called = call.func if isinstance(call, ast.Call) else call
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name == kind:
            given = {k.arg: k.value for k in call.keywords if k.arg} if isinstance(call, ast.Call) else {}
            if isinstance(call, ast.Call) and call.args:
                given[first] = call.args[0]
            return given
    return None


def read_function(
    node: ast.FunctionDef, kind: Kind, said: dict[str, ast.expr], file: Path, functions: dict[str, ast.FunctionDef]
) -> Part:
    """One decorated function as a Part; its statistics are among the `functions` of its file."""
    place = f"{file}:{node.lineno}: {kind} '{node.name}'"
    literal = functools.partial(constant, place)
    signals, optional = read_signals(node, place) if kind == "objective" else ((), ())
    options, unread = [], []
    coupled = read_coupled(said.get("coupled"), place)
    read = {n.id for n in ast.walk(ast.Module(node.body, [])) if isinstance(n, ast.Name)}
    read |= {p.arg for fn in coupled.values() for p in functions.get(fn, node).args.kwonlyargs}
    for parameter, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        added = read_option(parameter, default, place)
        options += added
        unread += [] if parameter.arg in read else [option.name for option in added]
    refuse_twins(options, place)
    return Part(
        name=node.name,
        kind=kind,
        source=literal(said["source"]) if "source" in said else "",
        needs=tuple(name for name in signals if name not in optional),
        optional=optional,
        options=tuple(options),
        doc=ast.get_docstring(node) or "",
        file=str(file),
        line=node.lineno,
        mean=literal(said["mean"]) if "mean" in said else default_mean(signals),
        coupled=tuple(coupled),
        gives=literal(said["gives"]) if "gives" in said else "",
        outputs=tuple(literal(said["parts"])) if "parts" in said else (),
        unread=tuple(unread),
        differs=literal(said["differs"]) if "differs" in said else "",
    )


def read_coupled(given: ast.expr | None, place: str) -> dict[str, str]:
    """The decorator's `coupled={"signal_B": function}`, each signal with the name of the function that makes it."""
    if given is not None and not isinstance(given, ast.Dict):
        raise UserError(f"{place}: coupled has to be written out as {{signal: function}}")
    made = zip(given.keys, given.values, strict=True) if given else ()
    return {constant(place, key): getattr(fn, "id", "") for key, fn in made if key}


def refuse_twins(options: list[Option], place: str) -> None:
    """Refuse an option that is declared twice: once by itself and once in a group such as `Training`."""
    names = [option.name for option in options]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise UserError(f"{place} has two options called {', '.join(twins)}")


def read_signals(node: ast.FunctionDef, place: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The positional parameters of an objective, and those of them that may be missing."""
    arguments = [*node.args.posonlyargs, *node.args.args]
    defaults = node.args.defaults
    optional = arguments[len(arguments) - len(defaults) :]
    for argument, default in zip(optional, defaults, strict=True):
        if not (isinstance(default, ast.Constant) and default.value is None):
            raise UserError(
                f"{place}: '{argument.arg}' is a signal, so None is its only possible default; options follow '*'"
            )
    if node.args.vararg or node.args.kwarg:
        raise UserError(
            f"{place} takes *args or **kwargs, so its signals and options cannot be read from its signature"
        )
    return tuple(a.arg for a in arguments), tuple(a.arg for a in optional)


def read_option(parameter: ast.arg, default: ast.expr | None, place: str) -> list[Option]:
    """The option of one keyword-only parameter, or all options of a group such as `training: Training`."""
    if parameter.annotation is None:
        raise UserError(f"{place}: option '{parameter.arg}' has no type")
    text = (
        parameter.annotation.value
        if isinstance(parameter.annotation, ast.Constant)
        else ast.unparse(parameter.annotation)
    )
    group = getattr(truing.types, str(text), None)
    if dataclasses.is_dataclass(group):
        given = default.keywords if isinstance(default, ast.Call) else []
        changed = {k.arg: constant(place, k.value) for k in given if k.arg}
        return group_options(group, changed)
    try:
        parse_type(str(text))
    except UserError as problem:
        raise UserError(f"{place}: option '{parameter.arg}': {problem}") from None
    if default is None:
        return [Option(parameter.arg, str(text), None, required=True)]
    return [Option(parameter.arg, str(text), constant(place, default))]


def group_options(group: Any, changed: dict[str, Any]) -> list[Option]:
    """The fields of a dataclass of `truing.types` as options, with some defaults changed."""
    return [Option(f.name, str(f.type), changed.get(f.name, f.default)) for f in dataclasses.fields(group)]


def constant(place: str, node: ast.expr) -> Any:
    """The value of a literal."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise UserError(
            f"{place}: '{ast.unparse(node)}' has to be a literal, so that recipes are checked without running it"
        ) from None
