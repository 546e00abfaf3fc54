"""The shape of the source: rooms, import circles, and the words of names and docstrings (`make shape`).

    python benchmarks/shape.py [TREE ...]     a table with a column for each tree (a checkout); without one, for this

It reads the source as text. Two rows come from a run of the package, of a tree that knows the words of today's recipes
(`shape_run.py`, in a process of its own); they are "-" for others.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "truing"
CONTENTLESS = frozenset(["found", "said", "told", "given", "own", "known", "asked", "kept", "seen", "one", "thing"])
"""Words that say nothing of what a name stands for."""
UNCLEAR = re.compile(r"(What|Where|Who|How|Of|By)\b")
"""Beginnings of a docstring that is neither an imperative nor a noun phrase."""


@dataclass(frozen=True)
class Source:
    """The modules of a package, by dotted name without the package's own, each with its file and syntax tree."""

    modules: dict[str, tuple[Path, ast.Module]]

    @classmethod
    def of(cls, tree: Path) -> Source:
        """The source of a checkout."""
        root = tree / "src" / PACKAGE
        files = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.py"))}
        names = {name.replace("/", ".").removesuffix(".__init__"): path for name, path in files.items()}
        return cls({name: (path, ast.parse(path.read_text("utf-8"))) for name, path in names.items()})

    def imports(self, module: str) -> dict[str, int]:
        """The modules that one imports, each with a line that does, also within its functions; not those for type
        checkers alone."""
        out: dict[str, int] = {}
        for node in _running(self.modules[module][1]):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                out |= {name if within(name) in self.modules else node.module: node.lineno for name in whole}
            elif isinstance(node, ast.Import):
                out |= {alias.name: node.lineno for alias in node.names}
        local = {within(name): line for name, line in out.items() if name.startswith(f"{PACKAGE}.")}
        return {name: line for name, line in local.items() if name in self.modules and name != module}


def within(name: str) -> str:
    """A module's name within the package."""
    return name.removeprefix(f"{PACKAGE}.")


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those below `if TYPE_CHECKING:`."""
    typed = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    children = node.orelse if isinstance(node, ast.If) and typed else ast.iter_child_nodes(node)
    for child in children:
        yield child
        yield from _running(child)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle (the strongly connected components of more than one).

    >>> circles({"a": {"b"}, "b": {"c"}, "c": {"b"}})
    [['b', 'c']]
    """
    reach: dict[str, set[str]] = {}
    for start in graph:
        reach[start], todo = set(), list(graph[start])
        while todo:
            if (module := todo.pop()) not in reach[start]:
                reach[start].add(module)
                todo += graph[module]
    groups = {tuple(sorted(other for other in reach[m] if m in reach[other])) for m in graph if m in reach[m]}
    return [list(group) for group in sorted(groups)]


def rooms(source: Source) -> dict[str, tuple[int, int]]:
    """Files and lines directly in each folder of the package."""
    out: dict[str, tuple[int, int]] = {}
    for path, _ in source.modules.values():
        room = path.parent.as_posix().partition(f"/src/{PACKAGE}")[2].strip("/") or PACKAGE
        files, lines = out.get(room, (0, 0))
        out[room] = files + 1, lines + len(path.read_text("utf-8").splitlines())
    return out


def bindings(source: Source) -> list[tuple[str, str]]:
    """Every name that is bound and its place: variables, parameters, fields, functions and classes."""
    out = []
    for path, tree in source.modules.values():
        for node in ast.walk(tree):
            name = ""
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                name = node.id
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                name = node.attr
            elif isinstance(node, ast.arg):
                name = node.arg
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = node.name
            if name:
                out.append((name, f"{path}:{getattr(node, 'lineno', 0)}"))
    return out


def vague_names(source: Source) -> list[str]:
    """The places of names that are contentless words."""
    return [f"{place}: {name}" for name, place in bindings(source) if name.strip("_") in CONTENTLESS]


def docstrings(source: Source) -> list[str]:
    """Every docstring of a module, class or function, and every string below a constant."""
    nodes = (node for _, tree in source.modules.values() for node in ast.walk(tree) if isinstance(node, ast.Expr))
    values = (node.value.value for node in nodes if isinstance(node.value, ast.Constant))
    return [value.strip() for value in values if isinstance(value, str)]


def unclear_docstrings(source: Source) -> list[str]:
    """The docstrings that leave their subject open."""
    return [text for text in docstrings(source) if UNCLEAR.match(text)]


def longest_constructor(source: Source) -> tuple[int, str]:
    """The most parameters that a constructor written out has, besides `self`, and its class."""
    out = (0, "")
    for _, tree in source.modules.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                        out = max(out, (len(method.args.args) + len(method.args.kwonlyargs) - 1, node.name))
    return out


def run_figures(tree: Path) -> dict[str, str]:
    """The rows that a run shows; "-" where the tree does not run today's recipes."""
    command = [sys.executable, str(Path(__file__).with_name("shape_run.py")), str(tree)]
    env = os.environ | {"PYTHONPATH": str(tree / "src")}
    ended = subprocess.run(command, cwd=tree, env=env, stdout=subprocess.PIPE, text=True, check=False)
    measured = json.loads(ended.stdout) if ended.returncode == 0 else {}
    return {
        "functions from `truing run` to DPO's formula": str(len(measured["stack"])) if measured.get("stack") else "-",
        "entries into a recipe's scope in a check": str(measured.get("entries", "-")),
    }


def figures(tree: Path) -> dict[str, str]:
    """The rows of the table for a tree."""
    source = Source.of(tree)
    spaces = rooms(source)
    lines, files = sum(n for _, n in spaces.values()), sum(n for n, _ in spaces.values())
    largest = max(spaces, key=lambda room: spaces[room][1])
    names, texts = bindings(source), docstrings(source)
    vague, unclear = len(vague_names(source)), len(unclear_docstrings(source))
    parameters, owner = longest_constructor(source)
    graph = {module: set(source.imports(module)) for module in source.modules}
    return {
        "rooms, files, lines": f"{len(spaces)}, {files}, {lines:,}",
        "largest room": f"{largest}: {spaces[largest][0]} files, {spaces[largest][1] / lines:.1%} of the lines",
        "import circles": str(len(circles(graph))),
        "names by a contentless word": f"{vague:,} of {len(names):,}, {vague / len(names):.1%}",
        "docstrings that begin with What, Where, ..., By": f"{unclear} of {len(texts)}, {unclear / len(texts):.1%}",
        "longest constructor": f"{owner}: {parameters} parameters",
    } | run_figures(tree)


def main(trees: Sequence[str]) -> None:
    """Print the table."""
    here = Path(__file__).parents[1]
    columns = [figures(Path(tree).resolve()) for tree in trees or [str(here)]]
    print("| | " + " | ".join(Path(tree).name for tree in trees or [here.name]) + " |")
    print("|---|" + "---|" * len(columns))
    for key in columns[0]:
        print(f"| {key} | " + " | ".join(column[key] for column in columns) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
