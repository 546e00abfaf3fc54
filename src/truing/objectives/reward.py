"""Objectives that fit a reward model: to preferences, ties, rankings, scores, harm, and a weaker model's labels."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from truing.objectives.ratio import softplus
from truing.records import Fraction, NonNegative
from truing.registry import objective


@objective(
    source="Bradley and Terry 1952; Christiano et al. 2017, eq. 1, arXiv 1706.03741; margin: Touvron et al. 2023, "
    "eq. 2, arXiv 2307.09288; centering: Eisenstein et al. 2023, eq. 4, arXiv 2312.09244",
    estimates="ln 2 - JS of (chosen, rejected) from (rejected, chosen), drawn independently",
)
def bradley_terry(
    chosen_reward_B: Tensor,
    rejected_reward_B: Tensor,
    margin_B: Tensor | None = None,
    preference_B: Tensor | None = None,
    *,
    centering: Annotated[NonNegative, "weight of the squared sum of a pair's rewards; pins their offset near 0"] = 0.0,
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


@objective(source="Rao and Kupper 1967, JASA 62:194, with rewards as log-strengths")
def rao_kupper(chosen_reward_B: Tensor, rejected_reward_B: Tensor, tie_B: Tensor, tie_logit_B: Tensor) -> Tensor:
    """Bradley-Terry where raters may call a tie: close rewards are hard to tell apart.

        loss_b = -log P,   P(win) = sigmoid(d - a),   P(tie) = 1 - sigmoid(d - a) - sigmoid(-d - a)
        d = r_w - r_l,   a = ln theta = softplus(tie_logit) + 1e-6

    Returns [B]. `tie_logit_B` is one parameter of the model, learned with it; theta = 1 is bradley_terry. At d = 0 the
    share of ties is (theta - 1)/(theta + 1).
    Differs from the source: theta is kept above 1 + 1e-6, where a tie would be impossible.

    >>> import torch
    >>> pair = torch.zeros(2), torch.zeros(2), torch.tensor([0.0, 1.0])
    >>> [round(x, 4) for x in rao_kupper(*pair, tie_logit_B=torch.full((2,), -0.6931)).tolist()]
    [0.9163, 1.6094]
    """
    d, a = chosen_reward_B - rejected_reward_B, softplus(tie_logit_B) + 1e-6
    win = logsigmoid(d - a)
    tie = 2 * a + (-(-2 * a).expm1()).log() + win + logsigmoid(-d - a)
    return -torch.where(tie_B > 0.5, tie, win)


@objective(source="Davidson 1970, JASA 65:317, with rewards as log-strengths")
def davidson(chosen_reward_B: Tensor, rejected_reward_B: Tensor, tie_B: Tensor, tie_logit_B: Tensor) -> Tensor:
    """Bradley-Terry with ties as a third outcome, whose weight is the pair's geometric mean times nu.

        loss_b = -log P,   P(win) : P(tie) : P(loss) = exp(d/2) : nu : exp(-d/2),   d = r_w - r_l, nu = exp(tie_logit)

    Returns [B]. `tie_logit_B` is one parameter of the model, learned with it; nu -> 0 is bradley_terry.
    Differs from the source: nothing.

    >>> import torch
    >>> pair = torch.zeros(2), torch.zeros(2), torch.tensor([0.0, 1.0])
    >>> [round(x, 4) for x in davidson(*pair, tie_logit_B=torch.zeros(2)).tolist()]
    [1.0986, 1.0986]
    """
    d = chosen_reward_B - rejected_reward_B
    win, tie, _ = torch.stack([d / 2, tie_logit_B, -d / 2]).log_softmax(0)
    return -torch.where(tie_B > 0.5, tie, win)


@objective(source="Plackett 1975; Luce 1959")
def plackett_luce(reward_BK: Tensor, rank_mask_BK: Tensor) -> Tensor:
    """Teach a reward model a whole ranking: each response is to be picked first among those that are left.

        loss_b = -sum_k log[exp(r_k) / sum_{i >= k} exp(r_i)],   best first

    Returns [B]. Two responses give bradley_terry.
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in plackett_luce(torch.tensor([[2.0, 0.5, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]])).tolist()]
    [0.2014]
    """
    return ranking_loss(reward_BK, rank_mask_BK)


def ranking_loss(reward_BK: Tensor, rank_mask_BK: Tensor) -> Tensor:
    """-log of the Plackett-Luce probability of the order given, best first; shape [B]."""
    present = rank_mask_BK > 0
    left = reward_BK.masked_fill(~present, -1e30).flip(1).logcumsumexp(1).flip(1)
    return torch.where(present, left - reward_BK, 0.0).sum(1)


@objective(source="Wang et al. 2024 (regression reward models of HelpSteer2), arXiv 2406.08673")
def regression(reward_B: Tensor, target_B: Tensor) -> Tensor:
    """Teach a reward model the scores that raters gave.

        loss_b = (r_b - target_b)^2

    Returns [B] in squared units of the score. The offset is identified, unlike a preference's.
    Differs from the source: one head, one score; several attributes are several runs.

    >>> import torch
    >>> regression(torch.tensor([2.0]), torch.tensor([0.5])).tolist()
    [2.25]
    """
    return (reward_B - target_B).square()


@objective(
    source="Dai et al. 2023 (Safe RLHF), eq. 6, arXiv 2310.12773",
    exempt={"direction": "where both responses are harmful, both costs are to be above 0"},
    lower_is_better=True,
)
def cost_model(
    chosen_reward_B: Tensor, rejected_reward_B: Tensor, chosen_safe_B: Tensor, rejected_safe_B: Tensor
) -> Tensor:
    """Teach the scalar head a cost: higher for the more harmful response, and 0 at the border to harmless.

        loss_b = -log sigmoid(c_l - c_w) - log sigmoid(s_w c_w) - log sigmoid(s_l c_l),   s = -1 harmless, +1 harmful

    Returns [B]. `chosen` is the less harmful response, c the head's output for it.
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in cost_model(*(torch.tensor([v]) for v in (-0.5, 0.8, 1.0, 0.0))).tolist()]
    [1.0862]
    """
    ranking = softplus(chosen_reward_B - rejected_reward_B)
    signs = softplus((2 * chosen_safe_B - 1) * chosen_reward_B) + softplus(
        (2 * rejected_safe_B - 1) * rejected_reward_B
    )
    return ranking + signs


def half_positive(reward_B: Tensor) -> Tensor:
    """The probability sigmoid(r) that half of a step's rows exceed: their median."""
    return reward_B.double().sigmoid().quantile(0.5)


