"""A number in prose with its sign and currency, words like `million`, its unit; or the expression that it is part of.

Nothing is guessed from a part: where a number is one of several (5 or 6, 10-20), or a word makes another one of it
(the root of 5, 3 and a half), it is not read.
"""

from __future__ import annotations

import re

from truing.rewards.answers import Unread
from truing.rewards.answers.units import LARGE, PARTS, SHORT, is_unit

CONTEXT = 400
"""The number of characters around the last number in which an unmarked answer is searched for."""
NUMBER = re.compile(
    r"(?:(?<![\w).}\]])[-+−])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:\s*/\s*\d+)?"
)
_CURRENCY = re.compile(r"[$€£¥₹]\s?$")
CODES = {"USD": "$", "US$": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "Rs": "₹"}
_CODE = re.compile(r"\b(USD|US\$|EUR|GBP|JPY|INR|Rs\.?)\s?$")
_SIGN = re.compile(r"([-+−–])\s*$|\b(?:minus|negative)\s+$", re.IGNORECASE)
_OPERAND = re.compile(r"(?:[\d)\]}%°!]|(?<![a-zA-Z'’])[b-zB-HJ-Z])\s*$|(?<![a-zA-Z'’])[aAI]$")
"""The end of an operand, behind which an operator may stand."""
_OPERATOR = re.compile(
    r"\s*(?:[*/×÷^·⋅:]|(?<![a-zA-Z])x|\b(?:plus|times|over|divided by|multiplied by|modulo|mod|choose))\s*$",
    re.IGNORECASE,
)
_EQUALS = re.compile(r"(?:(?<![<>!])=|[-=]>|→)\s*$")
_LISTED = re.compile(r"\d[^\s\d]{0,3}?(?:,\s*|\s*,?\s+(?:or|and|to|through|until|vs\.?|versus|&|~)\s+)$")
_SPACED = re.compile(r"\d[^\s\d]{0,3}?\s+$")
_APPLIED = re.compile(
    r"\b(?:(?:root|power|half|third|quarter|square|cube|factorial|log|logarithm|ln|sine|cosine|tangent) of|twice|double"
    r"|triple|sqrt|log|ln|sin|cos|tan)\s+$",
    re.IGNORECASE,
)
_BEFORE, _BEHIND = (
    re.compile(r"[$€£¥₹(\"'*_`~=:—]*"),
    re.compile(r"(?:[%°$€£¥₹¢)\"'*_`.,;:!?—]|(?:st|nd|rd|th)\b|-[a-zA-Z]{2,}\S*|([a-zA-Z]{2,})\S*)*"),
)
_PREFIX = re.compile(r"[\w\"'*(]*[a-zA-Z]{2,}[:=$(]+|[a-zA-Z]\w*=[$]?")
_WORD = re.compile(
    r"(?<![\\a-zA-Z])[a-zA-Z]{3,}|(?<![\\a-zA-Z])(?:is|it|to|so|of|at|in|an|as|be|we|by|or|if|on)(?![a-zA-Z])"
)
_LARGE = re.compile(rf"[\s-]*\b({'|'.join(LARGE)})s?\b|[\s-]*({'|'.join(LARGE)})s?\b", re.IGNORECASE)
OTHER = re.compile(
    rf"[\s-]+(?:{PARTS.pattern}|squared|cubed|choose|modulo|mod)\b|\s+(?:and|&)\s+(?:a|an|one|two|three)\b"
    r"|\s*(?:[kKMBT]|bn|mn|tn|mil)\b(?!['’])",
)
"""Words that make another number of the one before them."""
_UNIT = re.compile(
    r"\s*\\?%|\s*°(?:\s*[CF]\b)?|\s?[€£¥₹¢$](?!\w)|\s*degrees?\s+(?:celsius|fahrenheit)\b"
    r"|[ \t]*(?!in\b)(?:(?:square|cubic|sq|cu)\s+)?[a-zA-Z]+(?:\s?\^\s?\{?\d\}?|[²³])?"
    r"(?:\s?(?:/|\bper\b)\s?[a-zA-Z]+(?:\s?\^\s?\{?\d\}?|[²³])?)?",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"(?<![\w.,/])\d+ $")
