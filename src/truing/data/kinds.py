"""The shape of data that an objective reads, by its signals (no torch).

| the objective reads | shape | verdicts that give it |
|---|---|---|
| `chosen_*`, `rejected_*` | pairs | a choice, a tie, comparisons, a ranking or scores of several responses |
| `*_BK` | ranked | a ranking, a choice, scores of several responses without equals |
| `desirable_B` | labelled | scores that are 0 or 1; of a choice both responses |
| `step_logit_BS`, `target_B` | outcomes | as labelled, and steps (right where every step is) |
| `target_B` | scored | scores; of a choice or a tie both responses, as probabilities |
| `step_label_BS` | steps | labelled steps |
| anything else | single | a demonstration; of a choice the chosen response |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from truing.errors import UserError

Shape: TypeAlias = Literal["text", "single", "pairs", "ranked", "labelled", "outcomes", "scored", "steps"]
Ties: TypeAlias = Literal["refused", "half", "outcome"]
"""Use of a tie by an objective: none; a soft label of one half; an outcome of its own."""


def shape_of(signals: Iterable[str]) -> Shape:
    """The shape of data that an objective with these signals reads.

    >>> shape_of(["logp_B", "ref_logp_B", "desirable_B"]), shape_of(["reward_BK", "rank_mask_BK"])
    ('labelled', 'ranked')
    """
    names = {name.partition(":")[0] for name in signals}
    if any(name.endswith("_BK") for name in names):
        return "ranked"
    if any(name.startswith(("chosen_", "rejected_")) for name in names):
        return "pairs"
    if "step_label_BS" in names:
        return "steps"
    if "step_logit_BS" in names:
        return "outcomes"
    if "desirable_B" in names:
        return "labelled"
    return "scored" if "target_B" in names else "single"


def common_shape(terms: Iterable[tuple[str, Iterable[str]]]) -> Shape:
    """The one shape that serves all terms, given as (name, signals); UserError where there is none."""
    named_shapes = [(name, shape) for name, signals in terms if (shape := shape_of(signals)) != "single"]
    if not named_shapes:
        return "single"
    (first, shape), *others = named_shapes
    for name, other in others:
        if other != shape:
            raise UserError(f"objective '{first}' learns from {WORDS[shape]} and '{name}' from {WORDS[other]}")
    return shape


WORDS: Mapping[Shape, str] = {
    "text": "text",
    "single": "responses",
    "pairs": "pairs",
    "ranked": "rankings",
    "labelled": "responses labelled desirable or undesirable",
    "outcomes": "responses labelled right or wrong",
    "scored": "responses with scores",
    "steps": "responses whose steps are labelled",
}
"""Each shape in words, for messages."""

COLUMNS: Mapping[Shape, str] = {
    "text": "text",
    "single": "prompt, response",
    "pairs": "prompt, chosen, rejected",
    "ranked": "prompt, responses, ranking",
    "labelled": "prompt, response, label",
    "outcomes": "prompt, response, label",
    "scored": "prompt, response, score",
    "steps": "prompt, completions, labels",
}
"""The columns of a file that give each shape, for messages. docs/data.md has the others."""


def ties_of(signals: Iterable[str]) -> Ties:
    """The use of a tie by an objective with these signals."""
    names = set(signals)
    return "outcome" if "tie_B" in names else "half" if "preference_B" in names else "refused"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A verdict on two branches of a tree, by their places, with what the data says of it by signal name."""

    better: int
    worse: int
    values: Mapping[str, float] = field(default_factory=dict)
