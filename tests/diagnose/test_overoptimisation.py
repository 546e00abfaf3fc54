"""What is said of a curve of proxy and gold: the fit, the peak, the word, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from truing.diagnose.curve import Curve, Series, read_watch
from truing.diagnose.overoptimisation import diagnose, fitted, loss
from truing.errors import UserError


def curve(kl, gold, proxy=None, error=0.02, form="rl"):
    """A curve with the same standard error at every look; the proxy rises with the distance unless given."""
    kl, gold = np.asarray(kl, float), np.asarray(gold, float)
    proxy = np.sqrt(np.maximum(kl, 0)) if proxy is None else np.asarray(proxy, float)
    errors = np.full(len(kl), error)
    at = tuple(range(0, 5 * len(kl), 5)) if form == "rl" else tuple(range(1, len(kl) + 1))
    return Curve("policy", "warm", form, at, kl, Series(proxy, errors), Series(gold, errors), 200, errors)


def rl(d, alpha, beta):
    return np.where(d > 0, d * (alpha - beta * np.log(np.where(d > 0, d, 1))), 0)


def of(found, check):
    return next(f for f in found.findings if f.check == check)


def checks(found):
    return {f.check for f in found.findings}


@pytest.mark.parametrize(("form", "peak"), [("rl", math.exp(1.2 / 0.6 - 1)), ("best_of", 1.2 / 1.2)])
def test_points_of_a_form_give_its_parameters_back(form, peak) -> None:
    d = np.array([0, 0.3, 0.7, 1.1, 1.9, 2.6, 3.5])
    gold = 0.4 + (rl(d, 1.2, 0.6) if form == "rl" else d * (1.2 - 0.6 * d))
    fit = fitted(curve(d**2, gold, form=form))
    assert (fit.start, fit.alpha, fit.beta, fit.peak) == pytest.approx((0.4, 1.2, 0.6, peak), abs=1e-9)
    assert fit.misfit == pytest.approx(0, abs=1e-12)
    assert fit.gold(peak) == pytest.approx(0.4 + peak * 0.6, abs=1e-9)
    assert fit.line(3.5)[-1] == pytest.approx([3.5, gold[-1]])


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    d, draws = np.linspace(0, 4, 12), np.random.default_rng(3)
    held = []
    for _ in range(200):
        fit = fitted(curve(d**2, rl(d, 1.0, 0.5) + draws.normal(0, 0.05, 12), error=0.05))
        held += [
            fit.alpha_interval[0] <= 1.0 <= fit.alpha_interval[1],
            fit.beta_interval[0] <= 0.5 <= fit.beta_interval[1],
        ]
    assert 0.92 <= np.mean(held) <= 1.0


def test_intervals_of_paired_looks_are_drawn_by_prompt() -> None:
    d, draws = np.linspace(0, 3, 8), np.random.default_rng(5)
    rows = draws.normal(0, 2.0, (300, 1)) + d * (1.0 - 0.3 * d) + draws.normal(0, 0.02, (300, 8))
    one = curve(d**2, rows.mean(0), form="best_of")
    paired = Curve(one.name, "warm", "best_of", one.at, one.kl, one.proxy, Series.of(rows), 300)
    alone = Curve(
        one.name, "warm", "best_of", one.at, one.kl, one.proxy, Series(rows.mean(0), Series.of(rows).error), 300
    )
    pair, apart = fitted(paired), fitted(alone)
    assert pair.beta == pytest.approx(apart.beta)
    assert pair.beta_interval[0] <= 0.3 <= pair.beta_interval[1]
    assert (
        np.ptp(pair.beta_interval) < np.ptp(apart.beta_interval) / 20
    )  # what prompts differ in is not noise between looks


def test_gold_that_turns_while_the_proxy_rises_is_overoptimised() -> None:
    d = np.linspace(0, 6, 13)
    found = diagnose(curve(d**2, 0.3 + rl(d, 0.6, 0.4)))
    best = int((0.3 + rl(d, 0.6, 0.4)).argmax())
    lost = of(found, "gold_lost_after_peak")
    assert (found.word, lost.verdict) == ("turns", "turns")
    assert lost.value == pytest.approx(rl(d, 0.6, 0.4)[best] - rl(d, 0.6, 0.4)[-1])
    assert lost.interval[0] > 0 and lost.against == "warm"
    assert of(found, "gold_peak_kl_nats").value == pytest.approx(d[best] ** 2)
    assert of(found, "gold_fitted_peak_kl_nats").value == pytest.approx(math.exp(2 * (0.6 / 0.4 - 1)))
    assert of(found, "gold_gained").value == pytest.approx(rl(d, 0.6, 0.4)[-1])
    assert of(found, "proxy_gained").value == pytest.approx(6)
    assert of(found, "proxy_gained_after_peak").value == pytest.approx(6 - d[best])
    assert (of(found, "overoptimised").value, of(found, "overoptimised").verdict) == (1.0, "yes")


@pytest.mark.parametrize(
    ("gold", "proxy", "word", "overoptimised"),
    [
        (lambda d: 0.2 * d, None, "rises", 0.0),
        (lambda d: -0.2 * d, None, "falls", 1.0),
        (lambda d: 0 * d, None, "unclear", None),
        (lambda d: d * (1 - 0.3 * d), lambda d: d * (1 - 0.3 * d), "turns", None),  # both fall: no over-optimisation
    ],
)
def test_the_word_is_that_of_the_measured_curve(gold, proxy, word, overoptimised) -> None:
    d = np.linspace(0, 4, 9)
    found = diagnose(curve(d**2, gold(d), None if proxy is None else proxy(d)))
    assert found.word == word
    values = [f.value for f in found.findings if f.check == "overoptimised"]
    assert values == ([] if overoptimised is None else [overoptimised])


def test_noise_alone_is_seldom_called_a_turn() -> None:
    draws = np.random.default_rng(11)
    d = np.linspace(0, 4, 25)
    words = [diagnose(curve(d**2, draws.normal(0, 0.05, 25), error=0.05)).word for _ in range(300)]
    assert sum(w in ("turns", "falls") for w in words) <= 15  # at 95 % for each look alone it would be about 60


def test_the_loss_is_never_below_nothing() -> None:
    d = np.linspace(0, 4, 9)
    value, interval = loss(curve(d**2, d))
    assert value == 0 and interval[0] == 0 and interval[1] == 0
    assert diagnose(curve(d**2, d)).fit.peak is None or diagnose(curve(d**2, d)).fit.peak > 4


def test_too_few_looks_say_so_and_give_no_number() -> None:
    found = diagnose(curve([0, 1, 2, 3], [0, 1, 0.5, 0]))
    assert found.findings == () and found.fit is None
    assert "4 looks are too few" in found.notes[0]


def test_a_policy_that_did_not_move_has_no_form() -> None:
    found = diagnose(curve([0] * 8, [0.1] * 8))
    assert found.fit is None and "too few distances" in found.notes[-1]
    assert found.as_json()["fit"] is None


def test_a_way_that_leads_back_is_told_and_the_form_reads_distances_only() -> None:
    d = np.array([0, 1, 2, 3, 4, 3, 2.5])
    found = diagnose(curve(d**2, rl(d, 1.0, 0.5)))
    assert (found.fit.alpha, found.fit.beta) == pytest.approx((1.0, 0.5))
    assert "KL falls from 16 nats at update 20 to 6.25 at update 30" in found.notes[-1]


def test_an_estimate_of_the_kl_below_nothing_counts_as_nothing() -> None:
    d = np.linspace(0, 4, 8)
    found = diagnose(curve([-0.01, *d[1:] ** 2], rl(d, 1.0, 0.5)))
    assert found.curve.distance[0] == 0
    assert "1 estimates of the KL are below 0" in found.notes[0]
    assert found.fit.alpha == pytest.approx(1.0)


def test_looks_without_errors_have_no_intervals() -> None:
    d = np.linspace(0, 4, 8)
    found = diagnose(curve(d**2, rl(d, 1.0, 0.8), error=math.nan))
    assert found.word == "unclear" and found.fit.alpha == pytest.approx(1.0)
    assert of(found, "gold_lost_after_peak").interval is None and "overoptimised" not in checks(found)
    assert found.fit.misfit is None
    json.dumps(found.as_json(), allow_nan=False)


def test_intervals_of_few_prompts_are_wider() -> None:
    """Student's: of 5 prompts 2.776 standard errors for 1.96, and nothing is known of a curve without their number."""
    d = np.linspace(0, 4, 8)
    lasts = [replace(curve(d**2, d), prompts=n) for n in (5, 0)]
    few, unknown = (of(diagnose(one), "last_kl_nats").interval for one in lasts)
    assert few == pytest.approx((16 - 2.776 * 0.02, 16 + 2.776 * 0.02), abs=1e-4)
    assert unknown == pytest.approx((16 - 1.96 * 0.02, 16 + 1.96 * 0.02), abs=1e-4)


