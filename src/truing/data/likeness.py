"""Detection of questions that were learned from, under whatever disguise: fingerprints of rows, and a search in them.

A fingerprint holds four kinds of hashes of every row, and no text: its opening as it is written (`exact`), its turns
without disguise (`turns`, see `normal`), its short runs of whole sentences (`runs`), and every five tokens in a row
(`grams`). It finds: other letters, case, accents, punctuation and blanks; words of courtesy, a system message,
markdown or quotes around it; earlier turns before it, few-shot examples beside it, a longer text around it; and of a
question of `LONG` tokens a few words replaced. It does not find a paraphrase, a translation, a code (base64, reversed
letters), a short question with a word replaced or amid a sentence, words run together, and what only a picture asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from truing.data.formats.conventions import Record
from truing.data.normal import core, segments
from truing.data.questions import Question, opening, questions, system, turns
from truing.records import Records

Kind: TypeAlias = Literal["overlapping", "contained", "normalised", "exact"]
KINDS: tuple[Kind, ...] = ("overlapping", "contained", "normalised", "exact")
"""Kinds of match between a question and a row, from the least alike to the same."""
Hashes: TypeAlias = NDArray[np.uint64]
GRAM = 5
"""Tokens in a gram."""
SHORTEST, SHORT, LONG = 3, 12, 20
"""Fewest and most tokens of a run of whole sentences; and the tokens from which a question may be matched in parts."""
AMID = 8
"""Tokens a question must have to be matched anywhere in a text."""
LEAST = 0.6
"""The share of a long question's grams that must stand in one row."""
GAPS = 2
"""Places in which a long question may differ from a row that matches it."""
MOST = 600_000
"""Grams a fingerprint keeps; of more it keeps the least of every `window` in a row (winnowing)."""
BITS = 40
PLACES = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0x85EBCA77C2B2AE63],
    dtype=np.uint64,
)
"""An odd number for each place of a gram."""


@dataclass(frozen=True)
class Part:
    """Hashes of all rows, one row's behind the other's: `counts` of them each."""

    hashes: Hashes
    counts: NDArray[np.uint32]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The place at which each row's hashes begin, and the end of the last one's."""
        return np.concatenate([[0], np.cumsum(self.counts, dtype=np.int64)])

    @cached_property
    def sorted(self) -> tuple[Hashes, NDArray[np.int64]]:
        """All hashes in order, and the row of each."""
        order = np.argsort(self.hashes, kind="stable")
        return self.hashes[order], np.repeat(np.arange(len(self.counts)), self.counts)[order]

    def span(self, hashes: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places at which each of these hashes begins and ends in `sorted`."""
        hashes_in_order = self.sorted[0]
        return np.searchsorted(hashes_in_order, hashes, "left"), np.searchsorted(hashes_in_order, hashes, "right")

    def rows(self, hashed: int) -> NDArray[np.int64]:
        """The rows that have a hash."""
        first, last = self.span(np.array([hashed], dtype=np.uint64))
        return self.sorted[1][first[0] : last[0]]


