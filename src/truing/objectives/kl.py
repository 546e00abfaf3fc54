"""KL control: estimators from sampled tokens, the exact value, and the controller of its coefficient.

d = log pi(y) - log ref(y) of tokens drawn from pi, in nats. Used in the reward (d held fixed), k1 gives the exact
gradient of KL(pi || ref); used as a loss, k1 gives none, k2 gives it per token, k3 that of the forward KL(ref || pi).
"""

from __future__ import annotations

from torch import Tensor

from truing.errors import UserError
from truing.objectives.ratio import LARGEST, bounded_ratio


def k1(d: Tensor) -> Tensor:
    """d: unbiased, of either sign, with the largest variance (Schulman 2020, Approximating KL divergence)."""
    return d


def k2(d: Tensor) -> Tensor:
    """d^2/2: biased, never negative (Schulman 2020, Approximating KL divergence)."""
    return d.square() / 2


def k3(d: Tensor) -> Tensor:
    """exp(-d) - 1 + d: unbiased, never negative (Schulman 2020, Approximating KL divergence).

    |d| is held below 20 nats, beyond which there is no gradient.

    >>> import torch
    >>> [round(x, 4) for x in k3(torch.tensor([0.2, 0.0])).tolist()]
    [0.0187, 0.0]
    """
    held = d.clamp(-LARGEST, LARGEST)
    return (-held).exp() - 1 + held


def k3_corrected(logp: Tensor, old_logp: Tensor, ref_logp: Tensor) -> Tensor:
    """pi/old * k3, with the gradient through the ratio: as a loss on tokens drawn from `old` it has the value and the
    gradient of KL(pi || ref), off-policy too (DeepSeek-V3.2, arXiv 2512.02556)."""
    return bounded_ratio(logp, old_logp) * k3(logp - ref_logp.detach())


def exact(logp_V: Tensor, ref_logp_V: Tensor) -> Tensor:
    """KL(pi || ref) in nats over the last axis, from all log-probabilities: the estimate with least variance.

    Outcomes that pi never takes contribute 0.
    """
    taken = logp_V > -float("inf")
    d = (logp_V - ref_logp_V).masked_fill(~taken, 0.0)
    return (logp_V.exp() * d).sum(-1)


def entropy(logp_V: Tensor) -> Tensor:
    """Entropy in nats over the last axis."""
    return -(logp_V.exp() * logp_V.masked_fill(logp_V == -float("inf"), 0.0)).sum(-1)


def adapted(coefficient: float, observed: float, *, target: float, rows: int, horizon: int = 10_000) -> float:
    """The coefficient for the next step: raised where the KL is above its target, lowered where it is below.

        coefficient * (1 + e * rows/horizon),   e = clip(observed/target - 1, -0.2, 0.2)

    `observed` is the mean over the step's `rows` responses of their summed log-ratio, nats (Ziegler et al. 2019, arXiv
    1909.08593, section 2.2). UserError unless target, horizon and rows are above 0.

    >>> round(adapted(0.2, 9.0, target=6.0, rows=256), 6)
    0.201024
    """
    if target <= 0 or horizon <= 0 or rows <= 0:
        raise UserError(f"the KL controller needs target, horizon and rows above 0, got {target}, {horizon}, {rows}")
    error = min(max(observed / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * rows / horizon)
