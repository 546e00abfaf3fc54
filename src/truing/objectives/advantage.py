"""Advantages: the part of each token's or response's return beyond what was expected, from rewards and values.

Pure functions of a whole step; nothing here has a gradient. Groups are responses to one prompt: `group_B` is any
number per row that names its group.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truing.errors import UserError
from truing.objectives.equal import deviation, distances

FLOOR = 1e-4
"""Added to a deviation that scores are divided by, as TRL does: what a reward model's rounding leaves of equal scores
stays small."""


def shaped_rewards(score_B: Tensor, logp_BT: Tensor, ref_logp_BT: Tensor, mask_BT: Tensor, *, beta: float) -> Tensor:
    """-beta * log(pi/ref) on every real token, and the score on the last one alone; [B, T].

    The sum over a response is its score minus beta times its summed log-ratio (Ziegler et al. 2019, arXiv 1909.08593).

    >>> tokens = torch.tensor([[-0.2, -1.1, -0.5]]), torch.tensor([[-0.3, -0.9, -0.6]]), torch.ones(1, 3)
    >>> [round(x, 4) for x in shaped_rewards(torch.tensor([2.0]), *tokens, beta=0.1)[0].tolist()]
    [-0.01, 0.02, 1.99]
    """
    real = mask_BT > 0
    if not bool(real.any(1).all()):
        raise UserError("a response without a single token cannot carry its score; drop it before training")
    rewards = torch.where(real, -beta * (logp_BT - ref_logp_BT), 0.0)
    last = real.shape[1] - 1 - real.flip(1).long().argmax(1)
    return rewards.scatter_add(1, last[:, None], score_B[:, None].to(rewards.dtype)).detach()


def gae(
    reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, *, gamma: float = 1.0, gae_lambda: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantages and the returns the value head should forecast; both [B, T], 0 where masked.

        A_t = r_t + gamma V_{t+1} - V_t + gamma * gae_lambda * A_{t+1},   V = A = 0 behind the end;   R = A + V

    Masked tokens in between (a tool's words) are passed over. `gae_lambda` is the source's lambda: 1 gives the return
    minus the value, 0 the one-step error (Schulman et al. 2016, arXiv 1506.02438). UserError where gamma or gae_lambda
    is not within 0 to 1: what is far would count for more than what is near.
    """
    for name, share in (("gamma", gamma), ("gae_lambda", gae_lambda)):
        if not 0 <= share <= 1:
            raise UserError(
                f"{name} must be within 0 to 1, got {share:g}: what is far would count for more than the near"
            )
    reward_BT, value_BT = reward_BT.detach(), value_BT.detach()
    advantage, value = torch.zeros_like(value_BT[:, 0]), torch.zeros_like(value_BT[:, 0])
    advantages = []
    for t in reversed(range(reward_BT.shape[1])):
        real = mask_BT[:, t] > 0
        error = reward_BT[:, t] + gamma * value - value_BT[:, t]
        advantage = torch.where(real, error + gamma * gae_lambda * advantage, advantage)
        value = torch.where(real, value_BT[:, t], value)
        advantages.append(torch.where(real, advantage, 0.0))
    advantage_BT = torch.stack(advantages[::-1], 1)
    return advantage_BT, torch.where(mask_BT > 0, advantage_BT + value_BT, 0.0)


