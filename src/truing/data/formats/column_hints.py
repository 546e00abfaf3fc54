"""Guesses of the column for each role: by what its name means in the field, and only then by its spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import cache

from truing.data.formats import columns
from truing.data.formats.conventions import ROLES, Convention
from truing.data.formats.marks import snake
from truing.errors import LONG, MOST, short, unknown

ASKED = frozenset(
    {"question", "questions", "query", "instruction", "instructions", "input", "inputs", "problem", "task", "request"}
    | {"user", "human", "user_message", "user_prompt", "user_input", "user_query", "question_text", "prompt_text"}
    | {"prompts", "instruction_text", "human_message", "ask", "context_messages"}
)
ANSWERED = frozenset(
    {"answer", "output", "reply", "completion", "response", "assistant", "gpt", "model_output", "model_response"}
    | {"model_answer", "target", "targets", "solution", "answer_text", "response_text", "assistant_response", "bot"}
    | {"assistant_message", "generation", "generated_text", "gpt_response", "ground_truth", "best_answer"}
)
MEANT: Mapping[str, frozenset[str]] = {
    "prompt": ASKED,
    "response": ANSWERED,
    "messages": frozenset({"conversation", "dialogue", "dialog", "chat", "turns", "message", "thread", "items"}),
    "chosen": frozenset(
        {"preferred", "better", "accepted", "positive", "pos", "win", "winner", "good", "correct", "safe"}
    ),
    "rejected": frozenset(
        {"dispreferred", "worse", "refused", "negative", "neg", "lose", "loser", "bad", "incorrect", "unsafe", "worst"}
        | {"nonpreferred"}
    ),
    "text": frozenset({"content", "body", "document", "documents", "raw_text", "raw_content", "story", "article"}),
    "label": columns.NAMES["label"],
    "score": frozenset({"rating", "reward", "grade", "helpfulness", "quality"}),
    "scores": frozenset({"ratings", "rewards", "grades"}),
    "responses": frozenset({"answers", "outputs", "candidates", "generations", "model_outputs"}),
    "ranking": frozenset({"rank", "ranks", "order"}),
}
"""Names that mean a role. A name that is a role of its own plays it first."""
KIND = ASKED | ANSWERED | MEANT["messages"] | {"ref", "completions", "messages", "conversations"}
"""Words of columns that hold messages."""
FEW = 20
"""Columns among which two responses are looked for."""


def fitting(convention: Convention, names: Iterable[str]) -> dict[str, str]:
    """The column that may play each role of a convention that the file has not under its name; roles that no column
    fits are left out.

    >>> from truing.data.formats.conventions import CONVENTIONS
    >>> by_name = {convention.name: convention for convention in CONVENTIONS}
    >>> fitting(by_name["prompt/response"], ["question", "context", "answer"])
    {'prompt': 'question', 'response': 'answer'}
    >>> fitting(by_name["prompt/chosen/rejected"], ["prompt", "response_a", "response_b"])
    {'chosen': 'response_a', 'rejected': 'response_b'}
    """
    names = [name for name in names if len(name) <= LONG][:MOST]
    spare = [name for name in names if name not in convention.columns]
    columns_by_role: dict[str, str] = {}
    if {"chosen", "rejected"} <= set(convention.columns) and not {"chosen", "rejected"} & set(names):
        columns_by_role = _two_responses(spare)
    for role in convention.columns:
        if role in names or role in columns_by_role:
            continue
        left = [name for name in spare if name not in columns_by_role.values()]
        if fit := match(role, left):
            columns_by_role[role] = fit
    return columns_by_role


def match(role: str, names: list[str]) -> str:
    """The column that may play a role, by meaning before spelling, or an empty text."""
    return _by_meaning(role, names) or _by_spelling(role, names)


@cache
def role_of(name: str) -> str:
    """The role that a name means which is none itself, or an empty text.

    >>> role_of("Question"), role_of("context")
    ('prompt', '')
    """
    word = snake(name)
    return next((role for role, words in MEANT.items() if word in words), "")


def unknown_role(name: str, column: object) -> str:
    """One sentence for a role that is none: the one that its name means, or else the nearest in spelling."""
    if meant := role_of(name):
        problem = unknown("column role", name, ROLES, guess=False)
        return (
            f"{problem}. By '{short(name)}' the role '{meant}' may be meant: columns: {{{meant}: {short(str(column))}}}"
        )
    return unknown("column role", name, ROLES)


def _by_meaning(role: str, names: list[str]) -> str:
    plural = (f"{role}s", role.removesuffix("s"))
    same = next((name for name in names if name != role and name in plural), "")
    meant = MEANT.get(role, frozenset())
    similar = next((name for name in names if snake(name) in meant or _of_side(role, name)), "")
    return same or similar


def _of_side(role: str, name: str) -> bool:
    """Return whether a name says which of two responses its column holds: `better_answer`, `rejected_response`."""
    if role not in ("chosen", "rejected"):
        return False
    spelled = set(columns.words(name))
    return bool(spelled & (MEANT[role] | {role}) and spelled & KIND and spelled <= MEANT[role] | {role} | KIND)


def _by_spelling(role: str, names: list[str]) -> str:
    """A misspelt name: no role itself, no name of another meaning, and none of several of equal standing."""
    like = [n for n in names if n not in ROLES and not columns.meaning(n) and not role_of(n)]
    near = next(iter(difflib.get_close_matches(role, like, n=1, cutoff=0.8)), "")
    named = not near or (columns.words(near)[-1:] and columns.words(near)[-1] in columns.ABOUT)
    return "" if named or columns.siblings(near, like) else near


def _two_responses(names: list[str]) -> dict[str, str]:
    """Two columns of equal standing that hold responses, as chosen and rejected."""
    spoken = [name for name in names if set(columns.words(name)) & KIND and not set(columns.words(name)) & ASKED]
    for name in spoken[:FEW]:
        beside = columns.siblings(name, spoken[:FEW])
        if len(beside) == 1:
            return {"chosen": name, "rejected": beside[0]}
    return {}
