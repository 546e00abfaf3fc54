"""Conversations as a reward model reads them: token for token what `apply_chat_template` makes of them.

A reward model answers nothing, so what counts is where its score is read elsewhere: at the last token of the template's
own rendering. Many templates write a newline behind the end token (ChatML, Gemma, Zephyr, Phi-3), and some write no end
token at all; a model from elsewhere was fitted there, and one that is fitted here is served there.
"""

from __future__ import annotations

from collections.abc import Sequence

from truing.data.render import Rendered, Renderer, Tools, left_out
from truing.types import Message, Messages


class WholeConversation(Renderer):
    """Renders for a reward model: prompt and response together are `apply_chat_template` of the conversation, with no
    token added or taken away. `loss_mask` is True on what the assistant says in the response and its end token."""

    def encode(self, prompt: Messages, response: Messages, *, tools: Tools = None) -> Rendered:
        """The conversation's ids, parted where the response's words begin. An empty prompt is plain text."""
        self._check_form(prompt, response, tools)
        if not prompt:
            return self._encode_plain(response)
        whole = (*prompt, *response)
        full = self._template(whole, tools)
        self._check_said(whole, full)
        ids = self._ids(full)
        self._check_known(ids, full)
        turns = [
            self._turn(whole[:i], message, full, ids, tools)
            for i, message in enumerate(whole)
            if message.role == "assistant" and i >= len(prompt)
        ]
        first = max(turns[0][0], 1)
        mask = [any(start <= at < end for start, end in turns) for at in range(first, len(ids))]
        return Rendered(ids[:first], ids[first:], mask)

    def _with_bos(self, text: str) -> str:
        return text

    def _turn(self, before: Messages, message: Message, full: str, ids: list[int], tools: Tools) -> tuple[int, int]:
        """The places in the ids from where an assistant's words begin to behind its end token."""
        base, words = self._template(before, tools), message.content.strip()
        opening = base + self._header
        start = full.find(words, len(opening) if full.startswith(opening) else common([base, full]))
        if start < 0:
            raise left_out(len(before), message, full)
        rest = full[start + len(words) :].lstrip()
        token = next((token for token in self.special if rest.startswith(token)), "")
        end = len(full) - len(rest) + len(token) if token else start + len(words)
        return common([self._ids(full[:start]), ids]), common([self._ids(full[:end]), ids])


def common(sequences: Sequence[Sequence[object]]) -> int:
    """How many items these sequences begin with together.

    >>> common(["abc", "abd", "ab"]), common([[1, 2], [3]])
    (2, 0)
    """
    same = 0
    for items in zip(*sequences, strict=False):
        if any(item != items[0] for item in items):
            return same
        same += 1
    return same
