"""The value of one option: references resolved, in its own type, names of the world, models and files looked up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from truing.recipe import sources
from truing.recipe.scope import Scope
from truing.recipe.sources import HUB
from truing.recipe.yaml_document import LOST, Mistakes
from truing.signature import Option
from truing.type_words import guess, parse_type
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


def look_up(place: str, option: Option, value: Any, node: Node, scope: Scope) -> Any:
    """A name of a model, data set or file, checked and found; anything else as it is."""
    if isinstance(value, list):
        nodes = node.value if isinstance(node.value, list) else [node] * len(value)
        return [look_up(place, option, item, child, scope) for item, child in zip(value, nodes, strict=True)]
    kind, what = option.reference, f"{place}: {option.name}"
    if not isinstance(value, str) or not kind or f"'{value}'" in option.type:
        return value
    if kind == "Data":
        return scope.data(value, node, what, option)
    if value == scope.base:  # looked up where it stands
        return value
    if kind in ("Model", "Models", "Rivals", "RewardModel"):
        hint = guess(parse_type(option.type), value)
        if hint and not HUB.fullmatch(value) and not scope.path_of(value, node):
            scope.mistakes.add(node.line, f"{what}: there is no folder '{value}'{hint}")
            return value
        return scope.model(value, node, what, option)
    path = scope.path_of(value, node)
    if not path:
        scope.mistakes.add(node.line, f"{what}: {sources.file_trouble(value, scope.folder)}")
    elif kind == "Rules":
        check_rules(Path(path), what, node.line, scope.mistakes)
    return path or value


def check_rules(path: Path, what: str, line: int, mistakes: Mistakes) -> None:
    """Note every mistake of a rules file. (The gate's own reader reads it, imported when needed.)"""
    from truing.gate.rules import read_rules

    trouble = sources.problem_of(lambda: read_rules(path))
    for sentence in trouble.splitlines():
        mistakes.add(line, f"{what}: {sentence}")
