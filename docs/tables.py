"""Writes the generated parts of the docs: the tables of objectives.md, options.md and coming_from_trl.md, the index of
papers.md.

python docs/tables.py        (make docs)
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from truing import registry
from truing.cli import first_sentence
from truing.data.kinds import WORDS
from truing.recipe import catalogue, other_names
from truing.recipe import sources as data_sources
from truing.recipe.check import NEW_MODEL
from truing.schema.signature import Option, Part, group_options
from truing.settings import KLControl, Lora, Monitoring, Online, Shaping, Training

GROUPS = (Training, Lora, Online, Shaping, KLControl, Monitoring)
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
    rows = catalogue.rows("objective")
    out = []
    for words in [*WORDS.values(), catalogue.ROLLOUTS]:
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
        cells = [f"`{row['name']}`", catalogue.needs(row), row["estimates"], MEANS[row["mean"]], stages, row["source"]]
        yield line(cells)
    exempt = [(row["name"], clause, why) for row in group for clause, why in row["exempt"].items()]
    yield from ["", "Exempt from the contract:", ""] if exempt else []
    yield from (f"- `{name}` from *{clause}*: {why}." for name, clause, why in exempt)


def line(cells: list[str]) -> str:
    """One row of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def papers() -> str:
    """The index: one line for each source, in the order of their names."""
    index = sources()
    out = ["| source | what it gives | code | formula | tests |", "|---|---|---|---|---|"]
    for key in sorted(index, key=lambda key: index[key].citation.lower()):
        cited, places = index[key].citation, index[key].places
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
    index: dict[str, Source] = {}
    for part in registry.parts("objective").values():
        file = Path(part.file).relative_to(ROOT).as_posix()
        for cited in part.source.split("; "):
            add(index, cited, part.name, file, first_sentence(part.doc), formula(part.doc))
    for path in sorted(SOURCE.rglob("*.py")):
        for name, doc in functions(path):
            text = " ".join(doc.split())
            does = first_sentence(re.sub(rf"\s+{CITED.pattern}", "", text))
            for cited in dict.fromkeys(CITED.findall(text)):
                add(index, cited, name, path.relative_to(ROOT).as_posix(), does, formula(doc))
    return index


def functions(path: Path) -> Iterator[tuple[str, str]]:
    """The functions of a file that are no objectives, with their docstrings."""
    built_in = registry.parts("objective")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in built_in:
            yield node.name, ast.get_docstring(node) or ""


def add(index: dict[str, Source], cited: str, name: str, file: str, does: str, formula: str) -> None:
    """Add a function to the source that a citation means. A word in front (`margin: Touvron et al. ...`) says what it
    is cited for, an equation or a section where in the source it stands."""
    cited, place = re.sub(r"^[^:(]{1,12}: ", "", cited), WITHIN.search(cited)
    does = f"({place[1]}): {does}" if place else does
    cited = WITHIN.sub("", cited)
    arxiv = ID.search(cited)
    source = index.setdefault(arxiv[1] if arxiv else cited, Source(cited))
    source.places.append((name, file, does, formula))


def formula(doc: str) -> str:
    """The first formula of a docstring, or an empty string."""
    match = FORMULA.search(doc)
    return " ".join(match[1].replace("`", "").split()) if match else ""


def tests_of(name: str, file: str) -> list[str]:
    """The test files that call or import a function by name; every objective is held to the contract besides."""
    called = re.compile(rf"\b(?:o|{Path(file).stem})\.{name}\b|\bimport\b.*\b{name}\b|(?<![\w.]){name}\(")
    looked = TESTS if "/objectives/" in file else sorted((ROOT / "tests").rglob("test_*.py"))
    tests = [test.relative_to(ROOT).as_posix() for test in looked if called.search(test.read_text(encoding="utf-8"))]
    return [*tests, *([CONTRACT] if name in registry.parts("objective") else [])]


def link(file: str) -> str:
    """A file of the repository, linked from a page in docs."""
    return f"[{Path(file).name}](../{file})"


def options() -> str:
    """Every option with its type, default and sentence: those that stages share once, then those of each part."""
    parts = {kind: registry.parts(kind) for kind in ("stage", "objective", "reward")}
    out: list[str] = []
    for group in GROUPS:
        name = group.__name__
        out += [f"\n### Shared: {name.lower()}\n", *option_table(group_options(group, {}))]
        out.append(f"\nTaken by {', '.join(f'`{stage}`' for stage in takers(group, parts['stage']))}.")
    grouped = {(field.name, field.type, field.doc) for group in GROUPS for field in group_options(group, {})}
    for kind, by_name in parts.items():
        for part in by_name.values():
            unshared = [o for o in part.options if kind != "stage" or (o.name, o.type, o.doc) not in grouped]
            changed = [f"`{o.name}` {shown(o)}" for o in part.options if o not in unshared and other_default(o)]
            if unshared:
                out += [f"\n### {kind} `{part.name}`\n", *option_table(unshared)]
                out += [f"\nOf the shared ones here by default: {', '.join(changed)}."] if changed else []
    out += ["\n### A new model (`base: {new: llama, ...}`)\n", *option_table(NEW_MODEL.values())]
    for row in data_sources.datasets():
        out += [f"\n### data `{row['name']}`\n", *option_table(Option(**option) for option in row["options"])]
    return "\n".join(out)


def takers(group: Any, stages: Mapping[str, Part]) -> list[str]:
    """The stages that take all options of a group."""
    wanted = {option.name for option in group_options(group, {})}
    return [name for name, part in stages.items() if wanted <= {option.name for option in part.options}]


def other_default(option: Option) -> bool:
    """True if a stage has another default for a shared option than the group."""
    plain = next(o for group in GROUPS for o in group_options(group, {}) if o.name == option.name)
    return bool(option.default != plain.default)


def option_table(options: Iterable[Option]) -> list[str]:
    """Options as a table."""
    rows = [line([f"`{o.name}`", f"`{o.type}`", shown(o), o.doc]) for o in options]
    return ["| option | type | default | what it does |", "|---|---|---|---|", *rows]


def shown(option: Option) -> str:
    """An option's default in words."""
    if option.required:
        return "required"
    return "none" if option.default is None else f"{option.default}"


def translations() -> str:
    """Names of other systems with the names here."""
    out = []
    for title, lines in other_names.sections().items():
        out += [f"\n### {title[0].upper()}{title[1:]}\n", "| there | here | remark |", "|---|---|---|"]
        for (system, here, remark), same in itertools.groupby(lines, lambda o: (o.system, o.here, o.remark)):
            there = ", ".join(f"`{other.name}`" for other in same)
            out.append(line([f"{system}: {there}", ", ".join(f"`{word}`" for word in here), remark]))
    return "\n".join(out)


PAGES = {
    "objectives.md": ("objectives", objectives),
    "papers.md": ("papers", papers),
    "options.md": ("options", options),
    "coming_from_trl.md": ("names", translations),
}


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
