"""Options of a stage that go together: refused when the recipe is checked where one has no effect without another.

The rules of a stage stand in the file of its name, in a tuple `RULES`. A stage of the user's own has none, whatever its
options are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from truing.recipe.scope import Scope
from truing.schema.signature import Part
from truing.yaml_text.reading import Node

Rule = Callable[[Part, dict[str, Any], dict[str, Node], Scope], Iterator[tuple[str, str]]]
"""From a stage, the options that are set (in their own types) and all that the recipe names, with their places, to the
options that have no effect, each with the reason. `reinforce.group` adds the defaults of a group."""


def rules_of(stage: str) -> tuple[Rule, ...]:
    """The rules in the file of a stage's name; none where there is no such file."""
    if find_spec(f"{__name__}.{stage}") is None:
        return ()
    rules: tuple[Rule, ...] = import_module(f"{__name__}.{stage}").RULES
    return rules


def check_together(part: Part, options: dict[str, Any], nodes: dict[str, Node], line: int, scope: Scope) -> None:
    """Note every option that has no effect beside the others of its stage, and every one that lacks another; `line` is
    the stage's, for an option that the recipe does not set."""
    problems = [problem for rule in rules_of(part.name) for problem in rule(part, options, nodes, scope)]
    for option, problem in problems:
        scope.mistakes.add(nodes[option].line if option in nodes else line, scope.place + problem)