def line(step, **more):
    figures = {"step": step, "tokens": 10 * step, "kl": 0.1 * step, "kl_se": 0.01, "proxy": step, "proxy_se": 0.1}
    return figures | {"gold": 0.5, "gold_se": 0.02, "length": 20, "length_se": 1, "prompts": 40} | more


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_stage_s_own_looks_are_read(tmp_path) -> None:
    rows = [line(0), line(5, gold=None), line(10, gold=0.7, gold_se=None)]
    read = read_watch(written(tmp_path / "watch.jsonl", rows), "policy", "warm")
    assert read.at == (0, 10) and read.kl.tolist() == [0, 1.0] and read.gold.mean.tolist() == [0.5, 0.7]
    assert math.isnan(read.gold.error[1]) and read.prompts == 40
    assert read.notes == ("policy: 1 looks without a number left out: step 5",)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([line(5)], "no look at step 0"),
        ([line(0), {"step": 5}], "line 2: has no kl"),
        ([line(0, gold=None)], "no look at step 0"),
        ([[1]], "line 1: has no step"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(rows, said, tmp_path) -> None:
    with pytest.raises(UserError, match=said):
        read_watch(written(tmp_path / "watch.jsonl", rows), "policy")


def test_a_truth_that_was_not_watched_names_those_that_were(tmp_path) -> None:
    with pytest.raises(UserError, match=r"unknown watched reward 'golt'\. Did you mean 'gold'\? Known: gold$"):
        read_watch(written(tmp_path / "watch.jsonl", [line(0)]), "policy", truth="golt")


def test_a_run_that_watched_nothing_is_told_how(tmp_path) -> None:
    with pytest.raises(UserError, match=r"watch: \[gold\]"):
        read_watch(tmp_path / "watch.jsonl", "policy")
    (tmp_path / "half").write_text('{"step": 0')
    with pytest.raises(UserError, match="half, line 1: is no JSON"):
        read_watch(tmp_path / "half", "policy")


def test_intervals_of_a_fit_are_those_of_least_squares() -> None:
    """By the formulas: errors as they are given where the form fits, widened by the misfit where it does not."""
    d, free = np.linspace(0, 3.5, 8), 5
    form = np.stack([np.ones(8), d, -rl(d, 0.0, -1.0)], axis=1)
    for off, misfit in ((0.0, 0.0), (0.1, None)):
        gold = 0.4 + rl(d, 1.2, 0.6) + off * (-1.0) ** np.arange(8)
        fit = fitted(curve(d**2, gold, error=0.02))
        found, squares, *_ = np.linalg.lstsq(form, gold, rcond=None)
        wanted = float(squares[0]) / 0.02**2 / free if misfit is None else misfit
        spread = np.linalg.inv(form.T @ form) * 0.02**2 * max(1.0, wanted)
        half = 2.570582 * np.sqrt(spread.diagonal())  # Student's, of 5 degrees of freedom
        assert fit.misfit == pytest.approx(wanted, abs=1e-9) and (fit.misfit > 1) == (off > 0)
        assert fit.alpha_interval == pytest.approx((found[1] - half[1], found[1] + half[1]), rel=1e-5)
        assert fit.beta_interval == pytest.approx((found[2] - half[2], found[2] + half[2]), rel=1e-5)


def test_a_fitted_peak_is_found_in_nats_and_only_within_the_looks() -> None:
    d = np.linspace(0, 3.5, 8)
    found = diagnose(curve(d**2, rl(d, 1.2, 0.6)))
    low, high = found.fit.peak_interval
    assert of(found, "gold_fitted_peak_kl_nats").interval == pytest.approx((low**2, high**2)) and low != low**2
    beyond = diagnose(curve(d**2, rl(d, 1.2, 0.3)))
    assert beyond.fit.peak == pytest.approx(math.exp(3.0)) and "gold_fitted_peak_kl_nats" not in checks(beyond)


def test_what_the_proxy_gained_after_the_peak_is_said_of_a_peak_just_before_the_end() -> None:
    d = np.linspace(0, 4, 9)
    found = diagnose(curve(d**2, [*d[:-1], 0.0], proxy=2 * d))
    assert (found.best, of(found, "proxy_gained_after_peak").value) == (7, 1.0)
    assert "proxy_gained_after_peak" not in checks(diagnose(curve(d**2, d)))
