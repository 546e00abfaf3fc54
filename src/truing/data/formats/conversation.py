"""Conversations as a file writes them, read into messages: roles named, order checked, what is odd noted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from truing.data.formats import marks
from truing.data.formats.oddities import Oddities as Oddities
from truing.data.formats.oddities import Unusable as Unusable
from truing.data.thoughts import KEYS, parted
from truing.data.thoughts import joined as joined_thought
from truing.door import kind
from truing.errors import listed, nearest, short
from truing.records import Message, Messages

ROLES = ("system", "user", "assistant", "tool")
SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "system": "system", "tool": "tool", "observation": "tool",
}  # fmt: skip
PLAIN_ROLES = {role: role for role in ROLES}
NONE_LEARNED = "has no assistant message to learn from: its marks (weight, train, ...) leave all of them out"
_TURN = re.compile(r"\n\n(Human|Assistant):")


def text(value: Any, name: str) -> str:
    """Return a text that is not blank; Unusable, with the reason, for any other value."""
    if value is None:
        raise Unusable(name, "is null")
    if not isinstance(value, str):
        raise Unusable(name, f"is {kind(value)}, not text")
    if not value.strip():
        raise Unusable(name, "is empty" if not value else "is blank")
    return value


def messages(value: Any, name: str, odd: Oddities, roles: Mapping[str, str] = PLAIN_ROLES) -> Messages:
    """A list of {role, content} (or {from, value}) as messages; nothing is joined or left out yet."""
    if not isinstance(value, list | tuple):
        raise Unusable(name, f"is {kind(value)}, not a list of messages")
    if not value:
        raise Unusable(name, "is an empty list of messages")
    return tuple(_message(item, name, i, roles, odd) for i, item in enumerate(value))


def _message(item: Any, column: str, place: int, roles: Mapping[str, str], odd: Oddities) -> Message:
    name = f"{column}[{place}]"
    if not isinstance(item, Mapping):
        raise Unusable(name, f"is {kind(item)}, not a message with role and content")
    if "role" not in item and "from" in item:
        role_key, content_key, roles = "from", "value", SHAREGPT
    else:
        role_key, content_key = "role", "content"
    plain = len(item) == 2 and content_key in item  # nearly every message: no key to look at
    learned = None if plain else marks.learned(item, (role_key, content_key), name, odd)
    for key in (role_key, content_key):
        if key not in item:
            raise Unusable(f"{name}.{key}", f"is missing; the message has {listed(item, 20) or 'nothing'}")
    role, content = item[role_key], item[content_key]
    if not isinstance(role, str):
        raise Unusable(f"{name}.{role_key}", f"is {kind(role)}, not a role")
    if role not in roles:
        guess = nearest(role, roles)
        hint = f" Did you mean '{guess}'?" if guess else ""
        raise Unusable(f"{name}.{role_key}", f"unknown role '{short(role)}'.{hint} Known: {', '.join(roles)}")
    if learned and roles[role] != "assistant":
        odd.add(column, f"asks for a message of role '{role}' to be learned, and only the assistant's are", "kept")
    speaks = roles[role] == "assistant"
    spoken = content if isinstance(content, str) else words(content, f"{name}.{content_key}", odd, thinks=speaks)
    text = spoken if plain else _with_thought(item, spoken, name, speaks)
    parts = content if speaks and isinstance(content, list | tuple) else ()
    apart = text != spoken or any(_thought_of(part) is not None for part in parts)
    return Message(roles[role], text, learned is not False or odd.unmarked, apart)


def words(content: Any, name: str, odd: Oddities, *, thinks: bool = False) -> str:
    """The text of a message: a text, or a list of text parts, and of one whose writer `thinks` of thoughts too, which
    stand in their marks before what is said."""
    if isinstance(content, list | tuple) and content:
        thoughts = [_thought_of(part) if thinks else None for part in content]
        parts = zip(content, thoughts, strict=True)
        text = "".join(_part(p, f"{name}[{i}]", odd) for i, (p, thought) in enumerate(parts) if thought is None)
        written_thoughts = [thought for thought in thoughts if thought is not None]
        return joined_thought("\n".join(written_thoughts), text) if written_thoughts else text
    if content is None:
        raise Unusable(name, "is null")
    if not isinstance(content, str):
        raise Unusable(name, f"is {kind(content)}, not text")
    return content


def _part(part: Any, name: str, odd: Oddities) -> str:
    if not isinstance(part, Mapping):
        raise Unusable(name, f"is {kind(part)}, not a part of a message with its type and text")
    what = part.get("type", "text")
    if what != "text" or not isinstance(part.get("text"), str):
        other = next((str(key) for key in part if key != "type"), "nothing")
        raise Unusable(name, f"is a part of type '{what}' ({other}), and text is all that is read")
    for key, value in part.items():
        if key in ("type", "text") or marks.says_nothing(value):
            continue
        if marks.MEDIA.fullmatch(marks.snake(str(key))):
            raise Unusable(f"{name}.{key}", "is no text, and text is all that is read")
        odd.keys.add(f"content[].{key}")
    return str(part["text"])


def _thought_of(part: Any) -> str | None:
    """The thought that a part of a message is ({type: thinking, thinking: ...}), or None."""
    if not isinstance(part, Mapping) or part.get("type") not in ("thinking", "reasoning"):
        return None
    for value in (part.get("thinking"), part.get("reasoning"), part.get("text")):
        if isinstance(value, list) and value and all(_is_text(piece) for piece in value):
            value = "".join(piece["text"] for piece in value)
        if isinstance(value, str):
            return value
    return None


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _with_thought(item: Mapping[str, Any], content: str, name: str, speaks: bool) -> str:
    """A message's content with the thought that stands in a key of its own (`reasoning_content`) before it; only the
    assistant thinks."""
    keys = [key for key in KEYS if isinstance(item.get(key), str) and item[key].strip()]
    if not keys:
        return content
    if not speaks:
        raise Unusable(f"{name}.{keys[0]}", "is a thought, and only the assistant's are read")
    thought, there = item[keys[0]], parted(content)
    other = next((key for key in keys if item[key].strip() != thought.strip()), None)
    if other or (there.thought is not None and there.thought.strip() != thought.strip()):
        where = f"what {other} says" if other else "the thought in the content"
        raise Unusable(f"{name}.{keys[0]}", f"is another thought than {where}; leave one of them out")
    return content if there.thought is not None else joined_thought(thought, content)


def is_transcript(value: Any) -> bool:
    """Return whether a text is a raw HH transcript: it opens with Human and has an Assistant turn."""
    return isinstance(value, str) and value.lstrip().startswith("Human:") and "\n\nAssistant:" in value


def transcript(value: str) -> Messages:
    """The turns of a raw HH transcript, without the blanks around each.

    >>> [(m.role, m.content) for m in transcript("\\n\\nHuman: hi\\n\\nAssistant: hello")]
    [('user', 'hi'), ('assistant', 'hello')]
    """
    parts = _TURN.split("\n\n" + value.lstrip())[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return tuple(Message(roles[who], words.strip()) for who, words in zip(parts[::2], parts[1::2], strict=True))


def prompt(value: Any, name: str, odd: Oddities) -> Messages:
    """A prompt from text, messages or a raw transcript that ends where the assistant is to speak."""
    if isinstance(value, str) and is_transcript(value):
        turns = transcript(value)
        open_turn = turns[-1].role == "assistant" and not turns[-1].content
        return checked_prompt(turns[:-1] if open_turn else turns, name, odd)
    if isinstance(value, list | tuple):
        return checked_prompt(messages(value, name, odd), name, odd)
    return (Message("user", text(value, name)),)


def checked_prompt(turns: Messages, name: str, odd: Oddities) -> Messages:
    """A prompt whose roles stand in order and which ends where the assistant is to speak."""
    if not turns:
        raise Unusable(name, "is empty: there is no message before the response")
    turns = joined(unmarked(turns), name, odd)
    check_order(turns, name, odd)
    if turns[-1].role == "assistant":
        raise Unusable(name, "ends with an assistant message, but the response follows")
    if turns[-1].role == "system":
        raise Unusable(name, "has no user message")
    return turns


def unmarked(turns: Messages) -> Messages:
    """Messages of a prompt: no mark on them says anything, for none of them is learned."""
    for message in turns:
        if not message.learned:
            return tuple(replace(m, learned=True) for m in turns)
    return turns


def response(value: Any, name: str, odd: Oddities) -> Messages:
    """A response from text or messages: the assistant speaks first and last, and says something."""
    if not isinstance(value, list | tuple):
        return (Message("assistant", text(value, name)),)
    return checked_response(messages(value, name, odd), name, odd)


def checked_response(turns: Messages, name: str, odd: Oddities) -> Messages:
    """A response whose first and last messages are the assistant's, with several in a row joined into one."""
    if not turns:
        raise Unusable(name, "is empty")
    if turns[0].role != "assistant":
        raise Unusable(name, f"starts with a message of role '{turns[0].role}', not 'assistant'")
    turns = joined(turns, name, odd, reply=True)
    if any(m.role == "system" for m in turns):
        raise Unusable(name, "has a system message inside the response")
    if turns[-1].role != "assistant":
        raise Unusable(name, f"ends with a message of role '{turns[-1].role}', not 'assistant'")
    taught = False
    for message in turns:
        taught = taught or (message.learned and message.role == "assistant")
        if not message.content.strip() and message.role != "tool":
            what = "the response" if message.role == "assistant" else f"a {message.role} message of the response"
            raise Unusable(name, f"is empty: {what} has no text")
    if not taught:
        raise Unusable(name, NONE_LEARNED)
    return turns


