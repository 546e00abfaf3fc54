"""The verifier and math-verify on the same responses: wrong ones each accepts, right ones it misses.

    TRUING_DATA=... .venv/bin/python benchmarks/answers.py

The table is that of tests/answer_table.py: fractions, tuples, intervals and units of the MATH test set and made ones,
each with right variants and wrong neighbours, all in a box. math-verify is asked where it is installed (pip install
math-verify==0.9.0, in an environment of its own).
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from answer_table import Case, cases, made_answers, real_answers  # noqa: E402
from truing.rewards.builtin_verifier import verifier  # noqa: E402

EVERY = 5
"""Every so many responses are asked."""


def boxed(case: Case) -> str:
    """The variant of a case in a box, without what stood around it."""
    return rf"So the answer is $\boxed{{{case.text}}}$."


def ours(case: Case) -> bool:
    """The verdict of truing's verifier."""
    return verifier(boxed(case), {"answer": case.truth}, answer="math") == 1.0


def theirs(case: Case) -> bool:
    """The verdict of math-verify."""
    from math_verify import parse, verify  # type: ignore[import-not-found]

    return bool(verify(parse(f"${case.truth}$"), parse(boxed(case))))


def measured(name: str, judge: Callable[[Case], bool], table: list[Case]) -> None:
    """Print how a judge did."""
    began = time.process_time()
    count = Counter((case.right, judge(case)) for case in table)
    each = 1e3 * (time.process_time() - began) / len(table)
    wrong = count[False, True], count[False, True] + count[False, False]
    missed = count[True, False], count[True, False] + count[True, True]
    print(f"{name:12} wrong accepted {wrong[0]} of {wrong[1]}, right missed {missed[0]} of {missed[1]}, {each:.2f} ms")


def main() -> None:
    """Ask both."""
    logging.disable(logging.CRITICAL)
    data = Path(os.environ.get("TRUING_DATA", ROOT / ".." / "shared" / "data"))
    table = list(cases(list(dict.fromkeys([*real_answers(data), *made_answers()]))))[::EVERY]
    print(f"{len(table)} responses to {len({case.truth for case in table})} answers")
    measured("truing", ours, table)
    if importlib.util.find_spec("math_verify"):
        measured("math-verify", theirs, table)


if __name__ == "__main__":
    main()
