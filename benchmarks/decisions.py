"""Decisions by a judge that errs, simulated: how often they ship a policy that is no better.

    make decisions                                # prints the table of docs/conclusions.md
    make decisions KEEP=1                         # and keeps it there

In each decision a judge of known accuracy is tried on labelled pairs, then judges answers to prompts of a policy whose
true win rate is known; its rate is corrected by the accuracy as it was measured (truing.evaluate.corrected). A decision
ships where the judge is believed (the lower end of its accuracy's interval reaches the bound) and the lower end of the
corrected rate lies above one half. Looking again takes fresh prompts and spends alpha: 0.025 at the first look,
0.025 / (k (k - 1)) at the k-th, 0.05 in all however often.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from truing.evaluate.corrected import Mean, corrected_rate, mean_of
from truing.evaluate.intervals import exact
from truing.evaluate.trust import LEAST
from truing.gate.looks import error_of

PAGE, MARKS = Path(__file__).parent.parent / "docs/conclusions.md", ("<!-- table -->\n", "<!-- end -->\n")
ACCURACIES, TRUE_RATES = (0.6, 0.7, 0.85), (0.5, 0.6)
PAIRS, PROMPTS, LOOKS, DECISIONS = 200, 500, 5, 4000
HEADS = ("judge right in", "true win rate", "believed", "ships", "in 5 looks", "interval", "covers", "of all sets")
HEADS += ("where it decides",)


@dataclass(frozen=True)
class Decided:
    """Shares of simulated decisions: in which the judge was believed, that shipped at the first look and within all;
    that had an interval; of these, whose interval covered the truth; of all, whose set of rates did, where it is
    unbounded too; and of those in which something is decided (the judge believed, the rate in [0, 1])."""

    believed: float
    ships: float
    ships_in_looks: float
    bounded: float
    covers: float
    covers_with_unbounded: float
    covers_where_decided: float


def level_of(look: int) -> float:
    """The level of the two-sided interval of a look, whose upper half is the error that a gate lets it spend."""
    return 1 - 2 * error_of(look)


def simulate(accuracy: float, true_rate: float, decisions: int, seed: int, least: float = LEAST) -> Decided:
    """Decisions by a judge of this accuracy on a policy of this true win rate."""
    draws = np.random.default_rng([seed, round(1000 * accuracy), round(1000 * true_rate)])
    chance = accuracy * true_rate + (1 - accuracy) * (1 - true_rate)
    tally = np.zeros(8)
    for _ in range(decisions):
        right = int(draws.binomial(PAIRS, accuracy))
        tried, believed = share(right, PAIRS), exact(right, PAIRS)[0] >= least
        rates = [share(int(draws.binomial(PROMPTS, chance)), PROMPTS) for _ in range(LOOKS)]
        shipped = [believed and ships(rate, tried, level_of(look)) for look, rate in enumerate(rates, start=1)]
        corrected = corrected_rate(rates[0], tried)
        covers = corrected.interval is not None and corrected.interval[0] <= true_rate <= corrected.interval[1]
        decides = believed and corrected.is_rate and corrected.interval is not None
        at_once = (believed, shipped[0], any(shipped), corrected.interval is not None)
        tally += [*at_once, covers, covers or corrected.interval is None, decides, decides and covers]
    shares = (tally / decisions).tolist()
    bounded, decided = shares[3] or math.nan, shares[6] or math.nan  # of no interval no share covers anything
    return Decided(*shares[:4], shares[4] / bounded, shares[5], shares[7] / decided)


def share(successes: int, items: int) -> Mean:
    """A share as a mean of zeros and ones."""
    return mean_of([1.0] * successes + [0.0] * (items - successes))


def ships(rate: Mean, accuracy: Mean, level: float) -> bool:
    """True if the corrected rate lies in [0, 1] and its whole interval above one half."""
    corrected = corrected_rate(rate, accuracy, level)
    return corrected.is_rate and corrected.interval is not None and corrected.interval[0] > 0.5


def lines(decisions: int, seed: int) -> Iterator[str]:
    """The table as Markdown."""
    yield "| " + " | ".join(HEADS) + " |"
    yield "|" + "---:|" * len(HEADS)
    for true_rate in TRUE_RATES:
        for accuracy in ACCURACIES:
            d = simulate(accuracy, true_rate, decisions, seed)
            yield f"| {accuracy:g} | {true_rate:g} | " + " | ".join(f"{100 * x:.1f} %" for x in astuple(d)) + " |"


def main() -> None:
    """Print the table, and with --keep write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=DECISIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    table = "\n".join(lines(args.decisions, args.seed)) + "\n"
    print(table)
    if args.keep:
        before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
        PAGE.write_text(before + MARKS[0] + table + MARKS[1] + rest.split(MARKS[1])[1], encoding="utf-8")


if __name__ == "__main__":
    main()
