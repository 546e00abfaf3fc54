"""The part of a text that is its answer:

    the content of the last \\boxed{...}, with all the braces in it
    else the text behind the last ####, or `A:` at the beginning of a line
    else the content of the last <answer>...</answer>
    else the text behind the last `the answer is`
    else the last number of the text, with the expression or brackets that it is part of

Thoughts are no answer: the text before the last </think>, or behind a <think> that nothing closes, is ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from truing.rewards.answers import Unread
from truing.rewards.answers.prose import CONTEXT, NUMBER, OTHER, around, last_side
from truing.rewards.answers.tokens import LONGEST, fraction, group

_THOUGHT = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_BOX = re.compile(r"\\f?boxed(?![a-zA-Z])|\\fbox(?![a-zA-Z])|\\framebox(?![a-zA-Z])")
_LINE = re.compile(r"####([^\n]*)|^[ \t]*A:([^\n]*)", re.MULTILINE)
_HEADING = re.compile(r"\W*(?:step|part|case|problem|question|section|method|approach)\b", re.IGNORECASE)
_LABEL = re.compile(r"\W*(?:final\s+)?(?:answer|result|solution)\W*", re.IGNORECASE)
_CLAUSE = re.compile(r",?\s+(?:because|since|as|which|so|when|where|if|per|for|in|and|but|with|after)\b|[,;(]\s")
_MORE = re.compile(r",?\s+(?:in|per|and)\s+[-$€£]?\d|[,;]\s+[-$€£]?\d")
_TAG = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.IGNORECASE | re.DOTALL)
_PHRASE = re.compile(
    r"\b(?:final\s+)?answer(?:[ *_]*\bis\b(?:\s+(?:therefore|thus|simply))?|[ *_]*[:=])[:=*_ \t]*\n*", re.IGNORECASE
)
_END = re.compile(r"(?<!\bp)(?<!\ba)\.(?=\s+[A-Z\\$*]|\s*$)|\n")
_DOLLARS = re.compile(r"(?<!\\)\$\$?")
_MATHEMATICS = re.compile(r"\\[a-zA-Z]+|[{}^_√π∞()\[\]⟨⟩<>≤≥∪]")
_TEXTUAL, _MEASURED = re.compile(r"\s*(?:\\(?:text|mathrm|mbox)\b|\^)"), re.compile(r"(-?\d[\d.,]*)\s*(?:\$|\\\()$")


@dataclass(frozen=True)
class Final:
    """The part of a text that is its answer. `exact` where it was marked as such, and is read whole or not at all;
    `plain` where it is a number in prose."""

    text: str
    exact: bool = False
    plain: bool = False


def final(text: str) -> Final:
    """The answer of a text. Unread where it has none, or one that does not end."""
    visible = without_thoughts(text)
    if (boxed := in_box(visible)) is not None:
        return Final(boxed, exact=True)
    if (marked := behind_mark(visible)) is not None:
        return marked
    return last_number(visible)


def without_thoughts(text: str) -> str:
    """A text without its thoughts."""
    marks = list(_THOUGHT.finditer(text))
    if not marks:
        return text
    if not marks[-1][1]:
        raise Unread("a thought that does not end")
    return text[marks[-1].end() :]


def in_box(text: str) -> str | None:
    """The content of the last box, if there is one. Unread where its braces do not close."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :].lstrip()
    if not rest.startswith("{"):
        return rest.split()[0].rstrip("$.,") if rest.split() else ""
    inner = group(rest[: LONGEST + 2], 0)
    return in_box(inner) if _BOX.search(inner) else inner


def behind_mark(text: str) -> Final | None:
    """The text behind the last mark of an answer that is no box."""
    for match in reversed(list(_LINE.finditer(text))):
        line = (match[1] if match[1] is not None else match[2])[:LONGEST]
        if match[1] is not None and _HEADING.match(line):
            continue
        phrase = _PHRASE.search(line)
        content = (line[phrase.end() :] if phrase else line).strip(" *_`")
        content = "" if _LABEL.fullmatch(content) else content
        if not content and match[1] is not None:
            content = next((later for later in text[match.end() :].split("\n") if later.strip()), "")
        if content.strip():
            return Final(content.strip())
    if tags := _TAG.findall(text):
        inner = tags[-1].strip()
        return behind_phrase(inner) or Final(inner)
    return behind_phrase(text)


def behind_phrase(text: str) -> Final | None:
    """The text behind the last `the answer is`, to the end of the sentence."""
    matches = list(_PHRASE.finditer(text))
    if not matches:
        return None
    rest = text[matches[-1].end() :][:LONGEST].lstrip(" *_`")
    display = re.match(r"\\\[(.+?)\\\]|\$\$(.+?)\$\$", rest, re.DOTALL)
    if display:
        return Final((display[1] or display[2]).strip())
    end = _END.search(rest)
    content = (rest[: end.start()] if end else rest).strip(' *_`\t"')
    return Final(content if "$" in content else content.rstrip("!")) if content else None


def last_number(text: str) -> Final:
    """The last number of a text with the expression that it is part of. Unread where there is none."""
    text = "".join(fraction(c, " %s/%s") for c in text) if not text.isascii() else text
    place = None
    for match in NUMBER.finditer(text):
        place = match
    start, end = last_segment(text)
    if end and (place is None or place.start() < end):
        before = _MEASURED.search(text[max(0, start - CONTEXT) : start]) if _TEXTUAL.match(text[start:]) else None
        if before:
            return Final(f"{before[1]} {text[start:end][:LONGEST]}")
        return Final(last_side(text[start:end][:LONGEST]).strip(" ."))
    if place is None:
        raise Unread("no answer")
    part, plain = around(text, place)
    return Final(part, plain=plain)


def last_segment(text: str) -> tuple[int, int]:
    """The start and end of the last piece of mathematics between marks ($...$, \\(...\\), \\[...\\]), or 0, 0."""
    segments = [(0, 0)]
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]")):
        end = text.rfind(closing)
        start = text.rfind(opening, 0, end) if end > 0 else -1
        segments += [(start + 2, end)] if start >= 0 else []
    marks = list(_DOLLARS.finditer(text))
    if marks and len(marks) % 2 == 0 and not text[marks[-1].end() :][:1].isdigit():
        segments.append((marks[-2].end(), marks[-1].start()))
    return max(segments, key=lambda place: place[1])


def beginning(text: str) -> str:
    """A sentence up to its first clause: `12 because 3 * 4 = 12`, `18, so 6 are left`. Unread where what comes next is
    part of the number: `3 and a half`, `1 in 5`."""
    cut = _CLAUSE.search(text)
    if cut and (OTHER.match(text[cut.start() :]) or _MORE.match(text[cut.start() :])):
        raise Unread("a number that goes on in words")
    return text[: cut.start()].strip() if cut else text


def numbers(text: str) -> list[str]:
    """The numbers of a text as they stand in it."""
    return [match[0] for match in NUMBER.finditer(text)]


def is_prose(text: str) -> bool:
    """True if a text has no mathematics but plain numbers."""
    return not _MATHEMATICS.search(text)
