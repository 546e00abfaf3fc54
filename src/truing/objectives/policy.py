"""Policy gradients on rollouts: each response's tokens are made likelier or less likely, as their advantage says.

`mean` in the decorator is part of the method: the divisor of the losses of a step.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from truing.objectives.kl import k3, k3_corrected
from truing.objectives.ratio import bounded_ratio, log_mean_exp
from truing.records import Cap, Clip, DualClip, NonNegative, Positive
from truing.registry import objective


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """-min(ratio * A, clip(ratio, 1 - low, 1 + high) * A): no gradient once the ratio has gone as far as A asks."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def clipped_tokens(
    logp_BT: Tensor, old_logp_BT: Tensor, advantage_BT: Tensor, mask_BT: Tensor, low: float, high: float
) -> Tensor:
    """`clipped` of every token's own ratio, 0 where it is masked; [B, T]."""
    return torch.where(mask_BT > 0, clipped(bounded_ratio(logp_BT, old_logp_BT), advantage_BT, low, high), 0.0)


@objective(
    source="Schulman et al. 2017, eq. 7, arXiv 1707.06347; dual clip: Ye et al. 2020, arXiv 1912.09729", advantage="gae"
)
def ppo(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: Annotated[Clip, "how far a token's ratio to the sampler may go from 1; larger learns faster, riskier"] = 0.2,
    dual_clip: Annotated[DualClip | None, "cap on the loss of bad tokens, times |advantage|; against blow-ups"] = None,
) -> Tensor:
    """Follow each token's advantage, but no further than a clipped step away from the policy that sampled it.

        loss_bt = -mask_bt * min(w A, clip(w, 1 - clip, 1 + clip) A),   w = pi(y_bt)/old(y_bt)

    Returns [B, T]; the loop divides by the tokens of the step. `dual_clip` (3) caps the loss at dual_clip * |A| where A
    is negative. Advantages come from `advantage.gae`, whitened; KL control is in the reward.
    Differs from the source: |log w| is held below 20 nats.

    >>> import torch
    >>> w, A = torch.tensor([[1.5, 4.0]]), torch.tensor([[1.0, -1.0]])
    >>> [round(x, 4) for x in ppo(w.log(), torch.zeros(1, 2), A, torch.ones(1, 2), dual_clip=3.0)[0].tolist()]
    [-1.2, 3.0]
    """
    losses = clipped(bounded_ratio(logp_BT, old_logp_BT), advantage_BT, clip, clip)
    if dual_clip is not None:
        losses = torch.where(advantage_BT < 0, torch.minimum(losses, -dual_clip * advantage_BT), losses)
    return torch.where(mask_BT > 0, losses, 0.0)


@objective(
    source="Shao et al. 2024 (DeepSeekMath), arXiv 2402.03300",
    mean="response",
    exempt={"against reference": "the reference enters a penalty of its own, beside the advantage"},
    advantage="standardised",
)
def grpo(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: Annotated[Clip, "how far a token's ratio to the sampler may go from 1; larger learns faster, riskier"] = 0.2,
    beta: Annotated[NonNegative, "weight of the KL to the reference in the loss, per nat; 0 is no KL control"] = 0.04,
    corrected: Annotated[bool, "weigh the KL by the ratio, unbiased after several updates a round"] = False,
) -> Tensor:
    """PPO without a value head: advantages within a group of responses to one prompt, KL control in the loss.

        loss_bt = -mask_bt * [min(w A, clip(w, 1 - clip, 1 + clip) A) - beta * k3],   k3 = ref/pi - 1 - log(ref/pi)

    Returns [B, T]; the loop divides each response by its own tokens and then by the responses, which favours short
    right responses and long wrong ones (`dr_grpo` does not). Advantages: `advantage.standardised`.
    Differs from the source: |log w| and |log(ref/pi)| are held below 20 nats. As a loss, k3 has the gradient of the
    forward KL; `corrected` makes it w * k3, which has that of KL(pi || ref) (arXiv 2512.02556; TRL's default).

    >>> import torch
    >>> row = (torch.tensor([[v]]) for v in (-1.0, -1.1, -1.2, 0.9, 1.0))
    >>> [round(x, 4) for x in grpo(*row)[0].tolist()]
    [-0.9939]
    """
    losses = clipped(bounded_ratio(logp_BT, old_logp_BT), advantage_BT, clip, clip)
    kl = k3_corrected(logp_BT, old_logp_BT, ref_logp_BT) if corrected else k3(logp_BT - ref_logp_BT.detach())
    return torch.where(mask_BT > 0, losses + beta * kl, 0.0)


