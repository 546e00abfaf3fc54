"""Objectives on pairs, against a reference: the DPO family."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from truing.registry import objective
from truing.types import Positive


@objective(source="Rafailov et al. 2023, eq. 7, arXiv 2305.18290")
def dpo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Positive = 0.1,
) -> Tensor:
    """Widen the log-odds of chosen over rejected relative to the reference, hardest where they are wrongly ordered.

        loss_b = -log sigmoid(beta * h_b),   h = log[pi(y_w)/ref(y_w)] - log[pi(y_l)/ref(y_l)]

    Returns [B]; log-probabilities are sums in nats. At pi = ref the loss is ln 2. A large `beta` keeps the policy
    near the reference. The probability of the chosen response itself may fall: watch `chosen_reward`.
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in dpo(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0)), beta=0.1).tolist()]
    [0.621]
    """
    h = log_ratio(chosen_logp_B, ref_chosen_logp_B) - log_ratio(rejected_logp_B, ref_rejected_logp_B)
    return softplus(-beta * h)


def log_ratio(logp_B: Tensor, ref_logp_B: Tensor) -> Tensor:
    """log[pi(y)/ref(y)] in nats, with the reference held fixed."""
    return logp_B - ref_logp_B.detach()
