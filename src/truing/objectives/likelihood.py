"""Objectives that raise the likelihood of given responses."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from truing.objectives.ratio import log_mean_exp
from truing.records import Positive
from truing.registry import objective


@objective(
    source="Ouyang et al. 2022, section 3.5, arXiv 2203.02155 (supervised fine-tuning)",
    estimates="KL(data || policy) plus the entropy of the data, at every policy",
)
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


def row_tokens(length_B: Tensor, prompt_length_B: Tensor) -> Tensor:
    """Mean tokens of a step's rows: of the response, and of the prompt after its first."""
    return (length_B + prompt_length_B).mean()


@objective(
    source="ORPO as TRL 1.16 trains it, after Hong et al. 2024, arXiv 2403.07691",
    coupled={"row_tokens_B": row_tokens},
)
def nll_whole(logp_B: Tensor, prompt_logp_B: Tensor, row_tokens_B: Tensor) -> Tensor:
    """Raise the probability of prompts as well as of responses: fine-tuning on every token.

        loss_b = -[log pi(x_b) + log pi(y_b | x_b)] / n,   n = mean tokens of a row of the step

    Returns [B], whose mean over the step is the mean over all its tokens; a prompt's first token is given. On pairs it
    reads the chosen response. Reading prompts costs a pass over them.
    Differs from the source: nothing. TRL's ORPO is `[{orpo: {likelihood: 0}}, nll_whole]`.

    >>> import torch
    >>> nll_whole(*(torch.tensor(v) for v in ([-2.0, -4.0], [-1.0, -5.0], [6.0, 6.0]))).tolist()
    [0.5, 1.5]
    """
    return -(logp_B + prompt_logp_B) / row_tokens_B


def log_partition(old_logp_B: Tensor, ref_logp_B: Tensor, score_B: Tensor, *, beta: Positive) -> Tensor:
    """log of the mean importance weight of a step's rollouts: an estimate of log Z, nats."""
    return log_mean_exp(ref_logp_B + score_B / beta - old_logp_B)


@objective(
    source="Korbak et al. 2022, the GDC gradient, arXiv 2206.00761; target: Korbak et al. 2022, arXiv 2205.11275",
    coupled={"log_partition_B": log_partition},
    estimates="KL(target || policy) plus the entropy of the target, at every policy",
    advantage="none",
)
def gdc(
    logp_B: Tensor,
    old_logp_B: Tensor,
    ref_logp_B: Tensor,
    score_B: Tensor,
    log_partition_B: Tensor,
    *,
    beta: Annotated[Positive, "reward per nat of tilt from the reference; larger stays nearer to it"] = 1.0,
) -> Tensor:
    """Match the policy to the tilted reference by the forward KL, which covers every good response.

        loss_b = -w_b * log pi(y_b),   w_b = p(y_b)/old(y_b),   p = ref * exp(score/beta) / Z

    Returns [B]. The optimum is that of rewards under KL control, reached from the covering side. Z is the mean weight
    of the step; the weights have mean 1 and no gradient.
    Differs from the source: Z is estimated from the step alone, not as a moving average; no baseline (GDC++).

    >>> import torch
    >>> row = (torch.tensor([v]) for v in (-3.0, -3.0, -4.0, 1.0, 0.5))
    >>> [round(x, 4) for x in gdc(*row).tolist()]
    [1.8196]
    """
    w = (ref_logp_B + score_B / beta - old_logp_B - log_partition_B).detach().exp()
    return -w * logp_B
