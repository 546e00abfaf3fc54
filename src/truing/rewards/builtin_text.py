"""Rewards of a response's text alone: its length and its form."""

from __future__ import annotations

import re
from typing import Annotated

from truing.errors import UserError
from truing.records import NonNegative
from truing.registry import reward


@reward(scope="response")
def length(
    tokens: int,
    response: str,
    *,
    per_token: Annotated[float, "reward a token, the end token too; below 0 teaches short responses"] = 0.0,
    per_character: Annotated[float, "reward a character; below 0 teaches short responses"] = 0.0,
) -> float:
    """A fixed reward for every token and character of a response; below 0 it favours short ones.

    value = per_token * tokens + per_character * characters. The tokens are the policy's, the end token among them.

    >>> length(12, "no refund", per_token=-0.5)
    -6.0
    """
    return per_token * tokens + per_character * len(response)


@reward(scope="response", deterministic=True)
def regex(
    response: str,
    *,
    pattern: Annotated[str, "Python regular expression that is searched for in the response"],
    whole: Annotated[bool, "whether all of the response has to match"] = False,
    present: Annotated[float, "reward where it matches"] = 1.0,
    missing: Annotated[float, "reward where it does not"] = 0.0,
) -> float:
    """`present` where the response has a match of a regular expression, else `missing`; with `whole` all of it must
    match.

    Python's `re`; the dot also stands for a new line.

    >>> regex("refund: yes", pattern="yes|no"), regex("refund: yes", pattern="yes|no", whole=True)
    (1.0, 0.0)
    """
    matcher = compiled(pattern)
    hit = matcher.fullmatch(response) if whole else matcher.search(response)
    return missing if hit is None else present


@reward(scope="response", deterministic=True)
def format(
    response: str,
    whole_turn: bool | None = None,
    *,
    tags: Annotated[list[str], "names of the tags in their order, as [think, answer]"],
    alone: Annotated[bool, "whether nothing but white space may stand outside the tags"] = True,
    present: Annotated[float, "reward where every tag is there once and in order"] = 1.0,
    missing: Annotated[float, "reward where they are not"] = 0.0,
    partial: Annotated[
        NonNegative, "reward for each single tag that is right, beside `missing`; eases the first steps"
    ] = 0.0,
) -> float:
    """`present` where the response is made of these tags in order, `<think>...</think><answer>...</answer>`, each once.

    With `alone` nothing but white space may stand outside them. Otherwise `missing`, and `partial` for every tag that
    is there once, opened before it is closed. If a response is not known to be a `whole_turn`, the prompt may
    have opened the first tag; a policy's is one, for what its generation prompt opened is put back before it.

    >>> format("<think>2 + 2</think> <answer>4</answer>", tags=["think", "answer"])
    1.0
    """
    if not whole_turn and f"<{tags[0]}>" not in response and f"</{tags[0]}>" in response:
        response = f"<{tags[0]}>{response}"
    gap = r"\s*" if alone else ".*?"
    bodies = [rf"<{re.escape(t)}>(?:(?!</?{re.escape(t)}>).)*</{re.escape(t)}>" for t in tags]
    once = [response.count(f"<{t}>") == response.count(f"</{t}>") == 1 for t in tags]
    if all(once) and re.fullmatch(gap + gap.join(bodies) + gap, response, re.DOTALL):
        return present
    good = sum(ok and response.index(f"<{t}>") < response.index(f"</{t}>") for t, ok in zip(tags, once, strict=True))
    return missing + partial * good


def compiled(pattern: str) -> re.Pattern[str]:
    """A regular expression; UserError where it is none."""
    try:
        return re.compile(pattern, re.DOTALL)
    except re.error as problem:
        raise UserError(f"reward 'regex': {pattern!r} is no regular expression: {problem}") from None
