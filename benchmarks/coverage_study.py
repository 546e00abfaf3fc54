"""Coverage of every interval of the product, and the share of its verdicts that are false: docs/coverage.md.

    make coverage                                       # about ten minutes on two cores; writes the table
    .venv/bin/python benchmarks/coverage_study.py mean --trials 500 --sizes 10 30    # some of it, printed

Truths and data are in coverage_cases.py, the intervals as they were in coverage_before.py. The same numbers every time:
every cell has its own seed.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from coverage_cases import Case, cases

PAGE = Path(__file__).parent.parent / "docs" / "coverage.md"
SIZES = (10, 30, 100, 500)
TRIALS = 2000
FEWER = 5  # a slow interval gets one trial in so many, one of before too, and one that is both in so many of these
SELDOM = 0.05  # a cell in which fewer trials have an interval says that there is none
BEGIN, END = "<!-- table: make coverage -->\n", "<!-- end of table -->\n"


@dataclass(frozen=True)
class Cell:
    """A count of trials: how many had an interval (`bounded`), in how many of these it lay above or below the truth."""

    trials: int
    bounded: int
    above: int
    below: int

    @property
    def none(self) -> bool:
        """True if there is next to never an interval."""
        return self.bounded < SELDOM * self.trials

    @property
    def covered(self) -> float:
        """The share of intervals that hold the truth."""
        return 1 - (self.above + self.below) / self.bounded

    @property
    def short(self) -> bool:
        """True if it misses the aim, beyond the noise of this study: less than 94 %, or more than 3 % on one side."""
        if self.none:
            return False
        worst = max(self.above, self.below) / self.bounded
        return self.covered < 0.94 - self.noise(0.94) or worst > 0.03 + self.noise(0.03)

    @property
    def wide(self) -> bool:
        """True if it holds the truth more often than 96 %, beyond noise."""
        return not self.none and self.covered > 0.96 + self.noise(0.96)

    def noise(self, share: float) -> float:
        """Two standard errors of a share of this cell."""
        return 2 * math.sqrt(share * (1 - share) / self.bounded)

    def text(self) -> str:
        """`95.1 (2.4, 2.5)`: per cent covered, and missed by an interval above and below the truth."""
        if self.none:
            return "none"
        sides = (
            f"{100 * self.covered:.1f} ({100 * self.above / self.bounded:.1f}, {100 * self.below / self.bounded:.1f})"
        )
        part = f" of {100 * self.bounded / self.trials:.0f} %" if self.bounded < 0.99 * self.trials else ""
        return f"**{sides}**{part}" if self.short else f"{sides}{' +' if self.wide else ''}{part}"


def cell(case: Case, items: int, trials: int, old: bool = False) -> Cell:
    """One cell of the table."""
    measure = case.before if old else case.interval
    assert measure is not None
    rng = np.random.default_rng([zlib.crc32(f"{case.name}, {case.data}".encode()), items])
    bounded = above = below = 0
    for _ in range(trials):
        interval = measure(case.draw(rng, items))
        if interval is not None:
            bounded += 1
            above += bool(interval[0] > case.truth)
            below += bool(interval[1] < case.truth)
    return Cell(trials, bounded, above, below)


def table(rows: Sequence[Sequence[Cell | None]], chosen: Sequence[Case], sizes: Sequence[int]) -> str:
    """The table in markdown: a line a case, now and before at every number of items."""
    head = ["interval or verdict", "data", *map(str, sizes), *(f"before, {n}" for n in sizes)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for case, row in zip(chosen, rows, strict=True):
        texts = ["–" if part is None else part.text() for part in row]
        lines.append("| " + " | ".join([case.name, case.data, *texts]) + " |")
    return "\n".join(lines) + "\n"


def _work(job: tuple[int, int, int, bool]) -> Cell | None:
    place, items, trials, old = job
    case = cases()[place]
    if old and case.before is None:
        return None
    return cell(case, items, max(1, trials // FEWER ** (old + case.slow)), old)


def measured(places: Sequence[int], sizes: Sequence[int], trials: int, workers: int) -> list[list[Cell | None]]:
    """All cells of these cases, one row each: now, then before."""
    jobs = [(place, n, trials, old) for place in places for old in (False, True) for n in sizes]
    with ProcessPoolExecutor(workers) as pool:
        cells = list(pool.map(_work, jobs))
    width = 2 * len(sizes)
    return [cells[i : i + width] for i in range(0, len(cells), width)]


def main() -> None:
    """Measure, print, and with --keep write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of the names of the cases to measure; all without any")
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="write the table into docs/coverage.md")
    args = parser.parse_args()
    every = cases()
    wanted = [any(word in f"{case.name}, {case.data}" for word in args.words) or not args.words for case in every]
    places = [i for i, want in enumerate(wanted) if want]
    text = table(measured(places, args.sizes, args.trials, args.workers), [every[i] for i in places], args.sizes)
    print(text)
    if args.keep:
        page = PAGE.read_text(encoding="utf-8")
        start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
        PAGE.write_text(page[:start] + "\n" + text + "\n" + page[end:], encoding="utf-8")


if __name__ == "__main__":
    main()
