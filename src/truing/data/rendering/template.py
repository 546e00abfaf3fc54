"""The texts that a tokenizer's chat template writes: conversations, the prompt that a response follows, thoughts, the
date."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, TypeAlias

from truing.data import clock
from truing.data.rendering import template_program
from truing.data.thoughts import CLOSE, OPEN, Form, form_of
from truing.errors import DataError, UserError
from truing.records import Message, Messages

Tools: TypeAlias = list[dict[str, Any]] | None
ASK = (Message("user", "A"),)


class ChatTemplate:
    """The chat template of one tokenizer. The time that it may write is the one that the tokenizer carries. With
    `verbatim` its text is what `apply_chat_template` gives, without the BOS that the tokenizer would add to it."""

    def __init__(self, tokenizer: Any, *, verbatim: bool = False) -> None:
        self.tokenizer, self.verbatim = tokenizer, verbatim
        sources = getattr(tokenizer, "chat_template", None) or ""
        for source in sources.values() if isinstance(sources, dict) else (sources,):
            problem = template_program.trouble(source) if isinstance(source, str) else "is no text"
            if problem:
                raise UserError(f"the chat template {problem}.\n  Use another, or mend its chat_template.jinja.")
        self.moment = clock.moment_of(tokenizer) if clock.reads_clock(tokenizer) else None

    def text(self, messages: Messages, tools: Tools = None, generation: bool = False) -> str:
        """Write a conversation, with BOS once; UserError where there is no template, DataError where it refuses the
        conversation or takes no tools."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError(
                "the tokenizer has no chat template, so it is not known how a conversation is written for it.\n"
                "  Put a chat_template.jinja beside the tokenizer's files, or use the chat version of the model."
            )
        plain = [self._taken(m) if m.role == "assistant" else {"role": m.role, "content": m.content} for m in messages]
        text = self._rendered(plain, tools, generation)
        if tools and text == self._rendered(plain, None, generation):
            raise DataError("tools", "the chat template takes no tools", "Use another template, or leave tools out.")
        return self._with_bos(text)

    def _taken(self, message: Message) -> dict[str, Any]:
        """An assistant's message as it takes it: where it is to be `verbatim` and knows no thought but one in the text,
        without the thought that the data hold apart from the text."""
        if self.drops(message):
            return {"role": "assistant", "content": self.form.parted(message.content).answer.lstrip("\n")}
        return self.form.message(message.content)

    def drops(self, message: Message) -> bool:
        """Return whether it never sees a message's thought: one that stands apart, in a key or part that it does not
        read."""
        return self.verbatim and message.apart and self.form.way == "inline"

    def prompt(self, messages: Messages, tools: Tools = None) -> str:
        """The text that a response is generated behind."""
        return self.text(messages, tools, True) + self._own_header

    @cached_property
    def form(self) -> Form:
        """The form in which it takes and writes thoughts."""
        ask = [{"role": m.role, "content": m.content} for m in ASK]

        def write(message: dict[str, Any]) -> str:
            try:
                return self._rendered([*ask, message])
            except DataError:
                return ""

        try:
            return form_of(write, self._rendered(ask, generation=True))
        except DataError:
            return Form()

    @cached_property
    def header(self) -> str:
        """The text it writes between a prompt and the assistant's words."""
        base = self.text(ASK)
        both = [self.text((*ASK, Message("assistant", word))) for word in ("Bq", "Zk")]
        if not all(text.startswith(base) for text in both):
            return ""
        return common(*(text[len(base) :] for text in both))

    def stem(self, prompt: str) -> str:
        """A prompt's text without the thought, open or empty, that it ends in: what stands before every response, where
        the whole conversation is read and nothing is generated."""
        opening, closing = (re.escape(mark) for mark in self.form.marks)
        block = re.search(rf"(?:{opening}\s*(?:{closing}\s*)?|{closing}\s*)\Z", prompt)
        return prompt[: block.start()] if block else prompt

    def opens(self, extra: str) -> bool:
        """Return whether the end of a generation prompt is a thought that it leaves open."""
        opening, closing = self.form.marks
        return extra.count(opening) > extra.count(closing)

    def _rendered(self, plain: list[dict[str, Any]], tools: Tools = None, generation: bool = False) -> str:
        more: dict[str, Any] = {}
        try:
            with template_program.bounded():
                if self.moment is not None:
                    source = self.tokenizer.get_chat_template(None, tools or None)
                    more = {"chat_template": clock.FIXED + source, clock.NAME: clock.written(self.moment)}
                text = str(
                    self.tokenizer.apply_chat_template(
                        plain, tools=tools or None, add_generation_prompt=generation, tokenize=False, **more
                    )
                )
        except (TimeoutError, MemoryError) as error:
            raise UserError(f"the chat template {template_program.spent(error)}; use another") from None
        except Exception as error:  # the template is a program of its own and may raise anything
            raise DataError("chat template", f"refuses the conversation: {error}") from error
        if template_program.too_long(text, (plain, tools)):
            raise UserError(f"the chat template wrote {len(text):,} characters of one conversation; use another")
        return text

    def _with_bos(self, text: str) -> str:
        """BOS once: the template's own, or the one the tokenizer would add, never both."""
        bos = self.tokenizer.bos_token
        if not bos or self.verbatim:
            return text
        while text.startswith(bos + bos):
            text = text[len(bos) :]
        return bos + text if self._adds_bos and not text.startswith(bos) else text

    @cached_property
    def _adds_bos(self) -> bool:
        ids = self.tokenizer("A").input_ids
        return bool(ids) and ids[0] == self.tokenizer.bos_token_id

    @cached_property
    def _own_header(self) -> str:
        """The header that prompts need added, where the template knows no generation prompt."""
        if self.text(ASK, None, True) != self.text(ASK):
            return ""
        return self.header.rstrip(" ") if self.header.strip() else ""


def common(first: str, second: str) -> str:
    """The longest common beginning of two texts."""
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    return first[:same]


def left_out(i: int, message: Message, text: str) -> DataError:
    """The refusal of a row of which message `i` is not in the template's text as it is."""
    return DataError(
        f"message {i + 1} ({message.role})",
        f"is left out or changed by the chat template, which wrote {shown(text, 0)}",
        "Use a chat template that writes every message as it is, or take out what it does not write.",
    )


def not_a_prefix(what: str, short: str, full: str) -> DataError:
    """The refusal of a row whose prompt the template writes in another way once more follows it."""
    at = len(common(short, full))
    return DataError(
        "chat template",
        f"writes {what} differently once more follows it, so the line between prompt and response is not exact",
        f"alone:     {shown(short, at)}\n  continued: {shown(full, at)}\n"
        "  If earlier turns are rewritten (thinking taken out), set turns: last. Otherwise use another chat template.",
    )


def never_closed(extra: str) -> DataError:
    """The refusal of a response that would be learned as a thought."""
    return DataError(
        "chat template",
        f"opens a thought in its generation prompt ({extra!r}) that the response never closes",
        f"Give the response its thought ({OPEN}...{CLOSE} before the answer, or reasoning_content in its message), an "
        f"empty one ({OPEN}{CLOSE}) if it is to be learned that there is none, or use a template that does not force "
        "thinking. Of a conversation, turns: last learns the last turn alone.",
    )


def shown(text: str, at: int, width: int = 300) -> str:
    """A text as people can read it in an error: whole, or the part around `at`."""
    if len(text) <= 2 * width:
        return repr(text)
    low = max(0, at - width)
    return ("..." if low else "") + repr(text[low : at + width]) + ("..." if at + width < len(text) else "")
