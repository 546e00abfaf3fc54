"""The signature is the schema: options and signals of a part, read from its source text without running it.

Nothing is declared twice. The words that the type of an option may use are those of `type_words`.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import truing.settings
from truing.errors import UserError, unknown
from truing.plugins import module_file
from truing.records import Advantage, Mean, Per, default_mean, per_of
from truing.schema.option import Option
from truing.schema.type_words import parse_type, type_and_doc, words_and_doc

Kind: TypeAlias = Literal["objective", "stage", "reward"]
Gives: TypeAlias = Literal["model", "reward", "data", "findings", "decision", "file"]
"""The things that a stage leaves for later ones; a `file` is for people and other programs alone."""
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


TRL = "trl"
"""The scope of a reward that has no decorator and TRL's signature, which takes `TRL_TAKES` or `TRL_IDS`."""
TRL_TAKES, TRL_IDS = "completions", "completion_ids"


def checked(owner: str, options: tuple[Option, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """The option values in their own types; UserError for one that is unknown, missing or out of range."""
    by_name = {option.name: option for option in options}
    for name in values:
        if name not in by_name:
            raise UserError(
                f"{owner}: {unknown('option', name, by_name)}" if by_name else f"{owner} has no option '{name}'"
            )
    for option in options:
        if option.required and option.name not in values:
            raise UserError(f"{owner} needs '{option.name}'")
    try:
        return {name: by_name[name].check(value) for name, value in values.items()}
    except ValueError as problem:
        raise UserError(f"{owner}: {problem}") from None


TRL_OPTIONS = (
    Option("text", "bool", False, doc="give prompts and completions as plain texts, and not as lists of messages"),
)
"""The option of such a reward: it reads plain texts, and not conversations."""


@dataclass(frozen=True)
class Part:
    """The description of an objective, a stage or a reward for recipes: the facts `truing list` and `show` print."""

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
    surveyed: tuple[str, ...] = ()
    estimates: str = ""
    exempt: tuple[tuple[str, str], ...] = ()
    gives: str = ""
    outputs: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    differs: str = ""
    advantage: str = ""
    scope: str = ""
    lower_is_better: bool = False

    @property
    def per(self) -> Per:
        """The unit of one loss: a row, a token or a step of a solution."""
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


# --- reading functions from source text ------------------------------------------------------------------------------


def read_parts(file: Path, kind: Kind) -> dict[str, Part]:
    """Every function of `file` decorated with `@objective`, `@stage` or `@reward`, without executing the file; and as
    rewards those that have the signature of TRL's, prompts and completions."""
    module = parsed(file)
    decorated = {name: (node, decoration(node, kind)) for name, node in functions_of(module).items()}
    return {
        n: read_function(f, kind, arguments, file, module)
        for n, (f, arguments) in decorated.items()
        if arguments is not None
    }


def parsed(file: Path) -> ast.Module:
    """A file's syntax tree; UserError where it is not Python."""
    try:
        return ast.parse(file.read_bytes(), filename=str(file))  # bytes: a file may begin with BOM or its coding
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as problem:
        raise UserError(f"{file}: cannot be read as Python: {problem}") from None


def functions_of(module: ast.Module) -> dict[str, Function]:
    """The functions that stand in a file by themselves."""
    return {node.name: node for node in module.body if isinstance(node, Function)}


FIRST: dict[Kind, tuple[str, str]] = {
    "objective": ("source", "@objective(source='where the formula is from')"),
    "stage": ("gives", "@stage(gives='data')"),
    "reward": ("scope", "@reward(scope='response')"),
}
"""The required argument of every decorator, with an example."""


def decoration(node: Function, kind: Kind) -> dict[str, ast.expr] | None:
    """The arguments of the decorator `@objective(...)`, `@stage(...)` or `@reward(...)`; None where the function has
    none. TRL's rewards have none, and are known by what they take."""
    first = FIRST[kind][0]
    for call in node.decorator_list:
        called = call.func if isinstance(call, ast.Call) else call
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        if name == kind:
            arguments = {k.arg: k.value for k in call.keywords if k.arg} if isinstance(call, ast.Call) else {}
            if isinstance(call, ast.Call) and call.args:
                arguments[first] = call.args[0]
            return arguments
    return {"scope": ast.Constant(TRL)} if kind == "reward" and takes_as_trl(node) else None


def takes_as_trl(node: Function | ast.Lambda) -> bool:
    """Return whether a function takes what TRL gives a reward: completions or their ids, or prompts and whatever
    comes."""
    names = {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    return fits_trl(names, node.args.kwarg is not None)


def fits_trl(names: Collection[str], rest: bool) -> bool:
    """Return whether parameters of these names, and `**` for the rest, are those of a reward of TRL's."""
    return TRL_TAKES in names or TRL_IDS in names or (rest and "prompts" in names)


def read_function(node: Function, kind: Kind, arguments: dict[str, ast.expr], file: Path, module: ast.Module) -> Part:
    """One decorated function of a file as a Part."""
    place = f"{file}:{node.lineno}: {kind} '{node.name}'"
    first, example = FIRST[kind]
    if first not in arguments:
        raise UserError(f"{place}: its decorator does not say its {first}; write {example}")
    literal = functools.partial(constant, place)
    scope = literal(arguments["scope"]) if "scope" in arguments else ""
    signals, optional = read_signals(node, place) if kind != "stage" and scope != TRL else ((), ())
    options, unread = list(TRL_OPTIONS if scope == TRL else ()), []
    coupled = read_coupled(arguments, module, place)
    read = {n.id for n in ast.walk(ast.Module(node.body, [])) if isinstance(n, ast.Name)}
    read |= {p.arg for fn in coupled.values() for p in fn.args.kwonlyargs}
    for parameter, default in zip(
        node.args.kwonlyargs if scope != TRL else (), node.args.kw_defaults, strict=scope != TRL
    ):
        added = read_option(parameter, default, place)
        options += added
        unread += [] if parameter.arg in read else [option.name for option in added]
    refuse_twins(options, place)
    try:
        words = {name: spelt(place, name, literal(arguments[name])) for name in WORDS if name in arguments}
    except TypeError as problem:
        raise UserError(str(problem)) from None
    return Part(
        name=node.name,
        kind=kind,
        source=literal(arguments["source"]) if "source" in arguments else "",
        needs=tuple(name for name in signals if name not in optional),
        optional=optional,
        options=tuple(options),
        doc=ast.get_docstring(node) or "",
        file=str(file),
        line=node.lineno,
        mean=words.get("mean") or default_mean(signals),
        coupled=tuple(coupled),
        surveyed=tuple(dict.fromkeys(p.arg for fn in coupled.values() for p in fn.args.args)),
        estimates=literal(arguments["estimates"]) if "estimates" in arguments else "",
        exempt=tuple((literal(clause), literal(reason)) for clause, reason in pairs(arguments, "exempt", place)),
        gives=words.get("gives", ""),
        outputs=names_in(place, "parts", arguments),
        keeps=names_in(place, "keeps", arguments),
        unread=tuple(unread),
        differs=literal(arguments["differs"]) if "differs" in arguments else "",
        advantage=words.get("advantage") or "",
        scope=scope,
        lower_is_better=bool(literal(arguments["lower_is_better"])) if "lower_is_better" in arguments else False,
    )


WORDS = {"mean": get_args(Mean), "advantage": get_args(Advantage), "gives": get_args(Gives)}
"""The arguments of `@objective` and `@stage` that take one of a few words, and these words."""


def spelt(owner: str, name: str, word: Any) -> Any:
    """The word given for an argument of `WORDS`, or None where there is none and need not be; a TypeError that begins
    with `owner` for a word that it does not know."""
    if (word is not None or name == "gives") and word not in WORDS[name]:
        raise TypeError(f"{owner}: {unknown(name, str(word), WORDS[name])}")
    return word


def names_in(place: str, name: str, arguments: Mapping[str, ast.expr]) -> tuple[str, ...]:
    """The names that a decorator's argument lists, none where it is left out; UserError for anything else."""
    names = constant(place, arguments[name]) if name in arguments else ()
    if not isinstance(names, tuple | list) or not all(isinstance(word, str) and word for word in names):
        raise UserError(f"{place}: {name} is a tuple of names such as ('train', 'eval'), not {names!r}")
    return tuple(names)


def pairs(arguments: dict[str, ast.expr], name: str, place: str) -> list[tuple[ast.expr, ast.expr]]:
    """The keys and values of a decorator's argument that is a mapping; UserError where it is not written out."""
    mapping = arguments.get(name, ast.Dict([], []))
    if not isinstance(mapping, ast.Dict):
        raise UserError(f"{place}: {name} has to be written out as {{...: ...}}")
    return [(key, value) for key, value in zip(mapping.keys, mapping.values, strict=True) if key]


def read_coupled(arguments: dict[str, ast.expr], module: ast.Module, place: str) -> dict[str, Function]:
    """The decorator's `coupled={"signal_B": function}`, each signal with the function that makes it: of the same file,
    or one that the file takes from a module by `from module import function`."""
    functions, made = functions_of(module), {}
    for key, function in pairs(arguments, "coupled", place):
        name = ast.unparse(function)
        maker = functions.get(name) or imported(name, module)
        if maker is None:
            raise UserError(
                f"{place}: coupled names '{name}', which is no function of this file and not taken from a module by "
                f"'from module import {name}', so what it reads cannot be known without running it"
            )
        made[constant(place, key)] = maker
    return made


def imported(name: str, module: ast.Module) -> Function | None:
    """The function that a file imports under this name, read from the source of the module it stands in."""
    for line in module.body:
        if not isinstance(line, ast.ImportFrom) or not line.module or line.level:
            continue
        for alias in line.names:
            if (alias.asname or alias.name) == name:
                return functions_of(parsed(module_file(line.module, name))).get(alias.name)
    return None


def refuse_twins(options: list[Option], place: str) -> None:
    """Refuse an option that is declared twice: once by itself and once in a group such as `Training`."""
    names = [option.name for option in options]
    twins = sorted({name for name in names if names.count(name) > 1})
    if twins:
        raise UserError(f"{place} has two options called {', '.join(twins)}")


def read_signals(node: Function, place: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
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
    try:
        text, doc = type_and_doc(parameter.annotation)
    except SyntaxError:
        raise UserError(f"{place}: option '{parameter.arg}' has a type that is no Python") from None
    group = getattr(truing.settings, text, None)
    if dataclasses.is_dataclass(group):
        keywords = default.keywords if isinstance(default, ast.Call) else []
        changed = {k.arg: constant(place, k.value) for k in keywords if k.arg}
        return group_options(group, changed)
    try:
        parse_type(text)
    except UserError as problem:
        raise UserError(f"{place}: option '{parameter.arg}': {problem}") from None
    if default is None:
        return [Option(parameter.arg, text, None, True, doc)]
    return [Option(parameter.arg, text, constant(place, default), False, doc)]


def group_options(group: Any, changed: dict[str, Any]) -> list[Option]:
    """The fields of a dataclass of `truing.settings` as options, with some defaults changed."""
    fields = [(f, *type_and_doc(ast.Constant(str(f.type)))) for f in dataclasses.fields(group)]
    return [Option(f.name, text, changed.get(f.name, f.default), False, doc) for f, text, doc in fields]


def is_group(value: Any) -> bool:
    """Return whether a default is a dataclass of `truing.settings`, whose fields are options."""
    return dataclasses.is_dataclass(value) and getattr(truing.settings, type(value).__name__, None) is type(value)


def options_of(fn: Callable[..., Any]) -> tuple[Option, ...]:
    """The options of a function, from its signature at run time."""
    options = []
    for p in inspect.signature(fn).parameters.values():
        if p.kind is p.KEYWORD_ONLY and is_group(p.default):
            options += group_options(type(p.default), dataclasses.asdict(p.default))
        elif p.kind is p.KEYWORD_ONLY:
            required = p.default is p.empty
            text, doc = words_and_doc(p.annotation)
            options.append(Option(p.name, text, None if required else p.default, required, doc))
    return tuple(options)


def constant(place: str, node: ast.expr) -> Any:
    """The value of a literal."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise UserError(
            f"{place}: '{ast.unparse(node)}' has to be a literal, so that recipes are checked without running it"
        ) from None
