"""A YAML file as values that know their line, and the command line's `a.b=c` put into them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from truing import door
from truing.errors import DataError, RecipeError, holds_key, nearest, short, unknown
from truing.recipe import hints, shipped

LARGEST = 300_000
"""How many characters a recipe may have, which is a page of text: YAML is read at 200,000 a second."""
ENOUGH = 200
"""So many mistakes are gathered."""
BITS = 1100
"""How long a whole number may be: any of fp64 is shorter, and what is longer stays the text it was."""
LONGEST = 4000
"""How many characters of a mistake are said."""
COMMAND_LINE = 0  # the line number of what came from the command line
LOST = object()  # stands for a value whose mistake is already noted
PLAIN = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null"))


@dataclass
class Node:
    """A value (a scalar, a dict or a list of Nodes), the line it stands on, and the input it came from, if from one."""

    value: Any
    line: int = COMMAND_LINE
    input: str = ""

    @property
    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        return self.value

    @property
    def entries(self) -> dict[str, Node]:
        """The entries of a mapping; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}


@dataclass
class Mistakes:
    """What is wrong with a recipe, gathered so that all of it is said at once."""

    name: str
    found: dict[tuple[int, str], None] = field(default_factory=dict)
    noted: int = 0  # those of every turn of a loop, which are said once

    def add(self, line: int, text: str) -> None:
        """Note a mistake on a line (0: on the command line); RecipeError where there are so many that it is enough."""
        self.noted += 1
        self.found[line, text if len(text) <= LONGEST else f"{text[:LONGEST]}..."] = None
        if len(self.found) >= ENOUGH:
            raise RecipeError([*self.lines(), f"{self.name}: is not looked at any further"])

    def lines(self) -> list[str]:
        """Every mistake with its place, in the order of the file, the command line's last."""
        ordered = sorted(self.found, key=lambda item: (item[0] == COMMAND_LINE, item[0]))
        return [f"command line: {t}" if line == COMMAND_LINE else f"{self.name}:{line}: {t}" for line, t in ordered]

    def stop(self) -> None:
        """Raise RecipeError if there is any mistake."""
        if self.found:
            raise RecipeError(self.lines())


def read(text: str, mistakes: Mistakes) -> Node:
    """The document as Nodes. What is not plain YAML (anchors, tags, a key twice) is a mistake."""
    if len(text) > LARGEST:
        raise RecipeError([f"{mistakes.name}: has {len(text):,} characters, and a recipe has at most {LARGEST:,}"])
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Node({}, 1)
        return _node(loader, root, root.start_mark.line + 1, mistakes)
    except yaml.MarkedYAMLError as problem:
        line = problem.problem_mark.line + 1 if problem.problem_mark else 1
        hint = ". Inside { } put a name with ? in quotes" if "got '?'" in str(problem.problem) else ""
        raise RecipeError([f"{mistakes.name}:{line}: {problem.problem}{hint}"]) from None
    except yaml.YAMLError as problem:
        raise RecipeError([f"{mistakes.name}: is not YAML: {' '.join(str(problem).split())}"]) from None
    except RecursionError:
        raise RecipeError([f"{mistakes.name}: is nested too deeply"]) from None
    finally:
        if loader is not None:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """The safe loader, which also refuses anchors, aliases and tags."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(None, None, "a recipe has no anchors (&) and aliases (*)", event.start_mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(None, None, f"a recipe has no tags ({event.tag})", event.start_mark)
        return super().compose_node(parent, index)


def _node(loader: _Loader, node: yaml.Node, line: int, mistakes: Mistakes) -> Node:
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Node] = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                mistakes.add(at, "a key must be a word")
            elif key.value in entries:
                mistakes.add(at, f"'{key.value}' stands twice (first on line {entries[key.value].line})")
            else:
                entries[key.value] = _node(loader, value, at, mistakes)
        return Node(entries, line)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(loader, item, item.start_mark.line + 1, mistakes) for item in node.value], line)
    if node.tag not in PLAIN:  # dates and the like stay the text they were
        return Node(node.value, line)
    try:
        value = loader.construct_object(node, deep=True)
    except (ValueError, OverflowError):  # such as an integer of ten thousand digits
        return Node(node.value, line)
    return Node(node.value if isinstance(value, int) and value.bit_length() > BITS else value, line)


def source(given: Path | str) -> tuple[str, str, Path | None]:
    """The name, text and path of a recipe given as a path, as the name of one that comes with truing, or as text (of
    more than one line)."""
    if isinstance(given, str) and "\n" in given:
        return "recipe", given, None
    path = shipped.found(given)
    try:
        return str(path), door.read_text(path, most=4 * LARGEST), path
    except DataError as problem:
        hint = "" if os.path.exists(path) else _beside(path)
        raise RecipeError([f"{short(str(given))}: {problem.problem}{hint}"]) from None


def _beside(path: Path) -> str:
    if not os.path.isdir(path.parent):
        return ""
    there = [p.name for pattern in ("*.yaml", "*.yml") for p in path.parent.glob(pattern)]
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
    return yaml.safe_dump(root.plain, sort_keys=False, allow_unicode=True, width=1000)


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
    known = (
        {"title", "seed", "base", *inputs} if len(words) == 1 else {"inputs", "base", "chat_template_kwargs", *stages}
    )
    if words[0] not in {*known, "stages"} or (words[0] == "inputs" and words[-1] not in inputs) or words == ["stages"]:
        if len(words) == 1 and hints.has_any_option(words[0]):
            does = {name: node.entries.get("do", Node("")).value for name, node in stages.items()}
            stage = next((name for name, do in does.items() if hints.has("stage", str(do), words[0])), "STAGE")
            mistakes.add(COMMAND_LINE, f"{path}=...: '{path}' is an option of a stage: write {stage}.{path}=...")
            return
        what = "input" if words[0] == "inputs" else "name" if len(words) == 1 else "stage"
        mistakes.add(
            COMMAND_LINE,
            f"{path}=...: {unknown(what, words[-1 if what == 'input' else 0], inputs if what == 'input' else known)}",
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
