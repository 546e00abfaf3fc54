"""Texts without secrets: by their shape, by the name before them, and by the values of the environment."""

from __future__ import annotations

import base64
import functools
import html
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from truing.secret_shapes import Span, is_named_secret, key_spans, named_spans

KEY = "⟨key⟩"
_SECRET_NAME = re.compile(
    r"(?i)(?:^|_)(?:API_?KEY|\w*KEY|\w*TOKEN|\w*SECRET|\w*PASSWORD|PASSWD|PASSPHRASE|PASS|PWD|PW|DSN|CREDENTIALS?|AUTH|BEARER"
    r"|PAT)S?(?:_|\d|$)"
)
_LEAST = 8
"""The shortest line, and stretch of base64, that is a secret's own."""


def holds_key(text: str) -> bool:
    """Return whether a text holds what looks like a key of a service, or a password in an address.

    >>> holds_key("https://me:pass@host/pairs.jsonl"), holds_key("sk-learn/pairs")
    (True, False)
    """
    return next(key_spans(text), None) is not None


def redacted(text: str) -> str:
    """A text without keys: what looks like one, what stands behind the name of one (`Bearer ...`, `api_key=...`), and
    the value of every environment variable called so (`..._TOKEN`). Done twice, it changes nothing more.

    >>> redacted("cannot read https://me:pass@host/pairs.jsonl?token=0123456789")
    'cannot read https://⟨key⟩@host/pairs.jsonl?token=⟨key⟩'
    """
    secrets = _environment()
    while spans := _spans(
        text, secrets
    ):  # what a replacement lays bare is seen in the next round; mostly there is none
        text = _without(text, spans)
    return text


def cleaned(value: Any) -> Any:
    """A JSON value whose texts, and names of entries, hold no keys."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {cleaned(name): _entry(name, item) for name, item in value.items()}
    return [cleaned(item) for item in value] if isinstance(value, list | tuple) else value


def _entry(name: Any, item: Any) -> Any:
    """The cleaned value of an entry, whose name may say that it is a secret."""
    text = cleaned(item)
    named = isinstance(name, str) and isinstance(text, str) and is_named_secret(name, text)
    return KEY if named else text


def _spans(text: str, secrets: Mapping[str, str]) -> list[tuple[Span, str]]:
    """Every secret of a text, in order and apart, with what is put in its place."""
    places = [(span, KEY) for spans in (key_spans(text), named_spans(text)) for span in spans]
    for name, value in secrets.items():
        places += [(span, f"⟨{name}⟩") for form in _forms(value) for span in _occurrences(form, text)]
    if places and "⟨" in text:
        marks = list(_marks(tuple(secrets)).finditer(text))
        places = [(whole, label) for span, label in places if (whole := _around(span, [m.span() for m in marks]))]
    apart: list[tuple[Span, str]] = []
    for (start, end), label in sorted(places):
        if apart and start < apart[-1][0][1]:
            (begun, reach), first = apart[-1]
            apart[-1] = (begun, max(reach, end)), label if first == KEY else first
        else:
            apart.append(((start, end), label))
    return apart


def _without(text: str, spans: list[tuple[Span, str]]) -> str:
    """A text with something else in the place of each span."""
    pieces, done = [], 0
    for (start, end), label in spans:
        pieces += [text[done:start], label]
        done = end
    return "".join([*pieces, text[done:]])


def _around(span: Span, marks: list[Span]) -> Span | None:
    """A span that cuts through no replacement made before; None for one that lies within a replacement."""
    start, end = span
    place = bisect_right(marks, (start, start)) - 1
    if place >= 0 and marks[place][1] > start:
        if marks[place][1] >= end:
            return None
        start = marks[place][0]
    place = bisect_right(marks, (end - 1, end - 1)) - 1
    if place >= 0 and marks[place][1] > end:
        end = marks[place][1]
    return (start, end) if (start, end) not in marks[max(0, place - 1) : place + 1] else None


@functools.cache
def _marks(names: tuple[str, ...]) -> re.Pattern[str]:
    """Pattern of the marks that replace a secret or a hidden character."""
    return re.compile("⟨(?:" + "|".join(["key", r"U\+[0-9A-F]{4,6}", *map(re.escape, names)]) + ")⟩")


def _occurrences(form: str, text: str) -> Iterator[Span]:
    """Spans of a form of a secret."""
    start = text.find(form)
    while start >= 0:
        yield start, start + len(form)
        start = text.find(form, start + len(form))


def _environment() -> dict[str, str]:
    """The variables whose name says that they are secret, and whose value is: no file's path, no other's name."""
    named = {name: os.environ[name] for name in os.environ if _says_secret(name)}
    return {
        name: value
        for name, value in named.items()
        if _long_enough(value) and value not in os.environ and not (os.path.isabs(value) and os.path.exists(value))
    }


@functools.cache
def _says_secret(name: str) -> bool:
    return name not in ("PWD", "OLDPWD") and _SECRET_NAME.search(name) is not None


def _long_enough(value: str) -> bool:
    """True if a value can be told from a common word: a secret of `true` would take the word out of every text."""
    return len(value) >= 8 or (len(value) >= 6 and not value.isalpha())


@functools.cache
def _forms(value: str) -> tuple[str, ...]:
    """A value, and each longer line of it, as it stands in a text, in JSON, in Python, on a page, in an address, in
    base64, on one line."""
    lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= _LEAST] if "\n" in value else []
    return tuple({form for part in (value, *lines) for form in _written(part) if form.strip()})


def _written(value: str) -> set[str]:
    in_json = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    in_json |= {json.dumps(form)[1:-1] for form in in_json} | {form.replace("/", "\\/") for form in in_json}
    plain = {value, value.strip(), " ".join(value.split()), repr(value)[1:-1], html.escape(value)}
    data = value.encode("utf-8", "surrogatepass")
    quoted = {quote(data, safe=""), quote(data), quote_plus(data), quote_plus(data, safe="/")}
    quoted |= {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), form) for form in quoted}
    quoted |= {form.replace("%", "%25") for form in quoted}
    return in_json | plain | quoted | set(_in_base64(data))


def _in_base64(data: bytes) -> Iterator[str]:
    """The stretches of base64 that are a value's own wherever it begins in what was encoded, as behind `user:`."""
    whole = base64.b64encode(data).decode()
    if len(whole) >= _LEAST:
        yield from (whole, whole.rstrip("="), whole.replace("+", "-").replace("/", "_"))
    for before in range(3):
        code = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        stretch = code[(0, 2, 3)[before] : len(code) - ((before + len(data)) % 3 > 0)]
        if len(stretch) >= _LEAST:
            yield from (stretch, stretch.replace("+", "-").replace("/", "_"))
