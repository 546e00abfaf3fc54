"""Statistics of a whole step, advantages and reward models: limits, states, and what is refused."""

import math

import pytest
import torch
from torch import Tensor

from truing import contract, registry
from truing import objectives as o
from truing.errors import UserError
from truing.objectives import advantage, closed_form, kl, ratio
from truing.objectives.divergence import moving_log_mean_exp, prompt_weight
from truing.registry import objective

DOC = """A fixture.

    loss = ...

Differs from the source: all of it.

>>> 1
1
"""


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("name", [n for n, part in registry.parts("objective").items() if part.coupled])
def test_a_step_in_parts_is_the_step_in_one(name: str) -> None:
    """Statistics of the whole step, then rows one by one: the gradient of the mean is that of all rows at once."""
    part = registry.load(name, "objective")
    signals = contract.example(part, rows=8)
    learned = {n: v for n, v in signals.items() if v.requires_grad}
    whole = torch.autograd.grad(part(**signals).mean(), learned.values(), allow_unused=True)
    for i in range(8):
        (part(**{n: v[i : i + 1] for n, v in signals.items()}).sum() / 8).backward()
    for (n, v), g in zip(learned.items(), whole, strict=True):
        assert torch.allclose(v.grad, g, rtol=0, atol=1e-14), n


def test_the_reward_shift_moves_by_its_rate() -> None:
    step = {"logp_B": t(1.0, 3.0), "ref_logp_B": t(0.0, 0.0)}
    first = o.bco.statistics(step, {"beta": 0.5, "rate": 0.25}, {})
    assert first["shift_B"].item() == 1.0
    then = o.bco.statistics(step | {"logp_B": t(5.0, 5.0)}, {"beta": 0.5, "rate": 0.25}, first)
    assert then["shift_B"].item() == pytest.approx(1.375)


def test_a_step_without_undesirable_rows_leaves_the_average_as_it_was() -> None:
    options = {"beta": 1.0, "correction": 0.1}
    assert moving_log_mean_exp(t(1.0), t(0.0), t(1.0), previous=t(0.7)[0], **options).item() == 0.7
    assert moving_log_mean_exp(t(1.0), t(0.0), t(1.0), previous=None, **options).item() == 0.0
    step = {"logp_B": t(1.0, 2.0), "ref_logp_B": t(0.0, 0.0), "desirable_B": t(1.0, 1.0), "prompt_B": t(0.0, 1.0)}
    for per_prompt in (False, True):
        made = o.kldo.statistics(step, {"per_prompt": per_prompt}, {})
        rows = {n: v.expand(2) for n, v in made.items()}
        losses = o.kldo(**{n: (step | rows)[n] for n in o.kldo.signals}, per_prompt=per_prompt)
        assert torch.isfinite(losses).all()


def test_a_prompt_of_one_class_weighs_nothing_per_prompt() -> None:
    good, prompt = t(1, 0, 0, 1, 1, 1, 0), t(5, 5, 5, 7, 7, 9, 9)
    weight = prompt_weight(good, prompt, per_prompt=True)
    assert torch.allclose(weight, 7 / 2 * t(1, 0.5, 0.5, 0, 0, 1, 1))
    assert torch.allclose(prompt_weight(good, prompt, per_prompt=False), 7 / torch.where(good > 0, 4.0, 3.0).double())


def test_ties_vanish_into_bradley_terry() -> None:
    chosen, rejected, won = t(1.2, -0.3), t(0.5, 0.1), t(0, 0)
    plain = o.bradley_terry(chosen, rejected)
    assert torch.allclose(o.davidson(chosen, rejected, won, t(-60, -60)), plain)
    assert torch.allclose(o.rao_kupper(chosen, rejected, won, t(-60, -60)), plain, atol=2e-6)


def test_the_tie_parameter_learns_the_share_of_ties() -> None:
    """At equal rewards Rao and Kupper's share of ties is (theta - 1)/(theta + 1); one in five needs theta 1.5."""
    tie = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([tie], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-12)

    def closure():
        optimiser.zero_grad()
        loss = o.rao_kupper(torch.zeros(5), torch.zeros(5), t(1, 0, 0, 0, 0), tie.expand(5)).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    theta = torch.nn.functional.softplus(tie).exp().item()
    assert theta == pytest.approx(1.5, abs=1e-4)


