"""Plausible random signals for an objective: the rows of a whole step, small enough to try everything on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from truing.objectives.signals import SIGNALS
from truing.registry import Objective

Signals = dict[str, Tensor]
ROWS, TOKENS, ANSWERS, STEPS = 5, 7, 4, 6
SIZES = {"T": TOKENS, "K": ANSWERS, "S": STEPS}
MASKS = {"T": "mask_BT", "K": "rank_mask_BK", "S": "step_mask_BS"}
YES_OR_NO = ("desirable_B", "tie_B", "chosen_safe_B", "rejected_safe_B")
SHIFT = 0.25


def example(objective: Objective, *, seed: int = 0, rows: int = ROWS, optional: bool = True, **options: Any) -> Signals:
    """Plausible random signals in fp64; those that come from a model require gradients. The rows are a whole step: the
    coupled signals are what the objective's own statistics make of them."""
    generator = torch.Generator().manual_seed(seed)
    names = [n for n in (objective.signals if optional else objective.needs) if n not in objective.coupled]
    return coupled(objective, {name: random_signal(name, rows, generator) for name in names}, **options)


def coupled(objective: Objective, signals: Signals, **options: Any) -> Signals:
    """These signals with the coupled ones as the second step of a run makes them: the first had other log-ratios."""
    if not objective.coupled:
        return signals
    rows = next(iter(signals.values())).shape[0]
    generator = torch.Generator().manual_seed(99)
    step = {n: signals[n] if n in signals else random_signal(n, rows, generator) for n in objective.surveyed}
    first = {n: v + SHIFT if n.startswith(("logp", "mismatched")) else v for n, v in step.items()}
    previous = objective.statistics(first, options, {})
    made = objective.statistics(step, options, previous)
    observed = {n: signals[n] for n in objective.observed if n in signals}
    return observed | {n: v.expand(rows).clone() for n, v in made.items()}


def random_signal(name: str, rows: int, generator: torch.Generator) -> Tensor:
    """One signal of the vocabulary for so many rows; KeyError for a name that is not of it."""
    shape = (rows, *(SIZES[axis] for axis in name.rpartition("_B")[2]))
    u = torch.rand(shape, generator=generator, dtype=torch.float64)
    if name == "rank_mask_BK":
        return (torch.arange(ANSWERS) < 2 + (3 * u[:, :1]).floor()).double()
    if name in MASKS.values():
        value = (u > 0.3).double()
        value[:, 0] = 1.0
        return value
    if name == "prompt_B":
        return (torch.arange(rows) // 3).double()
    if name in YES_OR_NO:
        return (torch.arange(rows) % 2 == 0).double()
    if "length" in name:
        return 1 + (20 * u).floor()
    if name == "step_label_BS":
        return (3 * u).floor() - 1
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
