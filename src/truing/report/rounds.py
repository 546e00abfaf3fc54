"""Report of a stage that trained on its own responses: the curves it is judged by, and a few of the responses from the
first round to the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from truing.report import figures, words
from truing.report.folder import StagePieces, as_number

CURVES = ("score", "kl", "length", "sampled_entropy", "truncated", "equal_groups")
"""Curves of every round, in this order; then those of preference methods and of held-out prompts."""
BESIDE = ("accuracy", "margin_nats", "monitor_proxy", "monitor_kl")
TITLES = {
    "score": "reward",
    "kl": "KL to the reference",
    "length": "length of responses",
    "sampled_entropy": "entropy",
    "truncated": "share truncated",
    "equal_groups": "share of equal groups",
    "monitor_proxy": "reward, held-out prompts",
    "monitor_kl": "KL, held-out prompts",
}
_MOST = 700  # characters of a text; what a stage wrote is no longer


def learns_from_rounds(rows: Sequence[Mapping[str, float]]) -> bool:
    """True if these metrics are of scored responses."""
    return any("score" in row for row in rows)


def curves_of(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The metrics of rounds that are drawn.

    >>> curves_of([{"step": 1, "loss": 0.0, "score": 0.5, "length": 9.0}])
    ['score', 'length']
    """
    names = {name for row in rows for name in row}
    alone = all(row.get("responses") == row.get("groups") for row in rows)  # a lone response is equal to itself
    first = [name for name in CURVES if name in names and not (name == "equal_groups" and alone)]
    return [*first, *(name for name in BESIDE if name in names)]


def title(name: str) -> str:
    """The title of a curve."""
    return TITLES.get(name) or words.label(name)


def unit(name: str) -> str:
    """The unit of a curve."""
    plain = figures.UNITS.get(name.removeprefix("monitor_")) or words.unit(name).replace("%", "")
    return "nats a token" if name == "sampled_entropy" else plain


def responses(stage: StagePieces) -> dict[str, Any] | None:
    """The responses that a stage kept, by prompt and then by round, each with its reward; None where it kept none."""
    prompts: dict[str, dict[str, Any]] = {}
    for entry in stage.responses:
        rows = entry.get("responses")
        shown = [_response(row) for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
        if shown:
            prompt = prompts.setdefault(str(entry.get("row")), {"prompt": _turns(entry.get("prompt")), "rounds": []})
            prompt["rounds"].append({"number": entry.get("round"), "responses": shown})
    again = any(len(prompt["rounds"]) > 1 for prompt in prompts.values())
    note = (
        "The same prompts, from the first round to the last."
        if again
        else "No prompt was repeated in this stage: each round shows its own prompts."
    )
    return {"name": stage.name, "note": note, "prompts": list(prompts.values())} if prompts else None


def _response(row: Mapping[str, Any]) -> dict[str, str]:
    score = as_number(row.get("score"))
    reward = "not scored" if score is None else f"reward {words.number(score)}"
    ended = ", truncated" if row.get("stop") == "length" else ""
    return {"score": reward + ended, "text": str(row.get("text", ""))[:_MOST]}


def _turns(prompt: Any) -> list[dict[str, str]]:
    turns = prompt if isinstance(prompt, list) else []
    return [
        {"role": str(turn.get("role", "")), "text": str(turn.get("content", ""))[:_MOST]}
        for turn in turns
        if isinstance(turn, Mapping)
    ]
