"""The unifying view: what each objective learns from, what it needs, and which divergence it estimates (no torch)."""

from __future__ import annotations

from typing import Any

from truing import registry
from truing.data.kinds import WORDS, shape_of
from truing.recipe.families import of_rollouts, origins, stages
from truing.schema.signature import Kind, Part

ROLLOUTS = "rollouts"
"""The data of an objective whose signals are made of the policy's own, fresh responses."""


def rows(kind: Kind, source: str | None = None) -> list[dict[str, Any]]:
    """Every part of a kind in the form of `truing list --json`: the built-in ones, those of installed packages, and
    those of the user's file or module `source`, each by the name that a recipe gives it. Nothing is executed."""
    parts = registry.parts(kind) | registry.installed_parts(kind)
    return [row(part) for part in (parts | (registry.own_parts(source, kind) if source else {})).values()]


def row(part: Part) -> dict[str, Any]:
    """One part in that form; of an objective with its place in the unifying view.

    `data` describes what it learns from. `reference`, `reward_model`, `sampling`: whether it reads a reference's
    log-probabilities, the scores of the reward model that it trains, or quantities of the policy's own responses and
    their rewards. `estimates` is the divergence that its value estimates, empty where theory names none; `mean` what a
    step's losses are divided by; `lower_is_better` whether the reward model that it trains gives a cost; `exempt` the
    clauses of the contract that it does not keep, with reasons; `stages` those that train it.
    """
    if part.kind != "objective":
        return part.as_json()
    read, sampling = origins(part), of_rollouts(part)
    return part.as_json() | {
        "data": ROLLOUTS if sampling else WORDS[shape_of(part.needs)],
        "reference": "reference" in read,
        "reward_model": "reward" in read,
        "sampling": sampling,
        "estimates": part.estimates,
        "mean": part.mean,
        "lower_is_better": part.lower_is_better,
        "exempt": dict(part.exempt),
        "stages": stages(part),
    }


def needs(row: dict[str, Any]) -> str:
    """Needs of an objective besides its data and a policy, in words.

    >>> needs({"reference": True, "reward_model": False, "sampling": True})
    'reference, sampling with rewards'
    """
    words = {"reference": "reference", "reward_model": "reward model", "sampling": "sampling with rewards"}
    return ", ".join(word for key, word in words.items() if row[key])


def lines(row: dict[str, Any]) -> list[str]:
    """An objective's place in the unifying view, as lines of text."""
    out = [f"learns from {row['data']}" + (f"; needs {needs(row)}" if needs(row) else "")]
    out[0] += f"; trained by {' or '.join(row['stages'])}" if row["stages"] else "; called from Python only"
    out += [f"estimates {row['estimates']}"] if row["estimates"] else []
    out += ["teaches a cost: lower is better"] if row["lower_is_better"] else []
    return out + [f"exempt from '{clause}': {reason}" for clause, reason in row["exempt"].items()]


def portrait(row: dict[str, Any], place: str, view: list[str]) -> list[str]:
    """One part as lines of text, with those of its place in the unifying view."""
    lines = [row["name"], "", row["doc"], "", *view]
    lines += [f"source: {row['source']}"] if row["source"] else []
    lines += [f"needs:  {', '.join(row['needs'])}"] if row["needs"] else []
    lines += [f"takes:  {', '.join(row['optional'])}, where the data has it"] if row.get("optional") else []
    if row["options"]:
        width, kinds = (max(len(option[key]) for option in row["options"]) for key in ("name", "type"))
        lines.append("options:")
        for option in row["options"]:
            default = (
                "required"
                if option["required"]
                else f"default {'none' if option['default'] is None else option['default']}"
            )
            lines.append(f"  {option['name']:{width}}  {option['type']:{kinds}}  {default}")
            lines += [f"  {'':{width}}  {option['doc']}"] if option["doc"] else []
    return [*lines, f"code:   {place}"] if place else lines
