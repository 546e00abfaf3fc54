"""Conversations as a file writes them, read into messages: roles named, order checked, what is odd noted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from truing.data.files import kind
from truing.data.thoughts import KEYS, parted
from truing.data.thoughts import joined as joined_thought
from truing.errors import nearest
from truing.types import Message, Messages

ROLES = ("system", "user", "assistant", "tool")
SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
PLAIN_ROLES = {role: role for role in ROLES}
_TURN = re.compile(r"\n\n(Human|Assistant):")

Action = Literal["dropped", "joined", "kept", "truncated"]


class Unusable(Exception):
    """A row that cannot become a record: in which field, and why."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field, self.problem = field, problem


@dataclass
class Oddities:
    """What was odd in a usable row, as (field, problem, action)."""

    found: list[tuple[str, str, Action]] = field(default_factory=list)

    def add(self, name: str, problem: str, action: Action) -> None:
        """Note one oddity."""
        self.found.append((name, problem, action))


def text(value: Any, name: str) -> str:
    """A text that says something, or the reason why it is not one."""
    if value is None:
        raise Unusable(name, "is null")
    if not isinstance(value, str):
        raise Unusable(name, f"is {kind(value)}, not text")
    if not value.strip():
        raise Unusable(name, "is empty" if not value else "is blank")
    return value


def messages(value: Any, name: str, roles: Mapping[str, str] = PLAIN_ROLES) -> Messages:
    """A list of {role, content} (or {from, value}) as messages; nothing is joined or left out yet."""
    if not isinstance(value, list | tuple):
        raise Unusable(name, f"is {kind(value)}, not a list of messages")
    if not value:
        raise Unusable(name, "is an empty list of messages")
    return tuple(_message(item, f"{name}[{i}]", roles) for i, item in enumerate(value))


def _message(item: Any, name: str, roles: Mapping[str, str]) -> Message:
    if not isinstance(item, Mapping):
        raise Unusable(name, f"is {kind(item)}, not a message with role and content")
    if "role" not in item and "from" in item:
        role_key, content_key, roles = "from", "value", SHAREGPT
    else:
        role_key, content_key = "role", "content"
    for key in (role_key, content_key):
        if key not in item:
            raise Unusable(f"{name}.{key}", f"is missing; the message has {', '.join(map(str, item)) or 'nothing'}")
    role, content = item[role_key], item[content_key]
    if not isinstance(role, str):
        raise Unusable(f"{name}.{role_key}", f"is {kind(role)}, not a role")
    if role not in roles:
        guess = nearest(role, roles)
        hint = f" Did you mean '{guess}'?" if guess else ""
        raise Unusable(f"{name}.{role_key}", f"unknown role '{role}'.{hint} Known: {', '.join(roles)}")
    speaks = roles[role] == "assistant"
    if isinstance(content, list | tuple) and content and all(_is_part(part, speaks) for part in content):
        content = _joined_parts(content)
    if item.get("tool_calls"):
        raise Unusable(f"{name}.tool_calls", "calls of tools are not read; write the call into the content")
    if speaks and isinstance(content, str):
        content = _with_thought(item, content, name)
    if content is None:
        raise Unusable(f"{name}.{content_key}", "is null")
    if not isinstance(content, str):
        raise Unusable(f"{name}.{content_key}", f"is {kind(content)}, not text")
    return Message(roles[role], content)


def _is_part(part: Any, thinks: bool) -> bool:
    """Whether a part of a message is text, or, where its writer `thinks`, a thought."""
    if not isinstance(part, Mapping):
        return False
    if part.get("type") == "text":
        return isinstance(part.get("text"), str)
    return thinks and _thought_of(part) is not None


def _thought_of(part: Mapping[str, Any]) -> str | None:
    """The thought that a part of a message is ({type: thinking, thinking: ...}), or None."""
    if part.get("type") not in ("thinking", "reasoning"):
        return None
    for value in (part.get("thinking"), part.get("reasoning"), part.get("text")):
        if isinstance(value, list) and value and all(_is_part(piece, False) for piece in value):
            value = "".join(piece["text"] for piece in value)
        if isinstance(value, str):
            return value
    return None


def _joined_parts(parts: Sequence[Mapping[str, Any]]) -> str:
    """The parts of a message as one text: thoughts in their marks, before what is said."""
    thoughts = [thought for part in parts if (thought := _thought_of(part)) is not None]
    words = "".join(part["text"] for part in parts if part.get("type") == "text")
    return joined_thought("\n".join(thoughts), words) if thoughts else words


def _with_thought(item: Mapping[str, Any], content: str, name: str) -> str:
    """A message's content with the thought that stands in a key of its own (`reasoning_content`) before it."""
    keys = [key for key in KEYS if isinstance(item.get(key), str) and item[key].strip()]
    if not keys:
        return content
    thought, there = item[keys[0]], parted(content)
    other = next((key for key in keys if item[key].strip() != thought.strip()), None)
    if other or (there.thought is not None and there.thought.strip() != thought.strip()):
        where = f"what {other} says" if other else "the thought in the content"
        raise Unusable(f"{name}.{keys[0]}", f"is another thought than {where}; leave one of them out")
    return content if there.thought is not None else joined_thought(thought, content)


