"""Rules between the options of `sample`: several responses to a prompt differ only where they are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from truing.recipe.scope import Scope
from truing.schema.signature import Part
from truing.yaml_text.reading import Node


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


RULES = (alike,)