@objective(source="Liu et al. 2025 (Dr. GRPO), arXiv 2503.20783", mean="constant", advantage="centred")
def dr_grpo(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: Annotated[Clip, "how far a token's ratio to the sampler may go from 1; larger learns faster, riskier"] = 0.2,
) -> Tensor:
    """GRPO without its two biases: every token weighs the same whatever its response's length, and no KL control.

        loss_bt = -mask_bt * min(w A, clip(w, 1 - clip, 1 + clip) A),   w = pi(y_bt)/old(y_bt)

    Returns [B, T]; the loop divides by the responses times the longest response allowed, a constant. Advantages:
    `advantage.centred`, not divided by a standard deviation.
    Differs from the source: |log w| is held below 20 nats.

    >>> import torch
    >>> row = (torch.tensor([[v]]) for v in (-1.0, -1.1, 0.9, 1.0))
    >>> [round(x, 4) for x in dr_grpo(*row)[0].tolist()]
    [-0.9947]
    """
    return clipped_tokens(logp_BT, old_logp_BT, advantage_BT, mask_BT, clip, clip)


@objective(source="Yu et al. 2025 (DAPO), arXiv 2503.14476", mean="token", advantage="standardised")
def dapo(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_low: Annotated[Clip, "how far below 1 a token's ratio to the sampler may fall"] = 0.2,
    clip_high: Annotated[Positive, "how far above 1 it may rise; wider lets unlikely tokens grow"] = 0.28,
) -> Tensor:
    """GRPO that leaves unlikely tokens more room to rise, weighs all tokens of a step alike, and has no KL control.

        loss_bt = -mask_bt * min(w A, clip(w, 1 - clip_low, 1 + clip_high) A),   w = pi(y_bt)/old(y_bt)

    Returns [B, T]; the loop divides by the tokens of the step. Advantages: `advantage.standardised`; dropping groups
    whose responses all score the same belongs to the source of rollouts.
    Differs from the source: |log w| is held below 20 nats.

    >>> import torch
    >>> row = (torch.tensor([[v]]) for v in (-1.0, -1.5, 1.0, 1.0))
    >>> [round(x, 4) for x in dapo(*row)[0].tolist()]
    [-1.28]
    """
    return clipped_tokens(logp_BT, old_logp_BT, advantage_BT, mask_BT, clip_low, clip_high)


@objective(source="Zheng et al. 2025 (GSPO), arXiv 2507.18071", advantage="standardised")
def gspo(
    logp_B: Tensor,
    old_logp_B: Tensor,
    advantage_B: Tensor,
    length_B: Tensor,
    *,
    clip_low: Annotated[Clip, "how far below 1 a response's mean ratio per token may fall"] = 3e-4,
    clip_high: Annotated[Positive, "how far above 1 it may rise; larger learns faster, riskier"] = 4e-4,
) -> Tensor:
    """Clip whole responses by the geometric mean of their tokens' ratios: what is rewarded is what is clipped.

        loss_b = -min(s A, clip(s, 1 - clip_low, 1 + clip_high) A),   s = [pi(y_b)/old(y_b)]^(1/|y_b|)

    Returns [B].
    Differs from the source: |log s| is held below 20 nats.

    >>> import torch
    >>> [round(x, 4) for x in gspo(*(torch.tensor([v]) for v in (-2.5, -2.2, -1.1, 2.0))).tolist()]
    [1.0997]
    """
    s = bounded_ratio(logp_B / length_B, old_logp_B / length_B)
    return clipped(s, advantage_B, clip_low, clip_high)


