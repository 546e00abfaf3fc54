"""Rules between the options of `evaluate`: something to measure, a judge that is tried where it may err."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from truing.recipe.constraints.sample import alike
from truing.recipe.reward_spec import GOLD
from truing.recipe.scope import Scope
from truing.recipe.values import is_set
from truing.schema.signature import Part
from truing.yaml_text.reading import Node

ANSWERED = (
    "judge",
    "aggregate",
    "lookup",
    "samples",
    "samples_per_prompt",
    "passing",
    "max_new_tokens",
    "temperature",
    "preview",
)
"""Options about responses, which have no effect in an exam where no prompts are answered."""
TRYING = ("labelled", "least_accuracy", "exact", "trusted", "trusted_samples")
"""Options about a judge's errors."""


def examined(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> Iterator[tuple[str, str]]:
    """Check that an exam has prompts to answer or pairs to order, and that its judge is tried only where it may err."""
    if is_set(options, nodes, "prompts"):
        yield from trusting(options, nodes)
        return
    if not is_set(options, nodes, "data") and "models" in nodes:
        yield "models", "there is nothing to measure: give prompts (to answer) or data (pairs to order)"
        return
    for name in (*ANSWERED, *TRYING):
        if name in options:
            yield name, f"'{name}' has no effect without 'prompts' (to answer)"


def trusting(options: dict[str, Any], nodes: dict[str, Node]) -> Iterator[tuple[str, str]]:
    """Check that the options about a judge's errors go together."""
    judge = options.get("judge", "" if "judge" in nodes else GOLD)
    if "judge" in nodes and "judge" not in options:  # a mistake already noted
        return
    if judge == GOLD or options.get("exact"):
        why = (
            "judge is gold, which makes no errors"
            if judge == GOLD
            else "'exact' declares that the judge makes no errors"
        )
        for name in (n for n in TRYING if n in options and (n != "exact" or judge == GOLD)):
            yield name, f"'{name}' has no effect where {why}; leave it out"
        return
    if options.get("trusted_samples") is not None and "trusted" not in nodes:
        yield "trusted_samples", "'trusted_samples' has no effect without 'trusted' (a better judge, such as gold)"
    if options.get("trusted") is not None and options["trusted"] == judge:
        yield "trusted", "'trusted' is the judge itself; give a better one, or leave it out"


RULES = (examined, alike)
