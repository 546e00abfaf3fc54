"""Looking again does not ship by luck: what a gate's looks spend together is bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from truing.errors import UserError
from truing.gate.decide import decide
from truing.gate.looks import check_kept, error_of, interval_at, look_number, read_looks
from truing.gate.rules import Rule
from truing.records import Finding

RULE = Rule(check="mean_score_delta", min=0.0)


def measured(values: np.ndarray) -> Finding:
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    mean = float(values.mean())
    return Finding("mean_score_delta", "direct", mean, "warm", interval=(mean - half, mean + half), n=len(values))


def test_all_looks_together_spend_a_twentieth() -> None:
    assert error_of(1) == 0.025 and error_of(2) == 0.0125
    assert sum(error_of(k) for k in range(1, 10_000)) == pytest.approx(0.05, abs=1e-5)


def test_a_later_look_has_the_interval_of_its_level() -> None:
    values = np.random.default_rng(0).normal(0.1, 1.0, 60)
    f = measured(values)
    assert interval_at(f, 1) == f.interval
    low, high = student.interval(1 - 2 * error_of(3), 59, values.mean(), values.std(ddof=1) / 60**0.5)
    assert interval_at(f, 3) == pytest.approx((low, high), abs=1e-12)
    share = Finding("win_rate", "direct", 0.99, "warm", interval=(0.95, 1.0), n=100)
    assert interval_at(share, 5)[1] == 1.0, "a share stays one"
    assert interval_at(Finding("win_rate", "direct", 0.9, n=100), 5) is None


def test_looking_five_times_at_no_effect_ships_rarely() -> None:
    """The kind: following 'more samples would show it' is optional stopping. Rows are added until it ships, five times
    at most: 8 % without alpha spent. 4,000 trials; the bound is 5 % and three standard errors of their share."""
    draws, trials = np.random.default_rng(1), 4000
    naive = spent = 0
    for _ in range(trials):
        rows = draws.normal(0.0, 1.0, 500)
        looks = [measured(rows[: 100 * k]) for k in range(1, 6)]
        naive += any(decide([f], [RULE]).verdict == "ship" for f in looks)
        spent += any(decide([f], [RULE], look=k).verdict == "ship" for k, f in enumerate(looks, start=1))
    allowed = 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
    assert spent / trials <= allowed < naive / trials


def test_the_same_evidence_is_the_same_look(tmp_path: Path) -> None:
    one, other = (Finding("win_delta", "direct", x, "warm", interval=(0.0, 0.2), n=50) for x in (0.1, 0.11))
    rule = Rule(check="win_delta", min=0.0)
    assert [look_number(tmp_path, "release", [f], [rule]) for f in (one, other, one, other)] == [1, 2, 1, 2]
    easier = Rule(check="win_delta", min=-0.1)
    assert look_number(tmp_path, "release", [one], [easier]) == 3, "other rules for seen evidence are another look"
    gates = ("release", "second")
    assert look_number(tmp_path, "second", [one], [rule], beside=gates) == 1, "two gates of a recipe both have to pass"
    assert look_number(tmp_path, "renamed", [one], [Rule(check="win_delta", min=-0.2)], beside=("renamed",)) == 5
    assert look_number(tmp_path, "", [one], [Rule(check="win_delta", min=-0.3)]) == 6, "by hand, all count"
    assert len(read_looks(tmp_path / "looks.json")) == 6


def test_a_ledger_that_is_gone_is_missed(tmp_path: Path) -> None:
    f = Finding("win_delta", "direct", 0.1, "warm", interval=(0.0, 0.2), n=50)
    look_number(tmp_path, "release", [f], [Rule(check="win_delta", min=0.0)])
    check_kept(tmp_path, 1)
    (tmp_path / "looks.json").unlink()
    with pytest.raises(UserError, match="1 looks of this run's gates were counted here, and they are gone"):
        check_kept(tmp_path, 1)


@pytest.mark.parametrize("text", ["{", "[]", '{"looks": 3}', '{"looks": [3]}', '{"looks": [{}]}', '{"looks": []}'])
def test_a_ledger_that_was_edited_is_not_believed(tmp_path: Path, text: str) -> None:
    (tmp_path / "looks.json").write_text(text)
    with pytest.raises(UserError, match=r"looks.json: is not what truing wrote, and it counts how often"):
        look_number(tmp_path, "release", [], [RULE])


def test_a_later_look_is_said() -> None:
    f = Finding("mean_score_delta", "direct", 0.1, "warm", interval=(0.01, 0.19), n=500)
    assert decide([f], [RULE]).verdict == "ship"
    again = decide([f], [RULE], look=2)
    assert again.verdict == "undecided" and "look 2 of this gate" in again.text() and again.as_json()["look"] == 2
