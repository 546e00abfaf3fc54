"""The contract every objective keeps, built in or a user's own: one public list of clauses, each a small experiment.

`violations(objective)` runs all clauses and names those that are broken. An objective that cannot keep one declares it,
with the reason, in its decorator: `@objective(source=..., exempt={"batch order": "..."})`.
"""

from __future__ import annotations

import doctest
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from truing.objectives.signals import SIGNALS
from truing.registry import Objective, Option

Signals = dict[str, Tensor]
Clause = Callable[[Objective], str]
ROWS, TOKENS = 5, 7
SHIFT = 0.25
UP = ("logp_BT", "logp_B", "chosen_logp_B", "chosen_reward_B")
DOWN = ("rejected_logp_B", "rejected_reward_B")


def example(objective: Objective, *, seed: int = 0, rows: int = ROWS, optional: bool = True) -> Signals:
    """Plausible random signals in fp64; those that come from a model require gradients."""
    generator = torch.Generator().manual_seed(seed)
    names = objective.signals if optional else objective.needs
    return {name: _signal(name, rows, generator) for name in names}


def _signal(name: str, rows: int, generator: torch.Generator) -> Tensor:
    shape = (rows, TOKENS) if name.endswith("_BT") else (rows,)
    u = torch.rand(shape, generator=generator, dtype=torch.float64)
    if name.startswith("mask"):
        value = (u > 0.3).double()
        value[:, 0] = 1.0
        return value
    if "length" in name:
        return 1 + (20 * u).floor()
    if name == "preference_B":
        return u
    if "logp" in name:
        value = -0.1 - (3 if name.endswith("_BT") else 30) * u
    else:
        value = 4 * u - 2
    return value.requires_grad_(SIGNALS[name].origin in ("policy", "reward"))


def learned(signals: Signals) -> list[Tensor]:
    """The signals that a gradient flows to."""
    return [value for value in signals.values() if value.requires_grad]


def one_loss_per_row(objective: Objective) -> str:
    """Returns [B], or [B, T] where it is token-level, and never a mean."""
    loss = objective(**example(objective))
    wanted = (ROWS, TOKENS) if objective.per == "token" else (ROWS,)
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
    """What stands under the mask changes neither the loss nor the gradient."""
    if "mask_BT" not in objective.signals:
        return ""
    signals = example(objective)
    hidden = signals["mask_BT"] == 0
    other = {
        n: torch.where(hidden, v - 3.0, v).detach().requires_grad_(v.requires_grad)
        if n.endswith("_BT") and n != "mask_BT"
        else v
        for n, v in signals.items()
    }
    before, after = objective(**signals), objective(**other)
    grads = torch.autograd.grad(before.sum(), learned(signals))
    if any(bool((g[hidden] != 0).any()) for g in grads if g.shape == hidden.shape):
        return "a gradient flows to masked tokens"
    return _same(before, after, 0.0, "masked tokens change the loss")


def no_dead_option(objective: Objective) -> str:
    """Every option changes the loss."""
    signals = example(objective)
    base = objective(**signals)
    for option in objective.options:
        tries = [v for v in _others(option) if v != option.default]
        if not any(bool((objective(**signals, **{option.name: v}) != base).any()) for v in tries):
            return f"option '{option.name}' changes nothing"
    return ""


def _others(option: Option) -> list[Any]:
    if option.type.startswith("Literal"):
        return [part.strip().strip("'\"") for part in option.type[8:-1].split(",")]
    if option.type == "bool":
        return [True, False]
    return [0.3, 0.05, 0.7] if option.type == "Fraction" else [0.5, 2.0, 3]


def no_dead_signal(objective: Objective) -> str:
    """Every signal it asks for changes the loss."""
    signals = {name: value.detach() for name, value in example(objective).items()}
    base = objective(**signals)
    for name, value in signals.items():
        moved = 1 - value if name.startswith("mask") or name == "preference_B" else value + SHIFT
        if bool((objective(**(signals | {name: moved})) == base).all()):
            return f"signal '{name}' changes nothing"
    return ""


def against_reference(objective: Objective) -> str:
    """Raising a reference's log-probability does the opposite of raising the policy's."""
    signals = {name: value.detach() for name, value in example(objective).items()}
    base = objective(**signals)
    for name in [n for n in signals if f"ref_{n}" in signals]:
        own, other = (objective(**(signals | {n: signals[n] + SHIFT})) - base for n in (name, f"ref_{name}"))
        if bool((own * other > 0).any()):
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
    module = sys.modules[objective.fn.__module__]
    tests = doctest.DocTestFinder(recurse=False).find(
        objective.fn, objective.name, module=False, globs=vars(module) | {objective.name: objective}
    )
    failed = sum(doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed for test in tests)
    return f"{failed} lines of its example do not hold" if failed else ""


def direction(objective: Objective) -> str:
    """The first step raises what was chosen and lowers what was rejected."""
    signals = example(objective, optional=False)
    objective(**signals).sum().backward()
    for name, value in signals.items():
        if value.grad is None or name not in (*UP, *DOWN):
            continue
        g = value.grad if name in UP else -value.grad
        if bool((g > 0).any()):
            return f"the first step moves {name} the wrong way"
        if not bool((g < 0).any()):
            return f"the first step does not move {name}"
    return ""


def known_signals(objective: Objective) -> str:
    """Asks only for signals of the vocabulary."""
    strange = [name for name in objective.signals if name not in SIGNALS]
    return f"unknown signals: {', '.join(strange)}" if strange else ""


CLAUSES: dict[str, Clause] = {
    "known signals": known_signals,
    "one loss per row": one_loss_per_row,
    "batch order": batch_order,
    "batch size": batch_size,
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


def violations(objective: Objective) -> list[str]:
    """The clauses that `objective` breaks without having declared it, one line each."""
    out = [
        f"{objective.name}: exempt from an unknown clause '{name}'" for name in objective.exempt if name not in CLAUSES
    ]
    for name, clause in CLAUSES.items():
        if name in objective.exempt:
            continue
        try:
            problem = clause(objective)
        except (TypeError, ValueError, RuntimeError, KeyError, IndexError) as error:
            problem = f"raised {type(error).__name__}: {error}"
        if problem:
            out.append(f"{objective.name}: {name}: {problem}")
            if name in ("known signals", "one loss per row"):
                break
    return out


def _same(a: Tensor, b: Tensor, tolerance: float, problem: str, relative: float = 0.0) -> str:
    return "" if torch.allclose(a.detach(), b.detach(), rtol=relative, atol=tolerance) else problem