def test_a_verifier_learns_nothing_behind_the_first_bad_step() -> None:
    logit = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([[1, -1, 1, 1], [0, 1, 1, -1]])
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 1]])
    o.prm(logit, label, mask).sum().backward()
    assert logit.grad.tolist() == [[-0.5, 0.5, 0, 0], [-0.5, -0.5, 0, 0.5]]
    assert o.prm(logit + 1, label, mask, neutral="bad")[1, 0] > o.prm(logit + 1, label, mask)[1, 0]
    once = o.steps.supervised(label, mask)
    assert torch.equal(o.steps.supervised(label, once), once)
    strict = o.prm(logit, label, mask, neutral="bad")
    assert strict[1].tolist()[0] > 0 and strict[1].tolist()[1:] == [0, 0, 0], (
        "the neutral first step is bad, and ends it"
    )


def test_advantages_pass_over_masked_tokens_and_have_no_gradient() -> None:
    mask = torch.tensor([[1.0, 0, 1, 0]])
    value = torch.tensor([[0.3, 9.0, 0.9, 9.0]], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([[0.0, 7.0, 1.5, 7.0]], dtype=torch.float64)
    found, returns = advantage.gae(reward, value, mask)
    short, short_returns = advantage.gae(reward[:, [0, 2]], value[:, [0, 2]], torch.ones(1, 2))
    assert torch.equal(found[:, [0, 2]], short) and torch.equal(returns[:, [0, 2]], short_returns)
    assert found[0, [1, 3]].tolist() == [0, 0] and returns[0, [1, 3]].tolist() == [0, 0]
    assert not found.requires_grad and not returns.requires_grad
    assert advantage.returns(reward, mask).tolist() == [[1.5, 0, 1.5, 0]]
    white = advantage.whitened(reward[0], mask[0])
    assert white[[1, 3]].tolist() == [0, 0] and white.sum().abs() < 1e-12


def test_the_score_stands_on_the_last_real_token() -> None:
    zero = torch.zeros(2, 4)
    mask = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 0]])
    found = advantage.shaped_rewards(torch.tensor([2.0, 3.0]), zero, zero + 7 * (1 - mask), mask, beta=0.1)
    assert found.tolist() == [[0, 2, 0, 0], [0, 0, 3, 0]]


def test_groups_may_differ_in_size_and_stand_anywhere() -> None:
    scores, group = t(1, 4, 3, 6, 5), t(8, 2, 8, 2, 2)
    assert advantage.centred(scores, group).tolist() == [-1, -1, 1, 1, 0]
    assert advantage.leave_one_out(scores, group).tolist() == [-2, -1.5, 2, 1.5, 0]
    assert torch.allclose(advantage.standardised(scores, group, sample=True, floor=0)[1:4:2], t(-1, 1))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: advantage.leave_one_out(t(1, 2, 3), t(0, 0, 1)), "fewer than 2 responses"),
        (lambda: advantage.standardised(t(1, 2, 3), t(0, 0, 1), sample=True), "fewer than 2 responses"),
        (lambda: advantage.batch_scaled(t(1, 1), t(1, 1)), "nothing to scale by"),
        (lambda: advantage.whitened(t(1, 1), t(1, 0), sample=True), "at least two values"),
        (lambda: advantage.process(t(1)[None], t(1)[None], sample=True), "at least two step rewards"),
        (lambda: advantage.next_multiplier(0.0, 1.0, rate=0.1), "above 0"),
        (
            lambda: advantage.shaped_rewards(t(1), t(1)[None], t(1)[None], t(0)[None], beta=0.1),
            "without a single token",
        ),
        (lambda: kl.adapted(0.2, 3.0, target=0.0, rows=1), "above 0"),
        (lambda: o.robust_dpo(t(0), t(0), t(0), t(0), label_smoothing=0.5), "below 0.5, got 0.5"),
        (lambda: o.exo(t(0), t(0), t(0), t(0), label_smoothing=0.0), "at least 1e-06"),
        (lambda: o.unpaired.balanced_weights(0, 3), "both classes"),
        (lambda: closed_form.explicit_optimum(t(0), t(0), 1.2), "not below 1"),
    ],
)
def test_refused(call, said: str) -> None:
    with pytest.raises(UserError, match=said):
        call()


