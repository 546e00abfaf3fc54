"""The objective on whole rankings, against a reference."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from truing.objectives.ratio import log_ratio
from truing.objectives.reward import ranking_loss
from truing.records import Positive
from truing.registry import objective


@objective(source="Rafailov et al. 2023, appendix A.3 (Plackett-Luce), arXiv 2305.18290")
def dpo_ranked(
    logp_BK: Tensor,
    ref_logp_BK: Tensor,
    rank_mask_BK: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
) -> Tensor:
    """DPO from whole rankings: each response is to be picked first among those that are left.

        loss_b = -sum_k log[exp(r_k) / sum_{i >= k} exp(r_i)],   r_k = beta log[pi(y_k)/ref(y_k)], best first

    Returns [B] in nats. Two responses give dpo.
    Differs from the source: nothing.

    >>> import torch
    >>> ranked = dpo_ranked(torch.tensor([[-6.5, -9.0]]), torch.tensor([[-7.0, -8.0]]), torch.ones(1, 2))
    >>> [round(x, 4) for x in ranked.tolist()]
    [0.621]
    """
    return ranking_loss(beta * log_ratio(logp_BK, ref_logp_BK), rank_mask_BK)
