"""Terms beside any method that has advantages: they hold a policy near its reference, spread out, or to texts.

These read no score, so by themselves they teach nothing of what is wanted, and are refused.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from truing.objectives.kl import k2, k3, k3_corrected
from truing.objectives.ratio import bounded_ratio
from truing.registry import objective


@objective(
    source="Liu et al. 2025, arXiv 2510.01555; k2: Schulman 2020, Approximating KL divergence",
    exempt={
        "gradient": "the ratio is held fixed: the gradient is that of KL(pi || ref), not that of the value",
        "against reference": "a distance: least where policy and reference agree, so it grows both ways",
        "direction": "at the reference it has no gradient: it only holds",
    },
    advantage="any",
)
def kl_k2(logp_BT: Tensor, old_logp_BT: Tensor, ref_logp_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """KL control in the loss: its gradient, token for token, is that of KL(pi || ref), off-policy too.

        loss_bt = mask_bt * sg[w] * d^2/2,   d = log[pi(y_bt)/ref(y_bt)],   w = pi(y_bt)/old(y_bt), sg: no gradient

    Returns [B, T]; the loop divides by the tokens of the step. Its weight is the coefficient of the KL, in units of
    advantage a nat (REINFORCE++ with a baseline has it: `[reinforce_pp_baseline, {kl_k2: {weight: 0.01}}]`).
    Differs from the source: |log w| is held below 20 nats. Only the in-reward KL (`beta`) charges a token for the KL of
    later tokens; a loss of single tokens does not.

    >>> import torch
    >>> [round(x, 4) for x in kl_k2(*(torch.tensor([[v]]) for v in (-1.0, -1.2, -1.5, 1.0)))[0].tolist()]
    [0.1527]
    """
    weight = bounded_ratio(logp_BT, old_logp_BT).detach()
    return torch.where(mask_BT > 0, weight * k2(logp_BT - ref_logp_BT.detach()), 0.0)


@objective(
    source="DeepSeek-AI 2025 (DeepSeek-V3.2), arXiv 2512.02556; uncorrected: Shao et al. 2024 (DeepSeekMath), "
    "arXiv 2402.03300",
    exempt={
        "against reference": "a distance: least where policy and reference agree, so it grows both ways",
        "direction": "at the reference it has no gradient: it only holds",
    },
    advantage="any",
)
def kl_k3(
    logp_BT: Tensor,
    old_logp_BT: Tensor,
    ref_logp_BT: Tensor,
    mask_BT: Tensor,
    *,
    corrected: Annotated[bool, "weigh by the ratio to the sampler, unbiased after several updates a round"] = True,
) -> Tensor:
    """KL control in the loss by the estimate of least variance, with the ratio to the policy that sampled.

        loss_bt = mask_bt * w * [ref/pi - 1 - log(ref/pi)],   w = pi(y_bt)/old(y_bt)

    Returns [B, T]; the loop divides by the tokens of the step. The gradient goes through w, and so value and gradient
    are those of KL(pi || ref), off-policy too. Without `corrected` w is left out, as in GRPO, and the gradient is that
    of the forward KL(ref || pi).
    Differs from the source: |log w| and |log(ref/pi)| are held below 20 nats.

    >>> import torch
    >>> [round(x, 4) for x in kl_k3(*(torch.tensor([[v]]) for v in (-1.0, -1.2, -1.5, 1.0)))[0].tolist()]
    [0.1301]
    """
    if corrected:
        losses = k3_corrected(logp_BT, old_logp_BT, ref_logp_BT)
    else:
        losses = k3(logp_BT - ref_logp_BT.detach())
    return torch.where(mask_BT > 0, losses, 0.0)


@objective(
    source="Williams and Peng 1991, Connection Science 3:241; beside clipping: Schulman et al. 2017, eq. 9, "
    "arXiv 1707.06347",
    advantage="any",
)
def entropy(entropy_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Keep the policy spread out: a bonus for the entropy of its next token, wherever it wrote one.

        loss_bt = -mask_bt * H(pi(. | prompt, y_b<t))

    Returns [B, T]; the loop divides by the tokens of the step. H is over the whole vocabulary, in nats, and its weight
    is small: `[ppo, {entropy: {weight: 0.001}}]`.
    Differs from the source: nothing.

    >>> import torch
    >>> entropy(torch.tensor([[1.5, 0.25]]), torch.tensor([[1.0, 0.0]])).tolist()
    [[-1.5, 0.0]]
    """
    return torch.where(mask_BT > 0, -entropy_BT, 0.0)


@objective(source="Ouyang et al. 2022 (InstructGPT, PPO-ptx), eq. 2, arXiv 2203.02155", advantage="any")
def ptx(given_logp_B: Tensor, given_length_B: Tensor) -> Tensor:
    """Keep texts likely that the policy was pretrained on, in the same updates as it learns from its own responses.

        loss_b = -log pi(text_b) / |text_b|

    Returns one loss a text; the loop divides by the texts of the step. Texts are the stage's `pretrain`. Its weight is
    the source's gamma: `[ppo, {value_clipped: {weight: 0.1}}, {ptx: {weight: 27.8}}]`.
    Differs from the source: a mean over each text's own tokens, so that gamma means the same at every length; a text to
    a prompt, where the source read eight to an episode.

    >>> import torch
    >>> ptx(torch.tensor([-25.0]), torch.tensor([10.0])).tolist()
    [2.5]
    """
    return -given_logp_B / given_length_B
