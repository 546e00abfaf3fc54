"""How far apart two computations of the same number may be, from the type, the size and the number of operations.

An instruction set, a number of threads or ranks, a blocking of BLAS and a batch in other parts all do one thing: they add
the same terms in another order. An addition rounds its result by at most the unit roundoff `u` (2^-24 in fp32, 2^-53 in
fp64), up about as often as down, so `n` of them take a random walk of sqrt(n) steps. A step's deviation is u / sqrt(3), and
two orders differ by sqrt(2) of one: 0.82 sqrt(n) u of the sum of the terms' sizes. SAFETY is ten such deviations, since a
test looks at up to a million weights, and terms are not quite independent.

None of these bounds was read off a machine. Each can fail: tests/parallel/test_bounds.py plants faults.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

SAFETY = 8.0


def unit(dtype: torch.dtype) -> float:
    """The unit roundoff: the most that one operation is off, relative to its result."""
    return torch.finfo(dtype).eps / 2


LOGP = SAFETY * math.sqrt(40) * unit(torch.float32) * 8
"""How far apart log-probabilities and scores of the tests' models may be in fp32, 2.4e-5: three layers of about twelve results
each that are rounded, a head and a softmax, and logits of a size of up to 8. What is left out of a mask, or read at another
place, changes them by more than 1e-3."""


def summed(dtype: torch.dtype, n: int, size: float) -> float:
    """How far apart two orders of a sum of `n` terms may be, whose sizes add up to `size`."""
    return SAFETY * math.sqrt(n) * unit(dtype) * size


def path(model: nn.Module, tokens: int) -> int:
    """How many additions a gradient of a model passes: those of every matrix, forward over its one dimension and backward
    over the other, and those over the tokens that the gradient is a sum of."""
    return tokens + sum(sum(p.shape) for p in model.parameters() if p.ndim >= 2)


def relative(model: nn.Module, tokens: int, dtype: torch.dtype) -> float:
    """How far apart a logit, a loss or a gradient of a model may be, relative to the largest of its kind."""
    return summed(dtype, path(model, tokens), 1.0)


class Drift:
    """How far apart each weight may be after AdamW's updates, by gradients that differ by their rounding.

    An update is lr m / (r + eps), with r = sqrt(v), m and v running means of gradients and of their squares. A gradient
    that is off by d moves m by at most d, and r by at most d (a root of a mean of squares is a norm). By Cauchy and
    Schwarz |m| <= 1.17 r for betas (0.9, 0.95), so the update is off by at most

        lr min(2 * 1.17, (1 + 1.17) d / (r + eps)).

    A gradient of 1e-8 is as large as AdamW's epsilon and is divided by that: there, and nowhere else, rounding comes out
    1e8 times as large. So the bound is a weight's own, from its own r at each step, and stays sharp everywhere else.
    d is relative to the largest gradient; clipping by the global norm at most doubles it. Weights that are apart give
    gradients that are apart: by the curvature, which for a loss of likelihoods is of the order of a squared gradient, times
    the distance of the weights.
    """

    most, slope = 2.34, 2.17

    def __init__(self, model: nn.Module, adamw: torch.optim.Optimizer, off: float) -> None:
        """Watch an optimiser; `off` is how far gradients are apart, relative to the largest: `relative`, or more."""
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.off = {name: torch.zeros_like(p, requires_grad=False) for name, p in model.named_parameters()}
        self.relative = off
        adamw.register_step_post_hook(self._updated)

    def _updated(self, adamw: torch.optim.Optimizer, *_) -> None:
        gradients = {p: p.grad for p in self.named.values() if p.grad is not None}
        largest = max(g.abs().max().item() for g in gradients.values())
        count = sum(g.numel() for g in gradients.values())
        square = sum(g.square().sum().item() for g in gradients.values()) / count
        d = 2 * self.relative * largest + square * math.sqrt(sum(w.square().sum().item() for w in self.off.values()))
        settings = {p: group for group in adamw.param_groups for p in group["params"]}
        for name, p in self.named.items():
            if p not in gradients:
                continue
            state, group = adamw.state[p], settings[p]
            root = (state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"].item())).sqrt()
            moved = group["lr"] * (self.slope * d / (root + group["eps"])).clamp(max=self.most)
            self.off[name] += moved * (root > 0)  # a weight that no token reads has a gradient of exactly 0
            self.off[name] += 4 * unit(p.dtype) * (p.detach().abs() + group["lr"])  # of the update itself


def worst(one: dict[str, Tensor], other: dict[str, Tensor], off: dict[str, Tensor]) -> float:
    """The largest difference of two sets of tensors, each in units of its own bound: 1 is the most that may be. Where the
    bound is 0 (a weight that is not trained) any difference is infinite."""
    assert one.keys() == other.keys() == off.keys()
    found = 0.0
    for name, bound in off.items():
        apart = (one[name].double() - other[name].double()).abs()
        share = torch.where(apart > 0, apart / bound.double(), 0.0)
        found = max(found, share.max().item() if share.numel() else 0.0)
    return found
