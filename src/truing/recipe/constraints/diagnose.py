"""Rules between the options of `diagnose`: a run is diagnosed by what it monitored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from truing import registry
from truing.errors import unknown
from truing.recipe.families import is_built_in
from truing.recipe.references import Ref
from truing.recipe.scope import Scope
from truing.schema.signature import Part
from truing.yaml_text.reading import Node


def diagnosed(part: Part, options: dict[str, Any], nodes: dict[str, Node], scope: Scope) -> Iterator[tuple[str, str]]:
    """Check that every diagnosed run monitored a reward, and the one that is its truth."""
    named = options.get("runs")
    for run in named if isinstance(named, list) else [named]:
        if run is not None and run == scope.base:
            yield "runs", "$base is no run that monitored itself"
        if not isinstance(run, Ref):
            continue
        monitoring, made = scope.options[run.stage], scope.done[run.stage]
        if made is None or not is_built_in(made) or not made.option("monitor"):
            what = f"{run} ({made.name if made else '?'})"
            yield "runs", f"{what} is no stage that monitors itself; name a reinforce stage with 'monitor'"
        elif monitoring.get("monitor") is None:
            yield "runs", f"{run} monitored nothing: give that stage monitor: [gold] and monitor_prompts"
        else:
            names, truth = monitored_names(monitoring["monitor"]), options.get("truth", "gold")
            if names and truth not in names:
                yield ("truth" if "truth" in options else "runs"), f"{run}: {unknown('monitored reward', truth, names)}"


def monitored_names(rewards: list[dict[str, Any]]) -> list[str]:
    """Names of monitored rewards in monitor.jsonl; none where the recipe alone does not tell them."""
    names: list[str] = []
    for reward in rewards:
        ((name, options),) = reward.items()
        model = options.get("model") if name == "reward_model" else None
        if name not in registry.parts("reward") or not (model is None or isinstance(model, Ref)):
            return []
        names.append(model.stage if isinstance(model, Ref) else "reward_length" if name == "length" else name)
    return names if len(set(names)) == len(names) else []


RULES = (diagnosed,)
