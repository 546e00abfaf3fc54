"""What a name of a user's module stands for, read from source without running any.

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
from truing.signature import (
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
    """Where a name is made, and by what: a function, a class, or an expression such as a call."""

    node: Definition
    file: Path
    module: ast.Module


def meaning(name: str, file: Path, seen: frozenset[tuple[Path, str]] = frozenset()) -> Meaning | None:
    """What a name of a file stands for, through its imports; None where nothing in it is called so, or no source of it
    is to be had."""
    if (file, name) in seen:
        return None
    seen, module, last = seen | {(file, name)}, parsed(file), None
    for line in statements(module.body):
        last = made_by(line, name, file, module, seen) or last
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
    line: ast.stmt, name: str, file: Path, module: ast.Module, seen: frozenset[tuple[Path, str]]
) -> Meaning | None:
    """What one statement makes of a name, if anything."""
    if isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return Meaning(line, file, module) if line.name == name else None
    if isinstance(line, ast.ImportFrom):
        wanted = next((a.name for a in line.names if (a.asname or a.name) in (name, "*")), None)
        source = module_of(line, file) if wanted else None
        return meaning(name if wanted == "*" else str(wanted), source, seen) if source else None
    if isinstance(line, ast.Assign):
        targets, value = line.targets, line.value
    elif isinstance(line, ast.AnnAssign) and line.value is not None:
        targets, value = [line.target], line.value
    else:
        return None
    own = next(filter(None, (part_of(target, value, name) for target in targets)), None)
    if own is None:
        return None
    return meaning(own.id, file, seen) if isinstance(own, ast.Name) else Meaning(own, file, module)


def part_of(target: ast.expr, value: ast.expr, name: str) -> ast.expr | None:
    """What an assignment to a target makes of a name: the value, or of several targets (`a, b = f(), g()`) its part."""
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
    told = meaning(name, file)
    if told is None:
        return None
    if isinstance(told.node, Function):
        written = decoration(told.node, kind)
        return None if written is None else read_function(told.node, kind, written, told.file, told.module)
    if kind != "reward" or unfit(told):
        return None
    line = told.node.lineno
    return Part(name, kind, "", (), (), TRL_OPTIONS, "", str(told.file), line, scope=TRL)


def unfit(told: Meaning) -> str:
    """Why what a name stands for can be no reward of TRL's signature; empty where it can, or where only running it
    would tell."""
    if isinstance(told.node, Function):
        return "" if takes_as_trl(told.node) else f"has no decorator @reward, and {NOT_FITTING}"
    if isinstance(told.node, ast.ClassDef):
        return "is a class: give an object of it, NAME = CLASS(...)"
    if isinstance(told.node, ast.Lambda):
        return "" if takes_as_trl(told.node) else NOT_FITTING
    if not isinstance(told.node, ast.Call | ast.Attribute | ast.Subscript | ast.IfExp):
        return f"is {short(ast.unparse(told.node))}, and no function"
    called = caller(told)
    if called is None:
        return ""
    asked = method(called.node, "__call__") if isinstance(called.node, ast.ClassDef) else called.node
    if asked is None and isinstance(called.node, ast.ClassDef) and called.node.bases:
        return ""  # one of them may have it
    if asked is None:
        return "is an object that cannot be called: its class has no __call__"
    bound = called is not told and is_partial(told.node)
    judged = isinstance(called.node, ast.ClassDef) or bound
    return NOT_FITTING if judged and isinstance(asked, Function) and not takes_as_trl(asked) else ""


def is_partial(node: Definition) -> bool:
    """Whether an expression is `functools.partial(...)`."""
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "partial" and bool(node.args)


def caller(told: Meaning) -> Meaning | None:
    """What a call calls, of `functools.partial(f, ...)` what it is a part of; None where no source tells."""
    if not isinstance(told.node, ast.Call):
        return None
    first = told.node.args[0] if is_partial(told.node) else told.node.func
    return meaning(first.id, told.file) if isinstance(first, ast.Name) else None


def method(node: ast.ClassDef, name: str) -> Function | None:
    """A method of a class; of one with other bases that of the first base is not looked for."""
    own = (line for line in node.body if isinstance(line, Function) and line.name == name)
    return next(own, None)


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
    """Whether an import is of a module of the user's own, or of the same package."""
    return bool(line.level) or (line.module is not None and own_module(line.module, file) is not None)


def all_parts(file: Path, kind: Kind) -> dict[str, Part]:
    """The parts of a kind that a file has: written in it, taken from the user's other modules, or made by a call of
    which source tells that it makes one."""
    own = read_parts(file, kind)
    brought = {name: part_called(name, kind, file) for name in names_in(file) if name not in own and sure(name, file)}
    return own | {name: part for name, part in brought.items() if part is not None}


def sure(name: str, file: Path) -> bool:
    """Whether source tells what a name is: a function, or a call of a class, of `functools.partial` or of a factory
    whose inner function takes completions. A client or a logger is made by a call, too, and is no reward."""
    told = meaning(name, file)
    if told is None or not isinstance(told.node, ast.Call):
        return told is not None
    called = caller(told)
    if called is None or is_partial(told.node) or isinstance(called.node, ast.ClassDef):
        return called is not None
    return any(isinstance(inner, Function) and takes_as_trl(inner) for inner in ast.walk(called.node))


def refusal(name: str, attribute: str, kind: Kind, file: Path) -> str:
    """Why a name of a file is no part of this kind, which of its names are, and of the others why not."""
    fitting, told = sorted(all_parts(file, kind)), meaning(attribute, file)
    if told is not None:
        why = unfit(told) if kind == "reward" else f"is not decorated with @{kind}"
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
        told = meaning(name, file)
        if told is not None:
            yield name, unfit(told) if kind == "reward" else f"is not decorated with @{kind}"