@objective(
    source="MiniMax 2025 (CISPO), arXiv 2506.13585; clip_high: Khatri et al. 2025 (ScaleRL), arXiv 2510.13786",
    exempt={"gradient": "the weight is held fixed: the gradient is the weighted score, not that of the value"},
    advantage="standardised",
)
def cispo(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip_high: Annotated[Cap, "largest weight of a token, as a ratio to the sampler; smaller is steadier"] = 5.0,
) -> Tensor:
    """Policy gradient with capped importance weights: no token is dropped, the capped ones only weigh less.

        loss_bt = -mask_bt * sg[min(w, clip_high)] * A * log pi(y_bt),   w = pi(y_bt)/old(y_bt), sg: no gradient

    Returns [B, T]; the loop divides by the tokens of the step. `clip_high` is the largest weight itself, as
    in TRL (verl adds 1).
    Differs from the source: |log w| is held below 20 nats.

    >>> import torch
    >>> row = (torch.tensor([[v]]) for v in (-1.0, -9.0, 0.5, 1.0))
    >>> cispo(*row)[0].tolist()
    [2.5]
    """
    weight = bounded_ratio(logp_BT, old_logp_BT).detach().clamp(max=clip_high)
    return torch.where(mask_BT > 0, -weight * advantage_BT * logp_BT, 0.0)


@objective(source="Ahmadian et al. 2024 (RLOO), arXiv 2402.14740", advantage="leave_one_out")
def rloo(
    logp_B: Tensor,
    old_logp_B: Tensor,
    advantage_B: Tensor,
    *,
    clip: Annotated[Clip, "how far a response's ratio to the sampler may go from 1; larger is riskier"] = 0.2,
) -> Tensor:
    """REINFORCE on whole responses, each against the mean of its siblings.

        loss_b = -min(w A, clip(w, 1 - clip, 1 + clip) A),   w = pi(y_b)/old(y_b)

    Returns [B]. Advantages: `advantage.leave_one_out`; KL control is in the reward, summed over tokens.
    Differs from the source: clipped as in TRL, so that rollouts may serve more than one update; in the first one w = 1
    and the gradient is the source's.

    >>> import torch
    >>> [round(x, 4) for x in rloo(*(torch.tensor([v]) for v in (-4.0, -4.2, 0.5))).tolist()]
    [-0.6]
    """
    return clipped(bounded_ratio(logp_B, old_logp_B), advantage_B, clip, clip)


@objective(source="Williams 1992, Machine Learning 8:229", advantage="leave_one_out")
def reinforce(logp_B: Tensor, advantage_B: Tensor) -> Tensor:
    """Make each response likelier in proportion to its advantage: the plain policy gradient.

        loss_b = -A_b * log pi(y_b)

    Returns [B]. Right only for fresh rollouts: one update, then sample again.
    Differs from the source: nothing.

    >>> import torch
    >>> reinforce(torch.tensor([-4.0]), torch.tensor([0.5])).tolist()
    [2.0]
    """
    return -advantage_B * logp_B


@objective(source="Hu 2025 (REINFORCE++), arXiv 2501.03262", advantage="returns")
def reinforce_pp(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: Annotated[Clip, "how far a token's ratio to the sampler may go from 1; larger learns faster, riskier"] = 0.2,
) -> Tensor:
    """PPO's clipped step without a value head: advantages are returns, whitened over the whole step.

        loss_bt = -mask_bt * min(w A, clip(w, 1 - clip, 1 + clip) A),   w = pi(y_bt)/old(y_bt)

    Returns [B, T]; the loop divides by the tokens of the step. Advantages: `advantage.returns` of `shaped_rewards`,
    then `advantage.whitened`.
    Differs from the source: |log w| is held below 20 nats.

    >>> import torch
    >>> row = (torch.tensor([[v]]) for v in (-1.0, -1.5, 1.0, 1.0))
    >>> [round(x, 4) for x in reinforce_pp(*row)[0].tolist()]
    [-1.2]
    """
    return clipped_tokens(logp_BT, old_logp_BT, advantage_BT, mask_BT, clip, clip)


