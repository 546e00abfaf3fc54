"""The text behind a number: units as a factor and powers of what they measure, and words that count things."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from truing.rewards.answers import Unread
from truing.rewards.answers.exact import ONE, PI, Value, power, rational

LENGTH, MASS, TIME, MONEY, VOLUME, ANGLE = "length", "mass", "time", "money", "volume", "angle"
_TABLE = {
    LENGTH: {
        "mm millimeter millimetre": "1/1000", "cm centimeter centimetre": "1/100", "dm decimeter decimetre": "1/10",
        "m meter metre": "1", "km kilometer kilometre": "1000", "in inch inche": "127/5000", "ft foot feet": "381/1250",
        "yd yard": "1143/1250", "mi mile": "201168/125",
    },
    MASS: {
        "mg milligram": "1/1000000", "g gram gramme": "1/1000", "kg kilogram kilo": "1", "tonne": "1000",
        "lb pound": "45359237/100000000", "oz ounce": "45359237/1600000000",
    },
    TIME: {
        "ms millisecond": "1/1000", "s sec second": "1", "min minute": "60", "h hr hour": "3600", "day": "86400",
        "week": "604800",
    },
    MONEY: {"dollar usd buck": "1", "cent penny pennie": "1/100"},
    VOLUME: {"ml milliliter millilitre": "1/1000", "l liter litre": "1", "gal gallon": "473176473/125000000"},
}  # fmt: skip
KNOWN = {
    name: (Fraction(factor), kind)
    for kind, units in _TABLE.items()
    for names, factor in units.items()
    for name in names.split()
}
PREFIXES = {"": "1", "kilo": "1000", "mega": "1000000", "giga": "1000000000", "milli": "1/1000", "micro": "1/1000000"}
KNOWN |= {
    prefix + name: (Fraction(factor), name)
    for name in ("volt", "ampere", "watt", "newton", "joule", "hertz", "pascal", "ohm", "kelvin")
    for prefix, factor in PREFIXES.items()
}
WRITTEN_OUT = {
    "mph": "mile / hour",
    "kmh": "km / hour",
    "kph": "km / hour",
    "sq": "square",
    "cu": "cubic",
    "each": "",
    "celsius": "c",
    "fahrenheit": "f",
}
SIGNS = {
    "$": "dollar",
    "€": "euro",
    "£": "sterling",
    "¥": "yen",
    "₹": "rupee",
    "¢": "cent",
    "%": "percent",
    "°": "degree",
}
CURRENCIES = frozenset(("yen", "rupee", "yuan", "peso", "ruble", "rouble", "franc", "sterling"))
LARGE = {
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "lakh": 10**5,
    "crore": 10**7,
}
"""Words that are part of the number."""
PARTS = re.compile(
    r"half|halves|(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|hundredth|thousandth|millionth)s?|factorial"
)
"""Words that make another number of the one before them, and are no units."""
SHORT = {name: name for name in KNOWN if len(name) == 1} | {
    "L": "l", "V": "volt", "A": "ampere", "W": "watt", "N": "newton", "J": "joule", "C": "c", "F": "f", "Ω": "ohm",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "Pa": "pascal", "kPa": "kilopascal",
    "kW": "kilowatt", "MW": "megawatt", "kV": "kilovolt", "mV": "millivolt", "mA": "milliampere", "kN": "kilonewton",
    "kJ": "kilojoule", "MJ": "megajoule", "mW": "milliwatt", "MPa": "megapascal",
}  # fmt: skip
"""Signs of units that may as well be letters, as words. K and M are none: they may be thousands and millions."""
FILLED = frozenset(("a", "an", "the", "of", "in", "total", "more", "different", "possible", "distinct"))
"""Words that do not change a unit."""
PART = re.compile(r"\s*(?:([a-z]+)\.?|([/·*⋅])|\^?\s*\{?\s*(-?\d)\s*\}?|([$€£¥₹¢%°]))\s*")


@dataclass(frozen=True)
class Unit:
    """A unit: its factor to the base unit, and the powers of what it measures. A word that is in no table measures
    itself."""

    factor: Value
    measures: tuple[tuple[str, int], ...]

    @property
    def share(self) -> bool:
        """True if it is a plain factor of the number: a percent, a degree."""
        return all(name in ("percent", ANGLE) for name, _ in self.measures)

    @property
    def percent(self) -> bool:
        """True if it is a percent sign."""
        return self.measures == (("percent", 1),)


def unit(text: str) -> Unit | None:
    """The unit that a text names, None for one that names nothing. Unread where it is no unit.

    >>> unit("square feet") == unit("ft^2"), unit("cm") == unit("m"), unit("km per hour") == unit("km/h")
    (True, False, True)
    """
    parts = _parts(text)
    if any(PARTS.fullmatch(word) for word in parts):
        raise Unread(f"{text!r} behind a number")
    powers: dict[str, int] = {}
    factor, over, every, i = ONE, 1, 1, 0
    while i < len(parts):
        word, i = parts[i], i + 1
        if word in ("/", "per"):
            over = -1
        elif word in ("square", "squared", "cubic", "cubed"):
            times = 2 if word.startswith("squ") else 3
            if word.endswith("ed"):
                raise Unread(f"the unit {text!r}")
            every = times
        elif word not in "·*⋅" and word not in FILLED:
            times = every * over
            if i < len(parts) and re.fullmatch(r"-?\d", parts[i]):
                times, i = times * int(parts[i]), i + 1
            each, kind = named(word)
            factor = factor * power(each, rational(times))
            powers[kind] = powers.get(kind, 0) + times
            every = 1
    measures = tuple(sorted((kind, times) for kind, times in powers.items() if times))
    return Unit(factor, measures) if measures else None


def named(word: str) -> tuple[Value, str]:
    """The factor of a unit's name to the base unit, and what it measures."""
    if word in ("degree", "deg", "degrees"):
        return PI / rational(180), ANGLE
    if word in ("radian", "radians", "rad"):
        return ONE, ANGLE
    if word in ("percent", "percentage"):
        return rational(Fraction(1, 100)), "percent"
    for name in (word, word.removesuffix("s"), word.removesuffix("es")):
        if name in KNOWN:
            factor, kind = KNOWN[name]
            return rational(factor), kind
    return ONE, singular(word)


def singular(word: str) -> str:
    """A word for one of what it names, near enough to compare it with itself."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 2 else word


def is_unit(word: str) -> bool:
    """True if a word is the name of a unit, and not any word."""
    plain = word.casefold().rstrip(".")
    more = {
        *WRITTEN_OUT,
        "unit",
        "degree",
        "deg",
        "radian",
        "rad",
        "percent",
        "square",
        "cubic",
        "per",
        "euro",
        *CURRENCIES,
    }
    return any(name in KNOWN or name in more for name in (plain, plain.removesuffix("s"), plain.removesuffix("es")))


def _parts(text: str) -> list[str]:
    """The words, signs and powers of a unit. Of several words that are in no table the last one counts."""
    rest, words = text.casefold().replace("-", " ").strip(" .,;:!~"), list[str]()
    while rest:
        match = PART.match(rest)
        if match is None or not match[0]:
            raise Unread(f"the unit {text!r}")
        word, sign, times, currency = match.groups()
        written = WRITTEN_OUT.get(word, word) if word else SIGNS[currency] if currency else sign or times
        words += written.split()
        rest = rest[match.end() :]
    plain = [i for i, word in enumerate(words) if word.isalpha() and not is_unit(word)]
    return [word for i, word in enumerate(words) if i not in plain[:-1]]
