"""The study of coverage in small: intervals hold the truth as often as they say, and the study sees it where they do not.

Bounds are those of the aim and three standard errors of so many trials; every cell has its own seed.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from coverage_cases import Case, cases, correlation_of_levels  # noqa: E402
from coverage_study import BEGIN, END, Cell, cell  # noqa: E402

from truing.evaluate.reward_model import spearman  # noqa: E402

CASES = {(case.name, case.data): case for case in cases()}
TRIALS = 400
PAGE = (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8")
SOUND = [
    ("mean", "normal", 10),
    ("mean", "normal", 100),
    ("mean", "clustered", 30),
    ("mean", "skewed (exponential)", 100),
    ("share", "0.6 of independent items", 100),
    ("share", "two in five tied", 100),
    ("share", "0.7, clustered", 30),
    ("share", "0.97, clustered", 100),
    ("pass@4", "skewed", 30),
    ("Spearman", "normal", 30),
    ("area under the curve", "clustered", 30),
    ("verdict of win_delta", "half tied", 100),
    ("verdict of held_out_squared_error_delta", "normal", 30),
    ("verdict of held_out_squared_error_delta", "clustered", 30),
    ("verdict of held_out_log_loss_delta", "ties in 0.3", 100),
    ("verdict of held_out_accuracy_delta", "labels even", 100),
    ("verdict of held_out_accuracy_delta", "0.7, clustered", 30),
    ("gold_peak_kl_nats", "twelve looks", 30),
    ("gold_fitted_peak_kl_nats", "twelve looks", 100),
]


def slack(share: float, trials: int) -> float:
    return 3 * math.sqrt(share * (1 - share) / trials)


@pytest.mark.parametrize(("name", "data", "items"), SOUND)
def test_an_interval_holds_the_truth_and_a_verdict_is_seldom_false(name: str, data: str, items: int) -> None:
    measured = cell(CASES[name, data], items, TRIALS)
    assert measured.bounded >= 0.9 * TRIALS
    assert measured.covered >= 0.94 - slack(0.94, measured.bounded)
    assert max(measured.above, measured.below) / measured.bounded <= 0.03 + slack(0.03, measured.bounded)


@pytest.mark.parametrize(
    ("name", "data", "items"),
    [
        ("mean", "skewed (lognormal)", 30),
        ("share", "0.97, clustered", 30),
        ("verdict of held_out_squared_error_delta", "normal", 30),
        ("verdict of held_out_accuracy_delta", "labels even", 30),
        ("gold_peak_kl_nats", "twelve looks", 30),
    ],
)
def test_the_study_sees_that_the_ones_before_did_not(name: str, data: str, items: int) -> None:
    case = CASES[name, data]
    old, new = cell(case, items, 150, old=True), cell(case, items, 150)
    assert old.short and old.covered < 0.94 - slack(0.94, 150)
    assert new.covered > old.covered + 0.04


@pytest.mark.parametrize(("name", "data"), [("mean", "normal"), ("share", "0.6 of independent items")])
def test_of_nine_items_there_is_no_interval_and_of_ten_there_is(name: str, data: str) -> None:
    assert cell(CASES[name, data], 9, 50).bounded == 0
    assert cell(CASES[name, data], 10, 50).bounded == 50


def test_nearly_constant_values_have_no_interval_until_enough_differ() -> None:
    assert cell(CASES["mean", "nearly constant"], 30, 200).none
    assert cell(CASES["mean", "nearly constant"], 500, 50).bounded == 50
    assert cell(CASES["verdict of held_out_squared_error_delta", "nearly constant"], 30, 200).none


def test_truths_are_those_of_a_large_sample() -> None:
    """Where a truth is worked out and not evident: of the statistic itself on 200,000 items."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=200_000)
    y = 0.5 * x + math.sqrt(0.75) * rng.normal(size=200_000)
    for cuts in ((-1.3, -0.4, 0.4, 1.3), (1.4,)):
        assert spearman(x, np.digitize(y, cuts).astype(float)) == pytest.approx(correlation_of_levels(cuts), abs=0.008)
    for name in ("pass@4", "Kendall's tau"):
        case = next(case for case in CASES.values() if case.name == name)
        low, high = case.interval(case.draw(rng, 20_000))
        assert low <= case.truth <= high and high - low < 0.03


def test_a_cell_says_what_misses_the_aim_and_only_beyond_noise() -> None:
    assert Cell(2000, 2000, 50, 50).text() == "95.0 (2.5, 2.5)"
    assert Cell(2000, 2000, 10, 120).text() == "**93.5 (0.5, 6.0)**"
    assert Cell(2000, 2000, 10, 10).text() == "99.0 (0.5, 0.5) +"
    assert Cell(2000, 1000, 25, 25).text() == "95.0 (2.5, 2.5) of 50 %"
    assert Cell(2000, 99, 99, 0).text() == "none"
    assert not Cell(100, 100, 4, 4).short  # 92 % of a hundred is within noise


def test_a_cell_is_the_same_every_time() -> None:
    case = CASES["share", "two in five tied"]
    assert cell(case, 30, 40) == cell(case, 30, 40)


def test_the_table_on_the_page_has_every_case_and_its_marks_are_what_the_text_says() -> None:
    table = PAGE[PAGE.index(BEGIN) : PAGE.index(END)]
    rows = [[part.strip() for part in line.split(" | ")] for line in table.splitlines() if line.startswith("| ")][1:]
    assert [(row[0].removeprefix("| "), row[1]) for row in rows] == list(CASES)
    text = PAGE[PAGE.index(END) :]
    short = {row[0].removeprefix("| ") for row in rows if any("**" in cell for cell in row[2:6])}
    assert short <= set(re.findall(r"\*\*([^*]+)\*\*", text)), "a case that misses the aim is not explained"


def test_adding_a_case_is_one_line() -> None:
    constant = Case("certainty", "a constant", lambda rng, n: n, 3.0, lambda n: (2.0, 4.0))
    assert cell(constant, 10, 20) == Cell(20, 20, 0, 0)