@objective(
    source="Burns et al. 2023, the confidence loss, arXiv 2312.09390",
    coupled={"threshold_B": half_positive},
    exempt={"gradient": "the median row stands on the step of its own hardened label"},
)
def confidence(
    reward_B: Tensor,
    target_B: Tensor,
    threshold_B: Tensor,
    *,
    weight: Annotated[
        Fraction, "share of the model's own hardened opinion in the target; larger trusts labels less"
    ] = 0.5,
) -> Tensor:
    """Learn a weaker model's labels, and the more of its own hardened opinion the larger `weight`.

        loss_b = CE(f, (1 - weight) * target_b + weight * [f_b > threshold]),   f = sigmoid(r_b)

    Returns [B]. The threshold is the median of f over the step, so that half of it is positive (beyond rewards of 36,
    where f is 1, all are); it and the hardened opinion have no gradient. The source warms `weight` up from 0 over the
    first fifth of training.
    Differs from the source: `weight` is constant; the two cross entropies are one, of the mixed target.

    >>> import torch
    >>> f = torch.tensor([0.8, 0.3]).logit()
    >>> [round(x, 4) for x in confidence(f, torch.tensor([0.9, 0.4]), torch.tensor([0.55, 0.55])).tolist()]
    [0.2925, 0.5261]
    """
    f = reward_B.detach().double().sigmoid()  # as the threshold: in fp32 all beyond 17 are 1
    opinion = ((f > threshold_B) | (f == 1)).to(reward_B.dtype)
    target = (1 - weight) * target_B + weight * opinion
    return binary_cross_entropy_with_logits(reward_B, target.to(reward_B.dtype), reduction="none")