_JOINED_LEFT = re.compile(
    r"(?:\\[a-zA-Z]+|[\^_√]|(?<![-=<>])[<>≤≥≠]=?|!=|(?:[})\]]|(?:\\[a-zA-Z]+|√)\S*)\s*[-+*/])\s*$"
)
_JOINED_RIGHT = re.compile(
    r"\s*(?:\\(?!text|mathrm|mbox|[ ,%;$)\]]|boxed)|[\^_√π∞]|[-+*/]\s*\\)|\s+[b-zB-HJ-Z](?=[\s.,]*$|\s*[-+*/=^])"
    r"|\s*[-+*/×÷<>≤≥]=?\s*(?:\(|(?![aAI]\s)[a-zA-Z](?![a-zA-Z]))"
)


def around(text: str, place: re.Match[str]) -> tuple[str, bool]:
    """Return a number of a text with its sign, currency and unit, or its expression, and True if it is plain: no
    expression. Unread where the number is part of something with several readings."""
    start, end = _line(text, place.start(), place.end())
    line, at, until = text[start:end], place.start() - start, place.end() - start
    cut = line.rfind(">>", 0, at) + 2 if ">>" in line[:at] else 0
    line, at, until = line[cut:], at - cut, until - cut
    left, number, right = line[:at], place[0].replace("−", "-"), line[until:]
    if "." in number and right.startswith(("..", "…")):
        raise Unread("a number that goes on")
    if re.fullmatch(r"0\d\d", number) and re.search(r"\d $", left):
        raise Unread("numbers with a space between them")
    if "/" in number and (whole := _WHOLE.search(left)):
        left, number = left[: whole.start()], whole[0] + number
    left = _CODE.sub(lambda code: CODES[code[1].rstrip(".")], left)
    money, left = _split(_CURRENCY, left)
    if number[0] in "+-":
        left, number = left + number[0], number[1:]
    words = bool(re.search("[a-zA-Z]", line))
    sign, joined, left = _signed(left, words)
    joined = joined or bool(_JOINED_LEFT.search(left) or _JOINED_RIGHT.match(right)) or _within_brackets(line, at)
    if joined or not _begins_plainly(left) or not _ends_plainly(right):
        return last_side(_expression(line, at, until)).strip(" .,;:*`"), False
    if not sign and not money:
        money, left = _split(_CURRENCY, left)
    _alone(left, right, words)
    return sign + money.strip() + number + _behind(right, bool(money)), True


def _split(pattern: re.Pattern[str], left: str) -> tuple[str, str]:
    match = pattern.search(left)
    return (match[0], left[: match.start()]) if match else ("", left)


def _signed(left: str, words: bool) -> tuple[str, bool, str]:
    """Return the sign of a number, True if it is part of an expression instead, and the text before the sign. In a line
    without words, numbers with spaces between them are results one after the other: 146 -466 -1436."""
    if re.search(r"[-+*/×÷]\s*\(\s*$", left):
        raise Unread("a number in brackets, behind an operator")
    if not words and re.search(r"\d[-+]\s+$", left):
        return "", False, left
    match = _SIGN.search(left)
    if match is None:
        operator = _OPERATOR.search(left)
        joined = bool(operator and _OPERAND.search(left[: operator.start()]))
        if operator and joined and len(operator[0].strip()) > 1:
            raise Unread("an operation in words")
        return "", joined, left
    rest = left[: match.start()]
    if match[1] is None:
        if _OPERAND.search(rest):
            raise Unread("a difference in words")
        return "-", False, rest
    if re.search(r"\s[-+*/x×÷]\s+$", rest):
        return "", True, rest
    if _OPERAND.search(rest):
        apart = not words and match[0] == match[1] and rest.endswith(" ")
        return ("-" if match[1] in "-−–" else "", False, rest) if apart else ("", True, rest)
    if match[1] == "+" and re.search(r"(?<![a-zA-Z])(?:pi|a)\s*$|π\s*$", rest):
        return "", True, rest
    if match[1] == "+" and re.search(r"\w\s*$", rest):
        raise Unread("a sum in words")
    if rest[-1:].isalnum() or rest[-1:] in ("-", "+", "–"):
        raise Unread("a number behind a dash")
    if match[1] == "+":
        return "", False, rest
    if match[0] != match[1] and not _EQUALS.search(rest):
        raise Unread("a number behind a dash")
    return "-", False, rest


