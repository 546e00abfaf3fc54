"""Records become token ids through the tokenizer's own chat template, with an exact line between prompt and response.

What is trained on is what generation will see: `prompt_ids` is the same function for both, the response is what the
template writes behind it, and the two decode back to the template's text. That is checked on every row; where a
template cannot be followed exactly, the row is refused with both texts and nothing is guessed.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from truing.data.formats.conventions import Turns, as_demonstration
from truing.data.rendering.ids import Ids
from truing.data.rendering.template import ChatTemplate, Tools, left_out, never_closed, not_a_prefix
from truing.data.thoughts import CLOSE, OPEN, Parted, Thoughts
from truing.errors import DataError, UserError
from truing.records import Demonstration, Message, Messages

__all__ = ["Rendered", "Renderer", "Turns", "as_demonstration", "renderer_of"]

TEXT_END = "text_end"
"""The key in a tokenizer's config of the token that ends plain texts, where its EOS ends a turn of a conversation."""
TAIL = 32
"""Tokens at the end of a prompt among which a thought is looked for that it opens."""
WORD = "7417"
"""Placeholder of a response while the template writes the text around it: digits, which no template changes."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and a response as token ids. `loss_mask` is True on what the assistant says and its end token, where it
    is to be learned. `unread` says that the template took the response's thought out: only its answer is here."""

    prompt_ids: list[int]
    response_ids: list[int]
    loss_mask: list[bool]
    unread: bool = False


