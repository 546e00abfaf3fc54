"""The clauses of the contract, each a small experiment that returns its problem, or an empty string."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from truing.contract.example import (
    MASKS,
    ROWS,
    SHIFT,
    STEPS,
    TOKENS,
    YES_OR_NO,
    Signals,
    coupled,
    example,
    learned,
    random_signal,
)
from truing.objectives.signals import SIGNALS
from truing.registry import Objective, Option

Clause = Callable[[Objective], str]
UP = ("logp_BT", "logp_B", "chosen_logp_B", "chosen_reward_B", "given_logp_B")
DOWN = ("rejected_logp_B", "rejected_reward_B")


def one_loss_per_row(objective: Objective) -> str:
    """Returns [B], or [B, T] where it is token-level, and never a mean."""
    loss = objective(**example(objective))
    wanted = {"row": (ROWS,), "token": (ROWS, TOKENS), "step": (ROWS, STEPS)}[objective.per]
    return "" if tuple(loss.shape) == wanted else f"returned shape {tuple(loss.shape)}, not {wanted}"


def batch_order(objective: Objective) -> str:
    """Permuting the rows permutes the losses."""
    signals, order = example(objective), torch.tensor([3, 0, 4, 1, 2])
    shuffled = {name: value[order] for name, value in signals.items()}
    return _same(objective(**signals)[order], objective(**shuffled), 1e-12, "the loss of a row depends on the others")


def batch_size(objective: Objective) -> str:
    """A row's loss is the same alone and in a batch."""
    signals = example(objective)
    alone = torch.cat([objective(**{n: v[i : i + 1] for n, v in signals.items()}) for i in range(ROWS)])
    return _same(objective(**signals), alone, 1e-12, "the loss of a row depends on the batch it is in")


def finite_at_extremes(objective: Objective) -> str:
    """Value and gradient stay finite at log-probabilities and rewards far out, in fp32."""
    for size in (1e-6, 1e3, 1e6):
        signals: Signals = {}
        for name, value in example(objective).items():
            far = value.detach().float()
            if value.requires_grad or name.startswith("ref_"):
                far = -far.abs() * size if "logp" in name else far * size
            signals[name] = far.requires_grad_(value.requires_grad)
        signals = coupled(objective, signals)
        loss = objective(**signals)
        loss.sum().backward()
        if not all(
            bool(torch.isfinite(t).all()) for t in [loss, *(v.grad for v in learned(signals) if v.grad is not None)]
        ):
            return f"not finite where signals are of size {size:g}"
    return ""


def gradient(objective: Objective) -> str:
    """Autograd equals central finite differences in fp64."""
    signals = example(objective)
    names = [name for name, value in signals.items() if value.requires_grad]

    def loss(*values: Tensor) -> Tensor:
        return objective(**(signals | dict(zip(names, values, strict=True))))

    ok = torch.autograd.gradcheck(loss, [signals[n] for n in names], raise_exception=False, atol=1e-6, rtol=1e-5)
    return "" if ok else "autograd differs from finite differences"


def masked_tokens(objective: Objective) -> str:
    """Masked tokens change neither the loss nor the gradient."""
    axis = next((axis for axis, mask in MASKS.items() if mask in objective.signals), "")
    if not axis:
        return ""
    signals = example(objective)
    hidden = signals[MASKS[axis]] == 0
    other = {
        n: torch.where(hidden, v - 3.0, v).detach().requires_grad_(v.requires_grad)
        if n.endswith(f"_B{axis}") and n != MASKS[axis]
        else v
        for n, v in signals.items()
    }
    before, after = objective(**signals), objective(**other)
    grads = torch.autograd.grad(before.sum(), learned(signals))
    if any(bool((g[hidden] != 0).any()) for g in grads if g.shape == hidden.shape):
        return "a gradient flows to masked tokens"
    return _same(before, after, 0.0, "masked tokens change the loss")


def defaults(objective: Objective) -> str:
    """Every option has a default, that of its source, so that the objective can be tried at all."""
    required = [option.name for option in objective.options if option.required]
    return f"option '{required[0]}' has none; give it the source's, or a harmless one" if required else ""


