"""Meanings of the columns beside a convention's own: one table of names, and what is done with each.

What changes a row (a system message, earlier turns, an input, a verdict, a weight) is read where the ecosystem has one
meaning for it, and refused by name where it has none. What changes nothing is counted and named once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Literal, TypeAlias

from truing.data.formats import marks
from truing.data.formats.marks import snake

Meaning: TypeAlias = Literal["system", "history", "addition", "media", "tools", "label", "mark", "flag", ""]

INSTRUCTIONS = frozenset({"instruction", "instructions"})
INPUTS = frozenset({"input", "inputs", "context"})
"""The columns that Alpaca (`input`) and Dolly (`context`) put behind an instruction."""

AGAINST = frozenset(
    {"deleted", "is_deleted", "flagged", "is_flagged", "is_toxic", "is_spam", "is_harmful", "is_unsafe"}
)
"""Labels of which true says that a response is not to be learned."""
FLAGS = AGAINST | {"correct", "passed", "good", "liked", "helpful", "safe", "thumb_up", "passed_filter"}
"""Labels only where they are true or false, for they may well be something else."""

NAMES: dict[Meaning, frozenset[str]] = {
    "system": frozenset(
        {"system", "system_prompt", "system_message", "system_msg", "sys_prompt", "system_instruction"}
        | {"system_instructions", "sys"}
    ),
    "history": frozenset(
        {"history", "chat_history", "conversation_history", "dialogue_history", "dialog_history", "message_history"}
        | {"previous_turns", "prior_turns", "previous_messages", "past_messages", "context_messages"}
    ),
    "addition": INSTRUCTIONS
    | INPUTS
    | {"contexts", "passage", "passages", "paragraph", "paragraphs", "document", "documents", "background", "knowledge"}
    | {"retrieved_context", "retrieved_contexts", "retrieved_documents", "reference_text", "source_text"},
    "tools": frozenset(
        {"available_tools", "available_functions", "tool_definitions", "function_definitions", "tool_schemas"}
        | {"tools_json", "functions_json", "tool_list"}
    ),
    "label": frozenset(
        {"label", "kto_tag", "is_safe", "is_response_safe", "is_correct", "is_good", "is_chosen", "is_preferred"}
        | FLAGS
        | {"is_accepted", "is_approved", "is_desirable", "desirable", "accepted", "approved", "thumbs_up", "upvoted"}
    ),
    "mark": frozenset(
        {"weight", "sample_weight", "example_weight", "instance_weight", "row_weight", "loss_weight", "loss_scale"}
        | {"loss_mask", "train_mask", "training_mask", "trainable", "is_trainable", "train_on"}
    )
    | marks.HIDDEN,
    "flag": frozenset({"train", "training", "loss"}),
}
"""Names of columns by what they mean. A `label` is said of one response; a `mark` of whether, or how much, the row is
learned; a `flag` is such a mark only where it is true or false, for it may well be something else."""

VERDICTS = frozenset(
    {
        "winner", "winners", "winning", "better", "best", "safer", "prefer", "preferred", "preference", "preferences",
        "verdict", "verdicts", "vote", "votes", "judgement", "judgements", "judgment", "judgments", "annotator",
        "annotators", "annotation", "annotations", "label", "labels", "choice", "ranking", "rankings", "rank", "ranks",
        "comparison", "comparisons", "score", "scores", "rating", "ratings", "reward", "rewards", "grade", "grades",
        "upvotes", "pw", "decision", "favored", "favoured", "chosen", "selected", "selection", "pick", "picked",
        "choose", "favorite", "favourite", "outcome", "result", "gold", "which",
        "win", "wins", "won", "worse", "worst", "loser", "losing", "dispreferred", "rejected",
    }
)  # fmt: skip
"""Words of a column's name that say which of several responses is better."""
ABOUT = frozenset({"confidence", "id", "ids", "time", "date", "count", "reason", "explanation", "category", "type"})
"""Words at the end of a name that make it something about a verdict, unless the name says `better`: `vote_count`."""
NAMING = frozenset({"better", "safer", "winner", "preferred", "chosen", "selected"})
"""Words with which a name says that it holds a verdict, whatever it ends with: `better_response_id`, `chosen_idx`."""
LONGEST_VERDICT = 100
"""So many characters has a value that names a response at most; anything longer is an explanation."""
SIDES = frozenset(
    {
        "chosen", "rejected", "better", "worse", "best", "worst", "preferred", "dispreferred", "nonpreferred", "good",
        "bad", "winner", "loser", "winning", "losing", "win", "lose", "positive", "negative", "pos", "neg", "accepted",
        "refused", "correct", "incorrect", "right", "wrong", "w", "l", "yw", "yl", "safe", "unsafe", "matching",
    }
)  # fmt: skip
"""Words of a column's name that say whether its response is the better or the worse one."""
ORDER = frozenset({"a", "b", "c", "d", "left", "right", "first", "second", "third", "one", "two", "three", "i", "ii"})
"""Words that tell columns of equal standing apart."""


@cache
def meaning(name: str) -> Meaning:
    """Return the meaning of a column of this name beside a convention's own; empty for one that is only named.

    >>> meaning("systemPrompt"), meaning("image_urls"), meaning("image_id"), meaning("source")
    ('system', 'media', '', '')
    """
    word = snake(name)
    if marks.MEDIA.fullmatch(word):
        return "media"
    return next((kind for kind, names in NAMES.items() if word in names), "")


@cache
def is_verdict(name: str) -> bool:
    """Return whether a column's name says that it holds a verdict on several responses.

    >>> is_verdict("better_response_id"), is_verdict("winner_model_a"), is_verdict("vote_count"), is_verdict("source")
    (True, True, False, False)
    """
    parts = words(name)
    about = parts[-1:] and parts[-1] in ABOUT and not NAMING & set(parts)
    return bool(VERDICTS & set(parts)) and not about


@cache
def says_side(name: str) -> bool:
    """Return whether a column's name says that its responses are the better or the worse ones.

    >>> says_side("better_answer"), says_side("response_0"), says_side("not_preferred")
    (True, False, True)
    """
    parts = words(name)
    return bool(SIDES & set(parts)) and parts[-1:] != ("right",)


def siblings(name: str, others: Iterable[str]) -> list[str]:
    """The columns of equal standing: of `response_a` the column `response_b`, of `answer1` the column `answer2`."""
    parts = words(name)
    return [other for other in others if _differ_by_order(parts, words(other))]


def _differ_by_order(first: Sequence[str], second: Sequence[str]) -> bool:
    if len(first) != len(second):
        return False
    apart = [(a, b) for a, b in zip(first, second, strict=True) if a != b]
    return len(apart) == 1 and all(word in ORDER or word.isdigit() for word in apart[0])


@cache
def words(name: str) -> tuple[str, ...]:
    """The words of a name, and its numbers.

    >>> words("human_ref_A"), words("output_2")
    (('human', 'ref', 'a'), ('output', '2'))
    """
    return tuple(re.findall(r"[a-z]+|\d+", snake(name)))
