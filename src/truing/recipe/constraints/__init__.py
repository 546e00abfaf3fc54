"""Options of a stage that go together: refused when the recipe is checked where one has no effect without another.

The rules of a stage stand in the file of its name, and are found by that name. A stage of the user's own has none,
whatever its options are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from truing.recipe.constraints.diagnose import diagnosed
from truing.recipe.constraints.evaluate import examined
from truing.recipe.constraints.reinforce import learned, monitored
from truing.recipe.scope import Scope
from truing.schema.signature import Part
from truing.yaml_text.reading import Node

Rule = Callable[[Part, dict[str, Any], dict[str, Node], Scope], Iterator[tuple[str, str]]]
"""From a stage, its options and their places in the recipe to the options that have no effect, each with the reason."""


def check_together(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> None:
    """Note every option that has no effect beside the others of its stage, and every one that lacks another."""
    problems = [problem for rule in RULES.get(part.name, ()) for problem in rule(part, options, nodes, scope)]
    for option, problem in problems:
        scope.mistakes.add(nodes[option].line, scope.place + problem)


def alike(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> Iterator[tuple[str, str]]:
    """Refuse several responses at temperature 0, where a model has one to a prompt however often it is sampled."""
    count = part.option("samples_per_prompt")
    if options.get("temperature") != 0 or count is None:
        return
    times = options.get(count.name, count.default)
    if isinstance(times, int) and times > 1:
        yield "temperature", f"at temperature 0 all {times} responses to a prompt are the same; give {count.name}: 1"
    if isinstance(options.get("best_of"), int) and options["best_of"] > 1:
        yield "best_of", "at temperature 0 all responses to a prompt are the same, and none is the best of several"


RULES: dict[str, tuple[Rule, ...]] = {
    "diagnose": (diagnosed,),
    "evaluate": (examined, alike),
    "reinforce": (monitored, learned),
    "sample": (alike,),
}
"""The rules of each stage."""
