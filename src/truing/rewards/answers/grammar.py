"""One expression of an answer, from its tokens to an exact value, and the unit behind it.

A product needs no sign; a fraction behind a whole number is a mixed number where it is one of digits. An expression
with two readings (1/2x, x2, 3 4) is not read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from truing.rewards.answers import Unread, exact, units
from truing.rewards.answers.exact import ONE, PI, Value, rational
from truing.rewards.answers.numeric import APPLIED, combinations, whole
from truing.rewards.answers.tokens import END, Token

DEEPEST = 40
"""The deepest nesting of expressions."""
FUNCTIONS = {
    "sin": "sin", "cos": "cos", "tan": "tan", "cot": "cot", "sec": "sec", "csc": "csc", "sinh": "sinh", "cosh": "cosh",
    "tanh": "tanh", "ln": "ln", "log": "log", "exp": "exp", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
}  # fmt: skip
INVERSE = {"sin": "asin", "cos": "acos", "tan": "atan"}
GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "phi", "varphi", "chi", "psi", "omega", "Gamma", "Delta",
    "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
))  # fmt: skip
MIXED = re.compile(r"(?:frac (?:\{ (\d+) \}|(\d)) (?:\{ (\d+) \}|(\d))|(\d+) / (\d+))(?: .*)?")
"""The fraction of digits behind a whole number, in tokens with spaces between them."""
CLOSING = {"(": ")", "[": "]", "{": "}"}
MONEY = ("$", "€", "£", "¥", "₹")
TIMES, OVER, SIGNED = ("*", "cdot", "times"), ("/", "div"), ("+", "-", "pm", "mp")


@dataclass(frozen=True)
class Quantity:
    """A value with the unit it is given in, if any."""

    value: Value
    unit: units.Unit | None = None
    capitals: str = ""
    """Its letters, if it is capitals side by side, which may be a word or a code: BCD is no BDC."""


class Grammar:
    """A parser of the tokens of one expression; `sign` is the sign that a plus-or-minus takes, `both` is True if there
    was one."""

    def __init__(self, tokens: Sequence[Token], sign: int = 1) -> None:
        self.tokens, self.sign = [t for t in tokens if t.kind != "end"], sign
        self.place, self.both, self.deep, self.angle, self.bars = 0, False, 0, False, 0

    @property
    def next(self) -> Token:
        """The token that is read next."""
        return self.tokens[self.place] if self.place < len(self.tokens) else END

    def take(self, *texts: str) -> str:
        """The next token's text where it is one of these signs or commands, which is then read; else nothing."""
        if self.next.kind in ("sign", "command") and self.next.text in texts:
            self.place += 1
            return self.tokens[self.place - 1].text
        return ""

    def need(self, text: str) -> None:
        """Consume a sign that has to be there."""
        if not self.take(text):
            raise Unread(f"'{self.next.text}' where '{text}' was to be")

    def quantity(self) -> Quantity:
        """All tokens as a value with its unit."""
        before = [t.text for t in self.tokens[:2] if t.kind == "sign"]
        signed = len(before) == 2 and before[0] in "+-" and before[1] in MONEY
        turned = signed and before[0] == "-"
        self.place += signed
        money = units.SIGNS.get(self.take(*MONEY), "")
        value = self.expression()
        words = self._unit_words()
        for word in words.casefold().split():
            if word in units.LARGE:
                value = value * rational(units.LARGE[word])
        rest = " ".join(word for word in words.split() if word.casefold() not in units.LARGE)
        named = units.unit(f"{money} {rest}") if money and rest.strip() else units.unit(money or rest)
        if money and rest.strip():
            behind = units.unit(rest)
            named = units.unit(money) if behind is None or behind == units.unit(money) else named
        return Quantity(-value if turned else value, named)

    def _unit_words(self) -> str:
        """The rest of the tokens as the text of a unit."""
        text = ""
        for token in self.tokens[self.place :]:
            plain = token.kind in ("word", "text") or (token.kind == "sign" and token.text in "/^{}°%*¢€£¥₹$")
            digit = token.kind == "number" and text.rstrip().endswith(("^", "{", "-"))
            behind = token.kind == "letter" and text.rstrip().endswith(("/", "°"))
            if not (plain or digit or behind or token.text in ("-", "cdot")):
                raise Unread(f"'{token.text}' behind an expression")
            text += " " + ("*" if token.text == "cdot" else token.text)
        self.place = len(self.tokens)
        return re.sub(r"([\^{-]) (?=[\d{-])", r"\1", text)

    def expression(self) -> Value:
        """A sum."""
        self.deep += 1
        if self.deep > DEEPEST:
            raise Unread("expressions too deep in each other")
        total, sign = rational(0), self._signs()
        while True:
            term = self.product()
            total = total + (term if sign > 0 else -term)
            if self.next.text not in SIGNED or self.next.kind not in ("sign", "command"):
                self.deep -= 1
                return total
            sign = self._signs()

    def _signs(self) -> int:
        sign, start = 1, self.place
        while mark := self.take(*SIGNED):
            if self.place - start > 2:
                raise Unread("several signs behind each other")
            if mark in ("pm", "mp"):
                self.both = True
                sign *= self.sign if mark == "pm" else -self.sign
            sign *= -1 if mark == "-" else 1
        return sign

    def product(self) -> Value:
        """A product or a quotient."""
        value, divided = self.factor(), False
        while True:
            if self.next.text in TIMES and self._joins() and self.take(*TIMES):
                value, divided = value * self._signed(), False
            elif self.next.text in OVER and self._joins():
                if divided:
                    raise Unread("a quotient of a quotient, which has two readings")
                self.place += 1
                value, divided = value / self._signed(), True
            elif self._begins():
                if divided:
                    raise Unread("a quotient before a factor, which has two readings")
                value = value * self.factor()
            else:
                return value

    def _joins(self) -> bool:
        """True if a slash or a dot is one between values, not between units."""
        behind = self.tokens[self.place + 1 : self.place + 2]
        return bool(behind) and behind[0].kind not in ("word", "text")

    def _signed(self) -> Value:
        return self.factor() if self._signs() > 0 else -self.factor()

    def _begins(self) -> bool:
        """True if the next token begins a factor, behind another one."""
        token = self.next
        if token.kind == "number":
            raise Unread("a number behind a factor")
        if token.kind == "letter" or (token.kind == "sign" and token.text in ("(", "[", "{")):
            return True
        if token.text == "|":
            return not self.bars
        return token.kind == "command" and (token.text in FUNCTIONS or token.text in GREEK or token.text in COMMANDS)

    def factor(self) -> Value:
        """A value with the power or factorial behind it."""
        value = self.primary()
        while True:
            if self.take("!"):
                value = self._factorial(value)
            elif self.take("^"):
                value = exact.power(value, self._exponent())
                if self.next.text == "^":
                    raise Unread("a power of a power, which has two readings")
            elif self.angle and self.take("°"):
                value = value * PI / rational(180)
            else:
                return value

    def _exponent(self) -> Value:
        if self.next.text == "{":
            return self.grouped("{")
        return self._signs_before_primary()

    def _signs_before_primary(self) -> Value:
        sign = self._signs()
        return self.primary() if sign > 0 else -self.primary()

    def _factorial(self, value: Value) -> Value:
        n = whole(value)
        if n is None:
            return exact.function("factorial", value)
        if not 0 <= n <= 5000:
            raise Unread("a factorial that is too large")
        product = 1
        for k in range(2, n + 1):
            product *= k
        return rational(product)

    def grouped(self, opening: str) -> Value:
        """The expression between two brackets."""
        self.need(opening)
        bars, self.bars = self.bars, 0
        value = self.expression()
        self.bars = bars
        self.need(CLOSING[opening])
        return value

    def primary(self) -> Value:
        """A number, a letter, a bracket, or a command with its arguments."""
        token = self.next
        if token.kind == "number":
            return self._number()
        if token.kind == "letter":
            self.place += 1
            return self._letter(token.text)
        if token.kind == "sign" and token.text in CLOSING:
            return self.grouped(token.text)
        if self.take("|"):
            return self._between_bars()
        if token.kind == "command":
            self.place += 1
            return self._of_command(token.text)
        raise Unread(f"'{token.text}' where a value was to be" if token is not END else "a value that is missing")

    def _number(self) -> Value:
        text = self.next.text
        self.place += 1
        if "." in text and self.next.text == "overline":
            return self._repeating(text)
        if self.next.text in ("ldots", "cdots") or (self.next.text == "." and "." in text):
            raise Unread("a number that goes on")
        if len(text) > 1 and text[0] == "0" and text.isdigit() and len(self.tokens) > 1:
            raise Unread(f"'{text}', which is no number by itself")
        try:
            value = rational(Fraction(text))
        except ValueError as problem:
            raise Unread("a number that is too large") from problem
        return value + self._mixed() if text.isdigit() else value

    def _mixed(self) -> Value:
        """The fraction behind a whole number where both make a mixed number; else 0."""
        ahead = [t.text for t in self.tokens[self.place : self.place + 8]]
        match = MIXED.fullmatch(_spaced_digits(ahead))
        if match is None:
            return rational(0)
        above, below = (int(digits) for digits in match.groups() if digits is not None)
        if not 0 < above < below:
            raise Unread("a fraction behind a whole number, which has two readings")
        if self.next.text == "frac":
            self.place += 1
            return self.fraction()
        self.place += 3
        return rational(Fraction(above, below))

    def _repeating(self, text: str) -> Value:
        """A decimal whose last digits go on for ever."""
        self.place += 1
        digits = self._raw_group()
        if not digits.isdigit():
            raise Unread("a decimal that goes on with no digits")
        before = len(text.partition(".")[2])
        tail = Fraction(int(digits), (10 ** len(digits) - 1) * 10**before)
        return rational(Fraction(text.rstrip(".") or "0") + tail)

    def _raw_group(self) -> str:
        """The tokens of a group as text."""
        self.need("{")
        start = self.place
        while self.next.text not in ("}", ""):
            self.place += 1
        self.need("}")
        return "".join(t.text for t in self.tokens[start : self.place - 1])

    def _letter(self, name: str) -> Value:
        if self.next.text == "_":
            self.place += 1
            name += "_" + (self._raw_group() if self.next.text == "{" else self.next.text)
            if not name.endswith("_") and self.tokens[self.place - 1].text != "}":
                self.place += 1
            return exact.letter(name)
        if name in APPLIED and self.next.text == "(" and not self.next.spaced:
            return exact.function(f"apply {name}", self.grouped("("))
        return exact.constant(name) if name in ("e", "i") else exact.letter(name)

    def _between_bars(self) -> Value:
        self.bars += 1
        value = self.expression()
        self.need("|")
        self.bars -= 1
        return rational(abs(value.number)) if value.number is not None else exact.function("abs", value)

    def _of_command(self, name: str) -> Value:
        if name in FUNCTIONS:
            return self._function(FUNCTIONS[name])
        if name in GREEK:
            return self._letter(name)
        if name not in COMMANDS:
            raise Unread(f"'\\{name}'")
        return COMMANDS[name](self)

    def _argument(self) -> Value:
        """The argument of a command: a group, or one digit or letter."""
        if self.next.text == "{":
            return self.grouped("{")
        token = self.next
        if token.kind == "number" and token.text.isdigit() and len(token.text) > 1:
            self.tokens[self.place] = Token("number", token.text[1:])
            return rational(int(token.text[0]))
        return self.primary()

    def fraction(self) -> Value:
        """The fraction behind \\frac."""
        above = self._argument()
        return above / self._argument()

    def square_root(self) -> Value:
        """The root behind \\sqrt, of any degree."""
        degree = self.grouped("[") if self.next.text == "[" else rational(2)
        inner = self.grouped(self.next.text) if self.next.text in ("{", "(") else self.primary()
        odd = (whole(degree) or 0) % 2 == 1
        if odd and inner.number is not None and inner.number < 0:
            return -exact.power(-inner, ONE / degree)
        return exact.power(inner, ONE / degree)

    def binomial(self) -> Value:
        """The binomial coefficient behind \\binom."""
        n, k = whole(self._argument()), whole(self._argument())
        if n is None or k is None:
            raise Unread("a binomial of what is no number")
        return rational(combinations(n, k))

    def rounded(self, name: str) -> Value:
        """The rounded value behind \\lfloor or \\lceil."""
        value = self.expression()
        self.need(f"r{name}")
        number = value.number
        if number is None:
            return exact.function(name, value)
        return rational(number.__floor__() if name == "floor" else number.__ceil__())

    def overline(self) -> Value:
        """The text behind \\overline, as a name."""
        return exact.letter("overline " + self._raw_group())

    def _function(self, name: str) -> Value:
        """A function's value: sin 3x, sin^2(x), log_2 8."""
        base: tuple[Value, ...] = ()
        if name == "log" and self.take("_"):
            base = (self._argument(),)
        to = self._exponent() if self.take("^") else None
        if to is not None and whole(to) == -1:
            name, to = INVERSE.get(name, ""), None
        if not name or (to is not None and (whole(to) or 0) < 1):
            raise Unread("a power of a function")
        angle, self.angle = self.angle, True
        if self.next.text in ("(", "{", "["):
            inner = self.factor()
        else:
            inner = self.factor()
            while self._begins() and self.next.text not in FUNCTIONS and self.next.text != "(":
                inner = inner * self.factor()
        self.angle = angle
        if name == "exp":
            value = exact.power(exact.constant("e"), inner)
        else:
            value = exact.function(name, inner, *base)
        return value if to is None else exact.power(value, to)


def _spaced_digits(ahead: list[str]) -> str:
    """Tokens with spaces between them; the two digits of \\frac12 are two."""
    if ahead[:1] == ["frac"] and re.fullmatch(r"\d\d", ahead[1] if ahead[1:] else ""):
        ahead = ["frac", *ahead[1], *ahead[2:]]
    return " ".join(ahead)


COMMANDS: dict[str, Callable[[Grammar], Value]] = {
    "frac": Grammar.fraction,
    "sqrt": Grammar.square_root,
    "binom": Grammar.binomial,
    "dbinom": Grammar.binomial,
    "tbinom": Grammar.binomial,
    "lfloor": lambda grammar: grammar.rounded("floor"),
    "lceil": lambda grammar: grammar.rounded("ceil"),
    "overline": Grammar.overline,
    "pi": lambda grammar: PI,
    "infty": lambda grammar: exact.INFINITY,
}