@dataclass(frozen=True)
class Print:
    """The fingerprint of a data set: by row its openings, turns, runs and grams. Of every `window` grams in a row at
    least one is kept, of 1 all."""

    exact: Part
    turns: Part
    runs: Part
    grams: Part
    window: int = 1

    def __len__(self) -> int:
        return len(self.exact.counts)

    def matches(self, queries: Questions) -> list[dict[int, Match]]:
        """For each question its best match in every row (by its place) that has one."""
        matches: list[dict[int, Match]] = [{} for _ in queries.questions]
        for number, match in self._matches(queries):
            best = matches[number].get(match.place)
            if best is None or match.rank > best.rank:
                matches[number][match.place] = match
        return matches

    def nearest(self, queries: Questions) -> list[Match | None]:
        """For each question its match in the row that it is met best in."""
        return [max(each.values(), key=lambda match: match.rank, default=None) for each in self.matches(queries)]

    def _matches(self, queries: Questions) -> Iterator[tuple[int, Match]]:
        for number, question in enumerate(queries.questions):
            for row in self.exact.rows(text_hash(question.opening)):
                yield number, Match("exact", 1.0, int(row))
        grams, specific, order = queries.grams(self.window)
        for place, (number, text) in enumerate(queries.texts):
            hashed = tokens_hash(text)
            for row in self.turns.rows(hashed):
                yield number, Match("normalised", 1.0, int(row))
            if SHORTEST <= len(text) <= SHORT:
                for row in self.runs.rows(hashed):
                    yield number, Match("contained", 1.0, int(row))
            if len(text) >= AMID and len(text) - GRAM + 1 >= self.window:
                here = slice(grams.starts[place], grams.starts[place + 1])
                ranks, long = np.argsort(order[here]), len(text) >= LONG
                overlaps = self._overlaps(grams.hashes[here], specific[here], ranks, long)
                yield from ((number, match) for match in overlaps)

    def _overlaps(
        self, hashes: Hashes, specific: NDArray[np.bool_], order: NDArray[np.int64], long: bool
    ) -> Iterator[Match]:
        """The rows that hold all grams of a text, or of a long one the share `LEAST` of them and of its `specific`
        ones, and lack others in a few places of their `order` only. A row that does holds the rarest gram, or one of
        the rarest few of its `specific` ones, so that only rows with these are compared: a template's grams stand in
        all of them."""
        first, last = self.grams.span(hashes)
        parts = long and specific.sum() >= AMID
        needed = int(np.ceil(LEAST * len(hashes))) if parts else len(hashes)
        rarest = np.argsort(last - first, kind="stable")
        spare = int(specific.sum()) - int(np.ceil(LEAST * specific.sum())) if parts else 0
        rarest = rarest[specific[rarest]][: spare + 1] if parts else rarest[:1]
        rows = self.grams.sorted[1]
        places = np.unique(np.concatenate([rows[first[i] : last[i]] for i in rarest]))
        for place in places.tolist():
            row = self.grams.hashes[self.grams.starts[place] : self.grams.starts[place + 1]]
            shared = np.isin(hashes, row, assume_unique=True)
            if shared.all():
                yield Match("contained", 1.0, place)
            elif shared.sum() >= needed and shared[specific].mean() >= LEAST and gaps(shared[order]) <= GAPS:
                yield Match("overlapping", float(shared[specific].mean()), place)


class Questions:
    """The distinct questions of a data set, ready to be searched for: the `rows` that ask each, its `texts` without
    courtesy, and its grams."""

    def __init__(self, records: Records) -> None:
        """Read the rows."""
        rows: dict[tuple[Any, ...], list[int]] = {}
        distinct: dict[tuple[Any, ...], Question] = {}
        for question in questions(records):
            key = question.opening, question.texts
            distinct.setdefault(key, question)
            rows.setdefault(key, []).append(question.row)
        self.questions, self.rows = list(distinct.values()), list(rows.values())
        self.texts = [(number, core(text)) for number, question in enumerate(self.questions) for text in question.texts]
        self._grams: dict[int, tuple[Part, NDArray[np.bool_], NDArray[np.int64]]] = {}

    def grams(self, window: int) -> tuple[Part, NDArray[np.bool_], NDArray[np.int64]]:
        """The grams of every text, as a fingerprint with this window keeps them; which of them no other text has; and
        the place of each."""
        if window not in self._grams:
            hashes, counts, places = grams_of([text for _, text in self.texts], window)
            self._grams[window] = Part(hashes, counts), ~np.isin(hashes, self.common), places
        return self._grams[window]

    @cached_property
    def common(self) -> Hashes:
        """The grams that stand in two different texts: those of a template, which tell no question from another."""
        hashes, _, _ = grams_of(list(dict.fromkeys(text for _, text in self.texts)))
        each, counts = np.unique(hashes, return_counts=True)
        return each[counts > 1]


@dataclass(frozen=True)
class Match:
    """Match of a question with the row at `place` of a data set, and the share of its grams that the row has."""

    kind: Kind
    score: float
    place: int

    @property
    def rank(self) -> tuple[int, float]:
        """Sort key of matches: the higher one is the better match."""
        return KINDS.index(self.kind), self.score


def fingerprint(records: Records, most: int = MOST) -> Print:
    """The fingerprint of a data set's rows, in their order."""
    exact, whole, runs, texts = [], [], [], []
    for record in records.records:
        exact.append([text_hash(opening(record))])
        cores, short, text = described(record)
        whole.append(sorted({tokens_hash(c) for c in cores}))
        runs.append(sorted({tokens_hash(c) for c in short}))
        texts.append(text)
    window = 1
    hashes, counts, _ = grams_of(texts, window)
    while len(hashes) > most:
        window *= 2
        hashes, counts, _ = grams_of(texts, window)
    return Print(part_of(exact), part_of(whole), part_of(runs), Part(hashes, counts), window)


