"""Objectives that raise the likelihood of given responses."""

from __future__ import annotations

from torch import Tensor

from truing.registry import objective


@objective(source="Ouyang et al. 2022, section 3.5, arXiv 2203.02155 (supervised fine-tuning)")
def nll(logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Raise the probability of every response token: plain supervised fine-tuning.

        loss_bt = -mask_bt * log pi(y_bt | x_b, y_b<t)

    Returns [B, T] in nats; the loop divides by the number of learned tokens of the whole step, so a short example
    never counts for more per token than a long one. On pairs it reads the chosen response. Prompt tokens are no
    part of it.
    Differs from the source: nothing (the source does not say whether it averages over tokens or sequences; this is
    the token mean).

    >>> import torch
    >>> nll(torch.tensor([[-0.5, -2.0]]), torch.tensor([[1.0, 0.0]])).tolist()
    [[0.5, 0.0]]
    """
    return -(logp_BT * mask_BT)
