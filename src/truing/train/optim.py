"""AdamW, the learning-rate schedule and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from truing.errors import RunFailed, UserError
from truing.settings import Training
from truing.train.distributed.fsdp import full, piece

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}
"""The share of the learning rate by the share of the steps after the warm-up that is done."""


def rate(training: Training, step: int, steps: int) -> float:
    """The learning rate of update `step` (from 1) of `steps`: linear warm-up, then the schedule.

    >>> t = Training(learning_rate=1.0, warmup=0.2, schedule="linear")
    >>> [round(rate(t, s, 10), 3) for s in (1, 2, 3, 10)]
    [0.5, 1.0, 1.0, 0.125]
    """
    warm = math.ceil(training.warmup * steps)
    if step <= warm:
        return training.learning_rate * step / warm
    done = (step - warm - 1) / max(1, steps - warm)
    return training.learning_rate * SCHEDULES[training.schedule](done)


class Optim:
    """AdamW with betas (0.9, 0.95); weight decay only on matrices; clips the gradient's L2 norm."""

    def __init__(self, model: nn.Module, training: Training, steps: int) -> None:
        self.training, self.steps = training, steps
        self.named = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.named:
            raise UserError("the model has no parameter that can be trained")
        matrices = [p for p in self.named.values() if p.ndim >= 2]
        others = [p for p in self.named.values() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=training.learning_rate, betas=(0.9, 0.95), fused=True
        )

    def step(self, number: int) -> dict[str, float]:
        """One update; returns its gradient norm and learning rate. One that is not finite stops the run first."""
        norm = full(nn.utils.clip_grad_norm_(self.named.values(), self.training.max_grad_norm))
        if not torch.isfinite(norm):
            raise RunFailed(f"step {number}: the gradient is not finite; the model was not updated")
        lr = rate(self.training, number, self.steps)
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return {"grad_norm": norm.item(), "learning_rate": lr}

    def state(self) -> dict[str, torch.Tensor]:
        """The optimiser's tensors by parameter name, to be written; sharded as the parameters are."""
        out = {}
        for name, parameter in self.named.items():
            for key, value in self.adamw.state[parameter].items():
                out[f"{name}/{key}"] = value.detach()
        return out

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put the tensors of `state` back, of each the rows that this rank holds. A parameter that never had a gradient
        has none."""
        keys = ("step", "exp_avg", "exp_avg_sq")
        strange = {key.rpartition("/")[0] for key in tensors} - set(self.named)
        if strange:
            raise RunFailed(f"the checkpoint holds optimiser state of {sorted(strange)[0]}, which the model has not")
        for name, parameter in self.named.items():
            if f"{name}/step" not in tensors:
                continue
            step, *moments = (tensors[f"{name}/{key}"].clone().to(parameter.device) for key in keys)
            state = [torch.zeros_like(parameter, requires_grad=False) for _ in moments]
            for moment, rows in zip(state, moments, strict=True):
                piece(moment)[0].copy_(rows)
            self.adamw.state[parameter] = dict(zip(keys, (step, *state), strict=True))
