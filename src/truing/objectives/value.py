"""The objective of the value head."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from truing.records import Positive
from truing.registry import objective


@objective(source="Ziegler et al. 2019 (released code), arXiv 1909.08593", advantage="gae")
def value_clipped(
    value_BT: Tensor,
    old_value_BT: Tensor,
    return_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: Annotated[Positive, "how far a forecast may move from that at sampling, in units of return"] = 0.2,
) -> Tensor:
    """Teach the value head the returns, in steps no longer than `clip` from its forecast when sampling.

        loss_bt = mask_bt / 2 * max[(V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2]

    Returns [B, T]; the loop divides by the tokens of the step. Give it a weight of 0.1 beside `ppo`.
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in value_clipped(*(torch.tensor([[v]]) for v in (1.0, 0.5, 1.2, 1.0)))[0].tolist()]
    [0.125]
    """
    near = value_BT.clamp(old_value_BT - clip, old_value_BT + clip)
    losses = 0.5 * torch.maximum((value_BT - return_BT).square(), (near - return_BT).square())
    return torch.where(mask_BT > 0, losses, 0.0)