def no_dead_option(objective: Objective) -> str:
    """Every option changes the loss."""
    base = pull(objective)
    for option in objective.options:
        tries = [v for v in others(option) if v != option.default]
        if not tries:
            return f"option '{option.name}' ({option.type}) has no other value that could be tried by itself; exempt it"
        if not any(bool((pull(objective, **{option.name: v}) != base).any()) for v in tries):
            return f"option '{option.name}' changes nothing"
    return ""


def pull(objective: Objective, **options: Any) -> Tensor:
    """The losses of the example with these options, and their gradients."""
    signals = example(objective, rows=4 * ROWS, **options)
    losses = objective(**signals, **options)
    grads = torch.autograd.grad(losses.sum(), learned(signals), allow_unused=True)
    return torch.cat([losses.detach().flatten(), *(g.flatten() for g in grads if g is not None)])


def others(option: Option) -> list[Any]:
    """Values to try an option with: all choices of a `Literal`, both of a `bool`, some numbers in its range."""
    if option.choices:
        return list(option.choices)
    if "bool" in option.words:
        return [True, False]
    return [v for v in (0.3, 0.05, 0.7, 0.5, 2.0, 3.0) if takes(option, v)]


def takes(option: Option, value: float) -> bool:
    """True if a number is a value of the option."""
    try:
        return isinstance(option.check(value), int | float)
    except ValueError:
        return False


def no_dead_signal(objective: Objective) -> str:
    """Every signal it asks for changes the loss."""
    signals = {name: value.detach() for name, value in example(objective).items()}
    base = objective(**signals)
    for name, value in signals.items():
        turned = name in (*MASKS.values(), *YES_OR_NO, "preference_B")
        moved = 1 - value if turned else -value if name == "step_label_BS" else value + SHIFT
        same = bool((objective(**(signals | {name: moved})) == base).all())
        if same and not steers(objective, signals, name, moved):
            return f"signal '{name}' changes nothing"
    return ""


def steers(objective: Objective, signals: Signals, name: str, moved: Tensor) -> bool:
    """True if a signal changes the gradient; an objective whose gradient is corrected may read one for that alone."""
    models = ("policy", "reward")
    gradients = []
    for variant in (signals, signals | {name: moved}):
        live = {n: v.clone().requires_grad_(SIGNALS[n].origin in models) for n, v in variant.items()}
        grads = torch.autograd.grad(objective(**live).sum(), learned(live), allow_unused=True)
        gradients.append([g for g in grads if g is not None])
    return any(bool((a != b).any()) for a, b in zip(*gradients, strict=True))


def against_reference(objective: Objective) -> str:
    """Raising a reference's log-probability does the opposite of raising the policy's."""
    signals = {name: value.detach() for name, value in example(objective).items()}
    base = objective(**signals)
    for name in [n for n in signals if f"ref_{n}" in signals]:
        policy_change, other = (objective(**(signals | {n: signals[n] + SHIFT})) - base for n in (name, f"ref_{name}"))
        if bool((policy_change * other > 0).any()):
            return f"ref_{name} moves the loss the same way as {name}"
    return ""


def half_precision(objective: Objective) -> str:
    """bf16 signals give the fp32 loss within bf16's rounding."""
    signals = {n: v.detach() for n, v in example(objective).items()}
    low = objective(**{n: v.bfloat16() for n, v in signals.items()}).double()
    high = objective(**{n: v.bfloat16().float() for n, v in signals.items()}).double()
    return _same(low, high, 0.15, "bf16 and fp32 disagree", relative=0.05)


def described(objective: Objective) -> str:
    """The docstring has a formula, a worked example that holds, and what differs; the source is named."""
    missing = [
        w
        for w, there in (
            ("a formula", "loss" in objective.doc),
            ("a source", objective.source),
            ("an example", ">>>" in objective.doc),
            ("what differs", "Differs from" in objective.doc),
        )
        if not there
    ]
    if missing:
        return f"the docstring lacks {', '.join(missing)}"
    names = objective.fn.__globals__ | {objective.name: objective}
    tests = doctest.DocTestFinder(recurse=False).find(objective.fn, objective.name, module=False, globs=names)
    failed = sum(doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed for test in tests)
    return f"{failed} lines of its example do not hold" if failed else ""


