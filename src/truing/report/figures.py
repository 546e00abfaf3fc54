"""The figures of a training stage, each named after what it is: held out where anything was held out, else a mean over
the last tenth of its updates, weighted by what each update was a mean over. No figure is that of the last step alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from truing.records import Finding, is_number
from truing.report import words

Row = Mapping[str, float]
Interval = tuple[float, float]

WHOLE = "in the whole stage"
COLUMNS = ("learned_tokens", "labelled_steps", "texts", "responses", "groups")
"""Counts in a line of metrics that its means are over; `rows` is the one of all other means."""
BOOKKEEPING = frozenset({"step", "seconds", "tokens", "computed_tokens", "rows", "learning_rate", "round", *COLUMNS})
COUNTED, OF_A_REWARD = frozenset({"failed", "ungrouped", "resampled"}), ("timed_out_", "unread_")
"""Figures that count responses or prompts of a round, some of them for each reward: they have a sum over the stage, and
no mean."""
PLAIN = ("grad_norm", "beta", "multiplier_")
"""Figures of an update that are means over nothing."""
OF_ROUNDS = dict.fromkeys(("kl", "score", "score_deviation", "length", "truncated"), "responses") | {
    "equal_groups": "groups"
}
FIRST = (
    "loss", "score", "score_deviation", "accuracy", "best_first", "margin", "margin_nats", "kl", "length", "truncated",
    "equal_groups", "sampled_entropy",
)  # fmt: skip
UNITS = {"kl": "nats", "sampled_entropy": "nats", "length": "tokens"}
SHOWN = 8  # means on a line of the terminal


@dataclass(frozen=True)
class Term:
    """A term of the objective as the metrics know it: its name, its weight in the loss, and the column that counts what
    its mean is over."""

    name: str
    weight: float = 1.0
    column: str = "rows"


@dataclass(frozen=True)
class Stretch:
    """The last tenth of a stage's updates, at least one of them: their numbers from `first` to `last`, how many, and of
    how many. `means` holds the mean of each metric, `measured` in how many of these updates it was, `broken` those that
    were no number in some. `ends_early` is true where the last one is not the stage's last, but the one whose
    weights are kept."""

    first: int
    last: int
    count: int
    of: int
    means: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, int] = field(default_factory=dict)
    broken: Mapping[str, int] = field(default_factory=dict)
    ends_early: bool = False

    def words(self, name: str = "") -> str:
        """A mean of this stretch in words.

        >>> Stretch(109, 120, 12, 120).words(), Stretch(4, 4, 1, 4).words(), Stretch(1, 1, 1, 1).words()
        ('mean of the last 12 of 120 steps', 'the last of 4 steps', 'the only step')
        """
        measured = self.measured.get(name, self.count)
        whole = f"the {self.of} steps up to the weights that are kept" if self.ends_early else f"{self.of} steps"
        if measured < self.count:
            return f"mean of {measured} of the last {self.count} of {whole}, those that have it"
        if self.count > 1:
            return f"mean of the last {self.count} of {whole}"
        return "the only step" if self.of == 1 and not self.ends_early else f"the last of {whole}"

    def as_json(self) -> dict[str, Any]:
        """The form in summary.json: `steps` from and to, `of` how many updates, `means`; `measured` where some have a
        metric and others not."""
        fewer = {name: count for name, count in self.measured.items() if count < self.count}
        form: dict[str, Any] = {"steps": [self.first, self.last], "of": self.of, "means": dict(self.means)}
        return form | ({"measured": fewer} if fewer else {})


def last_tenth(rows: Sequence[Row], terms: Sequence[Term] = (), upto: int | None = None) -> Stretch | None:
    """The last tenth of a stage's updates by their lines of metrics, or with `upto` of those up to this update, after
    which the weights that are kept were set aside. None where there is no update.

    >>> rows = [{"step": i + 1, "rows": 2 - i % 2, "accuracy": float(i % 2)} for i in range(20)]
    >>> round(last_tenth(rows).means["accuracy"], 3), last_tenth(rows, upto=10).means["accuracy"]
    (0.333, 1.0)
    """
    numbered = [row for row in rows if is_number(row.get("step", 0))]
    before = [row for row in numbered if upto is None or row.get("step", 0) <= upto]
    if not before:
        return None
    tenth = before[-max(1, len(before) // 10) :]
    columns = {term.name: term.column for term in terms}
    names = [name for name in dict.fromkeys(name for row in tenth for name in row) if name in columns or averaged(name)]
    broken = {name: sum(not is_number(row[name]) for row in tenth if name in row) for name in names}
    if len({term.column for term in terms}) == 1:
        columns["loss"] = terms[0].column
    means = {name: mean_of(tenth, name, columns.get(name, "")) for name in names if not broken[name]}
    if len(set(columns.values())) > 1 and all(means.get(term.name) is not None for term in terms):
        means["loss"] = math.fsum(term.weight * (means[term.name] or 0.0) for term in terms)
    ends_early = upto is not None and len(before) < len(numbered)
    return Stretch(
        int(tenth[0].get("step", 0)),
        int(tenth[-1].get("step", 0)),
        len(tenth),
        len(before),
        {name: mean for name in _ordered(means) if (mean := means[name]) is not None},
        {name: sum(name in row for row in tenth) for name in names},
        {name: count for name, count in broken.items() if count},
        ends_early,
    )


def averaged(name: str) -> bool:
    """True if a metric has a mean over updates: counts have sums, and held-out evaluations stand alone."""
    return name not in BOOKKEEPING | COUNTED and not name.startswith((*OF_A_REWARD, "monitor_", "scored_by_"))


def mean_of(rows: Sequence[Row], name: str, column: str = "") -> float | None:
    """The mean of a metric over these lines, weighed by what each is a mean over (`column`, where it is of a term of
    the objective); None where there is none."""
    pairs = [(row[name], _weight(row, name, column)) for row in rows if name in row]
    products, weights = [value * weight for value, weight in pairs], [weight for _, weight in pairs]
    bound = len(pairs) * max(map(abs, (*products, *weights)), default=0.0)
    if not math.isfinite(bound) or min(weights, default=0.0) < 0:
        return None  # of a file that somebody changed; what training writes is far from this
    whole = math.fsum(weights)
    return math.fsum(products) / whole if whole > 0 else None


def _weight(row: Row, name: str, column: str) -> float:
    """The number of items the mean of an update is over."""
    if name.startswith("reward_") and not column and "responses" in row:
        scored = row["responses"] + row.get("ungrouped", 0.0)
        return row.get(name.replace("reward_", "scored_by_", 1), scored)
    if not column and name.startswith(PLAIN):
        return 1.0
    if name == "sampled_entropy" and not column:  # of a token, and so over the tokens of all responses
        return row.get("responses", 1.0) * row.get("length", 1.0)
    return row.get(column or OF_ROUNDS.get(name, "rows"), 1.0)


def _ordered(names: Mapping[str, Any]) -> list[str]:
    """Names in the order they are shown. A policy-gradient loss stands behind the score: it is 0 at the first update of
    every round, whatever is learned."""
    first = [name for name in FIRST if name in names and not (name == "loss" and "score" in names)]
    return [*first, *(name for name in names if name not in first)]


@dataclass(frozen=True)
class Figure:
    """One figure of a stage: `of` says what it is, such as `mean of the last 12 of 120 steps`."""

    name: str
    value: float | str
    of: str = ""
    unit: str = ""
    interval: Interval | None = None
    n: int = 0
    note: str = ""

    @property
    def title(self) -> str:
        """Its whole name."""
        return f"{self.name}, {self.of}" if self.of else self.name

    @property
    def spread(self) -> str:
        """Its interval and the number of its items, as far as there are any."""
        ends = f"95 % interval {' to '.join(map(words.number, self.interval))}" if self.interval else ""
        return ", ".join(filter(None, (ends, f"n {self.n:,}" if self.n else "", self.note)))

    def as_json(self) -> dict[str, Any]:
        """The form that a stage's summary keeps and the report shows."""
        row: dict[str, Any] = {"name": self.title, "value": self.value}
        row |= {"unit": self.unit} if self.unit else {}
        row |= {"interval": list(self.interval)} if self.interval else {}
        row |= {"n": self.n} if self.n else {}
        return row | ({"note": self.spread} if self.spread else {})

    def text(self) -> str:
        """The value with its interval, for a terminal and a card."""
        shown = words.number(self.value) if isinstance(self.value, float | int) else self.value
        ends = f" [{', '.join(map(words.number, self.interval))}]" if self.interval else ""
        return f"{shown}{ends}{f' {self.unit}' if self.unit else ''}"