class Renderer:
    """Renders prompts and responses for one tokenizer. Padding tokens play no part in it.

    A model that `generates` reads a response behind the generation prompt, as it would write it: with its thought,
    which the prompt may have opened. One that does not (a reward model) reads a conversation as its template writes it,
    with the thoughts that this keeps.
    """

    def __init__(self, tokenizer: Any, *, generates: bool = True) -> None:
        self.tokenizer, self.generates, self.template = tokenizer, generates, ChatTemplate(tokenizer)
        special = {str(token) for token in tokenizer.all_special_tokens}
        special |= {str(t) for t in getattr(tokenizer, "added_tokens_decoder", {}).values() if t.special}
        self.special = tuple(sorted(filter(None, special), key=len, reverse=True))
        self._control = re.compile("|".join(map(re.escape, self.special))) if self.special else None
        self.ids = Ids(tokenizer, self.special)
        self._latest: tuple[Messages, Tools, str, list[int]] | None = None

    def prompt_ids(self, prompt: Messages, *, tools: Tools = None) -> list[int]:
        """The ids a response is generated behind: the template's text with its generation prompt, BOS at most once.

        An empty prompt (plain text) is the BOS token alone, or the EOS token where the tokenizer has no BOS.
        """
        if not prompt:
            return [self._text_start]
        self._refuse_control_tokens(prompt, tools)
        return list(self._prompt(prompt, tools)[1])

    def encode(
        self, prompt: Messages, response: Messages, *, tools: Tools = None, thoughts: Thoughts = "learn"
    ) -> Rendered:
        """A prompt and the response behind it. The response may go on for several turns (assistant, user, ...): then
        all of it is in `response_ids`, and `loss_mask` picks the assistant's turns, with `thoughts: mask` without
        their thoughts. An empty prompt is plain text."""
        self._check_form(prompt, response, tools)
        if not prompt:
            return self._encode_plain(response)
        text, prompt_ids = self._prompt(prompt, tools)
        ids, mask = list(prompt_ids), [False] * len(prompt_ids)
        pieces = self._pieces(prompt, response, text, tools)
        for piece, learned in pieces:
            more = self.ids.behind(text, ids, piece)
            thought = self._thought_tokens(text, piece, more) if learned and thoughts == "mask" else 0
            text, ids = text + piece, ids + more
            mask += [False] * thought + [learned] * (len(more) - thought)
        last = self.template.form.parted(response[-1].content)
        unread = bool(last.thought and last.closed and last.thought.strip() not in pieces[-1][0])
        return Rendered(list(prompt_ids), ids[len(prompt_ids) :], mask[len(prompt_ids) :], unread)

    def demonstration(self, record: Demonstration) -> Rendered:
        """A demonstration, with the tools its row names."""
        return self.encode(record.prompt, record.response, tools=record.meta.get("tools"))

    def read(self, prompt: Messages, text: str) -> Rendered:
        """Render a policy's response behind a prompt. Any text can be read: as the template writes it, or, where it
        would leave out or change some of it, word for word in the place where it writes responses. There a control
        token that the text spells is text. DataError for a prompt that cannot be written."""
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = text if self._marked_by_control else self.template.form.in_template_marks(text)
        try:
            return self.encode(prompt, (Message("assistant", text),))
        except DataError:
            return self._literal(prompt, text)

    def text(self, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> str:
        """A policy's response as text: without control tokens, its thought in <think> ... </think> whatever tokens it
        is written with, and whole, where the prompt had opened it."""
        form, tail = self.template.form, self.ids.decode(list(prompt_ids[-TAIL:]))
        opened = tail[len(tail.rstrip()) - len(form.opening) :] if tail.rstrip().endswith(form.opening) else ""
        if self._marked_by_control:
            return form.in_think_marks(opened + self.ids.decode(list(response_ids)), self._without_control)
        text = opened + str(self.tokenizer.decode(response_ids, skip_special_tokens=True))
        return text if form.parted(text).thought is None else form.in_think_marks(text, str)

    @property
    def _marked_by_control(self) -> bool:
        """True if control tokens open or close thoughts."""
        marks = (*self.template.form.marks, OPEN, CLOSE)
        return self._control is not None and any(self._control.search(mark) for mark in marks)

    def _without_control(self, text: str) -> str:
        return self._control.sub("", text) if self._control else text

    def ends(self, rendered: Rendered, parts: Sequence[str]) -> list[int]:
        """The place in the response's ids of the token that ends each of these parts, which follow one another."""
        if not parts:
            return []
        ids = rendered.response_ids
        text, at, places = self.ids.decode(ids), 0, []
        for number, part in enumerate(parts):
            start = text.find(part.strip(), at)
            if start < 0:
                raise DataError(f"step {number + 1}", f"does not stand in the response as it is written: {part!r}")
            at = start + len(part.strip())
            places.append(bisect_left(range(1, len(ids)), at, key=lambda n: len(self.ids.decode(ids[:n]))))
        return places

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a response: EOS, and the end token the template writes behind the assistant."""
        ids = {self.tokenizer.eos_token_id} - {None}
        if getattr(self.tokenizer, "chat_template", None):
            ids.add(self.end_id)
        return frozenset(ids)

    @property
    def end_id(self) -> int:
        """The id of the token that a response is taught to end with: the template's, or EOS where it writes none."""
        # The thought that a prompt opens plays no part.
        reader = Renderer(self.tokenizer, generates=False) if self.generates else self
        return reader.encode((Message("user", "A"),), (Message("assistant", "B"),)).response_ids[-1]

    # Where the response begins and ends in what the template writes.

    def _prompt_text(self, messages: Messages, tools: Tools) -> str:
        text = self.template.prompt(messages, tools)
        return text if self.generates else self.template.stem(text)

    def _pieces(self, prompt: Messages, response: Messages, text: str, tools: Tools) -> list[tuple[str, bool]]:
        """The text behind the prompt in pieces, each with whether it is learned: words, other turns, words, ..."""
        whole = (*prompt, *response)
        full = self.template.text(whole, tools)
        self._check_written(whole, full)
        pieces: list[tuple[str, bool]] = []
        at = 0
        for i, message in enumerate(response):
            if message.role != "assistant":
                continue
            before = whole[: len(prompt) + i]
            last = i == len(response) - 1
            alone = self._prompt_text(before, tools) if i else text
            start, unwritten = self._start(before, alone, full, tools, message)
            if i:
                pieces.append((full[at:start], False))
            if unwritten is not None:
                if not last or i:
                    raise not_a_prefix("an assistant turn's thought", alone, full)
                pieces.append((unwritten, message.learned))
                break
            at = len(full) if last else self._end(before, message, full, start, tools)
            if not self._written(message, full[start:at]):
                raise left_out(len(prompt) + i, message, full)
            pieces.append((self._closed(full[start:], message) if last else full[start:at], message.learned))
        return pieces

    def _start(self, before: Messages, text: str, full: str, tools: Tools, message: Message) -> tuple[int, str | None]:
        """The place at which the assistant's words begin in the full text: behind the generation prompt `text`, or,
        where that adds something the full text leaves out (an empty thought), behind what they share. Where the full
        text leaves out the thought that the generation prompt opens, also the words themselves, as they are
        generated."""
        if full.startswith(text):
            return len(text), None
        stem = self.template.stem(text)
        base = self.template.text(before, tools) + self.template.header
        if stem == text and self.template.header.strip() and text.startswith(base):
            stem = base
        if stem == text or not full.startswith(stem):
            raise not_a_prefix("the prompt", text, full)
        extra, parts = text[len(stem) :], self.template.form.parted(message.content)
        if self.template.opens(extra):
            if parts.thought is None:
                raise never_closed(extra)
            return len(stem), self._unwritten(extra, parts, full[len(stem) :], len(before))
        if parts.thought and parts.thought.strip() and parts.thought.strip() in full[len(stem) :]:
            raise DataError(
                "chat template",
                f"closes the thought in its generation prompt ({extra!r}), and the response has one",
                "Take the thought out of the response, or use a template that lets the model think.",
            )
        return len(stem), None

    def _unwritten(self, extra: str, parts: Parted, text: str, i: int) -> str:
        """Message `i` as it is generated behind a thought that the prompt opens (`extra`), where the template takes it
        out of what it writes (`text`): the thought, the answer, and the template's own end."""
        answer = parts.answer.strip()
        at = text.rfind(answer) if answer else -1
        if at < 0:
            raise left_out(i, Message("assistant", str(parts.thought)), text)
        thought = str(parts.thought).removeprefix(self._room(extra))
        end = self._closed(text[at:], Message("assistant", answer))[len(answer) :]
        return thought + self.template.form.closing + parts.answer.rstrip() + end

    def _room(self, extra: str) -> str:
        """The blanks that a generation prompt writes behind the mark with which it opens a thought."""
        opening = self.template.form.opening
        return extra[extra.rfind(opening) + len(opening) :]

    def _literal(self, prompt: Messages, text: str) -> Rendered:
        """A policy's text word for word where the template writes responses, with the template's own end."""
        before, prompt_ids = self._prompt_text(prompt, None), self.prompt_ids(prompt)
        stand_in = Message("assistant", WORD)
        full = self.template.text((*prompt, stand_in))
        at, extra = full.rfind(WORD), before[len(self.template.stem(before)) :]
        if at < 0:
            raise left_out(len(prompt), stand_in, full)
        lead = full[len(before) : at] if full.startswith(before) else ""
        opening = self.template.form.opening
        if self.template.opens(extra):
            lead, words = "", text.lstrip()
            text = words.removeprefix(opening).removeprefix(self._room(extra)) if words.startswith(opening) else text
        ids = [*prompt_ids, *self.ids.of(lead)]
        ids += self.ids.spelt(ids, text)
        ids += self.ids.of(self._closed(full[at:], stand_in)[len(WORD) :])
        response_ids = ids[len(prompt_ids) :]
        return Rendered(prompt_ids, response_ids, [True] * len(response_ids))

    def _thought_tokens(self, before: str, piece: str, ids: list[int]) -> int:
        """Number of ids of a response behind this text that are its thought, its marks and the blanks behind them."""
        opening, closing = self.template.form.marks
        at = piece.rfind(closing)
        if at < 0:
            opened = self.template.opens(before[len(self.template.stem(before)) :])
            return len(ids) if opened or piece.lstrip().startswith(opening) else 0
        end = len(piece) - len(piece[at + len(closing) :].lstrip())
        return bisect_right(range(1, len(ids) + 1), end, key=lambda n: len(self.ids.decode(ids[:n])))

    def _written(self, message: Message, text: str) -> bool:
        """True if a text has a message's words: as they are, or its thought and its answer, spaced otherwise; to a
        model that generates nothing, the answer alone."""
        if message.content.strip() in text:
            return True
        parts = self.template.form.parted(message.content)
        if parts.thought is None or not parts.closed:
            return False
        thought, answer = parts.thought.strip(), parts.answer.strip()
        at = text.find(thought)
        both = at >= 0 and answer in text[at + len(thought) :]
        return both or (not self.generates and answer in text)

    def _end(self, before: Messages, message: Message, full: str, start: int, tools: Tools) -> int:
        """The end of an assistant turn that others follow: with its end token, without the blanks behind it."""
        closed = self.template.text((*before, message), tools).rstrip()
        if full.startswith(closed) and len(closed) > start and self._ending(closed):
            return len(closed)
        end = _words_end(full, start, message.content)
        if end is None:
            raise not_a_prefix("the conversation up to an earlier assistant turn", closed, full)
        rest = full[end:].lstrip()
        token = next((t for t in self.special if rest.startswith(t)), "")
        return len(full) - len(rest) + len(token) if token else end

    def _closed(self, text: str, message: Message) -> str:
        """The last turn with exactly one end token: the template's, or EOS where the template writes none."""
        closed = text.rstrip()
        if self._ending(closed):
            says = self.template.form.parted(message.content).answer.strip()  # else what precedes it may be a header's
            while says and self._ending(before := closed[: -len(self._ending(closed))].rstrip()):
                closed = before
            return closed
        end = _words_end(text, 0, message.content)
        if end is not None and not text[end:].strip():
            text = text[:end]
        return text + self._eos

    def _ending(self, text: str) -> str:
        return next((token for token in self.special if text.endswith(token)), "")

    @property
    def _eos(self) -> str:
        eos = self.tokenizer.eos_token
        if not eos:
            raise UserError("neither the chat template nor the tokenizer has a token that ends a response (eos_token)")
        return str(eos)

    # What must not be in a message, and what must be in the text.

    def _check_form(self, prompt: Messages, response: Messages, tools: Tools) -> None:
        self._refuse_control_tokens((*prompt, *response), tools)
        if not response or response[0].role != "assistant" or response[-1].role != "assistant":
            raise DataError("response", "must begin and end with an assistant message")

    def _refuse_control_tokens(self, messages: Messages, tools: Tools) -> None:
        texts = [(f"message {i + 1} ({m.role})", text) for i, m in enumerate(messages) for text in self._words(m)]
        if tools:
            texts.append(("tools", json.dumps(tools, ensure_ascii=False)))
        for place, text in texts:
            token = self._control.search(text) if self._control else None
            if token:
                raise DataError(
                    place,
                    f"holds the control token '{token[0]}' of the tokenizer, at place {token.start() + 1}",
                    "Take it out of the text, or set on_bad_row: drop",
                )

    def _words(self, message: Message) -> Iterator[str]:
        """The words of a message, without the marks of its thought, which the template writes."""
        parts = self.template.form.parted(message.content) if message.role == "assistant" else Parted(None, "")
        if parts.thought is None:
            yield message.content
        else:
            yield from (parts.thought, parts.answer)

    def _check_written(self, messages: Messages, text: str) -> None:
        """A template may leave out a role it does not know; then the row would teach something else than it says."""
        for i, message in enumerate(messages):
            words = message.content.strip()
            if message.role == "assistant" or words in text:
                continue
            if not any(json.dumps(words, ensure_ascii=ascii)[1:-1] in text for ascii in (True, False)):
                raise left_out(i, message, text)

    # Text to ids.

    def _prompt(self, prompt: Messages, tools: Tools) -> tuple[str, list[int]]:
        """The text of a prompt and its ids; the latest is kept, for the responses to one prompt come together."""
        if self._latest is None or self._latest[:2] != (prompt, tools):
            text = self._prompt_text(prompt, tools)
            self._check_written(prompt, text)
            ids = self.ids.of(text)
            self.ids.check_known(ids, text)
            self._latest = (prompt, tools, text, ids)
        return self._latest[2:]

    @property
    def _text_start(self) -> int:
        if self.tokenizer.bos_token_id is not None:
            return int(self.tokenizer.bos_token_id)
        if self.tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has neither a BOS nor an EOS token, so plain text has nothing to start from")
        return self.ids.of(self._text_end)[-1]

    @property
    def _text_end(self) -> str:
        return str(getattr(self.tokenizer, "init_kwargs", {}).get(TEXT_END) or self._eos)

    def _encode_plain(self, response: Messages) -> Rendered:
        if len(response) != 1:
            raise DataError("prompt", "is empty, but the response is a conversation")
        ids = self.ids.of(response[0].content)
        decoded = self.ids.decode(ids)
        if decoded != response[0].content:
            self.ids.check_known(ids, response[0].content)
        ids += self.ids.of(self._text_end)
        return Rendered([self._text_start], ids, [True] * len(ids))


def _words_end(text: str, start: int, content: str) -> int | None:
    """The end of a message's words in a text, if they stand there behind nothing but blanks."""
    for words in (content, content.strip()):
        start_of_words = text.find(words, start)
        if start_of_words >= 0 and not text[start:start_of_words].strip():
            return start_of_words + len(words)
    return None


def renderer_of(tokenizer: Any) -> Renderer:
    """The renderer of a tokenizer as it is now; one is kept, for it is needed once a response."""
    return _renderer_of(tokenizer, str(getattr(tokenizer, "chat_template", None)))


@lru_cache(maxsize=8)
def _renderer_of(tokenizer: Any, template: str) -> Renderer:
    return Renderer(tokenizer)
