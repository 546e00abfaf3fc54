"""All rounds of a stage summed up: prompts and how often each, how alike the scores were, and a few responses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from truing.errors import listed
from truing.objectives.equal import alike
from truing.rollout import experience
from truing.rollout.experience import SCHEMA

_NAMES = ("row", "group", "score", "why", "stop", "parts")
READ = pa.schema([SCHEMA.field(name) for name in _NAMES])
SHOWN = pa.schema([SCHEMA.field(name) for name in (*_NAMES, "prompt", "response")])
PROMPTS, RESPONSES, LETTERS = 2, 2, 600
"""Bounds of what is shown of a round: prompts, responses to each, and characters of one."""


@dataclass
class Extent:
    """Between what least and most numbers have lain, and how many there were."""

    count: int = 0
    low: float = math.inf
    high: float = -math.inf

    def add(self, value: float) -> None:
        """One more number."""
        self.count, self.low, self.high = self.count + 1, min(self.low, value), max(self.high, value)

    @property
    def level(self) -> bool:
        """True if all were the same but for rounding."""
        return self.count > 0 and alike([self.low, self.high])


@dataclass
class Account:
    """The rounds of a stage, those that had no update too. `prompts` are different ones, `requests` with repeats;
    `groups` are those with two scored responses or more, `equal` how many of these scored the same, `cut` the responses
    that ran into the limit. `score` and `rewards` (by name) say between what all scores lay, `lived` which rows of the
    data each round asked."""

    requests: int = 0
    responses: int = 0
    failed: int = 0
    cut: int = 0
    groups: int = 0
    equal: int = 0
    score: Extent = field(default_factory=Extent)
    rewards: dict[str, Extent] = field(default_factory=dict)
    lived: dict[int, set[int]] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        """The count of rounds."""
        return len(self.lived)

    @property
    def prompts(self) -> int:
        """The count of different prompts that were asked."""
        return len(set[int]().union(*self.lived.values()))

    def add(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """The round of that number."""
        self.lived[number] = {row["row"] for row in rows}
        groups: dict[int, list[float]] = {}
        for row in rows:
            scored = groups.setdefault(row["group"], [])
            if not row["why"] and row["score"] is not None:
                scored.append(row["score"])
                self.score.add(row["score"])
            for name, value in row["parts"] or ():
                if ":" not in name:  # of these the rewards said nothing themselves
                    self.rewards.setdefault(name, Extent()).add(value)
        several = [scored for scored in groups.values() if len(scored) > 1]
        self.requests, self.responses = self.requests + len(groups), self.responses + len(rows)
        self.failed += sum(bool(row["why"]) for row in rows)
        self.cut += sum(row["stop"] == "length" for row in rows)
        self.groups, self.equal = self.groups + len(several), self.equal + sum(map(alike, several))


def of(folder: Path) -> Account:
    """The account of all rounds in a folder, read one after the other; RunFailed where one cannot be read."""
    account = Account()
    for number, path in experience.rounds(folder).items():
        account.add(number, experience.table(path, READ))
    return account


def barren(skipped: int, account: Account) -> str:
    """The message where no round had an update: that all scores were the same, and by which rewards, or what else it
    may be.

    >>> scored = Account(score=Extent(8, 0.0, 0.0), rewards={"polite": Extent(8, 0.0, 0.0)})
    >>> barren(2, scored).partition("\\n")[0]
    'no response of 2 rounds teaches the objective anything: all 8 scored the same (0), by polite.'
    """
    begun = f"no response of {skipped:,} rounds teaches the objective anything:"
    if not account.score.level:
        return (
            f"{begun} all of a prompt scored the same, none passed, or all were cut (mask_truncated); give more "
            "responses or prompts to a round, a finer reward, or more max_new_tokens"
        )
    level = [name for name, extent in account.rewards.items() if extent.level]
    return (
        f"{begun} all {account.score.count:,} scored the same ({account.score.low:g})"
        f"{', by ' + listed(level) if level else ''}.\n"
        "  A function of your own gets prompts and completions as lists of messages where the data's prompts are; it "
        "gets texts by {mine.py:name: {text: true}}"
    )


def samples(folder: Path, account: Account) -> list[dict[str, Any]]:
    """A few responses of the first, the middle and the last round, to the same prompts where any came more than once.
    `account` is that of all rounds in the folder.

    A prompt that came at the beginning and came again is followed to its later responses; where none was asked twice,
    each round shows its own first ones.
    """
    paths, lived = experience.rounds(folder), account.lived
    numbers = list(lived)
    if not numbers:
        return []
    at = [numbers[0], numbers[len(numbers) // 2], numbers[-1]]
    followed = _followed(lived, at)
    chosen: dict[int, list[int]] = {}
    for row in followed:
        for number in _rounds_of(row, lived, at):
            chosen.setdefault(number, []).append(row)
    return [
        shown
        for number in (sorted(chosen) if followed else dict.fromkeys(at))
        for shown in _shown(number, experience.table(paths[number], SHOWN), chosen.get(number))
    ]


def _followed(lived: Mapping[int, set[int]], at: Sequence[int]) -> list[int]:
    """The prompts that came earliest and again latest, by their rows."""
    first, last = dict[int, int](), dict[int, int]()
    for number, rows in lived.items():
        for row in rows:
            first.setdefault(row, number)
            last[row] = number
    again = [row for row in first if last[row] > first[row]]
    return sorted(again, key=lambda row: (first[row] - last[row], row))[:PROMPTS] if len(set(at)) > 1 else []


def _rounds_of(row: int, lived: Mapping[int, set[int]], at: Sequence[int]) -> list[int]:
    """The rounds in which a prompt came that lie next to the first, the middle and the last."""
    numbers = [number for number, rows in lived.items() if row in rows]
    return sorted({min(numbers, key=lambda number: (abs(number - place), number)) for place in at})


def _shown(number: int, rows: Sequence[Mapping[str, Any]], only: Sequence[int] | None) -> Iterable[dict[str, Any]]:
    """The responses of a round to some prompts, or to its first ones, as they are written."""
    prompts = list(dict.fromkeys(row["row"] for row in rows)) if only is None else only
    for prompt in prompts[:PROMPTS]:
        shown_rows = [row for row in rows if row["row"] == prompt][:RESPONSES]
        responses = [
            {"text": cut(row["response"]), "score": None if row["why"] else row["score"], "stop": row["stop"]}
            for row in shown_rows
        ]
        turns = [{"role": turn["role"], "content": cut(turn["content"])} for turn in shown_rows[0]["prompt"]]
        yield {"round": number, "row": prompt, "prompt": turns, "responses": responses}


def cut(text: str) -> str:
    """A text as it is shown: its beginning, where it is long.

    >>> cut("a" * 700)[-23:]
    'aaa… (100 more letters)'
    """
    return text if len(text) <= LETTERS else f"{text[:LETTERS]}… ({len(text) - LETTERS} more letters)"
