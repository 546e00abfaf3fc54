"""Prompts and responses as text, read by a model through its own tokenizer and template."""

from __future__ import annotations

from collections.abc import Sequence

from truing.data.batch import Branch, Tree
from truing.data.rendering.render import Renderer
from truing.errors import DataError
from truing.policy.load import context_length
from truing.policy.policy import Policy
from truing.records import Messages, Score
from truing.rewards.call import failed


def readable(
    policy: Policy, renderer: Renderer, prompts: Sequence[Messages], responses: Sequence[str], who: str
) -> tuple[list[Tree], dict[int, Score]]:
    """A tree of each response, numbered by its place; and by place why a response has none: the model (`who`, in words)
    has a template that cannot write its prompt, or cannot read it whole. Any text of a response can be read."""
    trees: list[Tree] = []
    problems: dict[int, Score] = {}
    most = context_length(policy)
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        try:
            r = renderer.read(prompt, response)
        except DataError as error:
            problems[i] = failed(str(error))
            continue
        tree = Tree(tuple(r.prompt_ids), (Branch("response", tuple(r.response_ids), tuple(r.loss_mask)),), i, i + 1)
        if tree.tokens > most:
            why = f"prompt and response have {tree.tokens} tokens, and {who} reads {most}"
            problems[i] = failed(why, "response" if len(r.prompt_ids) < most else "reward")
        else:
            trees.append(tree)
    return trees, problems
