"""Resolution of a name in a user's module, read from source without running any.

It may be a function that is written there, one that the module takes from another (`from other import my_reward`), or
what a call makes (a factory, `functools.partial`, an object of a class with `__call__`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from truing.errors import UserError, listed, short, unknown
from truing.plugins import module_file, own_module
from truing.schema.signature import (
    TRL,
    TRL_IDS,
    TRL_OPTIONS,
    TRL_TAKES,
    Function,
    Kind,
    Part,
    decoration,
    parsed,
    read_function,
    read_parts,
    takes_as_trl,
)

Definition: TypeAlias = Function | ast.ClassDef | ast.expr
NOT_FITTING = f"takes neither {TRL_TAKES} nor {TRL_IDS}"


@dataclass(frozen=True)
class Meaning:
    """The definition of a name and its place: a function, a class, or an expression such as a call."""

    node: Definition
    file: Path
    module: ast.Module


def meaning(name: str, file: Path, visited: frozenset[tuple[Path, str]] = frozenset()) -> Meaning | None:
    """Resolve a name of a file through its imports; None where nothing in it is called so, or no source of it
    is to be had."""
    if (file, name) in visited:
        return None
    visited, module, last = visited | {(file, name)}, parsed(file), None
    for line in statements(module.body):
        last = made_by(line, name, file, module, visited) or last
    return last


def statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module that may give names, those under `if`, `try`, `with` and loops too."""
    for line in body:
        yield line
        if isinstance(line, ast.Try):
            for handler in line.handlers:
                yield from statements(handler.body)  # where both give a name, it is most likely made above
        if isinstance(line, ast.If | ast.Try | ast.With | ast.For | ast.While):
            yield from statements([*line.body, *getattr(line, "orelse", []), *getattr(line, "finalbody", [])])


def made_by(
    line: ast.stmt, name: str, file: Path, module: ast.Module, visited: frozenset[tuple[Path, str]]
) -> Meaning | None:
    """The meaning that one statement gives a name, if any."""
    if isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return Meaning(line, file, module) if line.name == name else None
    if isinstance(line, ast.ImportFrom):
        wanted = next((a.name for a in line.names if (a.asname or a.name) in (name, "*")), None)
        source = module_of(line, file) if wanted else None
        return meaning(name if wanted == "*" else str(wanted), source, visited) if source else None
    if isinstance(line, ast.Assign):
        targets, value = line.targets, line.value
    elif isinstance(line, ast.AnnAssign) and line.value is not None:
        targets, value = [line.target], line.value
    else:
        return None
    assigned = next(filter(None, (part_of(target, value, name) for target in targets)), None)
    if assigned is None:
        return None
    return meaning(assigned.id, file, visited) if isinstance(assigned, ast.Name) else Meaning(assigned, file, module)


def part_of(target: ast.expr, value: ast.expr, name: str) -> ast.expr | None:
    """The expression that an assignment to a target gives a name: the value, or of several targets (`a, b = f(), g()`)
    its part."""
    if isinstance(target, ast.Name):
        return value if target.id == name else None
    if not isinstance(target, ast.Tuple | ast.List):
        return None
    whole = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
    parts = value.elts if whole and isinstance(value, ast.Tuple | ast.List) else [value] * len(target.elts)
    pairs = (part_of(inner, part, name) for inner, part in zip(target.elts, parts, strict=True))
    return next(filter(None, pairs), None)


def module_of(line: ast.ImportFrom, file: Path) -> Path | None:
    """The source of the module that an import names; None where there is none (compiled, or not installed)."""
    if line.module is None:
        return None
    folder = file.parents[max(0, line.level - 1)]
    path = folder / line.module.replace(".", "/")
    beside = next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)
    if beside is not None or line.level:
        return beside
    try:
        return module_file(line.module, line.module)
    except UserError:
        return None


def part_called(name: str, kind: Kind, file: Path) -> Part | None:
    """The part that a name of a file stands for; None where it is none of this kind."""
    definition = meaning(name, file)
    if definition is None:
        return None
    if isinstance(definition.node, Function):
        written = decoration(definition.node, kind)
        return (
            None
            if written is None
            else read_function(definition.node, kind, written, definition.file, definition.module)
        )
    if kind != "reward" or unfit(definition):
        return None
    line = definition.node.lineno
    return Part(name, kind, "", (), (), TRL_OPTIONS, "", str(definition.file), line, scope=TRL)