def returns(reward_BT: Tensor, mask_BT: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Return-to-go of each token: the discounted sum of rewards from it on; [B, T], 0 where masked."""
    return gae(reward_BT, torch.zeros_like(reward_BT), mask_BT, gamma=gamma, gae_lambda=1.0)[0]


def whitened(x: Tensor, mask: Tensor, *, shift: bool = True, sample: bool = False) -> Tensor:
    """x over its standard deviation where `mask` is 1, and 0 elsewhere; with `shift` its mean becomes 0, else stays.

    The deviation is the population's, or with `sample` the sample's; 1e-8 is added to the variance. Equal values give
    0, or without `shift` their mean. Of a single value it is x minus its mean; with `sample` that is a UserError.
    """
    real, x = mask > 0, x.detach()
    values = x[real]
    if sample and len(values) < 2:
        raise UserError("a sample standard deviation needs at least two values")
    white = torch.zeros_like(x)
    if len(values):
        distance, mean = _distances(values), values.double().mean()
        scaled = distance * (deviation(distance, sample=sample).square() + 1e-8).rsqrt()
        white[real] = (scaled if shift else scaled + mean).to(x.dtype)
    return white


def _distances(values: Tensor) -> Tensor:
    return distances(values, torch.zeros(len(values), dtype=torch.long, device=values.device))


def _groups(score_B: Tensor, group_B: Tensor, fewest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's group as an index, the groups' sizes, and each score's distance from its group's mean (fp64);
    UserError where a group is too small."""
    index = group_B.unique(return_inverse=True)[1]
    size = index.bincount().double()
    if bool((size < fewest).any()):
        raise UserError(f"a prompt has fewer than {fewest} responses, and its responses are compared with each other")
    return index, size, distances(score_B, index)


def centred(score_B: Tensor, group_B: Tensor) -> Tensor:
    """Each score minus its group's mean (Dr. GRPO, arXiv 2503.20783); 0 for a response without siblings."""
    return _groups(score_B, group_B, 1)[2].to(score_B.dtype)


def standardised(score_B: Tensor, group_B: Tensor, *, sample: bool = False, floor: float = FLOOR) -> Tensor:
    """Each score minus its group's mean, over the group's standard deviation + `floor` (GRPO, arXiv 2402.03300).

    The deviation is the population's (the formula of the source), or with `sample` the sample's (TRL, verl), which is
    sqrt(G/(G - 1)) larger; that one is a UserError for a response without siblings. Equal scores give 0.
    """
    index, size, distance = _groups(score_B, group_B, 2 if sample else 1)
    squares = torch.zeros_like(size).index_add(0, index, distance.square())
    spread = (squares / (size - 1 if sample else size)).sqrt()
    return _over(distance, spread[index], floor).to(score_B.dtype)


def _over(distance: Tensor, spread: Tensor, floor: float) -> Tensor:
    """Distances over their spread + `floor`; where both are 0 there is no distance, and 0. UserError for a floor below
    0, which could turn the sign."""
    if floor < 0:
        raise UserError(f"floor must be 0 or more, got {floor:g}: below, advantages could change their sign")
    return distance / (spread + floor).clamp(min=torch.finfo(distance.dtype).tiny)


def leave_one_out(score_B: Tensor, group_B: Tensor) -> Tensor:
    """Each score minus the mean of its siblings' (RLOO, arXiv 2402.14740); UserError for a response without any."""
    index, size, distance = _groups(score_B, group_B, 2)
    return (distance * (size / (size - 1))[index]).to(score_B.dtype)


def batch_scaled(x_B: Tensor, spread_B: Tensor, *, sample: bool = False, floor: float = 0.0) -> Tensor:
    """x over the standard deviation of `spread_B` over the whole step, + `floor`.

    REINFORCE++-baseline scales centred scores by their own deviation (Hu 2025, arXiv 2501.03262), Lite-PPO by that of
    the raw scores (Lite-PPO, arXiv 2508.08221). UserError where all of `spread_B` is equal and `floor` is 0.
    """
    spread = deviation(_distances(spread_B), sample=sample)
    if not float(spread) + floor > 0:
        raise UserError("every rollout of the step has the same score, so there is nothing to scale by; set a floor")
    return _over(x_B.detach().double(), spread, floor).to(x_B.dtype)


def process(reward_BS: Tensor, mask_BS: Tensor, *, sample: bool = False, floor: float = 0.0) -> Tensor:
    """Advantages at each step of one group's responses: the whitened step rewards summed from it on; [B, S].

    All step rewards of the group are whitened together (GRPO with process supervision, arXiv 2402.03300, section
    4.1.3); a token takes the value of the first step that ends at or after it. All equal, they give 0. A function for
    Python: no stage has rewards of single steps.
    """
    real = mask_BS > 0
    values = reward_BS.detach()[real]
    if sample and len(values) < 2:
        raise UserError("a sample standard deviation needs at least two step rewards")
    distance = _distances(values)
    white = torch.zeros_like(reward_BS, dtype=torch.float64)
    white[real] = _over(distance, deviation(distance, sample=sample), floor)
    return torch.where(real, white.flip(1).cumsum(1).flip(1), 0.0).to(reward_BS.dtype)


def lagrangian(advantage: Tensor, cost_advantage: Tensor, *, multiplier: float) -> Tensor:
    """(A - multiplier * A_cost) / (1 + multiplier): reward and constraint in one (Safe RLHF, arXiv 2310.12773).
    UserError for a multiplier below 0, which would reward the cost."""
    if not multiplier >= 0:
        raise UserError(f"the multiplier must be 0 or more, got {multiplier:g}: below, the cost would be rewarded")
    return (advantage - multiplier * cost_advantage) / (1 + multiplier)


def next_multiplier(multiplier: float, cost: float, *, rate: float) -> float:
    """The multiplier after a step whose mean cost exceeded its budget by `cost` (below 0: it was kept).

        ln multiplier <- ln multiplier + rate * multiplier * cost

    >>> round(next_multiplier(1.0, 0.3, rate=0.1), 6)
    1.030455
    """
    if not multiplier > 0:
        raise UserError(f"the multiplier must be above 0, got {multiplier}")
    return multiplier * math.exp(rate * multiplier * cost)
