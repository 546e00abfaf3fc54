"""The value of one option: references resolved, in its own type, names of the world, models and files looked up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truing.recipe import sources
from truing.recipe.scope import Scope
from truing.recipe.sources import HUB
from truing.recipe.yaml_document import COMMAND_LINE, LOST, Mistakes
from truing.schema.option import Option
from truing.schema.type_words import choices_in
from truing.yaml_text.reading import Node


def check_value(place: str, option: Option, node: Node, scope: Scope) -> Any:
    """Return the value of an option in its own type, names looked up; LOST where it is a mistake, which is noted."""
    value = refer(option, node, scope)
    if value is LOST:
        return LOST
    try:
        value = option.check(value)
    except ValueError as problem:
        scope.mistakes.add(node.line, f"{place}: {problem}")
        return LOST
    return look_up(place, option, value, node, scope)


def refer(option: Option, node: Node, scope: Scope) -> Any:
    """The plain value with every `$...` in it resolved; LOST if one of them is a mistake."""
    if isinstance(node.value, list):
        items = [refer(option, child, scope) for child in node.value]
        return LOST if any(item is LOST for item in items) else items
    if isinstance(node.value, str) and node.value.startswith("$"):
        return scope.resolve(node.value, node.line, option)
    return node.plain


def look_up(place: str, option: Option, value: Any, node: Node, scope: Scope, depth: int = 0) -> Any:
    """A name of a model, data set or file, checked and found; anything else as it is. `depth` lists are around it."""
    if isinstance(value, list):
        nodes = node.value if isinstance(node.value, list) else [node] * len(value)
        return [look_up(place, option, item, child, scope, depth + 1) for item, child in zip(value, nodes, strict=True)]
    kind, what = option.reference, f"{place}: {option.name}"
    if not isinstance(value, str) or not kind or value in choices_in(option.tree, depth):
        return value
    if kind == "Data":
        return data_name(value, node, what, scope, option)
    if value == scope.base:  # looked up where it stands
        return value
    if kind in ("Model", "Models", "Rivals", "RewardModel"):
        hint = option.guess(value)
        if hint and not HUB.fullmatch(value) and not path_of(value, node, scope):
            scope.mistakes.add(node.line, f"{what}: there is no folder '{value}'{hint}")
            return value
        return model_name(value, node, what, scope, option)
    path = path_of(value, node, scope)
    if not path:
        scope.mistakes.add(node.line, f"{what}: {sources.file_trouble(value, scope.folder)}")
    elif kind == "Rules":
        check_rules(Path(path), what, node.line, scope.mistakes)
    return path or value


def path_of(name: str, node: Node, scope: Scope) -> str:
    """The path of a file or folder of that name, or an empty string."""
    place = sources.find(name, scope.folder, typed=node.line == COMMAND_LINE)
    return "" if place is None else str(place)


def data_name(name: str, node: Node, what: str, scope: Scope, option: Option | None = None) -> str:
    """A data set's name, checked, with what fits the `option` as a hint; a file that stands beside the recipe is given
    with its folder."""
    path = path_of(name, node, scope)
    if path and not name.startswith("world:"):
        return path
    trouble = sources.data_trouble(name, scope.folder, lambda: scope.fitting(option) if option else [])
    if trouble:
        way_out = f". Give your own: {node.input}=FILE" if node.input and not name.startswith("world:") else ""
        scope.mistakes.add(node.line, f"{f'input {node.input!r}' if node.input else what}: {trouble}{way_out}")
    return name


def model_name(name: str, node: Node, what: str, scope: Scope, option: Option | None = None) -> str:
    """A model's name, checked; a folder that stands beside the recipe is given with its path. An adapter has to ask for
    nothing that is not read, and its base has to be there."""
    path = path_of(name, node, scope)
    if path and not name.startswith("world:"):
        trouble = sources.adapter_trouble(path)
        if trouble:
            scope.mistakes.add(node.line, f"{what}: {trouble}")
        return path
    trouble = sources.model_trouble(name, lambda: scope.fitting(option) if option else [])
    if trouble:
        scope.mistakes.add(node.line, f"{what}: {trouble}")
    return name


def is_set(options: dict[str, Any], nodes: dict[str, Node], name: str) -> bool:
    """True if an option is set, be it with a mistake in it that is noted already."""
    return name in nodes and options.get(name, True) is not None


def check_rules(path: Path, what: str, line: int, mistakes: Mistakes) -> None:
    """Note every mistake of a rules file. (The gate's own reader reads it, imported when needed.)"""
    from truing.gate.rules import read_rules

    trouble = sources.problem_of(lambda: read_rules(path))
    for sentence in trouble.splitlines():
        mistakes.add(line, f"{what}: {sentence}")
