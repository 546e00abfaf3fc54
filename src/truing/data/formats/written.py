"""Lists that a file holds as text: messages as pandas, numpy and JSON write them into a cell, and turns as texts.

`to_csv` of pandas and datasets writes a list of messages as Python shows it ({'role': 'user'}), and an array of them as
numpy does, without commas. Both are read for certain or not at all: nothing is run, and what only looks like a list of
messages is refused, since its braces and quotation marks would be learned as words.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from truing import door
from truing.data.formats import bounds
from truing.data.formats.oddities import Oddities, Unusable

CONVERSATIONS = frozenset({"messages", "conversations"})
SPOKEN = ("prompt", "instruction", "response", "completion", "output", "chosen", "rejected")
"""Columns of conventions that hold text or a list of messages."""
RESPONSES = SPOKEN[2:]
KEYS = ("role", "content"), ("from", "value")
Row = dict[str, Any]
_MESSAGES = re.compile(r"\s*(?:array\(\s*)?\[\s*\{\s*(['\"])(?:role|content|from|value)\1\s*:")
_OBJECTS = re.compile(r"\s*(?:array\(\s*)?\[?\s*\{\s*['\"]")
_KEYS = tuple(tuple(re.compile(rf"(['\"]){key}\1\s*:") for key in pair) for pair in KEYS)
_TEXTS = re.compile(r"\s*(?:array\(\s*)?\[\s*['\"]")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TOKENS = 200_000
"""Python tokens that a cell may have; a conversation of a million words has fewer."""
_WORDS = {"None": None, "True": True, "False": False}
LIST_OF_TEXTS = "reads like a list of turns, and is taken for words"


def looks_like_messages(value: Any) -> bool:
    """Return whether a value is text that begins as a list of messages does, in whatever notation.

    >>> looks_like_messages("[{'id': 1, 'role': 'user', 'content': 'q'}]"), looks_like_messages("[{'id': 1}]")
    (True, False)
    """
    if not isinstance(value, str):
        return False
    return _MESSAGES.match(value) is not None or (_has_keys(value) and "[" in value[: value.index("{")])


def _has_keys(text: str) -> bool:
    """True if a text begins with an object, in a list or alone, and has the keys of a message in whatever order."""
    return _OBJECTS.match(text) is not None and any(all(key.search(text) for key in pair) for pair in _KEYS)


def _is_written_message(value: Any) -> bool:
    """True if a value is text that is one message and nothing else."""
    if not isinstance(value, str) or not _has_keys(value):
        return False
    try:
        return _is_message(bounds.parse(value))
    except ValueError:
        return _is_message(shown(value))


def messages(text: str) -> list[Any]:
    """The list of messages that a text holds, as JSON, Python or numpy writes it. ValueError, in words, for any other
    text.

    >>> messages("[{'role': 'user', 'content': \\"it's\\"}\\n {'role': 'assistant', 'content': 'a'}]")
    [{'role': 'user', 'content': "it's"}, {'role': 'assistant', 'content': 'a'}]
    """
    try:
        parsed = bounds.parse(text)
    except ValueError:
        parsed = python(text)
    if not isinstance(parsed, list) or not parsed or not all(map(_is_message, parsed)):
        raise ValueError("it holds no list of messages")
    return parsed


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and any(set(keys) <= value.keys() for keys in KEYS)


def python(text: str) -> Any:
    """The value of a text in which Python or numpy shows lists, objects, texts and numbers; nothing in it is run.

    ValueError for anything else: a name, a call but numpy's `array`, what an array leaves out (...).

    >>> python("array(['a' 'b'], dtype=object)"), python("{'x': [1, -2.5, None]}")
    (['a', 'b'], {'x': [1, -2.5, None]})
    """
    bounds.check_values(text)
    reader = _Shown(text.strip())
    value = reader.value(0)
    reader.take(tokenize.ENDMARKER)
    return value


class _Shown:
    """A reader of what Python shows of a value, token by token."""

    def __init__(self, text: str) -> None:
        self._tokens, self._count = self._read(text), 0
        self.now = next(self._tokens)

    @staticmethod
    def _read(text: str) -> Iterator[tokenize.TokenInfo]:
        blank = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        try:
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.type not in blank:
                    yield token
        except (tokenize.TokenError, SyntaxError) as error:
            raise ValueError(f"it is not written to its end ({error.args[0]})") from None

    def take(self, expected: int | str) -> None:
        """Go on behind a sign, or behind a token of a kind."""
        if not self._is(expected):
            raise ValueError(f"'{self.now.string[:20]}' stands at place {self.now.start[1] + 1} of its line")
        self._step()

    def _is(self, expected: int | str) -> bool:
        return self.now.type == expected if isinstance(expected, int) else self.now.string == expected

    def _step(self) -> None:
        self._count += 1
        if self._count > _TOKENS:
            raise ValueError(f"it has more than {_TOKENS:,} parts")
        self.now = next(self._tokens, self.now)

    def value(self, deep: int) -> Any:
        """The value that begins here."""
        if deep > door.DEEPEST:
            raise ValueError(bounds.TOO_DEEP)
        word = self.now.string
        if word == "[":
            return self._items("]", lambda: self.value(deep + 1))
        if word == "{":
            return dict(self._items("}", lambda: self._entry(deep + 1)))
        if word == "array":
            return self._array(deep)
        if self.now.type == tokenize.STRING:
            return self._text()
        if word in _WORDS:
            self._step()
            return _WORDS[word]
        return self._number()

    def _items(self, end: str, item: Callable[[], Any]) -> list[Any]:
        """Items up to a bracket; between them a comma, or as numpy writes them a blank."""
        self._step()
        items = []
        while not self._is(end):
            items.append(item())
            if self._is(","):
                self._step()
        self._step()
        return items

    def _entry(self, deep: int) -> tuple[str, Any]:
        key = self._text()
        self.take(":")
        return key, self.value(deep)

    def _array(self, deep: int) -> Any:
        self._step()
        self.take("(")
        value = self.value(deep + 1)
        if self._is(","):
            for sign in (",", "dtype", "="):
                self.take(sign)
            self.take(tokenize.NAME)
        self.take(")")
        return value

    def _text(self) -> str:
        shown = self.now.string
        if self.now.type != tokenize.STRING or shown[0] not in "'\"" or shown[:3] in ("'''", '"""'):
            raise ValueError(f"'{shown[:20]}' stands where a text is expected")
        self._step()
        return str(ast.literal_eval(shown))

    def _number(self) -> Any:
        sign = -1 if self._is("-") else 1
        if sign < 0:
            self._step()
        digits = self.now.string
        self.take(tokenize.NUMBER)
        if not _NUMBER.fullmatch(digits) or len(digits) > door.DIGITS:
            raise ValueError(f"'{digits[:20]}' is no number")
        return sign * (int(digits) if digits.isdigit() else float(digits))


def unpacked(row: Row) -> Row:
    """The row with lists of messages that stand as text in the columns of conversations.

    Unusable for text in another column that begins as a list of messages does: in a table it would have been read, so
    it is damaged or cut off, and elsewhere nobody knows whether its words or what they write are meant.
    """
    for name in (*CONVERSATIONS, *SPOKEN):
        value = row.get(name)
        if name in SPOKEN and _is_written_message(value):
            raise Unusable(name, "is text that writes a message; give its content, or a list of messages")
        if not looks_like_messages(value):
            continue
        text = str(value).rstrip()
        try:
            listed = messages(text)
        except ValueError as error:
            if name not in CONVERSATIONS and "]" in text and not text.endswith(("]", ")")):
                continue  # a list that words follow
            raise Unusable(name, f"looks like a list of messages and cannot be read as one: {error}; {_WAY}") from None
        if name not in CONVERSATIONS:
            raise Unusable(name, f"is text that writes a list of messages; {_WAY}")
        row = {**row, name: listed}
    return row


_WAY = "give it as a list: in CSV as JSON (json.dumps), in JSON Lines without quotation marks around it"


def cell(text: str) -> Any:
    """The list of messages in a cell of a table, or its text as it is."""
    if not looks_like_messages(text):
        return text
    try:
        return messages(text)
    except ValueError:
        return text


def shown(text: str) -> Any:
    """Parse a cell that is to hold a list or scores by name, as Python shows it; its text where it cannot be parsed."""
    try:
        return python(text)
    except ValueError:
        return text


def turns(value: Any) -> list[str | None] | None:
    """The texts of a list of turns, or of one as JSON, Python or numpy writes it; None for anything else.

    >>> turns('["first", "second"]'), turns("['first' 'second']"), turns("['first'] is a list")
    (['first', 'second'], ['first', 'second'], None)
    """
    if isinstance(value, str):
        if not _TEXTS.match(value) or not value.rstrip().endswith(("]", ")")):
            return None
        try:
            value = bounds.parse(value)
        except ValueError:
            value = shown(value)
    whole = isinstance(value, list | tuple) and value and all(part is None or isinstance(part, str) for part in value)
    return list(value) if whole else None


class Turns:
    """Prompts of a file written as lists of turns: in every row, in some, or in none.

    Lists are read where every prompt of the file is one, for then none of them is words. A file in which some are is
    read as words, and the rows are noted.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        prompts = [row["prompt"] for row in rows if row.get("prompt") not in (None, "")]
        listed = sum(turns(prompt) is not None for prompt in prompts)
        self.always, self.sometimes = 0 < listed == len(prompts), listed > 0

    def row(self, row: Row, odd: Oddities) -> Row:
        """The row with its turns as messages: the prompt the first of them, each response the rest of a
        conversation."""
        if not self.sometimes or (questions := turns(row.get("prompt"))) is None:
            return row
        if not self.always:
            odd.add("prompt", LIST_OF_TEXTS, "kept")
            return row
        responses = [name for name in RESPONSES if row.get(name) not in (None, "")]
        if not isinstance(row["prompt"], str) and not any(turns(row[name]) for name in responses):
            return row  # a list that is no text is messages, or said to be none
        if len(questions) > 1 and not responses:
            raise Unusable(
                "prompt", f"holds {len(questions)} turns, and no responses between them; give a prompt a row"
            )
        first = [{"role": "user", "content": questions[0]}]
        return {**row, "prompt": first} | {name: _replies(row[name], name, questions) for name in responses}


def _replies(value: Any, name: str, questions: Sequence[str | None]) -> list[dict[str, Any]]:
    """Messages of a response whose turns answer these questions: its first turn, the second question, its second turn,
    ..."""
    replies = turns(value)
    if replies is None:
        raise Unusable(name, "is no list of turns, and the prompt is one")
    if len(replies) != len(questions):
        raise Unusable(name, f"has {len(replies)} turns where the prompt has {len(questions)}")
    messages = [{"role": "assistant", "content": replies[0]}]
    for question, reply in zip(questions[1:], replies[1:], strict=True):
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
    return messages
