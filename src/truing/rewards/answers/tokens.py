"""The text of an answer, LaTeX or plain, as tokens. Commands that only change its look are dropped."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal, TypeAlias

from truing.rewards.answers import Unread
from truing.rewards.answers.units import SHORT, is_unit

Kind: TypeAlias = Literal["number", "letter", "word", "command", "text", "sign", "end"]
LONGEST = 2000
"""The most characters that an answer may have."""


@dataclass(frozen=True)
class Token:
    """A piece of an answer; `spaced` where white space stands before it."""

    kind: Kind
    text: str
    spaced: bool = False


END = Token("end", "")
_UNICODE = {
    "−": "-", "–": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "π": r"\pi ",
    "∞": r"\infty ", "√": r"\sqrt ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ",
    "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "⟨": r"\langle ", "⟩": r"\rangle ", "θ": r"\theta ",
    "∅": r"\emptyset ", "⁄": "/", "∕": "/", "’": "'",
}  # fmt: skip
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_REWRITTEN = (
    (
        re.compile(
            r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|limits|nolimits|tiny|small|normalsize|large|Large|LARGE|huge|Huge|bf|rm|it)(?![a-zA-Z])"
        ),
        "",
    ),
    (re.compile(r"(?<=\d)\s*(?:,\s*\\!|\{,\}|\\,)\s*(?=\d{3}(?!\d))"), "\x00"),
    (re.compile(r"(?<!\\)\\[,;:!> ]|\\q?quad(?![a-zA-Z])|~|\\(?:hspace|hskip|vspace)\*?\{[^{}]*\}"), " "),
    (re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"(?<!\\)\\([%$])"), r"\1"),
    (re.compile(r"\\(?:[dtcs]|nice)frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"!="), r"\\ne "),
)
_TEXT = re.compile(r"\\(?:text|mbox|hbox|textbf|textit|textrm|textnormal|textsf|mathrm|mathsf|mathit|rm)\s*\{")
_NUMBER = re.compile(
    r"(?:\d+(?:\x00\d{3})+|\d{1,3}(?:,\d{3})+(?!\d|,\d)|\d+)?(?:\.\d+|(?<=\d)\.(?![\d.]))?(?:[eE][-+]?\d{1,3}(?![\d.}]))?"
)
_INSIDE = re.compile(r"(?:\d+(?:\x00\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?![\d.}]))?")
"""A number between brackets, where a comma stands between two of them."""
_COMMAND = re.compile(
    r"\\(begin|end)\s*\{([a-zA-Z]+\*?)\}(?:\{[lcr| ]*\})?|\\operatorname\*?\s*\{([a-zA-Z]+)\}|\\([a-zA-Z]+)\*?"
)
_BOLD = frozenset(("mathbf", "boldsymbol", "bm", "pmb"))
_WRAPPED = _BOLD | {"mathbb", "mathcal", "vec", "hat"}
_NAMES = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "arcsin": "arcsin", "arccos": "arccos", "arctan": "arctan", "ln": "ln", "log": "log", "exp": "exp",
    "sqrt": "sqrt", "pi": "pi", "inf": "infty", "infinity": "infty", "theta": "theta", "alpha": "alpha", "beta": "beta",
}  # fmt: skip
_JOINING = frozenset({"and", "or"})
_SYNONYMS = {
    "lt": "<", "gt": ">", "leq": "le", "geq": "ge", "leqslant": "le", "geqslant": "ge", "neq": "ne", "dots": "ldots",
    "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "land": "and",
    "lor": "or", "varnothing": "emptyset", "ast": "*", "colon": ":", "lvert": "|", "rvert": "|", "vert": "|",
    "mid": "|", "textdollar": "$", "simeq": "approx", "lnot": "not", "infin": "infty", "dollar": "$",
}  # fmt: skip


def tokens(text: str, short_units: bool = False) -> list[Token]:
    """The tokens of an answer, and an END token. With `short_units` a letter behind a number may be a unit
    (5 m); else it is an unknown."""
    if len(text) > LONGEST:
        raise Unread(f"an answer of {len(text)} characters")
    rest, parsed, depth = rewritten(text), list[Token](), 0
    while rest.strip():
        spaced, rest = rest[0].isspace(), rest.lstrip()
        head, length = _next(rest, parsed, depth, spaced, short_units)
        for token in head:
            depth += token.text in ("(", "[", "\\{", "langle") and token.kind != "text"
            depth -= token.text in (")", "]", "\\}", "rangle") and token.kind != "text"
        parsed += head
        rest = rest[length:]
    return [*parsed, END]


def rewritten(text: str) -> str:
    """An answer's text with one spelling for each thing."""
    plain = re.sub(r"(?<=[^\s⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ])([⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+)", lambda m: "^{" + m[1].translate(_RAISED) + "}", text)
    plain = "".join(_UNICODE.get(c) or fraction(c, r"\frac{%s}{%s}") for c in plain)
    plain = undelimited(unicodedata.normalize("NFKC", plain).strip())
    for pattern, to in _REWRITTEN:
        plain = pattern.sub(to, plain)
    return re.sub(r"(?:\\\\|(?<!\.)\.(?!\.)|,|;|!(?<![\w)}]!))+\s*$", "", plain.strip()).strip()


