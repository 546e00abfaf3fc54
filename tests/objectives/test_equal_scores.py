"""Equal scores teach nothing: every advantage and scale of them is exactly 0, whatever their type, size and number."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from truing.data.batch import Branch, Tree
from truing.errors import UserError
from truing.objectives import advantage
from truing.objectives.equal import alike, distances
from truing.online import preferences
from truing.online.advantages import ADVANTAGES, Round, equal
from truing.online.history import moments
from truing.online.reward_shaping import normalised
from truing.registry import RewardFunction
from truing.rewards.call import Call
from truing.rewards.combine import Rewards, Term
from truing.rollout.best import steps_down
from truing.rollout.experience import Experience
from truing.settings import Online

TYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def whole(scores):
    return torch.zeros(len(scores), dtype=torch.long)


EVERY = {
    "centred": lambda x: advantage.centred(x, whole(x)),
    "leave_one_out": lambda x: advantage.leave_one_out(x, whole(x)),
    "standardised": lambda x: advantage.standardised(x, whole(x)),
    "standardised, no floor": lambda x: advantage.standardised(x, whole(x), floor=0.0),
    "standardised, sample": lambda x: advantage.standardised(x, whole(x), sample=True, floor=0.0),
    "whitened": lambda x: advantage.whitened(x, torch.ones(len(x))),
    "process": lambda x: advantage.process(x[:, None], torch.ones(len(x), 1)),
    "process in a row": lambda x: advantage.process(x[None], torch.ones(1, len(x)), sample=True),
    "batch, centred": lambda x: advantage.batch_scaled(advantage.centred(x, whole(x)), x, floor=1e-4),
    "batch, raw": lambda x: advantage.batch_scaled(x - x, x, floor=1e-300),
    "heads": lambda x: advantage.standardised(x, whole(x), floor=0) + advantage.standardised(-x, whole(x), floor=0),
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("score", "count"), [(0.1, 3), (1e4 + 0.1, 5), (-0.7, 6), (1e-7, 3), (0.3, 64), (0.0, 4)])
def test_equal_scores_give_exactly_nothing(name, dtype, score, count) -> None:
    found = EVERY[name](torch.full((count,), score, dtype=dtype))
    assert found.dtype == dtype and found.tolist() == torch.zeros_like(found).tolist()


@pytest.mark.parametrize("name", EVERY)
def test_scores_of_a_million_and_sums_that_are_rounded_otherwise_are_equal(name) -> None:
    for scores in ([1e6 + 0.1] * 5, [0.1 + 0.2, 0.3, 0.3], [0.7 + 0.1, 0.8, 0.8]):
        assert not EVERY[name](torch.tensor(scores, dtype=torch.float64)).any()


@pytest.mark.parametrize("name", [n for n in EVERY if n not in ("heads", "batch, raw")])
@pytest.mark.parametrize(
    ("dtype", "scores"),
    [
        (torch.float64, [0.1, 0.1, 0.1 + 1e-8]),
        (torch.float64, [1e6, 1e6 + 1e-8, 1e6]),
        (torch.float32, [1e-8, 2e-8, 3e-8]),
        (torch.bfloat16, [0.90, 0.92, 0.94]),
        (torch.float32, [1.0, 1.0, 1.0 + 2**-21]),
    ],
)
def test_a_real_difference_counts_however_small(name, dtype, scores) -> None:
    found = EVERY[name](torch.tensor(scores, dtype=dtype))
    assert found.any()


def test_without_a_floor_small_differences_give_whole_advantages() -> None:
    for size in (1e-8, 1.0, 1e8):
        scores = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64) * size
        wanted = pytest.approx([-(1.5**0.5), 0, 1.5**0.5])
        assert advantage.standardised(scores, whole(scores), floor=0).tolist() == wanted
        assert advantage.batch_scaled(advantage.centred(scores, whole(scores)), scores).tolist() == wanted


def test_what_has_nothing_to_scale_by_is_refused() -> None:
    scores = torch.tensor([0.1] * 3)
    with pytest.raises(UserError, match="nothing to scale by; set a floor"):
        advantage.batch_scaled(advantage.centred(scores, whole(scores)), scores)


def test_a_group_of_equal_scores_beside_one_of_others_has_no_advantage() -> None:
    scores, group = torch.tensor([0.1, 0.1, 0.1, 0.0, 1.0]), torch.tensor([7, 7, 7, 3, 3])
    assert advantage.standardised(scores, group, floor=0.0).tolist() == [0, 0, 0, -1, 1]
    assert distances(torch.tensor([float("nan"), 1.0]), whole([1, 2])).isnan().all(), "no failure becomes a number"


def test_low_precision_is_no_reason_for_a_wrong_mean() -> None:
    """300 scores in bf16, whose sum and count bf16 cannot hold."""
    scores = (torch.arange(300) % 2).bfloat16()
    assert advantage.centred(scores, whole(scores)).tolist() == [-0.5, 0.5] * 150
    large = torch.tensor([300.0, -300.0], dtype=torch.float16)  # whose squares fp16 cannot hold
    assert advantage.standardised(large, whole(large)).tolist() == [1, -1]


# --- where scores are compared on the way to an advantage ----------------------------------------------------------------


@pytest.mark.parametrize("scores", [[0.1] * 3, [0.1 + 0.2, 0.3, 0.3], [1e6 + 0.1] * 5, [3.3, 1.1 + 2.2]])
def test_a_scale_of_equal_scores_divides_nothing(scores) -> None:
    """Normalised over a round, and over all rounds so far."""
    once = moments(scores)
    for scale in (once, once.joined(moments(scores[:1])), moments(scores[:1]).joined(moments(scores[1:]))):
        assert scale.deviation == 0.0
        assert not normalised(torch.tensor(scores, dtype=torch.float64), scale, None).any()
    apart = moments([0.1, 0.1 + 1e-8])
    assert normalised(torch.tensor([0.1, 0.1 + 1e-8], dtype=torch.float64), apart, None).tolist() == pytest.approx(
        [-1, 1], rel=1e-6
    )


def tree(*scores):
    return Tree(
        (1,), tuple(Branch("response", (i,), (True,), facts={"score_B": (s,)}) for i, s in enumerate(scores)), 0, 1
    )


def test_preferences_are_made_of_no_rounding() -> None:
    """Online DPO, rankings and labels of a group whose scores differ in their last bit alone."""
    for same in (tree(0.3, 0.1 + 0.2), tree(0.1, 0.1, 0.1)):
        assert preferences.best_and_worst(same) is preferences.ranked(same) is preferences.labelled(same) is None
    assert [b.role for b in preferences.best_and_worst(tree(0.3, 0.3 + 1e-8)).branches] == ["chosen", "rejected"]
    assert steps_down([0.3, 0.1 + 0.2, 0.2], float) == [0.1 + 0.2, 0.2]


def test_one_reward_before_another_is_asked_where_they_differ_by_more_than_rounding() -> None:
    def first(responses):
        return [0.1 + 0.2, 0.3]

    def second(responses):
        return [0.0, 1.0]

    terms = tuple(Term(f.__name__, Call(RewardFunction(f, "response"), {}, 60.0)) for f in (first, second))
    rewards = Rewards(terms, "lexicographic")
    parts = [{"first": a, "second": b} for a, b in zip(first([]), second([]), strict=True)]
    assert (rewards._beats(parts[0], parts[1]), rewards._beats(parts[1], parts[0])) == (0.0, 1.0)


ROW = Experience(1, (), "", (1,), (2, 3), (-1.0, -2.0), (), (), 0.0, "eos", 0, 0)


def rounds(scores, **online):
    rows = [replace(ROW, score=score, group=group) for group, own in enumerate(scores) for score in own]
    return Round(rows, Online(**online)), rows


@pytest.mark.parametrize("kind", [k for k in ADVANTAGES if k not in ("none", "gae", "returns")])
def test_a_round_of_equal_groups_has_no_advantage(kind) -> None:
    made, rows = rounds([[0.1] * 3, [0.7] * 3, [0.1 + 0.2, 0.3, 0.3]])
    assert not ADVANTAGES[kind](made).any() and equal(rows) == [0, 1, 2]


def test_a_round_of_one_score_has_no_advantage_of_tokens() -> None:
    """Returns of tokens, and generalised advantages where they are returns."""
    made, _ = rounds([[0.1] * 3, [0.1] * 2], gae_lambda=1.0)
    assert not ADVANTAGES["returns"](made).any() and not ADVANTAGES["gae"](made).any()


def test_alike_says_what_is_equal() -> None:
    assert alike([]) and alike([2.0]) and alike([float("inf")] * 2)
    assert not alike([1.0, 1.0 + 1e-8]) and not alike([0.0, 5e-324]) and not alike([float("inf"), 1.0])
