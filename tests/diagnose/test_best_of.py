"""The curve of best-of-n from answers to the same prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from truing.diagnose.best_of import best_of_curve
from truing.diagnose.overoptimisation import diagnose
from truing.errors import UserError


def test_its_points_are_the_unbiased_estimates_and_the_bound() -> None:
    curve = best_of_curve("warm", [[0.1, 0.9, 0.4, 0.7, 0.3]] * 3, [[0.2, 0.3, 0.8, 0.6, 0.1]] * 3)
    assert (curve.at, curve.form, curve.against, curve.prompts) == ((1, 2, 3, 4, 5), "best_of", "warm", 3)
    assert curve.proxy.mean[[0, 1, 2, 4]] == pytest.approx(
        [0.48, 0.68, 0.79, 0.9]
    )  # golden case bon_unbiased_estimator
    assert curve.gold.mean[[0, 1, 2, 4]] == pytest.approx([0.4, 0.47, 0.44, 0.3])
    assert curve.kl == pytest.approx([math.log(n) - (n - 1) / n for n in range(1, 6)])


def test_many_answers_are_looked_at_at_few_n_from_one_to_all() -> None:
    draws = np.random.default_rng(0).normal(size=(2, 100)).tolist()
    at = best_of_curve("warm", draws, draws).at
    assert at[:5] == (1, 2, 3, 5, 6) or at[:3] == (1, 2, 3)
    assert at[-1] == 100 and len(at) <= 16


def test_a_proxy_with_a_heavy_wrong_tail_turns_gold_down_and_is_paired_by_prompt() -> None:
    draws = np.random.default_rng(1)
    padding, level = draws.exponential(size=(150, 64)), draws.normal(0, 10, (150, 1))
    gold = level + draws.normal(0, 0.3, (150, 64)) + 0.5 * padding - 0.15 * padding**2
    found = diagnose(best_of_curve("warm", (padding + draws.normal(0, 0.1, (150, 64))).tolist(), gold.tolist()))
    checks = {f.check: f for f in found.findings}
    assert found.word == "turns" and checks["overoptimised"].value == 1
    assert checks["gold_lost_after_peak"].interval[0] > 0  # though prompts differ by ten
    assert 1 < found.curve.at[found.best] < 64
    assert checks["gold_peak_kl_nats"].evidence.endswith(f"best at n = {found.curve.at[found.best]}, last at n = 64")
    assert found.fit.beta_interval[0] > 0


def test_prompts_with_unequal_numbers_of_answers_are_refused() -> None:
    with pytest.raises(UserError, match="the same number of responses to every prompt"):
        best_of_curve("warm", [[1.0, 2.0], [1.0]], [[1.0, 2.0], [1.0]])
