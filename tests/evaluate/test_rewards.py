"""The arithmetic of held-out measures and of ensembles, against values worked out otherwise, and where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from truing.errors import RunFailed, UserError
from truing.evaluate import reward_model
from truing.records import Message, Score
from truing.rewards.scoring import Ensemble, ensemble, of_models, scores

ASKED = [(Message("user", f"{i}"),) for i in range(4)]
SAID = ["a", "bb", "ccc", "dddd"]


def by_length(scale: float, offset: float):
    return lambda prompts, texts: [Score(scale * len(text) + offset) for text in texts]


def backwards(prompts, texts):
    return [Score(-float(len(text))) for text in texts]


def test_members_of_any_offset_and_scale_count_alike() -> None:
    made = ensemble(of_models({"one": by_length(1, 0), "two": by_length(100, -7)}), ASKED, SAID)
    wanted = (np.array([1.0, 2, 3, 4]) - 2.5) / np.std([1, 2, 3, 4])
    given = made(ASKED, SAID)
    assert [s.value for s in given] == pytest.approx(wanted)
    assert [s.parts["disagreement"] for s in given] == pytest.approx([0] * 4)
    assert given[0].parts["one"] == pytest.approx(given[0].parts["two"])


def test_the_scale_is_that_of_the_responses_it_was_made_on() -> None:
    made = ensemble(of_models({"one": by_length(1, 0), "other": backwards}), ASKED, SAID)
    (far,) = made(ASKED[:1], ["e" * 20])
    unit = (20 - 2.5) / np.std([1, 2, 3, 4])
    assert (far.parts["one"], far.parts["other"]) == pytest.approx((unit, -unit))
    assert far.value == pytest.approx(0) and far.parts["disagreement"] == pytest.approx(unit)


@pytest.mark.parametrize(("how", "wanted"), [("mean", 0.0), ("worst", -1.0), ("uncertainty", -2.0)])
def test_the_three_ways(how, wanted) -> None:
    scales = {"one": (0.0, 1.0), "two": (0.0, 1.0)}
    panel = of_models({"one": lambda p, t: [Score(1.0)], "two": lambda p, t: [Score(-1.0)]})
    (score,) = Ensemble(panel, scales, how, coefficient=2.0)(ASKED[:1], SAID[:1])
    assert score.value == wanted and score.parts == {"one": 1.0, "two": -1.0, "disagreement": 1.0}


def test_what_fails_in_one_member_fails_in_all() -> None:
    ill = lambda prompts, texts: [Score(math.nan, failed=True, why="too long")] * len(texts)  # noqa: E731
    whole = ensemble(of_models({"one": by_length(1, 0), "two": by_length(2, 0)}), ASKED, SAID)
    broken = Ensemble(of_models({"one": by_length(1, 0), "two": ill}), whole.scales)
    assert [(s.failed, s.why) for s in broken(ASKED, SAID)] == [(True, "two: too long")] * 4
    with pytest.raises(RunFailed, match="the reward failed on response 1: two: too long"):
        scores(broken, ASKED, SAID)
    with pytest.raises(RunFailed, match="the reward failed on response 1: too long"):
        ensemble(of_models({"one": by_length(1, 0), "two": ill}), ASKED, SAID)
    few = of_models({"one": lambda p, t: [], "two": by_length(1, 0)})
    with pytest.raises(RunFailed, match="one gave 0 scores for 4 responses"):
        Ensemble(few, whole.scales)(ASKED, SAID)


def test_no_ensemble() -> None:
    with pytest.raises(UserError, match="an ensemble has at least two members"):
        ensemble(of_models({"one": by_length(1, 0)}), ASKED, SAID)
    with pytest.raises(UserError, match="two scores all 4 responses alike"):
        ensemble(of_models({"one": by_length(1, 0), "two": by_length(0, 3)}), ASKED, SAID)


def drawn(n: int = 60, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 9, n).astype(float)
    return x.tolist(), (x + rng.normal(0, 3, n)).round().tolist(), [f"p{i // 2}" for i in range(n)]


def test_spearman_and_auc_are_scipys() -> None:
    x, y, groups = drawn()
    found = reward_model.rank_correlation("rm", x, y, groups)
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.interval[0] < found.value < found.interval[1] and found.n == 30 and found.verdict == "better"
    good = [v > 4 for v in y]
    area = reward_model.area("rm", x, good, groups)
    u = stats.mannwhitneyu(
        [a for a, g in zip(x, good, strict=True) if g], [a for a, g in zip(x, good, strict=True) if not g]
    )
    assert area.value == pytest.approx(u.statistic / (sum(good) * (len(good) - sum(good))), abs=1e-12)
    assert area.verdict == "better" and area.bound == 0.5


def test_kendall_is_scipys_and_equal_rewards_are_half() -> None:
    rows = [[0.1, 0.7, 0.3, 0.2], [3.0, 2.0], [1.0, 1.0, 1.0]]
    tau, share = reward_model.rankings("rm", rows, ["a", "b", "c"])
    wanted = [stats.kendalltau(row, range(len(row), 0, -1)).statistic for row in rows[:2]] + [0.0]
    assert tau.value == pytest.approx(np.mean(wanted))
    assert share.value == pytest.approx((3 + 1 + 1.5) / 10)


def test_the_interval_of_a_statistic_holds_its_level() -> None:
    """The 95 % interval of a Spearman correlation covers the truth in most of 100 samples, and is no wider than it must."""
    rng, rho, n, hits = np.random.default_rng(1), 0.5, 40, 0
    truth = 6 / math.pi * math.asin(rho / 2)
    for _ in range(200):
        x = rng.normal(size=n)
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=n)
        low, high = reward_model.rank_correlation("rm", x.tolist(), y.tolist(), [str(i) for i in range(n)]).interval
        hits += low <= truth <= high
    assert 182 <= hits <= 198


def test_nothing_is_made_of_nothing() -> None:
    same, groups = [1.0] * 5, list("abcde")
    assert reward_model.rank_correlation("rm", same, [1.0, 2, 3, 4, 5], groups, "wit") == (
        "no rank correlation of rm (wit): it scores every held-out response alike"
    )
    assert reward_model.area("rm", [1.0, 2, 3, 4, 5], [True] * 5, groups) == (
        "no ROC curve of rm: every held-out label is good"
    )
    few = reward_model.rank_correlation("rm", [1.0, 2.0], [1.0, 2.0], ["a", "b"])
    assert (few.value, few.interval, few.verdict) == (1.0, None, "unclear")
    with pytest.raises(UserError, match="row 2: reward is nan, not a number"):
        reward_model.squared_error("rm", [1.0, math.nan], [1.0, 2.0], ["a", "b"])


def test_errors_and_losses_are_better_when_lower() -> None:
    groups = [str(i) for i in range(40)]
    targets = [float(i % 5) for i in range(40)]
    near, nearer = reward_model.squared_error("rm", [t + 0.1 for t in targets], targets, groups)
    far, worse = reward_model.squared_error("rm", [t + 4 + t / 9 for t in targets], targets, groups)
    assert (near.verdict, near.bound, far.verdict) == ("measured", None, "measured")
    assert nearer.check == "held_out_squared_error_delta" and nearer.bound == 0.0
    assert (nearer.verdict, worse.verdict) == ("better", "worse")
    assert nearer.value == pytest.approx(0.01 - 2.0 * 40 / 39)
    tied = [i % 4 == 0 for i in range(40)]
    found = reward_model.ties("rm", [0.9] * 40, [0.1 + i / 400 for i in range(40)], tied, groups)
    share, off, loss, less = found
    assert (share.verdict, share.value, loss.verdict) == ("measured", pytest.approx(0.9), "measured")
    assert (off.check, off.verdict, off.value) == ("held_out_tie_share_delta", "too many", pytest.approx(0.65))
    assert (less.check, less.verdict) == ("held_out_log_loss_delta", "better")
    blind = -0.25 * math.log(0.25) - 0.75 * math.log(0.375)
    assert less.value == pytest.approx(loss.value - blind)


def test_the_interval_of_a_difference_is_that_of_the_rows_differences() -> None:
    """By scipy's test of two paired columns, where they are as symmetric as this."""
    rng = np.random.default_rng(8)
    targets = np.tile([-1.0, 1.0], 30)
    rewards = 0.5 * targets + np.repeat(rng.normal(size=30), 2) * targets
    _, delta = reward_model.squared_error("rm", rewards.tolist(), targets.tolist(), [str(i) for i in range(60)])
    errors, baseline = (rewards - targets) ** 2, targets**2 * 60 / 59
    low, high = stats.ttest_rel(errors, baseline).confidence_interval()
    assert delta.value == pytest.approx((errors - baseline).mean())
    assert delta.interval[0] <= low and delta.interval[1] >= high
    assert delta.interval == pytest.approx((low, high), abs=0.2 * (high - low))