def direction(objective: Objective) -> str:
    """The first step, from the reference, raises what was chosen and lowers what was rejected (of a ranking the first
    and the last), a cost (`lower_is_better`) the other way round; a single response goes where its label, its advantage
    or its score points, a step where its label does."""
    signals = example(objective, optional=False)
    signals = coupled(objective, signals | {n: signals[n[4:]].detach() for n in signals if n[4:] in signals})
    objective(**signals).sum().backward()
    for name, value in signals.items():
        cost = objective.lower_is_better and SIGNALS[name].origin == "reward"
        way = -_way(name, signals) if cost else _way(name, signals)
        if value.grad is None or not bool((way != 0).any()):
            continue
        g = value.grad * way
        if bool((g > 0).any()):
            return f"the first step moves {name} the wrong way"
        if not bool((g < 0).any()):
            return f"the first step does not move {name}"
    return ""


def _way(name: str, signals: Signals) -> Tensor:
    """1 where an objective should raise this signal, -1 where it should lower it, 0 where nothing is promised."""
    advantage = next((v for n, v in signals.items() if n.startswith("advantage")), None)
    if name in ("logp_B", "logp_BT") and advantage is not None:
        return advantage.sign()
    if name == "logp_B" and "desirable_B" in signals:
        return 2 * signals["desirable_B"] - 1
    if name == "chosen_reward_B" and "tie_B" in signals:
        return 1 - signals["tie_B"]
    if name == "rejected_reward_B" and "tie_B" in signals:
        return signals["tie_B"] - 1
    if name == "step_logit_BS" and "step_label_BS" in signals:
        return signals["step_label_BS"].sign()
    if name.endswith("_BK") and "rank_mask_BK" in signals:
        return _first_and_last(signals["rank_mask_BK"])
    if name in ("reward_B", "step_logit_BS") and "target_B" in signals:
        target = signals["target_B"] if name == "reward_B" else signals["target_B"][:, None]
        # Clear whether the target is the reward itself or the probability that sigmoid(reward) should be.
        low, high = signals[name].detach().clamp(max=0), signals[name].detach().clamp(min=1)
        return (target > high).double() - (target < low).double()
    return torch.tensor(1.0 if name in UP else -1.0 if name in DOWN else 0.0)


def _first_and_last(mask_BK: Tensor) -> Tensor:
    first, last = torch.zeros_like(mask_BK), torch.zeros_like(mask_BK)
    first[:, 0] = 1
    return first - last.scatter(1, mask_BK.sum(1, keepdim=True).long() - 1, 1.0)


def known_signals(objective: Objective) -> str:
    """Asks only for signals of the vocabulary."""
    strange = [name for name in objective.signals if name not in SIGNALS]
    return f"unknown signals: {', '.join(strange)}" if strange else ""


def whole_step(objective: Objective) -> str:
    """Statistics of a step do not depend on the order of its rows, and stay with their rows."""
    if not objective.coupled:
        return ""
    generator = torch.Generator().manual_seed(3)
    step = {name: random_signal(name, ROWS, generator) for name in objective.surveyed}
    order = torch.tensor([3, 0, 4, 1, 2])
    made = objective.statistics(step, {}, {})
    again = objective.statistics({n: v[order] for n, v in step.items()}, {}, {})
    for name, value in made.items():
        if value.requires_grad:
            return f"a gradient flows through '{name}'"
        if tuple(value.shape) not in ((), (ROWS,)):
            return f"'{name}' has shape {list(value.shape)}: neither one number nor one a row"
        problem = _same(value.expand(ROWS)[order], again[name].expand(ROWS), 1e-12, f"'{name}' follows the rows' order")
        if problem:
            return problem
    return ""


def _same(a: Tensor, b: Tensor, tolerance: float, problem: str, relative: float = 0.0) -> str:
    return "" if torch.allclose(a.detach(), b.detach(), rtol=relative, atol=tolerance) else problem


CLAUSES: dict[str, Clause] = {
    "known signals": known_signals,
    "defaults": defaults,
    "one loss per row": one_loss_per_row,
    "batch order": batch_order,
    "batch size": batch_size,
    "whole step": whole_step,
    "finite at extremes": finite_at_extremes,
    "gradient": gradient,
    "masked tokens": masked_tokens,
    "no dead option": no_dead_option,
    "no dead signal": no_dead_signal,
    "against reference": against_reference,
    "half precision": half_precision,
    "described": described,
    "direction": direction,
}
