"""Objectives that fit a reward model to preferences."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from truing.registry import objective
from truing.types import NonNegative


@objective(
    source="Bradley and Terry 1952; Christiano et al. 2017, eq. 1, arXiv 1706.03741; margin: Touvron et al. 2023, "
    "eq. 2, arXiv 2307.09288; centering: Eisenstein et al. 2023, eq. 4, arXiv 2312.09244"
)
def bradley_terry(
    chosen_reward_B: Tensor,
    rejected_reward_B: Tensor,
    margin_B: Tensor | None = None,
    preference_B: Tensor | None = None,
    *,
    centering: NonNegative = 0.0,
) -> Tensor:
    """Teach a reward model to score the chosen response above the rejected one.

        loss_b = -p log sigmoid(d) - (1 - p) log sigmoid(-d) + centering * (r_w + r_l)^2,   d = r_w - r_l - margin

    Returns [B]. `margin_B` (0 where the data has none) asks for a larger gap where the preference was stronger;
    `preference_B` (1 where the data has none) is a soft label. Only differences within a prompt are identified, the
    offset is not: a small `centering` (0.01) pins it, so that several reward models can be compared.
    Differs from the sources: their three terms stand in one formula; each is off by default.

    >>> import torch
    >>> [round(x, 4) for x in bradley_terry(torch.tensor([2.0]), torch.tensor([0.5])).tolist()]
    [0.2014]
    """
    d = chosen_reward_B - rejected_reward_B
    if margin_B is not None:
        d = d - margin_B
    loss = softplus(-d)
    if preference_B is not None:
        loss = preference_B * loss + (1 - preference_B) * softplus(d)
    return loss + centering * (chosen_reward_B + rejected_reward_B).square()
