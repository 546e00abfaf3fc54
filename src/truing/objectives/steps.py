"""Objectives that teach a verifier to judge solutions: by their outcome, or step by step."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from truing.registry import objective


@objective(source="Cobbe et al. 2021 (token-level verifier), arXiv 2110.14168")
def orm(step_logit_BS: Tensor, target_B: Tensor, step_mask_BS: Tensor) -> Tensor:
    """Teach every position of a solution whether its final answer is right; the last one is used.

        loss_bs = mask_bs * BCE(sigmoid(z_bs), target_b)

    Returns [B, S]; `target_B` is 1 for a right answer, and positions may be steps or tokens. The loop divides by the
    number of positions.
    Differs from the source: the language-modelling loss it is trained with is a term of its own (`nll`).

    >>> import torch
    >>> orm(torch.tensor([[0.0, 5.0]]), torch.tensor([1.0]), torch.tensor([[1.0, 0.0]])).tolist()
    [[0.6931471824645996, 0.0]]
    """
    return _masked_bce(step_logit_BS, target_B[:, None].expand_as(step_logit_BS), step_mask_BS)


@objective(source="Lightman et al. 2023, arXiv 2305.20050")
def prm(
    step_logit_BS: Tensor,
    step_label_BS: Tensor,
    step_mask_BS: Tensor,
    *,
    neutral: Annotated[Literal["good", "bad"], "whether a step labelled 0 is taught as good or as bad"] = "good",
) -> Tensor:
    """Teach a verifier each step's label, up to and including the first bad step.

        loss_bs = supervised_bs * BCE(sigmoid(z_bs), label_bs),   label: 1 good, 0 neutral (as `neutral` says), -1 bad

    Returns [B, S]. What follows the first bad step depends on it and is not learned from; the loop divides by the
    number of `supervised` steps.
    Differs from the source: nothing.

    >>> import torch
    >>> z, label = torch.zeros(1, 3), torch.tensor([[1.0, -1.0, 1.0]])
    >>> prm(z, label, torch.ones(1, 3)).tolist()
    [[0.6931471824645996, 0.6931471824645996, 0.0]]
    """
    good = step_label_BS > 0 if neutral == "bad" else step_label_BS >= 0
    return _masked_bce(step_logit_BS, good.to(step_logit_BS.dtype), supervised(step_label_BS, step_mask_BS, neutral))


def supervised(step_label_BS: Tensor, step_mask_BS: Tensor, neutral: Literal["good", "bad"] = "good") -> Tensor:
    """1 for the labelled steps up to and including the first bad one, 0 elsewhere; applying it twice is once.

    >>> supervised(torch.tensor([[1, -1, 1]]), torch.ones(1, 3)).tolist()
    [[1.0, 1.0, 0.0]]
    """
    wrong = step_label_BS <= 0 if neutral == "bad" else step_label_BS < 0
    bad = wrong & (step_mask_BS > 0)
    return step_mask_BS * (bad.cumsum(1) - bad.long() == 0)


def _masked_bce(logit: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    losses = binary_cross_entropy_with_logits(logit, target.to(logit.dtype), reduction="none")
    return torch.where(mask > 0, losses, 0.0)
