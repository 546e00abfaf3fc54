"""Objectives on pairs that need no reference. Nothing holds the policy near its start: use small learning rates."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from truing.objectives.ratio import softplus
from truing.records import NonNegative, Positive
from truing.registry import objective


@objective(source="Zhao et al. 2023, SLiC-HF, arXiv 2305.10425")
def slic(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    *,
    delta: Annotated[Positive, "margin in nats beyond which the pair teaches nothing more"] = 1.0,
    weight: Annotated[
        NonNegative, "weight per nat of the chosen response's own likelihood, which keeps it likely"
    ] = 0.5,
) -> Tensor:
    """Keep the chosen response `delta` nats likelier than the rejected one, and likely.

        loss_b = max(0, delta - log pi(y_w) + log pi(y_l)) - weight * log pi(y_w)

    Returns [B] in nats; sums over tokens.
    Differs from the source: the regulariser reads the chosen response, not a separate supervised one (for that, add
    `nll`); both defaults are ours, the source tunes them.

    >>> import torch
    >>> slic(torch.tensor([-6.5, -9.0]), torch.tensor([-9.0, -8.5])).tolist()
    [3.25, 6.0]
    """
    return (delta - chosen_logp_B + rejected_logp_B).clamp(min=0) - weight * chosen_logp_B


@objective(source="Meng et al. 2024, eq. 6, arXiv 2405.14734")
def simpo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: Annotated[Positive, "reward per nat of log-probability per token; larger separates harder"] = 2.0,
    gamma: Annotated[
        NonNegative, "margin in reward that the chosen response has to win by; larger pushes on longer"
    ] = 1.0,
) -> Tensor:
    """Make the chosen response likelier per token than the rejected one, by a margin.

        loss_b = -log sigmoid(beta log pi(y_w)/|y_w| - beta log pi(y_l)/|y_l| - gamma),   |y| in tokens

    Returns [B]. The reward is what generation ranks by; `gamma`/`beta` of 0.3 to 0.55 is usual.
    Differs from the source: nothing. TRL adds a term `nll` unless its cpo_alpha is 0.

    >>> import torch
    >>> [round(x, 4) for x in simpo(*(torch.tensor([v]) for v in (-6.0, -9.0, 6.0, 6.0))).tolist()]
    [0.6931]
    """
    d = chosen_logp_B / chosen_length_B - rejected_logp_B / rejected_length_B
    return softplus(gamma - beta * d)


@objective(source="Hong et al. 2024, eq. 6 and 7, arXiv 2403.07691")
def orpo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    weight: Annotated[Positive, "weight of the log-odds beside the likelihood; larger prefers harder"] = 0.1,
    likelihood: Annotated[
        NonNegative, "weight of the supervised term on the chosen response; 0 leaves the odds alone"
    ] = 1.0,
) -> Tensor:
    """Supervised fine-tuning on the chosen response that also widens its odds over the rejected one.

        loss_b = -likelihood * log p_w - weight * log sigmoid(log odds(p_w) - log odds(p_l)),   odds = p/(1 - p)

    p = pi(y)^(1/|y|). Returns [B]; the first term is the mean over the chosen response's tokens.
    Differs from the source: log p is kept below -1e-6, where the odds would be infinite. TRL's first term is a mean
    over all tokens of the batch, prompts included: `[{orpo: {likelihood: 0}}, nll_whole]`.

    >>> import torch
    >>> [round(x, 4) for x in orpo(*(torch.tensor([v]) for v in (-6.0, -9.0, 6.0, 6.0))).tolist()]
    [1.0401]
    """
    chosen, rejected = chosen_logp_B / chosen_length_B, rejected_logp_B / rejected_length_B
    return -likelihood * chosen + weight * softplus(log_odds(rejected) - log_odds(chosen))


def log_odds(mean_logp: Tensor) -> Tensor:
    """log[p/(1 - p)] of p = exp(mean_logp), with `mean_logp` kept below -1e-6."""
    below = mean_logp.clamp(max=-1e-6)
    return below - (-below.expm1()).log()


@objective(source="Xu et al. 2024, CPO, arXiv 2401.08417")
def cpo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    chosen_length_B: Tensor,
    *,
    beta: Annotated[Positive, "reward per nat of log-probability; larger separates sooner"] = 0.1,
    weight: Annotated[
        NonNegative, "weight per nat of the chosen response's likelihood per token, which keeps it likely"
    ] = 1.0,
) -> Tensor:
    """DPO with a uniform reference, held to the chosen responses by their likelihood.

        loss_b = -log sigmoid(beta [log pi(y_w) - log pi(y_l)]) - weight * log pi(y_w)/|y_w|

    Returns [B]; the second term is the mean over the chosen response's tokens.
    Differs from the source: that mean is taken per response. TRL's is over all tokens of the batch: `weight: 0` and a
    term `nll`.

    >>> import torch
    >>> [round(x, 4) for x in cpo(*(torch.tensor([v]) for v in (-6.0, -9.0, 6.0))).tolist()]
    [1.5544]
    """
    return softplus(-beta * (chosen_logp_B - rejected_logp_B)) - weight * chosen_logp_B / chosen_length_B
