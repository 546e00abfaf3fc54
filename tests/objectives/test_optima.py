"""Minimised on a space whose every response is listed, each objective ends where its theory says."""

import math

import pytest
import torch

from truing import objectives as o
from truing.objectives import closed_form, kl

REF = torch.tensor([0.25, 0.25, 0.3, 0.2], dtype=torch.float64).log()
REWARD = torch.tensor([1.0, 0.0, 2.0, -1.0], dtype=torch.float64)
PLUS = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64).log()
MINUS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
ONE, TWO = (x.flatten() for x in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"))
WIN = torch.sigmoid(REWARD[ONE] - REWARD[TWO])
NONE = torch.zeros(16, dtype=torch.float64)


def minimise(loss, *parameters, rounds=20):
    """Minimise in place; the least value."""
    exact = {"tolerance_grad": 1e-13, "tolerance_change": 1e-18}
    optimiser = torch.optim.LBFGS(parameters, max_iter=50, line_search_fn="strong_wolfe", **exact)

    def closure():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(rounds):
        optimiser.step(closure)
    return loss().item()


def policy_after(loss_of, start=REF):
    """The policy at the minimum of `loss_of(logp)` over all policies, and the least value."""
    logits = start.clone().requires_grad_()
    least = minimise(lambda: loss_of(logits.log_softmax(0)), logits)
    return logits.detach().log_softmax(0), least


def rows_of(law, label):
    """20 rows in the proportions of a law: the responses, and one label for all."""
    y = torch.arange(4).repeat_interleave((20 * law.exp()).round().long())
    assert len(y) == 20
    return y, torch.full((20,), float(label), dtype=torch.float64)


Y = torch.cat([rows_of(PLUS, 1)[0], rows_of(MINUS, 0)[0]])
GOOD = torch.cat([rows_of(PLUS, 1)[1], rows_of(MINUS, 0)[1]])


def of_step(objective, step, options, previous=None):
    """The mean loss of a whole step, as the loop makes it, and its statistics."""
    made = objective.statistics(step, options, previous or {})
    step = step | {name: value.expand(len(next(iter(step.values())))) for name, value in made.items()}
    return objective(**{n: step[n] for n in objective.signals}, **options).mean(), made


def unpaired_step(logp, ref=REF):
    return {"logp_B": logp[Y], "ref_logp_B": ref[Y], "desirable_B": GOOD, "prompt_B": torch.zeros(40)}


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_dpo_reaches_the_optimum_of_the_reward_its_labels_came_from(beta: float) -> None:
    found, _ = policy_after(lambda logp: (WIN * o.dpo(logp[ONE], logp[TWO], REF[ONE], REF[TWO], beta=beta)).sum())
    assert torch.allclose(found, closed_form.optimum(REF, REWARD, beta), rtol=0, atol=1e-5)


def test_dpo_of_independent_winners_and_losers_measures_jensen_shannon() -> None:
    joint, swapped = closed_form.ordered_pairs(PLUS, MINUS)
    found, least = policy_after(
        lambda logp: (joint.exp() * o.dpo(logp[ONE], logp[TWO], REF[ONE], REF[TWO], beta=0.5)).sum()
    )
    assert torch.allclose(found, closed_form.optimum(REF, PLUS - MINUS, 0.5), rtol=0, atol=1e-5)
    assert least == pytest.approx(math.log(2) - closed_form.jensen_shannon(joint, swapped).item(), abs=1e-10)


def test_ranked_dpo_reaches_it_too() -> None:
    pairs = torch.stack([ONE, TWO], 1)
    found, _ = policy_after(
        lambda logp: (WIN * o.dpo_ranked(logp[pairs], REF[pairs], torch.ones(16, 2), beta=0.5)).sum()
    )
    assert torch.allclose(found, closed_form.optimum(REF, REWARD, 0.5), rtol=0, atol=1e-5)


def test_ipo_reaches_the_optimum_of_the_mean_win_probability() -> None:
    """pi ~ ref exp(mean_j P(i beats j) / tau), whatever reward is behind the probabilities."""
    tau, one = 0.5, torch.ones(16).double()
    found, _ = policy_after(
        lambda logp: (WIN * o.ipo(logp[ONE], logp[TWO], REF[ONE], REF[TWO], one, one, tau=tau)).sum()
    )
    assert torch.allclose(found, closed_form.optimum(REF, WIN.reshape(4, 4).mean(1), tau), rtol=0, atol=1e-6)


def test_f_dpo_makes_the_reward_beta_times_the_slope_of_f() -> None:
    for divergence, slope in {
        "jensen_shannon": lambda u: (2 * u / (1 + u)).log(),
        "forward_kl": lambda u: 1 - 1 / u,
    }.items():
        reward = REWARD / 10
        win = torch.sigmoid(reward[ONE] - reward[TWO])
        found, _ = policy_after(
            lambda logp, win=win, d=divergence: (
                win * o.f_dpo(logp[ONE], logp[TWO], REF[ONE], REF[TWO], beta=0.5, divergence=d)
            ).sum()
        )
        implied = 0.5 * slope((found - REF).exp())
        assert torch.allclose(implied - implied.mean(), reward - reward.mean(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("objective", [o.cdpo, o.exo])
def test_smoothed_labels_stop_at_a_finite_margin(objective) -> None:
    h, zero = torch.zeros(1, dtype=torch.float64, requires_grad=True), NONE[:1]
    minimise(lambda: objective(h, zero, zero, zero, beta=0.5, label_smoothing=0.2).sum(), h)
    assert 0.5 * h.item() == pytest.approx(closed_form.cdpo_margin(0.2), abs=1e-6)


def test_kto_measures_total_variation_only_with_free_rewards() -> None:
    """Free rewards reach 1 - TV; a policy's are bounded, by how much it can gain on the reference."""
    zero, two_classes = torch.zeros(40).double(), {"kl_baseline_B": torch.zeros(40).double(), "desirable_B": GOOD}
    free = 0.1 * (PLUS - MINUS).clone()
    free.requires_grad_()
    least = 2 * minimise(lambda: o.kto(logp_B=free[Y], ref_logp_B=zero, beta=1.0, **two_classes).mean(), free)
    bound = 1 - closed_form.total_variation(PLUS, MINUS).item()
    assert bound <= least < bound + 1e-3
    assert torch.equal(free.sign(), (PLUS - MINUS).sign())
    _, least = policy_after(lambda logp: o.kto(logp_B=logp[Y], ref_logp_B=REF[Y], beta=1.0, **two_classes).mean())
    assert 2 * least == pytest.approx(0.65, abs=2e-3), "golden.json's search found 0.6500 over policies"


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_bco_reaches_the_density_ratio_and_measures_jensen_shannon(beta: float) -> None:
    logits, shift = REF.clone().requires_grad_(), torch.zeros((), dtype=torch.float64, requires_grad=True)

    def loss():
        return o.bco(logits.log_softmax(0)[Y], REF[Y], GOOD, shift.expand(40), beta=beta).mean()

    least = minimise(loss, logits, shift)
    best = closed_form.optimum(REF, PLUS - MINUS, beta)
    assert torch.allclose(logits.detach().log_softmax(0), best, rtol=0, atol=1e-5)
    assert 2 * least == pytest.approx(math.log(4) - 2 * closed_form.jensen_shannon(PLUS, MINUS).item(), abs=1e-10)
    free = (PLUS - MINUS).clone()
    assert shift.item() == pytest.approx((beta * (best - REF) - free).mean().item(), abs=1e-5)


@pytest.mark.parametrize("per_prompt", [False, True])
def test_kldo_reaches_the_density_ratio_and_measures_kl(per_prompt: bool) -> None:
    options = {"beta": 0.5, "correction": 1.0, "per_prompt": per_prompt}
    found, least = policy_after(lambda logp: of_step(o.kldo, unpaired_step(logp), options)[0])
    assert torch.allclose(found, closed_form.optimum(REF, PLUS - MINUS, 0.5), rtol=0, atol=1e-5)
    assert least == pytest.approx(-kl.exact(PLUS, MINUS).item(), abs=1e-10)


def test_kldo_reaches_it_with_the_moving_average_too() -> None:
    logits, state = REF.clone().requires_grad_(), {}
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(600):
        optimiser.zero_grad()
        loss, state = of_step(o.kldo, unpaired_step(logits.log_softmax(0)), {"beta": 1.0, "correction": 0.1}, state)
        loss.backward()
        optimiser.step()
    assert torch.allclose(
        logits.detach().log_softmax(0), closed_form.optimum(REF, PLUS - MINUS, 1.0), rtol=0, atol=1e-3
    )
    assert loss.item() == pytest.approx(-kl.exact(PLUS, MINUS).item(), abs=1e-6)


def test_kldo_of_the_unsafe_reference_recovers_the_safe_law() -> None:
    options = {"beta": 1.0, "correction": 1.0}
    found, _ = policy_after(lambda logp: of_step(o.kldo, unpaired_step(logp, MINUS), options)[0], MINUS)
    assert torch.allclose(found, PLUS, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("divergence", "distance"),
    [
        ("kl", kl.exact),
        ("reverse_kl", lambda p, q: kl.exact(q, p)),
        ("jensen_shannon", lambda p, q: 2 * closed_form.jensen_shannon(p, q) - math.log(4)),
        ("hellinger", lambda p, q: 2 - 2 * (-closed_form.bhattacharyya(p, q)).exp()),
        ("pearson", closed_form.pearson),
        ("total_variation", closed_form.total_variation),
    ],
)
def test_fdo_measures_the_divergence_it_names(divergence: str, distance) -> None:
    r = 0.1 * (PLUS - MINUS).clone()
    r.requires_grad_()
    step = {"desirable_B": GOOD, "ref_logp_B": torch.zeros(40).double()}
    options = {"beta": 1.0, "divergence": divergence}
    least = minimise(lambda: of_step(o.fdo, step | {"logp_B": r[Y]}, options)[0], r)
    wanted = -distance(PLUS, MINUS).item()
    assert wanted - 1e-9 <= least < wanted + (1e-3 if divergence == "total_variation" else 1e-8)


@pytest.mark.parametrize("leash", [0.0, 0.3])
def test_the_explicit_objective_reaches_its_closed_form(leash: float) -> None:
    arguments = (PLUS, MINUS, 0.5, REF, leash)
    found, least = policy_after(lambda logp: closed_form.explicit_loss(logp, *arguments))
    best, lowest = closed_form.explicit_optimum(*arguments)
    assert torch.allclose(found, best, rtol=0, atol=1e-5)
    assert least == pytest.approx(lowest.item(), abs=1e-10)


def test_matching_the_distribution_ends_where_rewards_under_a_leash_do() -> None:
    """gdc covers by the forward KL what RLHF seeks by the reverse; rwr has the sampler for its reference."""
    y = rows_of(MINUS, 0)[0]
    step = {"score_B": REWARD[y], "old_logp_B": MINUS[y], "ref_logp_B": REF[y]}
    found, _ = policy_after(lambda logp: of_step(o.gdc, step | {"logp_B": logp[y]}, {"beta": 0.5})[0])
    assert torch.allclose(found, closed_form.optimum(REF, REWARD, 0.5), rtol=0, atol=1e-5)
    found, _ = policy_after(lambda logp: of_step(o.rwr, step | {"logp_B": logp[y]}, {"beta": 0.5})[0])
    assert torch.allclose(found, closed_form.optimum(MINUS, REWARD, 0.5), rtol=0, atol=1e-5)
    found, _ = policy_after(lambda logp: o.awr(logp[y], REWARD[y], beta=0.5, max_weight=1e9).mean())
    assert torch.allclose(found, closed_form.optimum(MINUS, REWARD, 0.5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("objective", [o.reinforce, o.rloo])
def test_policy_gradients_stand_still_at_the_optimum_and_nowhere_else(objective) -> None:
    """k1 in the reward, held fixed: the expected gradient is that of J."""

    def slope(at):
        logits = at.clone().requires_grad_()
        logp = logits.log_softmax(0)
        advantage = (REWARD - 0.5 * (logp - REF)).detach()
        old = {} if objective is o.reinforce else {"old_logp_B": logp.detach()}
        loss = (logp.exp().detach() * objective(logp_B=logp, advantage_B=advantage, **old)).sum()
        exact = torch.autograd.grad(-closed_form.value(logits.log_softmax(0), REF, REWARD, 0.5), logits)[0]
        return torch.autograd.grad(loss, logits)[0], exact

    got, exact = slope(closed_form.optimum(REF, REWARD, 0.5))
    assert got.abs().max() < 1e-12 and exact.abs().max() < 1e-12
    got, exact = slope(REF)
    assert torch.allclose(got, exact) and got.abs().max() > 0.1


@pytest.mark.parametrize(
    "name",
    [
        "ppo",
        "dr_grpo",
        "dapo",
        "gspo",
        "cispo",
        "rloo",
        "reinforce",
        "reinforce_pp",
        "reinforce_pp_baseline",
        "lite_ppo",
    ],
)
@pytest.mark.parametrize("updates", [1, 3])
def test_policy_gradients_converge_to_the_optimum(name: str, updates: int) -> None:
    """Rounds of fresh answers, every response in proportion to its probability, each learned from once or three times:
    KL(pi || pi*) falls to nothing, from a policy that is not the reference."""
    objective, logits = getattr(o, name), MINUS.clone().requires_grad_()
    best = closed_form.optimum(REF, REWARD, 1.0)
    options = {"clip_low": 0.2, "clip_high": 0.2} if name == "gspo" else {}
    for _ in range(300):
        old = logits.log_softmax(0).detach()
        score = REWARD - (old - REF)
        advantage = score - (old.exp() * score).sum()
        signals = {"old_logp_B": old, "advantage_B": advantage, "length_B": torch.ones(4, dtype=torch.float64)}
        signals |= {"old_logp_BT": old[:, None], "advantage_BT": advantage[:, None], "mask_BT": torch.ones(4, 1)}
        for _ in range(updates if name != "reinforce" else 1):
            logp = logits.log_softmax(0)
            given = signals | {"logp_B": logp, "logp_BT": logp[:, None]}
            losses = objective(**{n: given[n] for n in objective.signals}, **options)
            loss = (old.exp() * losses.reshape(4)).sum()
            with torch.no_grad():
                logits -= 1.5 * torch.autograd.grad(loss, logits)[0]
    found = logits.log_softmax(0).detach()
    start = kl.exact(MINUS, best)
    assert kl.exact(found, best) < 1e-6 < 0.3 < start
