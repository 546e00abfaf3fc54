"""Every fault of the list is tested, or named in the README of this folder as one of a later part."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
ALL = set(range(1, 64))


def numbers() -> set[int]:
    """The numbers with which the docstrings of tests begin, here and in the folders beside this one."""
    found: set[int] = set()
    for path in HERE.parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                said = re.match(r"Faults? (\d+(?:(?:, | and )\d+)*):", ast.get_docstring(node) or "")
                found |= {int(number) for number in re.findall(r"\d+", said[1])} if said else set()
    return found


def listed(heading: str) -> list[int]:
    """The numbers that the README lists under a heading."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return [int(number) for number in re.findall(r"^- (\d+): \S", section, re.M)]


def test_every_fault_is_tested_or_named() -> None:
    later = listed("Later")
    assert len(later) == len(set(later)), "named twice"
    assert not numbers() & set(later), "tested, and yet called later"
    assert sorted(ALL - numbers() - set(later)) == [], "neither tested nor named"
    assert numbers() | set(later) == ALL, "a number that is not of the list"
    assert set(listed("Halves")) <= numbers()
