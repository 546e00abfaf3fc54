"""Thoughts: the text a reasoning model writes before its answer.

In truing's texts a thought stands in `<think>...</think>` before the answer, whatever a chat template writes it with;
`data.rendering.template` says how each template does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

OPEN, CLOSE = "<think>", "</think>"
KEYS = ("reasoning_content", "thinking", "reasoning")
"""The keys of a message that hold a thought, as templates and files call them."""
MARK = re.compile(r"([<\[])([\w:]+[>\]])")
"""A mark that may open a thought at the end of a generation prompt."""
EMPTY = re.compile(r"([<\[])([\w:]+[>\]])\s*\1/\2\s*\Z")
"""An empty thought at the end of what stands before an answer."""
Thoughts: TypeAlias = Literal["learn", "mask"]
"""Treatment of the thoughts of responses: learned like the rest, or read and not learned."""


@dataclass(frozen=True, slots=True)
class Parted:
    """A text as its thought and its answer. `thought` is None where there is none; one that is never closed is all
    there is, and the answer empty."""

    thought: str | None
    answer: str
    closed: bool = True


def parted(text: str, marks: tuple[str, str] = (OPEN, CLOSE)) -> Parted:
    """A text as its thought and its answer: the answer stands behind the last mark that closes a thought. The mark
    that opens it may be missing, where a prompt has opened it.

    >>> parted("<think>2 + 2</think>four"), parted("<think>2 + 2").answer, parted("four").thought
    (Parted(thought='2 + 2', answer='four', closed=True), '', None)
    """
    opening, closing = marks
    before, mark, answer = text.rpartition(closing)
    body = (before if mark else text).lstrip()
    opened = body.startswith(opening)
    if not mark and not opened:
        return Parted(None, text)
    thought = body[len(opening) :] if opened else before
    return Parted(thought, answer if mark else "", bool(mark))


def answer_of(text: str) -> str:
    """The text after the thought: all of a text that has none, nothing of one whose thought never ends.

    >>> answer_of("<think>4? 5?</think> 4"), answer_of("4"), answer_of("<think>perhaps 4")
    (' 4', '4', '')
    """
    return parted(text).answer


def joined(thought: str, answer: str, marks: tuple[str, str] = (OPEN, CLOSE)) -> str:
    """A thought and its answer as one text, spaced as reasoning models space them.

    >>> joined("2 + 2", "four")
    '<think>\\n2 + 2\\n</think>\\n\\nfour'
    """
    inner, rest = thought.strip("\n"), answer.lstrip("\n")
    return f"{marks[0]}\n{inner}\n{marks[1]}\n\n{rest}"


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a chat template takes and writes a thought: as a key of the message, as a part of its content,
    or where it stands in the text. `opening` and `closing` are its marks, `lead` what it writes before an answer
    without thought; it `keeps` the thought of the last turn, or takes it out."""

    way: Literal["key", "part", "inline"] = "inline"
    opening: str = OPEN
    closing: str = CLOSE
    lead: str = ""
    keeps: bool = True

    def parted(self, text: str) -> Parted:
        """A text as thought and answer, by this template's own marks or else by truing's."""
        for marks in (self.marks, (OPEN, CLOSE)):
            parts = parted(text, marks)
            if parts.thought is not None and (text.lstrip().startswith(marks[0]) or marks[0] not in parts.thought):
                return parts
        return Parted(None, text)  # a mark amid the words is one of the words

    @property
    def marks(self) -> tuple[str, str]:
        """The marks that open and close a thought."""
        return self.opening, self.closing

    def in_think_marks(self, text: str, clean: Callable[[str], str]) -> str:
        """A model's text in truing's marks, whatever marks it is written with. `clean` takes out of its thought and
        of its answer what is no text of theirs, such as the tokens that mark them."""
        bare = text.removeprefix(self.lead)
        for words, marks in ((text, self.marks), (bare, (OPEN, CLOSE))):
            parts = parted(words, marks)
            if parts.thought is not None:
                return OPEN + clean(parts.thought) + (CLOSE + clean(parts.answer) if parts.closed else "")
        return clean(bare)

    def in_template_marks(self, text: str) -> str:
        """A text in truing's marks with this template's own in their place, and nothing else changed."""
        parts = parted(text)
        if parts.thought is None or not text.lstrip().startswith(OPEN):
            return text
        return self.opening + parts.thought + (self.closing + parts.answer if parts.closed else "")

    def message(self, content: str) -> dict[str, Any]:
        """An assistant's message as this template takes it."""
        parts = self.parted(content)
        if parts.thought is None or not parts.closed:
            return {"role": "assistant", "content": content}
        if self.way == "inline":
            marked = parted(content, self.marks).thought is not None
            content = content if marked else joined(parts.thought, parts.answer, self.marks)
            return {"role": "assistant", "content": content}
        return message_of(self.way, parts.thought.strip("\n"), parts.answer.lstrip("\n"))


def message_of(way: Literal["key", "part"], thought: str, answer: str) -> dict[str, Any]:
    """A thought and an answer as templates take them that do not read them from one text."""
    if way == "key":
        return {"role": "assistant", "content": answer, **dict.fromkeys(KEYS, thought)}
    parts = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": answer}]
    return {"role": "assistant", "content": parts}


def form_of(write: Callable[[dict[str, Any]], str], prompt: str) -> Form:
    """The form in which a template writes thoughts, from its text of a message whose thought is Qx and whose answer is
    Zk, in each way that templates take. `write` gives its text of a message, empty where it refuses; `prompt` is the
    generation prompt before it."""
    plain = write({"role": "assistant", "content": "Zk"})
    lead = behind(prompt, plain[: max(0, plain.rfind("Zk"))])
    ways: tuple[Literal["key", "part"], ...] = ("key", "part")
    for way in ways:
        text = write(message_of(way, "Qx", "Zk"))
        thought, answer = text.rfind("Qx"), text.rfind("Zk")
        closing = text[thought + 2 : answer].strip()
        if 0 <= thought < answer and closing and "'type'" not in text:
            opening = behind(prompt, text[:thought]).strip() or closing.replace("/", "", 1)
            return Form(way, opening, closing, lead)
    mark = MARK.fullmatch(behind(plain, prompt).strip()) or EMPTY.search(plain[: max(0, plain.rfind("Zk"))])
    marks = (f"{mark[1]}{mark[2]}", f"{mark[1]}/{mark[2]}") if mark else (OPEN, CLOSE)
    keeps = "Qx" in write({"role": "assistant", "content": joined("Qx", "Zk", marks)})
    return Form("inline", *marks, lead, keeps)


def behind(prompt: str, text: str) -> str:
    """The rest of a text behind its common prefix with the prompt."""
    same = 0
    while same < min(len(prompt), len(text)) and prompt[same] == text[same]:
        same += 1
    return text[same:]