def unfit(definition: Meaning) -> str:
    """Why what a name stands for can be no reward of TRL's signature; empty where it can, or where only running it
    would tell."""
    if isinstance(definition.node, Function):
        return "" if takes_as_trl(definition.node) else f"has no decorator @reward, and {NOT_FITTING}"
    if isinstance(definition.node, ast.ClassDef):
        return "is a class: give an object of it, NAME = CLASS(...)"
    if isinstance(definition.node, ast.Lambda):
        return "" if takes_as_trl(definition.node) else NOT_FITTING
    if not isinstance(definition.node, ast.Call | ast.Attribute | ast.Subscript | ast.IfExp):
        return f"is {short(ast.unparse(definition.node))}, and no function"
    called = caller(definition)
    if called is None:
        return ""
    function = method(called.node, "__call__") if isinstance(called.node, ast.ClassDef) else called.node
    if function is None and isinstance(called.node, ast.ClassDef) and called.node.bases:
        return ""  # one of them may have it
    if function is None:
        return "is an object that cannot be called: its class has no __call__"
    bound = called is not definition and is_partial(definition.node)
    judged = isinstance(called.node, ast.ClassDef) or bound
    return NOT_FITTING if judged and isinstance(function, Function) and not takes_as_trl(function) else ""


def is_partial(node: Definition) -> bool:
    """Return whether an expression is `functools.partial(...)`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "partial" and bool(node.args)


def caller(definition: Meaning) -> Meaning | None:
    """The function or class that a call calls, for `functools.partial(f, ...)` f; None where no source tells."""
    if not isinstance(definition.node, ast.Call):
        return None
    first = definition.node.args[0] if is_partial(definition.node) else definition.node.func
    return meaning(first.id, definition.file) if isinstance(first, ast.Name) else None


def method(node: ast.ClassDef, name: str) -> Function | None:
    """A method of a class; of one with other bases that of the first base is not looked for."""
    methods = (line for line in node.body if isinstance(line, Function) and line.name == name)
    return next(methods, None)


def names_in(file: Path) -> list[str]:
    """The names that a file's statements give, those that it takes from the user's other modules too, in order."""
    out: list[str] = []
    for line in statements(parsed(file).body):
        if isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            out.append(line.name)
        elif isinstance(line, ast.Assign):
            inner = (node for target in line.targets for node in ast.walk(target))
            out += [node.id for node in inner if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        elif isinstance(line, ast.ImportFrom) and is_near(line, file):
            out += [alias.asname or alias.name for alias in line.names if alias.name != "*"]
    return [name for name in dict.fromkeys(out) if not name.startswith("_")]


def is_near(line: ast.ImportFrom, file: Path) -> bool:
    """Return whether an import is of a module of the user's own, or of the same package."""
    return bool(line.level) or (line.module is not None and own_module(line.module, file) is not None)


def all_parts(file: Path, kind: Kind) -> dict[str, Part]:
    """The parts of a kind that a file has: written in it, taken from the user's other modules, or made by a call of
    which source tells that it makes one."""
    written = read_parts(file, kind)
    brought = {
        name: part_called(name, kind, file) for name in names_in(file) if name not in written and sure(name, file)
    }
    return written | {name: part for name, part in brought.items() if part is not None}


def sure(name: str, file: Path) -> bool:
    """Return whether source tells what a name is: a function, or a call of a class, of `functools.partial` or of a
    factory whose inner function takes completions. A client or a logger is made by a call, too, and is no reward."""
    definition = meaning(name, file)
    if definition is None or not isinstance(definition.node, ast.Call):
        return definition is not None
    called = caller(definition)
    if called is None or is_partial(definition.node) or isinstance(called.node, ast.ClassDef):
        return called is not None
    return any(isinstance(inner, Function) and takes_as_trl(inner) for inner in ast.walk(called.node))


def refusal(name: str, attribute: str, kind: Kind, file: Path) -> str:
    """Why a name of a file is no part of this kind, which of its names are, and of the others why not."""
    fitting, definition = sorted(all_parts(file, kind)), meaning(attribute, file)
    if definition is not None:
        why = unfit(definition) if kind == "reward" else f"is not decorated with @{kind}"
        there = f"; its {kind}s: {listed(fitting)}" if fitting else ""
        return f"{name}: '{short(attribute)}' in {file} {why or f'is no {kind}'}{there}"
    if fitting:
        return f"{name}: {unknown(kind, attribute, fitting)} (in {file})"
    reasons = [f"{other} {why}" for other, why in unfits(file, kind) if why]
    return f"{name}: unknown {kind} '{short(attribute)}': {file} has no {kind}" + (
        f" ({listed(reasons, 10)})" if reasons else ""
    )


def unfits(file: Path, kind: Kind) -> Iterator[tuple[str, str]]:
    """Every name of a file that is no part of this kind, and why."""
    for name in names_in(file):
        definition = meaning(name, file)
        if definition is not None:
            yield name, unfit(definition) if kind == "reward" else f"is not decorated with @{kind}"