def undelimited(text: str) -> str:
    """A text without the marks of mathematics around its parts: $...$, \\(...\\), \\[...\\]. A dollar before a number
    that no other one closes is money."""
    text = re.sub(r"(?<!\\)\\[()\[\]]", " ", text).strip()
    places = [m.start() for m in re.finditer(r"(?<!\\)\$", text)]
    if len(places) % 2 or any(text[p + 1 : p + 2].isdigit() for p in places[1::2]):
        return text
    return re.sub(r"(?<!\\)\$", " ", text).strip()


def fraction(character: str, form: str) -> str:
    """A character such as ½ as a fraction in a form of two places; any other as it is."""
    if unicodedata.category(character) == "No" and "⁄" in (whole := unicodedata.normalize("NFKC", character)):
        return form % tuple(whole.split("⁄"))
    return character


def _next(rest: str, before: list[Token], depth: int, spaced: bool, short: bool) -> tuple[list[Token], int]:
    """The tokens that a text begins with, and their length."""
    if match := _TEXT.match(rest):
        inner = group(rest, match.end() - 1)
        if inner.strip() in ("", "$", "€", "£", "%"):
            return [Token("sign", c, spaced) for c in inner.strip()], match.end() + len(inner) + 1
        return [Token("text", undelimited(inner), spaced)], match.end() + len(inner) + 1
    match = (_INSIDE if depth else _NUMBER).match(rest)
    if match and match[0]:
        digits = match[0].replace("\x00", "").replace(",", "")
        return [Token("number", digits, spaced)], match.end()
    if rest[0].isalpha():
        run = re.match(r"[a-zA-Z]+(?:'[a-z]+)?|[^\W\d_]", rest)
        assert run is not None
        return _run(run[0], rest[run.end() :], before, spaced, short), run.end()
    if rest.startswith(("\\{", "\\}", "\\|")):
        return [Token("sign", "|" if rest[1] == "|" else rest[:2], spaced)], 2
    if rest.startswith("\\\\"):
        return [Token("sign", "\\\\", spaced)], 2
    if match := _COMMAND.match(rest):
        return _command(match, rest, spaced)
    return [Token("sign", rest[0], spaced)], 1


def _command(match: re.Match[str], rest: str, spaced: bool) -> tuple[list[Token], int]:
    edge, frame, operator, name = match.groups()
    if edge:
        return [Token("command", f"{edge} {frame.rstrip('*')}", spaced)], match.end()
    if operator:
        return [Token("command", operator, spaced)], match.end()
    if name in _WRAPPED:
        brace = re.match(r"\s*\{", rest[match.end() :])
        if brace is None:
            return [], match.end()
        inner = group(rest, match.end() + brace.end() - 1)
        if name in _BOLD:
            return tokens(inner)[:-1], match.end() + brace.end() + len(inner) + 1
        return [Token("letter", f"{name} {inner.strip()}", spaced)], match.end() + brace.end() + len(inner) + 1
    name = _SYNONYMS.get(name, name)
    if not name.isalpha():
        return [Token("sign", {"{": "\\{", "}": "\\}"}.get(name, name), spaced)], match.end()
    return [Token("word" if name in _JOINING else "command", name, spaced)], match.end()


def _run(run: str, behind: str, before: list[Token], spaced: bool, short: bool) -> list[Token]:
    """Letters without a space between them: a function's name, a word, a unit, or unknowns side by side."""
    last = before[-1] if before else END
    if run in _NAMES and (len(run) > 2 or run in ("ln", "pi")):
        return [Token("command", _NAMES[run], spaced)]
    if run in _JOINING and spaced:
        return [Token("word", run, spaced)]
    after = last.kind in ("number", "word", "text") or last.text in ("}", ")", "°", "/", "%", "$")
    times = last.text in ("cdot", "*") and before[-2:-1] != [] and before[-2].kind == "word"
    if short and run in SHORT and (after or times or last.kind == "letter") and last.text not in ("{", "("):
        return [Token("word", SHORT[run], spaced)]
    if len(run) == 1:
        return [Token("letter", run, spaced)]
    vowels = any(c in "aeiouAEIOU" for c in run)
    apart = (spaced or not before) and not re.match(r"[\^_(]", behind)
    if (is_unit(run) and after and not behind.startswith("(")) or (len(run) > 2 and vowels and apart):
        return [Token("word", run, spaced)]
    return [Token("letter", c, spaced and not i) for i, c in enumerate(run)]


def group(text: str, start: int) -> str:
    """The text between the brace at a place and the one that closes it."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] == "\\":
            continue
        if text[place] in "{}" and (place == 0 or text[place - 1] != "\\" or text[place - 2 : place] == "\\\\"):
            depth += 1 if text[place] == "{" else -1
            if not depth:
                return text[start + 1 : place]
    raise Unread("a brace that is not closed")
