"""Simulated raters: they see the gold reward through noise, and through biases of a chosen strength.

    P(a preferred to b) = sigmoid((u(a) - u(b)) / temperature),    u = gold + sum over biases of strength * feature

`careful`, `ordinary` and `hasty` differ in temperature. A bias is `name:strength`; several words are joined by `+`:
`careful`, `length:1.0`, `hasty+flattery:2`. A strength of 1 outweighs one wrong decision at a feature difference of 1.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from truing.errors import UserError, unknown
from truing.records import Messages, Verdict
from truing.world.reading import Reading, gold, read

TEMPERATURES: Mapping[str, float] = MappingProxyType({"careful": 0.05, "ordinary": 0.25, "hasty": 0.8})
"""Noise of a rater: the difference of gold at which it is right 73 % of the time."""

DESIRABLE = 0.8
"""The gold from which on an answer is called desirable: a right decision with one or two small faults."""

FEATURES: Mapping[str, Callable[[Reading], float]] = MappingProxyType(
    {
        "length": lambda reading: min(reading.words, 200) / 20,
        "format": lambda reading: float(reading.listed),
        "flattery": lambda reading: float(reading.flattering),
        "confidence": lambda reading: float(reading.sure) - float(reading.doubting),
    }
)
"""Features that a biased rater likes: twenty words more, a list, agreement with the customer, certainty (and no
doubt)."""


@dataclass(frozen=True, slots=True)
class Rater:
    """A simulated person with a temperature and biases."""

    name: str
    temperature: float
    biases: tuple[tuple[str, float], ...] = ()

    def utility(self, prompt: Messages, response: str) -> float:
        """This rater's utility of an answer: its gold and what the biases add."""
        reading = read(response)
        return gold(prompt, response).value + sum(w * FEATURES[name](reading) for name, w in self.biases)

    def probability(self, prompt: Messages, a: str, b: str) -> float:
        """P(this rater prefers a to b)."""
        return self.preference(self.utility(prompt, a), self.utility(prompt, b))

    def preference(self, first: float, second: float) -> float:
        """P(the response of utility `first` is preferred to that of utility `second`)."""
        return 0.5 * (1 + math.tanh((first - second) / self.temperature / 2))

    def judge(self, prompt: Messages, a: str, b: str, rng: random.Random, ties: float = 0.0) -> Verdict:
        """One click: a choice between two responses, or with `ties` (in units of utility) a tie where they feel
        closer than that. How sure the rater was is not told, as with people."""
        first, second, drawn = self.utility(prompt, a), self.utility(prompt, b), rng.random()
        if drawn < self.preference(first - ties, second):
            return Verdict("choice", 0)
        if ties and drawn < 1 - self.preference(second - ties, first):
            return Verdict("tie")
        return Verdict("choice", 1)

    def rank(self, prompt: Messages, responses: Sequence[str], rng: random.Random) -> Verdict:
        """All responses in order, best first: of any two the chances are those of `probability`."""
        felt = [self.utility(prompt, r) - self.temperature * math.log(rng.expovariate(1)) for r in responses]
        return Verdict("ranking", sorted(range(len(felt)), key=lambda i: -felt[i]))

    def rate(self, prompt: Messages, response: str, rng: random.Random) -> Verdict:
        """A score for each part of the gold (helpful, harmless, honest), from 0 to 1 but for noise and biases.

        A bias colours every part. Noise is normal; both are halved, since the gold's range is twice that of a part.
        """
        true_score = gold(prompt, response)
        bias = self.utility(prompt, response) - true_score.value
        scores = {name: part + (bias + rng.gauss(0, self.temperature)) / 2 for name, part in true_score.parts.items()}
        return Verdict("score", [{name: round(value, 4) for name, value in scores.items()}])

    def label(self, prompt: Messages, response: str, rng: random.Random) -> Verdict:
        """A label of a response: 1 (desirable) where it feels better than one that is worth `DESIRABLE`, else 0."""
        return Verdict("score", [float(rng.random() < self.preference(self.utility(prompt, response), DESIRABLE))])


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
