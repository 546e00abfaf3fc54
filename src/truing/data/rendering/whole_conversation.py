"""Conversations as a reward model reads them: token for token what `apply_chat_template` makes of them.

A reward model writes no response, so what counts is where its score is read elsewhere: at the last token of the
template's own rendering. Many templates write a newline behind the end token (ChatML, Gemma, Zephyr, Phi-3), and some
write no end token at all; a model from elsewhere was fitted there, and one that is fitted here is served there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from truing.data.rendering.render import WORD, Rendered, Renderer
from truing.data.rendering.template import ChatTemplate, Tools, left_out
from truing.data.thoughts import Thoughts
from truing.records import Message, Messages


@dataclass(frozen=True)
class Turn:
    """The place of an assistant's words in a conversation's text: from `start` to behind its end token. `unread` says
    that the template has taken its thought out."""

    start: int
    end: int
    unread: bool = False


class WholeConversation(Renderer):
    """Renders for a reward model: prompt and response together are `apply_chat_template` of the conversation, with no
    token added or taken away. `loss_mask` is True on what the assistant says in the response, where that is to be
    learned, and its end token."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, generates=False)
        self.template = ChatTemplate(tokenizer, verbatim=True)

    def encode(
        self, prompt: Messages, response: Messages, *, tools: Tools = None, thoughts: Thoughts = "learn"
    ) -> Rendered:
        """The conversation's ids, parted where the response's words begin. An empty prompt is plain text. A thought
        that the template keeps is read, whatever `thoughts` says of learning it."""
        self._check_form(prompt, response, tools)
        if not prompt:
            return self._encode_plain(response)
        whole = (*prompt, *response)
        full = self.template.text(whole, tools)
        self._check_written(whole, full)
        ids = self.ids.of(full)
        self.ids.check_known(ids, full)
        replies = [i for i, message in enumerate(whole) if message.role == "assistant" and i >= len(prompt)]
        turns = [self._turn(whole[:i], whole[i], full, tools) for i in replies]
        places = [tuple(common([self.ids.of(full[:at]), ids]) for at in (turn.start, turn.end)) for turn in turns]
        first = max(places[0][0], 1)
        taught = [place for i, place in zip(replies, places, strict=True) if whole[i].learned]
        mask = [any(start <= at < end for start, end in taught) for at in range(first, len(ids))]
        return Rendered(ids[:first], ids[first:], mask, turns[-1].unread)

    def _turn(self, before: Messages, message: Message, full: str, tools: Tools) -> Turn:
        base, words = self.template.text(before, tools), message.content.strip()
        opening = base + self.template.header
        at = len(opening) if full.startswith(opening) else common([base, full])
        start = full.find(words, at)
        if start >= 0:
            return Turn(start, self._behind(full, start + len(words)))
        parts = self.template.form.parted(message.content)
        if parts.thought is None or not parts.closed:
            raise left_out(len(before), message, full)
        thought, answer = parts.thought.strip(), parts.answer.strip()
        start = full.find(thought, at) if thought and not self.template.drops(message) else -1
        answer_at = full.find(answer, start + len(thought)) if start >= 0 else -1
        if answer_at < 0:  # the thought is not there, or what looks like it is a piece of the answer
            start, answer_at = -1, full.find(answer, at)
        if answer_at < 0:
            raise left_out(len(before), message, full)
        end, unread = self._behind(full, answer_at + len(answer)), bool(thought) and start < 0
        return Turn(start if start >= 0 else answer_at, end, unread)

    def _behind(self, full: str, end: int) -> int:
        """The place behind the end token that follows an assistant's words, or where they end if there is none."""
        rest = full[end:].lstrip()
        token = next((token for token in self.special if rest.startswith(token)), "")
        return len(full) - len(rest) + len(token) if token else end

    def _literal(self, prompt: Messages, text: str) -> Rendered:
        """A policy's text word for word where the template writes responses, and the rest of its rendering as it is."""
        self._refuse_control_tokens(prompt, None)
        stand_in = Message("assistant", WORD)
        full = self.template.text((*prompt, stand_in))
        at = full.rfind(WORD)
        self._check_written(prompt, full)
        if at < 0:
            raise left_out(len(prompt), stand_in, full)
        prompt_ids = self.ids.of(full[:at])
        ids = prompt_ids + self.ids.spelt(prompt_ids, text)
        ids += self.ids.of(full[at + len(WORD) :])
        response_ids = ids[len(prompt_ids) :]
        return Rendered(prompt_ids, response_ids, [True] * len(response_ids))


def common(sequences: Sequence[Sequence[object]]) -> int:
    """Length of the longest common prefix of these sequences.

    >>> common(["abc", "abd", "ab"]), common([[1, 2], [3]])
    (2, 0)
    """
    same = 0
    for items in zip(*sequences, strict=False):
        if any(item != items[0] for item in items):
            return same
        same += 1
    return same