def test_an_accuracy_on_labels_is_held_against_every_constant_answer() -> None:
    """0.8 right where the commoner label is right for 0.6: 0.2 better, by the rows' differences to either constant."""
    good = [i % 5 < 3 for i in range(200)]
    logits = [(1.0 if g else -1.0) * (-1.0 if i % 5 == 4 else 1.0) for i, g in enumerate(good)]
    groups = [str(i) for i in range(200)]
    accuracy, delta = reward_model.label_accuracy("held_out_accuracy", "rm", logits, good, groups)
    assert (accuracy.value, accuracy.bound, accuracy.verdict) == (0.8, None, "measured")
    assert (delta.check, delta.value, delta.verdict) == ("held_out_accuracy_delta", pytest.approx(0.2), "better")
    right, common = np.repeat(1.0, 200), np.array(good, dtype=float)
    right[4::5] = 0.0
    low, high = stats.ttest_rel(right, common).confidence_interval()
    assert delta.interval[0] == pytest.approx(low, abs=0.01) and delta.interval[1] == pytest.approx(high, abs=0.01)
    _, constant = reward_model.label_accuracy("held_out_accuracy", "rm", [1.0] * 200, good, groups)
    assert (constant.value, constant.interval, constant.verdict) == (0.0, None, "unclear")


def test_few_labels_of_one_kind_give_no_interval_of_the_area() -> None:
    rng = np.random.default_rng(9)
    x, groups = rng.normal(size=60).tolist(), [str(i) for i in range(60)]
    nine = reward_model.area("rm", x, [i < 9 for i in range(60)], groups)
    ten = reward_model.area("rm", x, [i < 10 for i in range(60)], groups)
    assert (nine.interval, nine.verdict) == (None, "unclear") and ten.interval is not None