def is_transcript(value: Any) -> bool:
    """Whether a text is a raw HH transcript: it opens with Human and has an Assistant turn."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def transcript(value: str) -> Messages:
    """The turns of a raw HH transcript, without the blanks around each.

    >>> [(m.role, m.content) for m in transcript("\\n\\nHuman: hi\\n\\nAssistant: hello")]
    [('user', 'hi'), ('assistant', 'hello')]
    """
    parts = _TURN.split("\n\n" + value.lstrip())[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True))


def prompt(value: Any, name: str, odd: Oddities) -> Messages:
    """A prompt from text, messages or a raw transcript that ends where the assistant is to speak."""
    if isinstance(value, str) and is_transcript(value):
        turns = transcript(value)
        open_turn = turns[-1].role == "assistant" and not turns[-1].content
        return checked_prompt(turns[:-1] if open_turn else turns, name, odd)
    if isinstance(value, list | tuple):
        return checked_prompt(messages(value, name), name, odd)
    return (Message("user", text(value, name)),)


def checked_prompt(found: Messages, name: str, odd: Oddities) -> Messages:
    """A prompt whose roles stand in order and which ends where the assistant is to speak."""
    if not found:
        raise Unusable(name, "is empty: there is no message before the response")
    found = joined(found, name, odd)
    check_order(found, name, odd)
    if found[-1].role == "assistant":
        raise Unusable(name, "ends with an assistant message, but the response follows")
    if found[-1].role == "system":
        raise Unusable(name, "has no user message")
    return found


def response(value: Any, name: str, odd: Oddities) -> Messages:
    """A response from text or messages: the assistant speaks first and last, and says something."""
    if not isinstance(value, list | tuple):
        return (Message("assistant", text(value, name)),)
    return checked_response(messages(value, name), name, odd)


def checked_response(found: Messages, name: str, odd: Oddities) -> Messages:
    """A response whose first and last messages are the assistant's, with several in a row joined into one."""
    if not found:
        raise Unusable(name, "is empty")
    if found[0].role != "assistant":
        raise Unusable(name, f"starts with a message of role '{found[0].role}', not 'assistant'")
    found = joined(found, name, odd, reply=True)
    if any(m.role == "system" for m in found):
        raise Unusable(name, "has a system message inside the response")
    if found[-1].role != "assistant":
        raise Unusable(name, f"ends with a message of role '{found[-1].role}', not 'assistant'")
    for message in found:
        if not message.content.strip() and message.role != "tool":
            what = "the response" if message.role == "assistant" else f"a {message.role} message of the response"
            raise Unusable(name, f"is empty: {what} says nothing")
    return found


def joined(found: Messages, name: str, odd: Oddities, *, reply: bool = False) -> Messages:
    """Messages of one role that follow each other become one, with a blank line between. Tool messages stay apart."""
    out: list[list[Message]] = []
    for message in found:
        if out and out[-1][0].role == message.role != "tool":
            out[-1].append(message)
        else:
            out.append([message])
    result = []
    for run in out:
        said = [m.content for m in run if m.content.strip()]
        if len(run) > 1:
            own = reply and run[0].role == "assistant"
            problem = "reply is not one message" if own else f"role '{run[0].role}' twice in a row"
            part_empty = 0 < len(said) < len(run)
            odd.add(name, problem + (", and part of it is empty" if part_empty else ""), "joined")
        result.append(run[0] if len(run) == 1 else Message(run[0].role, "\n\n".join(said)))
    return tuple(result)


def check_order(found: Messages, name: str, odd: Oddities) -> None:
    """System first if at all, then the user; a tool only answers the assistant; no user message says nothing."""
    for i, message in enumerate(found):
        before = found[i - 1].role if i else ""
        if message.role == "system" and i:
            raise Unusable(name, f"message {i + 1} is a system message; only the first may be")
        if message.role == "assistant" and before in ("", "system"):
            raise Unusable(name, "the assistant speaks first; a conversation starts with the user")
        if message.role == "tool" and before not in ("assistant", "tool"):
            raise Unusable(name, f"message {i + 1} is a tool's, but no assistant message stands before it")
        if not message.content.strip():
            if message.role == "user":
                raise Unusable(name, "is empty" if len(found) == 1 else f"message {i + 1} (user) is empty")
            odd.add(name, f"an empty {message.role} message in the prompt", "kept")


def shared_prompt(one: Messages, two: Messages) -> int:
    """How many leading messages two conversations share as a prompt: both go on with the assistant behind it."""
    same = 0
    while same < min(len(one), len(two)) and one[same] == two[same]:
        same += 1
    while same and not (
        same < min(len(one), len(two))
        and one[same].role == two[same].role == "assistant"
        and one[same - 1].role != "assistant"
    ):
        same -= 1
    return same
