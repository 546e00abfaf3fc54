"""A text without its disguises: the words of a question whatever its letters, case, accents, punctuation and frame."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
}
BEFORE = frozenset(
    {"please", "kindly", "could", "can", "would", "will", "you", "tell", "me", "us", "answer", "the", "following"}
    | {"this", "hello", "hi", "hey", "dear", "assistant"}
)
"""Words of courtesy in front of a question; without them it asks the same."""
BEHIND = frozenset({"please", "thanks", "thank", "you", "very", "much", "so", "in", "advance"})
"""Words of courtesy behind a question."""
LOOKS_LIKE = str.maketrans(
    "АВЕЅЗІЈКМНОРСТУХЬаѕеіјорсухԁһԛԝΑΒΕΖΗΙΚΜΝΟΡΤΥΧαεικνορτυχıɑɡ",
    "ABES3IJKMHOPCTYXbaseijopcyxdhqwABEZHIKMNOPTYXaeikvoptuxiag",
)
"""Cyrillic, Greek and phonetic letters that are drawn as a Latin one."""
SIGNS = str.maketrans(
    {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "—": "-", "∕": "/", "⁄": "/", "’": "'", "ʼ": "'"}
    | {"≠": "!=", "≤": "<=", "≥": ">="}
)
BLANK = re.compile("[ᅟᅠㅤ⠀\ufe00-\ufe0f]")
"""Letters and marks that nothing is drawn for."""
MARKS = re.compile("[\u0300-\u036f]")
"""Accents of Latin, Greek and Cyrillic letters. Marks of other scripts are vowels, and stay."""
MARKUP = re.compile(r"[_`~#|]+")
TAG = re.compile(r"<(/?)([a-z][a-z0-9]*)\b[^<>]{0,80}>", re.IGNORECASE)
FORMATS = frozenset(
    {"b", "i", "u", "em", "strong", "p", "div", "span", "code", "pre", "q", "blockquote", "sup", "sub", "font"}
    | {"small", "big", "mark", "tt", "center", "h1", "h2", "h3", "h4", "h5", "h6"}
)
"""Tags that a text is dressed with, where they are closed in it; others may be what is asked about."""
NEGATIVE = re.compile(r"(?:^|(?<=[\s(=+*/^<>,]))-(?=\d|[a-z]\b)", re.IGNORECASE)
OPERATOR = re.compile(r"(?<![-=!<>&|+*/:])(?:!=|==|<=|>=|&&|\|\||->|=>|::|[-+*/]=)(?![-=!<>&|+*/:])")
OPERATORS = {"!=": "signne", "==": "signeq", "<=": "signle", ">=": "signge", "&&": "signand", "||": "signor"}
OPERATORS |= {"->": "signto", "=>": "signso", "::": "signof", "<": "signlt", ">": "signgt"}
OPERATORS |= {"+=": "signadd", "-=": "signsub", "*=": "signmul", "/=": "signdiv"}
ORDER = re.compile(r"(?<=\w)\s*([<>])\s*(?=\w)")
LANGUAGE = re.compile(r"\b([a-z])(\+\+|#)(?!\w)", re.IGNORECASE)
ESCAPE = re.compile(r"\\([a-z])([+*?])", re.IGNORECASE)
MONEY = re.compile(r"\$(?=\d)")
SYMBOLS = {"+": "plus", "*": "star", "?": "maybe", "++": "plusplus", "#": "sharp"}
SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|[\n\r\"“”„«»「」]+|[:：]\s+")
"""Boundaries at which a question may begin or end within a turn."""
BRACKET = re.compile(r"(?<![^\s*])[()\[\]{}<>](?:\s*[()\[\]{}<>])*(?![^\s.,;:!?*])")
BRACKETS = {"(": "iround", ")": "oround", "[": "isquare", "]": "osquare"}
BRACKETS |= {"{": "icurly", "}": "ocurly", "<": "iangle", ">": "oangle"}
"""Brackets that stand alone, as in `[ ( ) ]`, are what is asked about; those at a word are punctuation."""
TOKEN = re.compile(
    r"\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d+(?:\.\d+)*"
    r"|[¢-¥¬±\u20a0-\u20cf\u2190-\u24ff\u2600-\u2bff\U0001f000-\U0001faff]"
    r"|[぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿]"
    r"|[^\W\d_぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿](?:[^\W\d_]|['\u0900-\u0dff\u0610-\u06ed\u0591-\u05c7])*"
    r"|[-+*/^%=<>()]"
)
"""Numbers, signs of money, logic, mathematics and pictures, letters of scripts that are written without blanks, words,
and signs that may be arithmetic."""
REMEMBERED = 300
"""Sentences of so many letters are remembered with their tokens; longer ones seldom come again."""
ARITHMETIC = frozenset("+-*/^%=<>")
SIGN = ARITHMETIC | frozenset("()")


def segments(text: str) -> list[list[str]]:
    """The tokens of a text, sentence by sentence: lower-case words without accents, numbers, and the signs between
    numbers.

    >>> segments('Ｗｈａｔ is  "3−4"?')
    [['what', 'is'], ['3', 'minus', '4']]
    """
    sentences = SENTENCE.split(plain(text))
    parts = (list(_remembered(s)) if len(s) <= REMEMBERED else tokens_of(s) for s in sentences)
    return [part for part in parts if part]


@lru_cache(maxsize=2**14)  # system messages, requests and courtesies come again from row to row
def _remembered(sentence: str) -> tuple[str, ...]:
    return tuple(tokens_of(sentence))


def plain(text: str) -> str:
    """A text in the letters that it is read in: compatible forms, look-alikes, accents, entities and what is invisible
    are resolved."""
    if "&" in text:
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(SIGNS))
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
        text = MARKS.sub("", unicodedata.normalize("NFD", BLANK.sub("", text)))
        text = unicodedata.normalize("NFC", "".join(map(digit, text)))
        text = re.sub(r"\w+", lambda word: latin(word[0]), text).translate(SIGNS)
    return text


def digit(letter: str) -> str:
    """A digit of any script as one of ours; any other letter as it is.

    >>> digit("٣")
    '3'
    """
    value = unicodedata.decimal(letter, None) if not letter.isascii() else None
    return letter if value is None else str(value)


def latin(word: str) -> str:
    """A word with its look-alikes as Latin letters, where no other letters are left then.

    >>> latin("сар"), latin("Москва")
    ('cap', 'Москва')
    """
    if word.isascii():
        return word
    other = word.translate(LOOKS_LIKE)
    return other if all(c.isascii() or "LATIN" in unicodedata.name(c, "") for c in other) else word


def tokens_of(text: str) -> list[str]:
    """The tokens of a sentence. A sign counts where it is arithmetic: between numbers, brackets or single letters.

    >>> tokens_of("**What** is -5 + x?"), tokens_of("- a well-known rule")
    (['what', 'is', 'minus', '5', '+', 'x'], ['a', 'well', 'known', 'rule'])
    >>> tokens_of("( a ) (b)") == tokens_of("(a) b")
    False
    """
    tokens = TOKEN.findall(BRACKET.sub(named, NEGATIVE.sub(" minus ", MARKUP.sub(" ", spelt(text)))).casefold())
    if not any(token in SIGN for token in tokens):
        return [word(token) for token in tokens]
    words: list[str] = []
    before, behind = operands(tokens), operands(tokens[::-1])[::-1]
    for place, token in enumerate(tokens):
        if token not in SIGN:
            words.append(word(token))
        elif token in "()":
            beside = tokens[max(0, place - 1) : place + 2]
            words += [token] if any(t in ARITHMETIC for t in beside) else []
        elif before[place] and behind[place]:
            words.append("minus" if token == "-" else token)
    return words


def spelt(text: str) -> str:
    """A text with the signs as words that programmers and mathematicians tell questions apart by, and without the tags
    that it is dressed with.

    >>> spelt("sort in C++, <b>not</b> C#; is a <= b the <table> tag")
    'sort in Cplusplus,  not  Csharp; is a  signle  b the  table  tag'
    """
    if "<" in text:
        closed = {match[2].lower() for match in TAG.finditer(text) if match[1]} & FORMATS | {"br"}
        text = TAG.sub(lambda tag: " " if tag[2].lower() in closed else f" {tag[2]} ", text)
    text = LANGUAGE.sub(lambda match: match[1] + SYMBOLS[match[2]], text)
    text = ESCAPE.sub(lambda match: f" {match[1]}{SYMBOLS[match[2]]} ", text)
    text = OPERATOR.sub(lambda match: f" {OPERATORS[match[0]]} ", text)
    text = ORDER.sub(lambda match: f" {OPERATORS[match[1]]} ", text)
    return MONEY.sub(" dollar ", text)


def named(brackets: re.Match[str]) -> str:
    """Brackets as words that no sign is taken for; a single < or > compares, or quotes."""
    if brackets[0] in ("<", ">"):
        return brackets[0]
    return " ".join(BRACKETS[c] for c in brackets[0] if c in BRACKETS)


def operands(tokens: Sequence[str]) -> list[bool]:
    """True for each token before which, signs aside, a number, a bracket or a single letter stands.

    >>> operands(["3", "-", "-", "apples"])
    [False, True, True, True]
    """
    beside, last = [], False
    for token in tokens:
        beside.append(last)
        if token not in ARITHMETIC:
            last = token[:1].isdigit() or (len(token) == 1 and (token in "()" or token.isalpha()))
    return beside


def word(token: str) -> str:
    """A token in one form: numbers in digits without separators, words without apostrophes."""
    if token[0].isdigit():
        return token.replace(",", "")
    token = token.replace("'", "")
    return NUMBERS.get(token, token)


def core(tokens: Sequence[str]) -> tuple[str, ...]:
    """Tokens without words of courtesy at either end, unless fewer than two would be left.

    >>> core("could you please tell me who won thanks".split())
    ('who', 'won')
    """
    first, last = 0, len(tokens)
    while first < last and tokens[first] in BEFORE:
        first += 1
    while last > first and tokens[last - 1] in BEHIND:
        last -= 1
    return tuple(tokens[first:last] if last - first >= 2 else tokens)