def described(record: Record) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]], list[str]]:
    """The turns of a record without disguise, its short runs of sentences, and all its tokens."""
    cores: list[tuple[str, ...]] = []
    short: list[tuple[str, ...]] = []
    tokens: list[str] = []
    asking: list[list[str]] = []
    for text, asks in turns(record):
        sentences = segments(text)
        words = [token for sentence in sentences for token in sentence]
        tokens += words
        if asks and words:
            asking.append(words)
            cores.append(core(words))
            short += short_runs(sentences)
    if system(record) and len(asking) > 1:
        cores.append(core([*asking[0], *asking[1]]))
    return cores, short, tokens


def short_runs(sentences: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Runs of whole sentences of `SHORTEST` to `SHORT` tokens, without courtesy."""
    for first in range(len(sentences)):
        run: list[str] = []
        for sentence in sentences[first:]:
            run += sentence
            if len(run) > SHORT + 6:  # of words of courtesy
                break
            short = core(run)
            if SHORTEST <= len(short) <= SHORT:
                yield short


def part_of(rows: Sequence[Sequence[int]]) -> Part:
    """The hashes of rows as a part."""
    hashes = np.fromiter((value for row in rows for value in row), dtype=np.uint64)
    return Part(hashes, np.fromiter(map(len, rows), dtype=np.uint32))


def text_hash(text: str) -> int:
    """The hash of a text as it is written."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=BITS // 8).digest())


def tokens_hash(tokens: Iterable[str]) -> int:
    """The hash of tokens in their order."""
    return text_hash("\x1f".join(tokens))


def grams_of(texts: Sequence[Sequence[str]], window: int = 1) -> tuple[Hashes, NDArray[np.uint32], NDArray[np.int64]]:
    """The hashes of every `GRAM` tokens in a row, of each text once and in order; how many each text has; and where
    each stood."""
    vocabulary: dict[str, int] = {}
    ids = np.fromiter(
        (vocabulary.setdefault(token, len(vocabulary)) for text in texts for token in text), dtype=np.int64
    )
    words = (hashlib.blake2b(w.encode("utf-8", "surrogatepass"), digest_size=8).digest() for w in vocabulary)
    table = np.frombuffer(b"".join(words), dtype="<u8")
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    count = max(0, len(ids) - GRAM + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for place in range(GRAM):
        hashes += table[ids[place : place + count]] * PLACES[place]
    hashes = mixed(hashes) >> np.uint64(64 - BITS)
    whole = owner[:count] == owner[GRAM - 1 :][:count]
    hashes, rows, places = hashes[whole], owner[:count][whole], np.flatnonzero(whole)
    if window > 1:
        chosen = winnowed(hashes, rows, window)
        hashes, rows, places = hashes[chosen], rows[chosen], places[chosen]
    order = np.lexsort((hashes, rows))
    hashes, rows, places = hashes[order], rows[order], places[order]
    fresh = np.ones(len(rows), dtype=bool)
    fresh[1:] = (rows[1:] != rows[:-1]) | (hashes[1:] != hashes[:-1])
    counts = np.bincount(rows[fresh], minlength=len(texts)).astype(np.uint32)
    return hashes[fresh], counts, places[fresh]


def gaps(shared: NDArray[np.bool_]) -> int:
    """Number of runs of grams that are not shared.

    >>> gaps(np.array([True, False, False, True, False]))
    2
    """
    return int((~shared & np.concatenate([[True], shared[:-1]])).sum())


def mixed(hashes: Hashes) -> Hashes:
    """Sums of hashes with their bits mixed (the finaliser of SplitMix64): its first bits depend on all of them."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


def winnowed(hashes: Hashes, rows: NDArray[Any], window: int) -> NDArray[np.bool_]:
    """Mask of the grams that are the least of some `window` in a row: two rows with so many grams in common share one
    that both keep (Schleimer et al. 2003). A row of fewer keeps all."""
    count = max(0, len(hashes) - window + 1)
    least = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
    for place in range(window):
        least = np.minimum(least, hashes[place : place + count])
    whole = rows[:count] == rows[window - 1 :][:count]
    chosen = np.zeros(len(hashes), dtype=bool)
    for place in range(window):
        chosen[place : place + count] |= whole & (hashes[place : place + count] == least)
    return chosen | (np.bincount(rows)[rows] < window) if len(rows) else chosen
