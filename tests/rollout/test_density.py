"""The explicit divergence objective as a reward: its value, its bound, and the optimum it goes with."""

import math

import pytest
import torch

from small_models import build
from truing.errors import UserError
from truing.evaluate.exam import sums
from truing.objectives import closed_form
from truing.policy.load import load
from truing.records import Message
from truing.rewards.density_ratio import DensityRatio, log_probabilities

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 8
SAID = ["no refund is due", "the rule says so", "a refund within thirty days", "the desk"]
ASKED = [(Message("user", "is a refund due"),)] * len(SAID)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    return [load(str(build("llama", TEXT, tmp_path_factory.mktemp("density"), vocab=300, seed=s))) for s in range(3)]


def test_the_reward_is_the_log_ratio_of_the_two_models(models) -> None:
    safe, unsafe, reference = models
    found = DensityRatio(safe, unsafe, alpha=0.5, floor=0.0)(ASKED, SAID)
    s, u, r = (torch.tensor(log_probabilities(m, ASKED, SAID), dtype=torch.float64) for m in models)
    assert [x.value for x in found] == pytest.approx((0.5 * (s - u)).tolist()) and (s - u).abs().min() > 0.01
    assert found[0].parts == {"safe": s[0].item(), "unsafe": u[0].item()}
    with_reference = DensityRatio(safe, unsafe, alpha=0.5, floor=0.0, reference=reference, weight=0.2)(ASKED, SAID)
    assert [x.value for x in with_reference] == pytest.approx((0.5 * (s - u) + 0.2 * (r - s)).tolist())


def test_a_log_probability_is_that_of_the_response_with_its_end(models) -> None:
    from truing.data.rendering.render import Renderer
    from truing.data.trees import build_trees
    from truing.records import Demonstration, Records

    records = Records("said", (Demonstration(ASKED[0], (Message("assistant", SAID[0]),)),), (1,))
    dataset = build_trees(records, Renderer(models[0].tokenizer), max_length=200, shape="single")
    assert log_probabilities(models[0], ASKED[:1], SAID[:1]) == pytest.approx(sums(models[0], dataset.trees))


def test_the_floor_bounds_it(models) -> None:
    """However rare a response is among the bad ones, it earns at most -alpha log floor."""
    safe, unsafe, _ = models
    free, bound = (DensityRatio(safe, unsafe, alpha=0.5, floor=f)(ASKED, SAID) for f in (0.0, 0.8))
    most = -0.5 * math.log(0.8)
    assert max(x.value for x in free) > 2 * most
    assert all(y.value <= most + 1e-9 for y in bound) and len({y.value for y in bound}) == len(SAID)


def test_under_its_leash_its_optimum_is_that_of_the_explicit_objective(models) -> None:
    """Over these four responses alone: J = E[R] - leash KL(pi || p_s) has the closed form's optimum and value."""
    logs = [torch.tensor(log_probabilities(m, ASKED, SAID)).double().log_softmax(0) for m in models]
    safe, unsafe, reference = logs
    for weight, other in ((0.0, None), (0.3, reference)):
        reward = 0.4 * (safe - unsafe) + (0.0 if other is None else weight * (other - safe))
        leash = 1 - 0.4 + weight
        assert DensityRatio(
            *models[:2], 0.4, 0.0, models[2] if weight else None, weight
        ).kl_coefficient == pytest.approx(leash)
        best, least = closed_form.explicit_optimum(safe, unsafe, 0.4, other, weight)
        assert torch.allclose(closed_form.optimum(safe, reward, leash), best, atol=1e-10)
        assert closed_form.value(best, safe, reward, leash).item() == pytest.approx(-least.item())


def test_what_it_cannot_be_is_refused(models) -> None:
    safe, unsafe, reference = models
    for options, said in (
        ({"alpha": 1.0}, "alpha is 1: it must be above 0 and below 1"),
        ({"floor": 1.0}, "floor is 1"),
        ({"reference": reference}, "needs its weight above 0"),
        ({"weight": 0.5}, "and a weight its reference"),
    ):
        with pytest.raises(UserError, match=said):
            DensityRatio(safe, unsafe, **options)


def test_a_response_that_a_model_cannot_read_has_failed(models) -> None:
    safe, unsafe, _ = models
    [found] = DensityRatio(safe, unsafe)(ASKED[:1], ["a refund " * 2000])
    assert found.failed and math.isnan(found.value) and "safe: prompt and response have" in found.why