@objective(source="Hu 2025 (REINFORCE++ with a baseline), arXiv 2501.03262", advantage="batch_centred")
def reinforce_pp_baseline(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: Annotated[Clip, "how far a token's ratio to the sampler may go from 1; larger learns faster, riskier"] = 0.2,
) -> Tensor:
    """REINFORCE++ on several responses to a prompt: each against its group's mean, scaled by the whole round.

        loss_bt = -mask_bt * min(w A, clip(w, 1 - clip, 1 + clip) A),   w = pi(y_bt)/old(y_bt)
        A = (R - mean_group R)/std_round(R - mean_group R)

    Returns [B, T]; the loop divides by the tokens of the step. Advantages: `advantage.batch_scaled` of
    `advantage.centred`. The source's KL control is k2 in the loss: `[reinforce_pp_baseline, {kl_k2: {weight: 0.01}}]`.
    Differs from the source: |log w| is held below 20 nats; 1e-4 is added to the deviation.

    >>> import torch
    >>> row = (torch.tensor([[v]]) for v in (-1.0, -1.5, 1.0, 1.0))
    >>> [round(x, 4) for x in reinforce_pp_baseline(*row)[0].tolist()]
    [-1.2]
    """
    return clipped_tokens(logp_BT, old_logp_BT, advantage_BT, mask_BT, clip, clip)


@objective(source="Liu et al. 2025 (Lite PPO), arXiv 2508.08221", advantage="batch_raw")
def lite_ppo(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: Annotated[Clip, "how far a token's ratio to the sampler may go from 1; larger learns faster, riskier"] = 0.2,
) -> Tensor:
    """PPO's clipped step without a value head or KL control: advantages by the group's mean and the round's deviation.

        loss_bt = -mask_bt * min(w A, clip(w, 1 - clip, 1 + clip) A),   w = pi(y_bt)/old(y_bt)
        A = (R - mean_group R)/std_round(R)

    Returns [B, T]; the loop divides by the tokens of the step, so that all weigh the same. A group of responses that
    are nearly alike is not blown up, as over its own deviation. Advantages: `advantage.batch_scaled`.
    Differs from the source: |log w| is held below 20 nats; 1e-4 is added to the deviation.

    >>> import torch
    >>> row = (torch.tensor([[v]]) for v in (-1.0, -1.5, 1.0, 1.0))
    >>> [round(x, 4) for x in lite_ppo(*row)[0].tolist()]
    [-1.2]
    """
    return clipped_tokens(logp_BT, old_logp_BT, advantage_BT, mask_BT, clip, clip)


@objective(
    source="Peng et al. 2019 (AWR), arXiv 1910.00177",
    exempt={"direction": "raises every rollout, the better ones more"},
    advantage="centred",
)
def awr(
    logp_B: Tensor,
    advantage_B: Tensor,
    *,
    beta: Annotated[Positive, "units of reward in which a response's weight grows e-fold; smaller is greedier"] = 0.05,
    max_weight: Annotated[Cap, "largest weight of a response; smaller is steadier"] = 20.0,
) -> Tensor:
    """Supervised learning on the rollouts, the better ones weighing more.

        loss_b = -min(exp(A_b/beta), max_weight) * log pi(y_b)

    Returns [B]. The optimum is relative to the policy that sampled, not to a reference.
    Differs from the source: nothing.

    >>> import torch
    >>> awr(torch.tensor([-2.0]), torch.tensor([0.0])).tolist()
    [2.0]
    """
    return -(advantage_B / beta).exp().clamp(max=max_weight) * logp_B


def log_mean_weight(score_B: Tensor, *, beta: Positive) -> Tensor:
    """log of the mean of exp(score/beta) over a step's rollouts."""
    return log_mean_exp(score_B / beta)


@objective(
    source="Peters and Schaal 2007 (reward-weighted regression), ICML",
    coupled={"log_partition_B": log_mean_weight},
    advantage="none",
)
def rwr(
    logp_B: Tensor,
    score_B: Tensor,
    log_partition_B: Tensor,
    *,
    beta: Annotated[Positive, "units of reward in which a response's weight grows e-fold; smaller is greedier"] = 1.0,
) -> Tensor:
    """Supervised learning on the rollouts, weighted by exp(score/beta) over its mean.

        loss_b = -exp(score_b/beta - log_partition) * log pi(y_b),   log_partition = log mean_step exp(score/beta)

    Returns [B]; the weights have mean 1 over the step. The optimum is relative to the policy that sampled.
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in rwr(torch.tensor([-2.0]), torch.tensor([1.0]), torch.tensor([0.5])).tolist()]
    [3.2974]
    """
    return -(score_B / beta - log_partition_B).exp() * logp_B
