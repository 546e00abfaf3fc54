"""Objectives on pairs, against a reference: the DPO family."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from torch import Tensor
from torch.nn.functional import logsigmoid

from truing.objectives.ratio import log_ratio, softplus, tangent_expm1
from truing.records import Positive, PositiveFraction, PositiveSmoothing, Smoothing
from truing.registry import objective


@objective(
    source="Rafailov et al. 2023, eq. 7, arXiv 2305.18290",
    estimates="ln 2 - JS of (chosen, rejected) from (rejected, chosen), drawn independently",
)
def dpo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
) -> Tensor:
    """Widen the log-odds of chosen over rejected relative to the reference, hardest where they are wrongly ordered.

        loss_b = -log sigmoid(beta * h_b),   h = log[pi(y_w)/ref(y_w)] - log[pi(y_l)/ref(y_l)]

    Returns [B]; log-probabilities are sums in nats. At pi = ref the loss is ln 2. A large `beta` keeps the policy
    near the reference. The probability of the chosen response itself may fall: monitor `chosen_reward`.
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in dpo(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0)), beta=0.1).tolist()]
    [0.621]
    """
    return softplus(-beta * margin(chosen_logp_B, rejected_logp_B, ref_chosen_logp_B, ref_rejected_logp_B))


def margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """h = log[pi(y_w)/ref(y_w)] - log[pi(y_l)/ref(y_l)] in nats."""
    return log_ratio(chosen, ref_chosen) - log_ratio(rejected, ref_rejected)


@objective(source="Mitchell 2023, A note on DPO with noisy preferences (conservative DPO)")
def cdpo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
    label_smoothing: Annotated[Smoothing, "share of labels taken to be wrong; larger stops at a smaller margin"] = 0.1,
) -> Tensor:
    """DPO that believes a share of the labels to be wrong, and so stops at a finite margin.

        loss_b = -(1 - e) log sigmoid(beta * h_b) - e log sigmoid(-beta * h_b),   e = label_smoothing

    Returns [B]. The optimum is beta * h = ln((1 - e)/e) nats, where the pair's probability is 1 - e.
    Differs from the source: nothing (TRL 1.16 has it no more: its `sigmoid` ignores label smoothing).

    >>> import torch
    >>> [round(x, 4) for x in cdpo(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0))).tolist()]
    [0.636]
    """
    z = beta * margin(chosen_logp_B, rejected_logp_B, ref_chosen_logp_B, ref_rejected_logp_B)
    return (1 - label_smoothing) * softplus(-z) + label_smoothing * softplus(z)


@objective(source="Chowdhury et al. 2024, the robust DPO loss, arXiv 2403.00409")
def robust_dpo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
    label_smoothing: Annotated[Smoothing, "share of labels taken to be flipped, whose mean effect is taken out"] = 0.1,
) -> Tensor:
    """DPO whose mean over labels flipped at rate e is the loss on clean labels.

        loss_b = [-(1 - e) log sigmoid(beta * h_b) + e log sigmoid(-beta * h_b)] / (1 - 2e),   e = label_smoothing

    Returns [B]. Its slope never vanishes and it has no lower bound: stop early.
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in robust_dpo(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0))).tolist()]
    [0.6022]
    """
    e = label_smoothing
    z = beta * margin(chosen_logp_B, rejected_logp_B, ref_chosen_logp_B, ref_rejected_logp_B)
    return ((1 - e) * softplus(-z) - e * softplus(z)) / (1 - 2 * e)


@objective(
    source="Azar et al. 2023, eq. 17, arXiv 2310.12036",
    exempt={"no dead signal": "the lengths are read with mean=True alone"},
)
def ipo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    tau: Annotated[Positive, "the target margin is 1/(2 tau) nats; larger stays nearer the reference"] = 0.1,
    mean: Annotated[bool, "divide each log-ratio by its tokens, so that length does not pay"] = False,
) -> Tensor:
    """Pull the log-odds to a fixed margin instead of pushing it without end.

        loss_b = (h_b - 1/(2 tau))^2,   h as in dpo; with `mean` each log-ratio is first divided by its own tokens

    Returns [B] in nats^2. With win probability p the optimum is h = (2p - 1)/(2 tau). The same `tau` means a very
    different strength for sums and for means.
    Differs from the source: nothing; `mean=True` is what TRL and HALOs do, after asking the authors.

    >>> import torch
    >>> ipo(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0, 4.0, 4.0)), tau=0.25).tolist()
    [0.25]
    """
    chosen = log_ratio(chosen_logp_B, ref_chosen_logp_B)
    rejected = log_ratio(rejected_logp_B, ref_rejected_logp_B)
    if mean:
        chosen, rejected = chosen / chosen_length_B, rejected / rejected_length_B
    return (chosen - rejected - 1 / (2 * tau)).square()


@objective(source="Liu et al. 2023 (RSO), hinge-norm, arXiv 2309.06657")
def hinge(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "one over the margin in nats beyond which a pair teaches nothing"] = 0.1,
) -> Tensor:
    """Widen the log-odds until a margin of 1/beta nats, then leave the pair alone.

        loss_b = max(0, 1 - beta * h_b),   h as in dpo

    Returns [B].
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in hinge(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0))).tolist()]
    [0.85]
    """
    return (1 - beta * margin(chosen_logp_B, rejected_logp_B, ref_chosen_logp_B, ref_rejected_logp_B)).clamp(min=0)


@objective(source="Lambert et al. 2024 (Tulu 3), length-normalised DPO, arXiv 2411.15124")
def dpo_norm(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    chosen_length_B: Tensor,
    rejected_length_B: Tensor,
    *,
    beta: Annotated[Positive, "price of a nat per token of log-ratio; larger stays nearer the reference"] = 5.0,
) -> Tensor:
    """DPO on log-ratios per token, so that length does not pay.

        loss_b = -log sigmoid(beta * (h_w/|y_w| - h_l/|y_l|)),   h_i = log[pi(y_i)/ref(y_i)], |y| in tokens

    Returns [B].
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in dpo_norm(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0, 5.0, 10.0))).tolist()]
    [0.3133]
    """
    chosen = log_ratio(chosen_logp_B, ref_chosen_logp_B) / chosen_length_B
    rejected = log_ratio(rejected_logp_B, ref_rejected_logp_B) / rejected_length_B
    return softplus(-beta * (chosen - rejected))


@objective(
    source="Wang et al. 2023, f-DPO, arXiv 2309.16240",
    exempt={"no dead option": "alpha is read with divergence='alpha' alone"},
)
def f_dpo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "price of the divergence from the reference; larger stays nearer"] = 0.1,
    divergence: Annotated[
        Literal["jensen_shannon", "forward_kl", "alpha"], "which distance from the reference is priced"
    ] = "jensen_shannon",
    alpha: Annotated[
        PositiveFraction, "of divergence alpha: near 0 is dpo's, 1 is forward_kl; wider covers more"
    ] = 0.5,
) -> Tensor:
    """DPO for another divergence than the reverse KL: the reward is beta * f'(pi/ref).

        loss_b = -log sigmoid(beta * [f'(u_w) - f'(u_l)]),   u = pi(y)/ref(y)
        f'(u) = ln(2u/(1 + u)) (jensen_shannon),   1 - 1/u (forward_kl),   (1 - u^-alpha)/alpha (alpha)

    Returns [B]. `alpha` goes from dpo (towards 0) to forward_kl (1); TRL's coefficient is 1 - alpha.
    Differs from the source: powers of 1/u are followed to e^20 and continued by their tangent, to stay finite.

    >>> import torch
    >>> [round(x, 4) for x in f_dpo(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0))).tolist()]
    [0.6521]
    """
    chosen, rejected = (
        log_ratio(logp, ref)
        for logp, ref in ((chosen_logp_B, ref_chosen_logp_B), (rejected_logp_B, ref_rejected_logp_B))
    )
    if divergence != "jensen_shannon":
        power = alpha if divergence == "alpha" else 1.0
        return softplus(-beta / power * (tangent_expm1(-power * rejected) - tangent_expm1(-power * chosen)))
    return softplus(-beta * (logsigmoid(chosen) - logsigmoid(rejected)))


@objective(source="Wu et al. 2024, the SPPO loss with hard labels, arXiv 2405.00675")
def sppo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "each log-ratio is pulled to 1/(2 beta) nats; larger stays nearer the reference"] = 0.1,
) -> Tensor:
    """Pull each log-ratio to its own target: the chosen up, the rejected down, each by 1/(2 beta).

        loss_b = (r_w - 1/(2 beta))^2 + (r_l + 1/(2 beta))^2,   r_i = log[pi(y_i)/ref(y_i)]

    Returns [B] in nats^2. Unlike dpo it holds the chosen response up by itself.
    Differs from the source: nothing (its eta is 1/beta).

    >>> import torch
    >>> sppo(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0)), beta=0.5).tolist()
    [0.25]
    """
    target = 1 / (2 * beta)
    chosen = log_ratio(chosen_logp_B, ref_chosen_logp_B)
    rejected = log_ratio(rejected_logp_B, ref_rejected_logp_B)
    return (chosen - target).square() + (rejected + target).square()


@objective(source="Chen et al. 2024, NCA for pairs, arXiv 2402.05369")
def nca(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.01,
) -> Tensor:
    """Judge each response against the reference by itself, so that the chosen one's likelihood does not fall.

        loss_b = -log sigmoid(r_w) - 1/2 log sigmoid(-r_w) - 1/2 log sigmoid(-r_l),   r_i = beta log[pi(y_i)/ref(y_i)]

    Returns [B].
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in nca(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0)), beta=0.1).tolist()]
    [1.3499]
    """
    chosen = beta * log_ratio(chosen_logp_B, ref_chosen_logp_B)
    rejected = beta * log_ratio(rejected_logp_B, ref_rejected_logp_B)
    return softplus(-chosen) + 0.5 * softplus(chosen) + 0.5 * softplus(rejected)


@objective(source="D'Oosterlinck et al. 2024, eq. 7, arXiv 2408.06266")
def apo_zero(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
) -> Tensor:
    """Raise the chosen response and lower the rejected one, each by itself: where the chosen beats the policy's own.

        loss_b = 1 - sigmoid(r_w) + sigmoid(r_l),   r_i = beta log[pi(y_i)/ref(y_i)]

    Returns [B], between 0 and 2; the gradient vanishes far from the reference on either side.
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in apo_zero(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0))).tolist()]
    [0.9625]
    """
    chosen = beta * log_ratio(chosen_logp_B, ref_chosen_logp_B)
    rejected = beta * log_ratio(rejected_logp_B, ref_rejected_logp_B)
    return (-chosen).sigmoid() + rejected.sigmoid()


@objective(
    source="D'Oosterlinck et al. 2024, eq. 8, arXiv 2408.06266",
    exempt={"direction": "lowers both responses, the chosen one less; at the reference the chosen one stands still"},
)
def apo_down(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
) -> Tensor:
    """Lower both responses, the rejected one more: where even the chosen is worse than the policy's own.

        loss_b = sigmoid(r_w) + 1 - sigmoid(r_w - r_l),   r_i = beta log[pi(y_i)/ref(y_i)]

    Returns [B], between 0 and 2.
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in apo_down(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0))).tolist()]
    [0.9751]
    """
    chosen = beta * log_ratio(chosen_logp_B, ref_chosen_logp_B)
    rejected = beta * log_ratio(rejected_logp_B, ref_rejected_logp_B)
    return chosen.sigmoid() + (rejected - chosen).sigmoid()


@objective(
    source="Ji et al. 2024, EXO for pairs, arXiv 2402.00856",
    estimates="KL(the policy's preference || the smoothed label), at every policy",
)
def exo(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
    label_smoothing: Annotated[PositiveSmoothing, "share of labels taken to be wrong; sets the finite margin"] = 1e-3,
) -> Tensor:
    """Match the pair's probabilities to the label by the reverse KL, which seeks the mode, where cdpo covers both.

        loss_b = KL(Bernoulli(sigmoid(beta * h_b)) || Bernoulli(1 - e)),   h as in dpo, e = label_smoothing

    Returns [B] in nats. At beta * h = ln((1 - e)/e) it is 0. e is at least 1e-6 (at 0 it is infinite).
    Differs from the source: nothing.

    >>> import torch
    >>> [round(x, 4) for x in exo(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0)), label_smoothing=0.1).tolist()]
    [0.4314]
    """
    e = label_smoothing
    z = beta * margin(chosen_logp_B, rejected_logp_B, ref_chosen_logp_B, ref_rejected_logp_B)
    return z.sigmoid() * (logsigmoid(z) - math.log1p(-e)) + (-z).sigmoid() * (logsigmoid(-z) - math.log(e))


@objective(
    source="Jung et al. 2024, BCO on pairs without shift (TRL's bco_pair), arXiv 2404.04656",
    estimates="ln 4 - 2 JS(D+, D-) with free rewards; a policy without shift need not reach it",
)
def bco_pair(
    chosen_logp_B: Tensor,
    rejected_logp_B: Tensor,
    ref_chosen_logp_B: Tensor,
    ref_rejected_logp_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
) -> Tensor:
    """Classify each response of the pair by itself: chosen above the reference, rejected below.

        loss_b = -log sigmoid(r_w) - log sigmoid(-r_l),   r_i = beta log[pi(y_i)/ref(y_i)]

    Returns [B].
    Differs from the source: the reward shift is 0, so that no row depends on the others; `bco` has it.

    >>> import torch
    >>> [round(x, 4) for x in bco_pair(*(torch.tensor([v]) for v in (-6.5, -9.0, -7.0, -8.0))).tolist()]
    [1.3129]
    """
    chosen = beta * log_ratio(chosen_logp_B, ref_chosen_logp_B)
    rejected = beta * log_ratio(rejected_logp_B, ref_rejected_logp_B)
    return softplus(-chosen) + softplus(rejected)