def make(fn, **more):
    fn.__doc__ = DOC
    return objective(source="a test", **more)(fn)


def first_row(score_B: Tensor) -> Tensor:
    return score_B[0]


def unread(score_B: Tensor, *, beta: float) -> Tensor:
    return score_B.mean()


def weighted(logp_B: Tensor, log_partition_B: Tensor, *, beta: float = 0.5) -> Tensor:
    return -log_partition_B.exp() * logp_B


def test_the_contract_sees_a_statistic_that_follows_the_order() -> None:
    found = contract.violations(make(weighted, coupled={"log_partition_B": first_row}))
    assert any("whole step: 'log_partition_B' follows the rows' order" in line for line in found), found


def test_the_contract_sees_an_option_that_no_statistic_reads() -> None:
    found = contract.violations(make(weighted, coupled={"log_partition_B": unread}))
    assert any("no dead option: option 'beta' changes nothing" in line for line in found), found


def test_statistics_are_checked_where_they_are_declared() -> None:
    def other(logp_B: Tensor, *, beta: float = 0.5) -> Tensor:
        return -beta * logp_B

    with pytest.raises(TypeError, match="does not ask for all of them"):
        make(other, coupled={"log_partition_B": first_row})
    with pytest.raises(TypeError, match="reads gamma: no option"):
        make(weighted, coupled={"log_partition_B": lambda score_B, *, gamma: score_B.mean()})


def test_coupled_signals_are_read_from_source(tmp_path) -> None:
    body = "\n".join(f"    {line}" for line in DOC.splitlines())
    plug_in = (
        "from truing.registry import objective\n"
        "def mean_score(score_B, *, beta):\n    return (score_B / beta).mean()\n"
        "@objective(source='a test', coupled={'log_partition_B': mean_score}, mean='row')\n"
        "def mine(logp_B, score_B, log_partition_B, *, beta: Positive = 1.0):\n"
        f'    """{body.strip()}\n    """\n    return -(score_B - log_partition_B) * logp_B\n'
    )
    (tmp_path / "mine.py").write_text(plug_in)
    part = registry.resolve("mine.py:mine", "objective", tmp_path)
    assert (part.coupled, part.mean, part.unread) == (("log_partition_B",), "row", ())
    (tmp_path / "bad.py").write_text(plug_in.replace("{'log_partition_B': mean_score}", "dict(x=mean_score)"))
    with pytest.raises(UserError, match=r"bad.py:5: objective 'mine': coupled has to be written out"):
        registry.resolve("bad.py:mine", "objective", tmp_path)


def test_exponentials_go_on_along_their_tangent() -> None:
    x = t(19.0, 20.0, 25.0).requires_grad_()
    y = ratio.tangent_exp(x)
    y.sum().backward()
    top = math.exp(20)
    assert torch.allclose(y, t(math.exp(19), top, 6 * top))
    assert torch.allclose(x.grad[[0, 2]], t(math.exp(19), top))


@pytest.mark.parametrize("name", ["ppo", "grpo", "dapo", "dr_grpo", "reinforce_pp", "cispo", "rloo", "gspo"])
@pytest.mark.parametrize("gap", [500.0, -500.0])
def test_a_policy_far_from_its_rollouts_stays_finite(name: str, gap: float) -> None:
    """In fp32 exp(500) is infinite, and infinity times a clipped gradient of 0 is not a number."""
    part = registry.load(name, "objective")
    for sign in (1.0, -1.0):
        signals = {n: v.detach().float() for n, v in contract.example(part).items()}
        logp, old = (next(n for n in signals if n.startswith(start)) for start in ("logp", "old_logp"))
        lengths = signals.get("length_B", torch.ones(1))
        signals[logp] = (signals[old] + gap * lengths.reshape(-1, *[1] * (signals[old].dim() - 1))).requires_grad_()
        signals |= {n: sign * v.abs() for n, v in signals.items() if n.startswith("advantage")}
        losses = part(**signals)
        losses.sum().backward()
        assert torch.isfinite(losses).all() and torch.isfinite(signals[logp].grad).all()