def joined(turns: Messages, name: str, odd: Oddities, *, reply: bool = False) -> Messages:
    """Messages of one role that follow each other become one, with a blank line between. Tool messages stay apart."""
    out: list[list[Message]] = []
    for message in turns:
        if out and out[-1][0].role == message.role != "tool":
            out[-1].append(message)
        else:
            out.append([message])
    result = []
    for run in out:
        texts = [m.content for m in run if m.content.strip()]
        if len(run) > 1:
            is_reply = reply and run[0].role == "assistant"
            problem = "reply is not one message" if is_reply else f"role '{run[0].role}' twice in a row"
            part_empty = 0 < len(texts) < len(run)
            odd.add(name, problem + (", and part of it is empty" if part_empty else ""), "joined")
            if len({m.learned for m in run}) > 1:
                raise Unusable(name, "has a reply of several messages, of which one is learned and one not")
        result.append(run[0] if len(run) == 1 else replace(run[0], content="\n\n".join(texts)))
    return tuple(result)


def check_order(turns: Messages, name: str, odd: Oddities) -> None:
    """System first if at all, then the user; a tool only answers the assistant; no user message is empty."""
    for i, message in enumerate(turns):
        before = turns[i - 1].role if i else ""
        if message.role == "system" and i:
            raise Unusable(name, f"message {i + 1} is a system message; only the first may be")
        if message.role == "assistant" and before in ("", "system"):
            raise Unusable(name, "the assistant speaks first; a conversation starts with the user")
        if message.role == "tool" and before not in ("assistant", "tool"):
            raise Unusable(name, f"message {i + 1} is a tool's, but no assistant message stands before it")
        if not message.content.strip():
            if message.role == "user":
                raise Unusable(name, "is empty" if len(turns) == 1 else f"message {i + 1} (user) is empty")
            odd.add(name, f"an empty {message.role} message in the prompt", "kept")


def shared_prompt(first: Messages, second: Messages) -> int:
    """Number of leading messages that two conversations share as a prompt: both go on with the assistant behind it."""
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    while same and not (
        same < min(len(first), len(second))
        and first[same].role == second[same].role == "assistant"
        and first[same - 1].role != "assistant"
    ):
        same -= 1
    return same
