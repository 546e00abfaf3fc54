"""Sizes, words and documentation of the source."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import truing

PACKAGE = Path(truing.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def name(path):
    """A file's name in the package: `recipe/check.py`."""
    return path.relative_to(PACKAGE).as_posix()


def tree_of(path):
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


FORBIDDEN = {"completion", "annotator", "actor", "critic", "utils", "helper", "manager", "logprobs"}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def functions(path):
    """Every function and method of a file."""
    return [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


each_file = pytest.mark.parametrize("path", FILES, ids=name)


@each_file
def test_files_and_functions_stay_short(path):
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST_FILE, f"{name(path)} has {lines} lines; split it by idea"
    long = [f"{f.name} ({f.end_lineno - f.lineno + 1})" for f in functions(path)]
    long = [said for said, f in zip(long, functions(path), strict=True) if f.end_lineno - f.lineno >= LONGEST_FUNCTION]
    assert not long, f"{name(path)}: functions longer than {LONGEST_FUNCTION} lines: {', '.join(long)}"


def identifiers(tree):
    """Every name that a file defines, with its line. Strings, and names of other libraries, are none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno


def parts_of(identifier):
    """The words of an identifier, singular: `ChosenLogprobs` -> chosen, logprobs, logprob."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", identifier)
    return {w.lower() for w in words} | {w.lower().removesuffix("s") for w in words}


@each_file
def test_one_word_per_thing(path):
    used = [f"{line}: {word}" for word, line in identifiers(tree_of(path)) if parts_of(word) & FORBIDDEN]
    assert not used, f"{name(path)} uses other words than design and README do: {'; '.join(used)}"
    assert not set(path.with_suffix("").relative_to(PACKAGE).parts) & FORBIDDEN


def test_identifiers_are_taken_apart():
    assert "logprobs" in parts_of("chosen_logprobs")
    assert "helper" in parts_of("BatchHelpers")
    assert not parts_of("factor") & FORBIDDEN


@each_file
def test_public_names_are_documented(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree) or not tree.body, f"{name(path)} has no docstring"
    missing = list(undocumented(tree.body))
    assert not missing, f"{name(path)}: without docstring: {', '.join(missing)}"


def undocumented(body, within=""):
    """Public functions, classes and methods without a docstring. Members of a Protocol are documented by it."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield f"{within}{node.name} (line {node.lineno})"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{within}{node.name}.")