def _begins_plainly(left: str) -> bool:
    """True if the text before a number, without a space, is no mathematics but an equality that the number ends."""
    if _EQUALS.search(left):
        return True
    before = re.search(r"\S*$", left)
    assert before is not None
    listed = bool(re.search(r"\d,$", before[0]))
    return listed or any(pattern.fullmatch(before[0]) for pattern in (_BEFORE, _PREFIX))


def _ends_plainly(right: str) -> bool:
    """True if the text behind a number, without a space, is a mark, or a word that is no product of letters."""
    glued = re.match(r"\S*", right)
    assert glued is not None
    match = _BEHIND.fullmatch(glued[0])
    if match is None:
        return False
    word = match[1] or ""
    is_plain_word = (
        is_unit(word) or word in SHORT or word.casefold() in (*LARGE, "am", "pm", "st", "nd", "rd", "th", "bn", "mn")
    )
    return not word or is_plain_word or (len(word) > 3 and bool(re.search("[aeiou]", word, re.IGNORECASE)))


def _alone(left: str, right: str, words: bool) -> None:
    """Raise Unread for a number that is one of several, or that a word turns into another number."""
    listed = _LISTED.search(left) or (words and _SPACED.search(left))
    if listed and not _EQUALS.search(left):
        raise Unread("one of several numbers")
    if _APPLIED.search(left):
        raise Unread("a number in words")
    if OTHER.match(right):
        raise Unread("a number in words")


def _behind(right: str, money: bool) -> str:
    """The words behind a number that are part of it (million), and its unit, if the words there are a unit's."""
    large, end = "", 0
    while match := _LARGE.match(right, end):
        large, end = f"{large} {(match[1] or match[2]).casefold()}", match.end()
    match = _UNIT.match(right[end:])
    if match is None:
        return large
    unit = match[0].strip()
    if unit in tuple("€£¥₹¢$"):
        return large if money else f"{large} {unit}"
    names = [word for word in re.findall(r"[a-zA-Z]+", unit) if word.casefold() not in ("square", "cubic", "per")]
    is_unit_text = unit[:1] in ("%", "\\", "°") or (names and all(is_unit(word) or word in SHORT for word in names))
    return large + (match[0] if is_unit_text or unit.casefold().startswith("degree") else "")


def _line(text: str, start: int, end: int) -> tuple[int, int]:
    """The part of a number's line that may belong to it."""
    left = max(text.rfind("\n", 0, start) + 1, start - CONTEXT)
    right = text.find("\n", end)
    return left, min(len(text) if right < 0 else right, end + CONTEXT)


def _within_brackets(line: str, at: int) -> bool:
    """True if a place is between brackets that hold no words: (3, 4), [0, 1)."""
    opened = max(line.rfind("(", 0, at), line.rfind("[", 0, at), line.rfind("{", 0, at))
    if opened < 0 or re.search(r"[)\]}]", line[opened:at]):
        return False
    inner = re.match(r"[^)\]}]*", line[opened + 1 :])
    assert inner is not None
    return not _WORD.search(inner[0]) and bool(re.search(r"[,;\\]", inner[0]))


def _expression(line: str, at: int, until: int) -> str:
    """The mathematics around a place of a line: up to the nearest words, or the end of the sentence."""
    words = [match.end() for match in _WORD.finditer(line, 0, at)]
    left = words[-1] if words else 0
    right = next((match.start() for match in _WORD.finditer(line, until)), len(line))
    ended = re.search(r"\.\s", line[until:right])
    return line[left : until + ended.start() if ended else right]


def last_side(text: str) -> str:
    """The text behind the last sign of equality that is outside all brackets."""
    depth, cut = 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "=" and depth <= 0 and text[place - 1 : place] not in ("<", ">", "!"):
            cut = place + 1
    return text[cut:].strip()
