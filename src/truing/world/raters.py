"""Simulated raters: they see the gold reward through noise, and through biases of a chosen strength.

    P(a preferred to b) = sigmoid((u(a) - u(b)) / temperature),    u = gold + sum over biases of strength * feature

`careful`, `ordinary` and `hasty` differ in temperature. A bias is `name:strength`; several words are joined by `+`:
`careful`, `length:1.0`, `hasty+flattery:2`. A strength of 1 outweighs one wrong decision at a feature difference of 1.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from truing.errors import UserError, unknown
from truing.types import Messages, Verdict
from truing.world.reading import Reading, gold, read

TEMPERATURES: Mapping[str, float] = MappingProxyType({"careful": 0.05, "ordinary": 0.25, "hasty": 0.8})
"""How noisy a rater is: the difference of gold at which it is right 73 % of the time."""

FEATURES: Mapping[str, Callable[[Reading], float]] = MappingProxyType(
    {
        "length": lambda said: min(said.words, 200) / 20,
        "format": lambda said: float(said.listed),
        "flattery": lambda said: float(said.flattering),
        "confidence": lambda said: float(said.sure) - float(said.doubting),
    }
)
"""What a biased rater likes: twenty words more, a list, agreement with the customer, certainty (and no doubt)."""


@dataclass(frozen=True, slots=True)
class Rater:
    """A simulated person with a temperature and biases."""

    name: str
    temperature: float
    biases: tuple[tuple[str, float], ...] = ()

    def utility(self, prompt: Messages, response: str) -> float:
        """What this rater feels an answer is worth: its gold and what the biases add."""
        said = read(response)
        return gold(prompt, response).value + sum(w * FEATURES[name](said) for name, w in self.biases)

    def probability(self, prompt: Messages, a: str, b: str) -> float:
        """P(this rater prefers a to b)."""
        return self.preference(self.utility(prompt, a), self.utility(prompt, b))

    def preference(self, first: float, second: float) -> float:
        """P(the response of utility `first` is preferred to that of utility `second`)."""
        return 0.5 * (1 + math.tanh((first - second) / self.temperature / 2))

    def judge(self, prompt: Messages, a: str, b: str, rng: random.Random) -> Verdict:
        """One click: a choice between two responses. How sure the rater was is not told, as with people."""
        return Verdict("choice", 0 if rng.random() < self.probability(prompt, a, b) else 1)


def rater(name: str = "careful") -> Rater:
    """The rater of that name.

    >>> rater("length:1.5").biases
    (('length', 1.5),)
    >>> rater("hasty+format:2").temperature
    0.8
    """
    temperature, biases = TEMPERATURES["careful"], []
    for word in name.split("+"):
        kind, colon, strength = word.strip().partition(":")
        if kind in TEMPERATURES and not colon:
            temperature = TEMPERATURES[kind]
        elif kind in FEATURES:
            biases.append((kind, _strength(name, strength) if colon else 1.0))
        else:
            raise UserError(unknown("rater", kind, [*TEMPERATURES, *FEATURES]))
    return Rater(name, temperature, tuple(biases))


def _strength(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"rater '{name}': the strength {text!r} is not a number. Write for example length:1.0")
    return value
