"""Records become token ids through the tokenizer's own chat template, with an exact line between prompt and response.

What is trained on is what generation will see: `prompt_ids` is the same function for both, the response is what the
template writes behind it, and the two decode back to the template's text. That is checked on every row; where a
template cannot be followed exactly, the row is refused with both texts and nothing is guessed.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from truing.data.conventions import Turns, as_demonstration
from truing.data.limits import at_most
from truing.errors import DataError, UserError
from truing.types import Demonstration, Message, Messages, messages_json

__all__ = ["Rendered", "Renderer", "Turns", "as_demonstration"]

Tools = list[dict[str, Any]] | None
TEXT_END = "text_end"
"""What a tokenizer's config calls the token that ends plain texts, where its EOS ends a turn of a conversation."""
TEMPLATE_SECONDS = 10.0  # a template is a program, and may have been written never to end


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and a response as token ids. `loss_mask` is True on what the assistant says and its end token."""

    prompt_ids: list[int]
    response_ids: list[int]
    loss_mask: list[bool]


class Renderer:
    """Renders prompts and responses for one tokenizer. Padding tokens play no part in it."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        special = {str(token) for token in tokenizer.all_special_tokens}
        special |= {str(t) for t in getattr(tokenizer, "added_tokens_decoder", {}).values() if t.special}
        self.special = tuple(sorted(filter(None, special), key=len, reverse=True))
        self._control = re.compile("|".join(map(re.escape, self.special))) if self.special else None

    def prompt_ids(self, prompt: Messages, *, tools: Tools = None) -> list[int]:
        """The ids a response is generated behind: the template's text with its generation prompt, BOS at most once.

        An empty prompt (plain text) is the BOS token alone, or the EOS token where the tokenizer has no BOS.
        """
        if not prompt:
            return [self._text_start]
        self._refuse_control_tokens(prompt, tools)
        text = self._prompt_text(prompt, tools)
        return self._prompt(prompt, text)

    def encode(self, prompt: Messages, response: Messages, *, tools: Tools = None) -> Rendered:
        """A prompt and the response behind it. The response may go on for several turns (assistant, user, ...): then
        all of it is in `response_ids`, and `loss_mask` picks the assistant's turns. An empty prompt is plain text."""
        self._check_form(prompt, response, tools)
        if not prompt:
            return self._encode_plain(response)
        text = self._prompt_text(prompt, tools)
        prompt_ids = self._prompt(prompt, text)
        ids, mask = list(prompt_ids), [False] * len(prompt_ids)
        for piece, learned in self._pieces(prompt, response, text, tools):
            more = self._continue(text, ids, piece)
            text += piece
            ids += more
            mask += [learned] * len(more)
        return Rendered(prompt_ids, ids[len(prompt_ids) :], mask[len(prompt_ids) :])

    def demonstration(self, record: Demonstration) -> Rendered:
        """A demonstration, with the tools its row names."""
        return self.encode(record.prompt, record.response, tools=record.meta.get("tools"))

    def ends(self, rendered: Rendered, parts: Sequence[str]) -> list[int]:
        """The place in the response's ids of the token that ends each of these parts, which follow one another."""
        ids = rendered.response_ids
        text, at, found = self._decode(ids), 0, []
        for number, part in enumerate(parts):
            start = text.find(part.strip(), at)
            if start < 0:
                raise DataError(f"step {number + 1}", f"does not stand in the response as it is written: {part!r}")
            at = start + len(part.strip())
            found.append(bisect_left(range(1, len(ids)), at, key=lambda n: len(self._decode(ids[:n]))))
        return found

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
        return self.encode((Message("user", "A"),), (Message("assistant", "B"),)).response_ids[-1]

    # What the template writes.

    def _template(self, messages: Messages, tools: Tools, generation: bool = False) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError(
                "the tokenizer has no chat template, so it is not known how a conversation is written for it.\n"
                "  Put a chat_template.jinja beside the tokenizer's files, or use the chat version of the model."
            )
        plain = messages_json(messages)
        try:
            with at_most(TEMPLATE_SECONDS):
                text = self.tokenizer.apply_chat_template(
                    plain, tools=tools or None, add_generation_prompt=generation, tokenize=False
                )
        except TimeoutError:
            raise UserError(
                f"the chat template took more than {TEMPLATE_SECONDS:g} s to write one conversation; use another"
            ) from None
        except Exception as error:  # the template is a program of its own and may raise anything
            raise DataError("chat template", f"refuses the conversation: {error}") from error
        if tools and text == self.tokenizer.apply_chat_template(
            plain, add_generation_prompt=generation, tokenize=False
        ):
            raise DataError("tools", "the chat template takes no tools", "Use another template, or leave tools out.")
        return self._with_bos(str(text))

    def _with_bos(self, text: str) -> str:
        """BOS once: the template's own, or the one the tokenizer would add, never both."""
        bos = self.tokenizer.bos_token
        if not bos:
            return text
        while text.startswith(bos + bos):
            text = text[len(bos) :]
        return bos + text if self._adds_bos and not text.startswith(bos) else text

    @cached_property
    def _adds_bos(self) -> bool:
        ids = self.tokenizer("A").input_ids
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id

    @cached_property
    def _header(self) -> str:
        """What the template writes between a prompt and the assistant's words."""
        ask = (Message("user", "A"),)
        base = self._template(ask, None)
        said = [self._template((*ask, Message("assistant", word)), None) for word in ("Bq", "Zk")]
        if not all(text.startswith(base) for text in said):
            return ""
        return _common(*(text[len(base) :] for text in said))

    @cached_property
    def _own_header(self) -> str:
        """The header that prompts need added, where the template knows no generation prompt."""
        ask = (Message("user", "A"),)
        if self._template(ask, None, True) != self._template(ask, None):
            return ""
        return self._header.rstrip(" ") if self._header.strip() else ""

    def _prompt_text(self, messages: Messages, tools: Tools) -> str:
        return self._template(messages, tools, True) + self._own_header

    def _pieces(self, prompt: Messages, response: Messages, text: str, tools: Tools) -> list[tuple[str, bool]]:
        """The text behind the prompt in pieces, each with whether it is learned: words, other turns, words, ..."""
        whole = (*prompt, *response)
        full = self._template(whole, tools)
        self._check_said(whole, full)
        pieces: list[tuple[str, bool]] = []
        at = 0
        for i, message in enumerate(response):
            if message.role != "assistant":
                continue
            before = whole[: len(prompt) + i]
            start = self._start(before, full, tools)
            if i:
                pieces.append((full[at:start], False))
            last = i == len(response) - 1
            at = len(full) if last else self._end(before, message, full, start, tools)
            if message.content.strip() not in full[start:at]:
                raise left_out(len(prompt) + i, message, full)
            pieces.append((self._closed(full[start:], message) if last else full[start:at], message.learned))
        return pieces

    def _start(self, before: Messages, full: str, tools: Tools) -> int:
        """Where the assistant's words begin in the full text: behind the generation prompt, or, where that adds
        something the full text leaves out (an empty thinking block), behind the header they share."""
        text = self._prompt_text(before, tools)
        if full.startswith(text):
            return len(text)
        base = self._template(before, tools)
        if self._header.strip() and text.startswith(base + self._header) and full.startswith(base + self._header):
            extra = text[len(base + self._header) :]
            if extra.count("<think>") > extra.count("</think>"):
                raise DataError(
                    "chat template",
                    f"opens a thought in its generation prompt ({extra!r}) that the response never closes",
                    "Use another chat template, one that does not force thinking.",
                )
            return len(base + self._header)
        raise _not_a_prefix("the prompt", text, full)

    def _end(self, before: Messages, message: Message, full: str, start: int, tools: Tools) -> int:
        """Where an assistant turn ends that others follow: with its end token, without the blanks behind it."""
        closed = self._template((*before, message), tools).rstrip()
        if full.startswith(closed) and len(closed) > start and self._ending(closed):
            return len(closed)
        end = _words_end(full, start, message.content)
        if end is None:
            raise _not_a_prefix("the conversation up to an earlier assistant turn", closed, full)
        rest = full[end:].lstrip()
        token = next((t for t in self.special if rest.startswith(t)), "")
        return len(full) - len(rest) + len(token) if token else end

    def _closed(self, text: str, message: Message) -> str:
        """The last turn with exactly one end token: the template's, or EOS where the template writes none."""
        closed = text.rstrip()
        if self._ending(closed):
            while self._ending(before := closed[: -len(self._ending(closed))].rstrip()):
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
        texts = [(f"message {i + 1} ({message.role})", message.content) for i, message in enumerate(messages)]
        if tools:
            texts.append(("tools", json.dumps(tools, ensure_ascii=False)))
        for place, text in texts:
            found = self._control.search(text) if self._control else None
            if found:
                raise DataError(
                    place,
                    f"holds the control token '{found[0]}' of the tokenizer, at place {found.start() + 1}",
                    "Take it out of the text, or set on_bad_row: drop",
                )

    def _check_said(self, messages: Messages, text: str) -> None:
        """A template may leave out a role it does not know; then the row would teach something else than it says."""
        for i, message in enumerate(messages):
            words = message.content.strip()
            if message.role == "assistant" or words in text:
                continue
            if not any(json.dumps(words, ensure_ascii=ascii)[1:-1] in text for ascii in (True, False)):
                raise left_out(i, message, text)

    # Text to ids.

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _prompt(self, prompt: Messages, text: str) -> list[int]:
        self._check_said(prompt, text)
        ids = self._ids(text)
        self._check_known(ids, text)
        return ids

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _continue(self, text: str, ids: list[int], piece: str) -> list[int]:
        """The ids of `piece` behind `text`, whose ids stay as they are; text and piece decode back to themselves."""
        full = text + piece
        whole = self._ids(full)
        candidates = [whole[len(ids) :]]
        if whole[: len(ids)] != ids or len(whole) == len(ids):
            candidates = [self._ids(piece), *self._anchored(piece)]
        for more in candidates:
            decoded = self._decode([*ids, *more])
            # A tokenizer that normalises (NFC, a blank before words) gives back what it makes of the whole text.
            if decoded == full or decoded == self._decode(whole):
                self._check_known(more, piece)
                return more
        self._check_known(candidates[0], piece)
        raise DataError(
            "tokenizer",
            "the ids of prompt and response do not decode back to the text",
            f"text:    {_shown(full, len(text))}\n  decoded: {_shown(self._decode([*ids, *candidates[0]]), len(text))}",
        )

    def _anchored(self, piece: str) -> list[list[int]]:
        """Ids of a piece as they are in the middle of a text, for tokenizers that put a blank before the first word."""
        out = []
        for anchor in (*self.special[:1], "\n", ":", "a"):
            before, both = self._ids(anchor), self._ids(anchor + piece)
            if both[: len(before)] == before:
                out.append(both[len(before) :])
        return out

    def _check_known(self, ids: list[int], piece: str) -> None:
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids and unknown != self.tokenizer.eos_token_id:
            raise DataError(
                "tokenizer", f"has no token for a part of this text ('{self.tokenizer.unk_token}'): {_shown(piece, 0)}"
            )

    @property
    def _text_start(self) -> int:
        if self.tokenizer.bos_token_id is not None:
            return int(self.tokenizer.bos_token_id)
        if self.tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has neither a BOS nor an EOS token, so plain text has nothing to start from")
        return self._ids(self._text_end)[-1]

    @property
    def _text_end(self) -> str:
        return str(getattr(self.tokenizer, "init_kwargs", {}).get(TEXT_END) or self._eos)

    def _encode_plain(self, response: Messages) -> Rendered:
        if len(response) != 1:
            raise DataError("prompt", "is empty, but the response is a conversation")
        ids = self._ids(response[0].content)
        decoded = self._decode(ids)
        if decoded != response[0].content:
            self._check_known(ids, response[0].content)
        ids += self._ids(self._text_end)
        return Rendered([self._text_start], ids, [True] * len(ids))


