"""Ratios of probabilities, with exponentials that are kept finite."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import logsigmoid

LARGEST = 20.0
"""The largest exponent that is followed exactly, nats; verl uses the same."""


def log_ratio(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """log[pi(y)/ref(y)] in nats, with the reference held fixed."""
    return logp - ref_logp.detach()


def bounded_ratio(logp: Tensor, old_logp: Tensor) -> Tensor:
    """pi(y)/old(y), with the log-ratio clamped to 20 nats on either side: beyond, there is no gradient."""
    return log_ratio(logp, old_logp).clamp(-LARGEST, LARGEST).exp()


def tangent_exp(x: Tensor, largest: float = LARGEST) -> Tensor:
    """exp(x) up to `largest`, and its tangent beyond: the gradient never vanishes and never exceeds exp(largest).

    >>> import torch
    >>> tangent_exp(torch.tensor([0.0, 3.0]), largest=1.0).tolist()
    [1.0, 8.154845237731934]
    """
    return x.clamp(max=largest).exp() + math.exp(largest) * (x - largest).clamp(min=0)


def tangent_expm1(x: Tensor, largest: float = LARGEST) -> Tensor:
    """`tangent_exp(x)` - 1, to the last digit near 0: differences of it over a small factor of x keep their gradient.

    >>> import torch
    >>> [f"{y:.4g}" for y in tangent_expm1(torch.tensor([1e-12, 3.0]), largest=1.0).tolist()]
    ['1e-12', '7.155']
    """
    return x.clamp(max=largest).expm1() + math.exp(largest) * (x - largest).clamp(min=0)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to the last digit; torch's own is x itself beyond 20, which loses up to 2e-9 and its gradient.

    >>> import torch
    >>> softplus(torch.tensor(22.0).double()).item() - 22 > 2e-10
    True
    """
    return -logsigmoid(-x)


def log_mean_exp(x: Tensor) -> Tensor:
    """log of the mean of exp(x), over all of `x`."""
    return x.logsumexp(0) - math.log(x.shape[0])
