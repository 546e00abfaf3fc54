"""A finding that contradicts itself cannot be made, whoever makes it."""

from __future__ import annotations

import math

import pytest

from truing.consistency import contradiction, range_of
from truing.records import Finding


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"value": 7.0}, r"value 7 is outside \[0, 1\], where every win_rate lies"),
        ({"value": -0.1}, "value -0.1 is outside"),
        ({"value": 0.5, "interval": (0.6, 0.7)}, r"outside its own interval \[0.6, 0.7\]"),
        ({"value": 0.8, "interval": (0.6, 0.7)}, "outside its own interval"),
        ({"value": 0.6, "interval": (0.5, 1.2)}, "an end of its interval, 1.2 is outside"),
        ({"value": 0.6, "interval": (0.7, 0.5)}, "the wrong way round"),
        ({"value": math.nan}, "not a number"),
        ({"value": 0.6, "interval": (0.5, math.inf)}, "not a number"),
        ({"value": 0.6, "n": -1}, "n is -1"),
        ({"value": 0.6, "interval": (0.45, 0.7), "bound": 0.5, "verdict": "better"}, "is not above 0.5"),
        ({"value": 0.6, "interval": (0.55, 0.7), "bound": 0.5, "verdict": "worse"}, "is not below 0.5"),
        ({"value": 0.6, "bound": 0.5, "verdict": "better"}, "verdict 'better' without an interval"),
        ({"check": "held_out_accuracy", "value": 1.5}, "outside"),
        ({"check": "pass_at_4", "value": 1.5}, "outside"),
        ({"check": "truncated_share", "value": -0.5}, "outside"),
        ({"check": "held_out_auc", "value": 2.0}, "outside"),
        ({"check": "win_delta", "value": 0.6}, r"outside \[-0.5, 0.5\]"),
        ({"check": "pass_at_1_delta", "value": 1.5}, r"outside \[-1, 1\]"),
        ({"check": "held_out_kendall_tau", "value": -1.5}, r"outside \[-1, 1\]"),
        ({"check": "held_out_squared_error", "value": -0.5}, r"outside \[0, inf\]"),
        (
            {"check": "held_out_log_loss", "value": 0.8, "interval": (0.75, 0.9), "bound": 0.7, "verdict": "better"},
            "is not below 0.7",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_where_it_is_made(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Finding(**({"check": "win_rate", "model": "direct"} | given))


@pytest.mark.parametrize(
    "given",
    [
        {"value": 1.0, "interval": (0.9, 1.0)},
        {"value": 0.1 + 0.2, "interval": (0.3, 0.4)},  # rounding is no contradiction
        {"value": 0.6, "interval": (0.55, 0.7), "bound": 0.5, "verdict": "better"},
        {"check": "held_out_log_loss", "value": 0.6, "interval": (0.5, 0.65), "bound": 0.7, "verdict": "better"},
        {"check": "pass_at_1_delta", "value": 0.5, "interval": (-0.2, 1.2)},  # a mean's interval may be wide
        {"check": "mean_score", "value": -7.0},
        {"check": "kl_to_reference", "value": -0.01, "interval": (-0.02, 0.01), "bound": 0.0, "verdict": "unclear"},
    ],
)
def test_what_is_possible_is_taken(given: dict) -> None:
    finding = Finding(**({"check": "win_rate", "model": "direct"} | given))
    assert Finding.from_json(finding.as_json()) == finding


def test_a_range_follows_from_the_end_of_a_name() -> None:
    assert range_of("helpful_win_rate") == range_of("held_out_step_accuracy") == (0.0, 1.0)
    assert range_of("score_of_truncated_share_rows") == (-math.inf, math.inf)
    assert contradiction("speed", 7.0, None, 0, None, "") == ""