def of_finding(f: Finding) -> Figure:
    """A held-out finding as a figure: `held-out accuracy` of 400 pairs with its interval."""
    name = words.label(f.check).replace("held out", "held-out")
    name = name if name.startswith("held-out") else f"held-out {name}"
    return Figure(name + (f" ({f.slice})" if f.slice != "all" else ""), f.value, interval=f.interval, n=f.n)


def of_stretch(stretch: Stretch | None) -> list[Figure]:
    """The means of a stretch as figures; the norm of the gradient is in the summary's `last_tenth` alone."""
    means = {} if stretch is None else {k: v for k, v in stretch.means.items() if k != "grad_norm"}
    return [
        Figure(words.label(name), value, stretch.words(name) if stretch else "", _unit(name))
        for name, value in means.items()
    ]


def _unit(name: str) -> str:
    unit = UNITS.get(name) or words.unit(name)
    return unit if unit in ("nats", "tokens") else ""  # shares are shown as they are written


def lines(held_out: Sequence[Figure], stretch: Stretch | None) -> list[str]:
    """A stage's figures for a terminal: held-out figures first, one evaluation a line, then the means on one line.

    >>> held_out = Figure("held-out accuracy", 0.82, interval=(0.78, 0.86), n=400)
    >>> evaluation = [Figure("gold", 0.5, "after update 9"), Figure("length", 7, "after update 9", "tokens")]
    >>> print("\\n".join(lines([held_out, *evaluation], Stretch(4, 4, 1, 4, {"loss": 0.5}))))
    held-out accuracy 0.82 [0.78, 0.86] of 400
    after update 9: gold 0.5, length 7 tokens
    the last of 4 steps: loss 0.5
    """
    texts = [f"{x.name} {x.text()}{f' of {x.n:,}' if x.n else ''}" for x in held_out if not x.of]
    for of in dict.fromkeys(x.of for x in held_out if x.of):
        texts.append(f"{of}: " + ", ".join(f"{x.name} {x.text()}" for x in held_out if x.of == of))
    if stretch is None or not stretch.means:
        return texts
    hidden = ("grad_norm", "loss") if "score" in stretch.means else ("grad_norm",)
    names = [name for name in stretch.means if name not in hidden][:SHOWN]
    means = ", ".join(f"{words.label(name)} {words.number(stretch.means[name])}" for name in names)
    return [*texts, f"{stretch.words()}: {means}"]


def stored_means(summary: Mapping[str, Any]) -> dict[str, float]:
    """The means of the last tenth that a stage's summary holds, whatever else stands there."""
    stretch = summary.get("last_tenth")
    means = stretch.get("means") if isinstance(stretch, Mapping) else None
    return {str(k): float(v) for k, v in means.items() if is_number(v)} if isinstance(means, Mapping) else {}