def _common(one: str, two: str) -> str:
    """The longest common beginning of two texts."""
    same = 0
    while same < min(len(one), len(two)) and one[same] == two[same]:
        same += 1
    return one[:same]


def _words_end(text: str, start: int, content: str) -> int | None:
    """Where a message's words end in a text, if they stand there behind nothing but blanks."""
    for words in (content, content.strip()):
        found = text.find(words, start)
        if found >= 0 and not text[start:found].strip():
            return found + len(words)
    return None


def left_out(i: int, message: Message, text: str) -> DataError:
    """The error of a template that does not write a message as it is."""
    return DataError(
        f"message {i + 1} ({message.role})",
        f"is left out or changed by the chat template, which wrote {_shown(text, 0)}",
        "Use a chat template that writes every message as it is, or take out what it does not write.",
    )


def _not_a_prefix(what: str, short: str, full: str) -> DataError:
    at = len(_common(short, full))
    return DataError(
        "chat template",
        f"writes {what} differently once more follows it, so the line between prompt and response is not exact",
        f"alone:     {_shown(short, at)}\n  continued: {_shown(full, at)}\n"
        "  If earlier turns are rewritten (thinking taken out), set turns: last. Otherwise use another chat template.",
    )


def _shown(text: str, at: int, width: int = 300) -> str:
    """A text as people can read it in an error: whole, or the part around `at`."""
    if len(text) <= 2 * width:
        return repr(text)
    low = max(0, at - width)
    return ("..." if low else "") + repr(text[low : at + width]) + ("..." if at + width < len(text) else "")
