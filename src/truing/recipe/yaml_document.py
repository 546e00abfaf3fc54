"""A YAML file as values that know their line, and the command line's `a.b=c` put into them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from truing import door
from truing.errors import DataError, RecipeError, holds_key, nearest, short, unknown
from truing.recipe import hints, shipped
from truing.yaml_text import reading, writing
from truing.yaml_text.reading import Node

LARGEST = 300_000
"""Most characters of a recipe, which is a page of text: YAML is read at 100,000 a second."""
ENOUGH = 200
"""Most mistakes that are gathered."""
LONGEST = 4000
"""Most characters of a mistake that are shown."""
COMMAND_LINE = 0  # the line number of what came from the command line
LOST = object()  # stands for a value whose mistake is already noted


def loses(node: Node) -> bool:
    """True if a value, or one within it, is a mistake already noted."""
    if isinstance(node.value, dict | list):
        return any(map(loses, node.value.values() if isinstance(node.value, dict) else node.value))
    return node.value is LOST


@dataclass
class Mistakes:
    """Mistakes of a recipe, gathered so that all are reported at once."""

    name: str
    entries: dict[tuple[int, str], None] = field(default_factory=dict)
    noted: int = 0  # counts those of every turn of a loop, which are reported once

    def add(self, line: int, text: str) -> None:
        """Note a mistake on a line (0: on the command line); RecipeError where there are so many that it is enough."""
        self.noted += 1
        self.entries[line, text if len(text) <= LONGEST else f"{text[:LONGEST]}..."] = None
        if len(self.entries) >= ENOUGH:
            raise RecipeError([*self.lines(), f"{self.name}: is not checked any further"])

    def lines(self) -> list[str]:
        """Every mistake with its place, in the order of the file, the command line's last."""
        ordered = sorted(self.entries, key=lambda item: (item[0] == COMMAND_LINE, item[0]))
        return [f"command line: {t}" if line == COMMAND_LINE else f"{self.name}:{line}: {t}" for line, t in ordered]

    def stop(self) -> None:
        """Raise RecipeError if there is any mistake."""
        if self.entries:
            raise RecipeError(self.lines())


def read(text: str, mistakes: Mistakes) -> Node:
    """The document as Nodes. A key twice is noted; what is not plain YAML 1.2 (anchors, tags) is a RecipeError."""
    try:
        return reading.read(text, "a recipe", mistakes.add, LARGEST)
    except reading.YamlError as error:
        place = f"{mistakes.name}:{error.line}" if error.line else mistakes.name
        raise RecipeError([f"{place}: {error.problem}"]) from None


def source(recipe_source: Path | str) -> tuple[str, str, Path | None]:
    """Name, text and path of a recipe, which is a path, the name of one that comes with truing, or text of more than
    one line."""
    if isinstance(recipe_source, str) and "\n" in recipe_source:
        return "recipe", recipe_source, None
    path = shipped.locate(recipe_source)
    try:
        return str(path), door.read_text(path, most=4 * LARGEST), path
    except DataError as problem:
        hint = "" if os.path.exists(path) else _beside(path)
        raise RecipeError([f"{short(str(recipe_source))}: {problem.problem}{hint}"]) from None


def _beside(path: Path) -> str:
    if not os.path.isdir(path.parent):
        return ""
    there = [p.name for pattern in ("[!.]*.yaml", "[!.]*.yml") for p in path.parent.glob(pattern)]
    return ". " + unknown("recipe", path.name, [*there, *shipped.recipes()])


def override(root: Node, overrides: list[str], mistakes: Mistakes) -> None:
    """Put each `a.b=c` of the command line into the document. `a` is a stage, an input, or a top-level key."""
    for item in overrides:
        path, sign, text = item.partition("=")
        if not sign or not path:
            mistakes.add(COMMAND_LINE, f"'{short(item)}' is not of the form name=value")
            continue
        try:
            value = read(text, Mistakes("command line")) if text.strip() else Node("")
        except RecipeError as problem:
            mistakes.add(COMMAND_LINE, f"{short(item)}: {problem.mistakes[0].partition(': ')[2]}")
            continue
        _put(root, path, _unlined(value), mistakes)


def refuse_keys(text: str, overrides: Sequence[str], mistakes: Mistakes) -> None:
    """Note every line that holds a key or a password: a recipe is kept in its run's folder and shown in its report."""
    lines = [*enumerate(text.split("\n"), start=1), *((COMMAND_LINE, item) for item in overrides)]
    for number, line in lines:
        if holds_key(line):
            mistakes.add(
                number,
                "holds what looks like a key or password, and a recipe is shown in its report. Take it out; keys are "
                "read from the environment (HF_TOKEN)",
            )


def write(root: Node) -> str:
    """The document as YAML again."""
    return writing.write(root.plain)


def _unlined(node: Node) -> Node:
    if isinstance(node.value, dict):
        return Node({key: _unlined(child) for key, child in node.value.items()})
    return Node([_unlined(child) for child in node.value]) if isinstance(node.value, list) else Node(node.value)


def _put(root: Node, path: str, value: Node, mistakes: Mistakes) -> None:
    """Set one value. A bare `data=` is short for `inputs.data=`; `warm.steps=` for `stages.warm.steps=`."""
    words = path.split(".")
    stages, inputs = (root.entries.get(key, Node({})).entries for key in ("stages", "inputs"))
    if len(words) == 1 and words[0] in inputs:
        words = ["inputs", *words]
    elif len(words) > 1 and words[0] in stages:
        inner = stages[words[0]].entries.get("stages", Node({})).entries
        words = ["stages", words[0], *(["stages"] if words[1] in inner and len(words) > 2 else []), *words[1:]]
    alone, above = {"title", "seed", "base", "production"}, {"inputs", "base", "chat_template_kwargs"}
    settable = {*alone, *inputs} if len(words) == 1 else {*above, *stages}
    if (
        words[0] not in {*settable, "stages"}
        or (words[0] == "inputs" and words[-1] not in inputs)
        or words == ["stages"]
    ):
        if len(words) == 1 and hints.has_any_option(words[0]):
            does = {name: node.entries.get("do", Node("")).value for name, node in stages.items()}
            stage = next((name for name, do in does.items() if hints.has("stage", str(do), words[0])), "STAGE")
            mistakes.add(COMMAND_LINE, f"{path}=...: '{path}' is an option of a stage: write {stage}.{path}=...")
            return
        what = "input" if words[0] == "inputs" else "name" if len(words) == 1 else "stage"
        mistakes.add(
            COMMAND_LINE,
            f"{path}=...: "
            + unknown(what, words[-1 if what == "input" else 0], inputs if what == "input" else settable),
        )
        return
    place = root
    for depth, word in enumerate(words[:-1]):
        if not isinstance(place.value, dict) or word not in place.value:
            there = [*place.entries, *place.entries.get("stages", Node({})).entries]
            hint = nearest(word, there)
            did = f". Did you mean '{hint}'?" if hint else ""
            mistakes.add(COMMAND_LINE, f"{path}=...: there is no '{'.'.join(words[: depth + 1])}' to set it in{did}")
            return
        place = place.value[word]
    if not isinstance(place.value, dict):
        mistakes.add(COMMAND_LINE, f"{path}=...: '{'.'.join(words[:-1])}' is {place.plain!r}, not a mapping")
        return
    place.value[words[-1]] = value
