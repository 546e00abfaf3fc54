"""Writes the generated parts of the docs: the table of docs/objectives.md and the index of docs/papers.md.

python docs/tables.py        (make docs)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing import registry
from truing.cli import first_sentence
from truing.data.kinds import WORDS
from truing.pipeline import overview

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "truing"
TESTS = sorted(file for folder in ("golden", "objectives") for file in (ROOT / "tests" / folder).glob("test_*.py"))
CONTRACT = "tests/contract/test_contract.py"
ID = re.compile(r"arXiv (\d{4}\.\d{4,5})")
CITED = re.compile(r"\(([^()]*(?:arXiv \d{4}\.\d{4,5}|[A-Z]\w+ (?:19|20)\d\d, )[^()]*)\)")
WITHIN = re.compile(r", (eq\. \d+(?: and \d+)?|section \d[\d.]*\d|appendix \w[\w.]*\w)")
FORMULA = re.compile(r"^    (\w+(?:_\w+)? = .*)$", re.MULTILINE)
MEANS = {
    "row": "rows",
    "token": "tokens of the step",
    "response": "a response's tokens, then responses",
    "constant": "responses times the longest allowed",
    "step": "labelled steps",
}


@dataclass
class Source:
    """One source of the index: its citation, and the functions that were made after it."""

    citation: str
    places: list[tuple[str, str, str, str]] = field(default_factory=list)  # function, file, what it does, formula


def objectives() -> str:
    """The unifying view: one table for each kind of data."""
    rows = overview.rows("objective")
    out = []
    for words in [*WORDS.values(), overview.ROLLOUTS]:
        group = [row for row in rows if row["data"] == words]
        if group:
            out += [f"\n### {words[0].upper()}{words[1:]}\n", *table(group)]
    return "\n".join(out)


def table(group: list[dict[str, Any]]) -> Iterator[str]:
    """The objectives that learn from one kind of data."""
    yield "| objective | needs | estimates | divided by | trained by | source |"
    yield "|---|---|---|---|---|---|"
    for row in group:
        stages = ", ".join(f"`{stage}`" for stage in row["stages"]) or "Python only"
        cells = [f"`{row['name']}`", overview.needs(row), row["estimates"], MEANS[row["mean"]], stages, row["source"]]
        yield line(cells)
    exempt = [(row["name"], clause, why) for row in group for clause, why in row["exempt"].items()]
    yield from ["", "Exempt from the contract:", ""] if exempt else []
    yield from (f"- `{name}` from *{clause}*: {why}." for name, clause, why in exempt)


def line(cells: list[str]) -> str:
    """One row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def papers() -> str:
    """The index: one line for each source, in the order of their names."""
    found = sources()
    out = ["| source | what it gives | code | formula | tests |", "|---|---|---|---|---|"]
    for key in sorted(found, key=lambda key: found[key].citation.lower()):
        cited, places = found[key].citation, found[key].places
        arxiv = ID.search(cited)
        shown = ID.sub(f"[arXiv {arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})", cited) if arxiv else cited
        gives = "; ".join(f"`{name}` {does}" if does[0] == "(" else f"`{name}`: {does}" for name, _, does, _ in places)
        code = " ".join(dict.fromkeys(link(file) for _, file, _, _ in places))
        formulas = "; ".join(f"`{formula}`" for *_, formula in places if formula) or "docstring"
        tests = dict.fromkeys(link(test) for name, file, _, _ in places for test in tests_of(name, file))
        out.append(line([shown, gives, code, formulas, " ".join(tests)]))
    return "\n".join(out)


def sources() -> dict[str, Source]:
    """Every source that a decorator or a docstring of the package names, by its arXiv number or its name."""
    found: dict[str, Source] = {}
    for part in registry.parts("objective").values():
        file = Path(part.file).relative_to(ROOT).as_posix()
        for cited in part.source.split("; "):
            add(found, cited, part.name, file, first_sentence(part.doc), formula(part.doc))
    for path in sorted(SOURCE.rglob("*.py")):
        for name, doc in functions(path):
            text = " ".join(doc.split())
            does = first_sentence(re.sub(rf"\s+{CITED.pattern}", "", text))
            for cited in dict.fromkeys(CITED.findall(text)):
                add(found, cited, name, path.relative_to(ROOT).as_posix(), does, formula(doc))
    return found


def functions(path: Path) -> Iterator[tuple[str, str]]:
    """The functions of a file that are no objectives, with their docstrings."""
    built_in = registry.parts("objective")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in built_in:
            yield node.name, ast.get_docstring(node) or ""


def add(found: dict[str, Source], cited: str, name: str, file: str, does: str, formula: str) -> None:
    """Add a function to the source that a citation means. A word in front (`margin: Touvron et al. ...`) says what it
    is cited for, an equation or a section where in the source it stands."""
    cited, place = re.sub(r"^[^:(]{1,12}: ", "", cited), WITHIN.search(cited)
    does = f"({place[1]}): {does}" if place else does
    cited = WITHIN.sub("", cited)
    arxiv = ID.search(cited)
    source = found.setdefault(arxiv[1] if arxiv else cited, Source(cited))
    source.places.append((name, file, does, formula))


def formula(doc: str) -> str:
    """The first formula of a docstring, or an empty string."""
    match = FORMULA.search(doc)
    return " ".join(match[1].replace("`", "").split()) if match else ""


def tests_of(name: str, file: str) -> list[str]:
    """The test files that call or import a function by name; every objective is held to the contract besides."""
    called = re.compile(rf"\b(?:o|{Path(file).stem})\.{name}\b|\bimport\b.*\b{name}\b|(?<![\w.]){name}\(")
    looked = TESTS if "/objectives/" in file else sorted((ROOT / "tests").rglob("test_*.py"))
    own = [test.relative_to(ROOT).as_posix() for test in looked if called.search(test.read_text(encoding="utf-8"))]
    return [*own, *([CONTRACT] if name in registry.parts("objective") else [])]


def link(file: str) -> str:
    """A file of the repository, linked from a page in docs."""
    return f"[{Path(file).name}](../{file})"


PAGES = {"objectives.md": ("objectives", objectives), "papers.md": ("papers", papers)}


def page(name: str) -> str:
    """A page with its generated part, which stands between two marks, made anew."""
    mark, make = PAGES[name]
    begin, end = f"<!-- {mark}: made by make docs -->\n", f"\n<!-- end of {mark} -->"
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    head, tail = text.index(begin) + len(begin), text.index(end)
    return text[:head] + make() + text[tail:]


if __name__ == "__main__":
    for name in PAGES:
        (ROOT / "docs" / name).write_text(page(name), encoding="utf-8")
