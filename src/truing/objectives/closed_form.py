"""Exact targets of the methods where every response can be listed: optima, partition functions and identities.

Distributions are log-probabilities over the last axis (`logp_V`), in nats. A test trains by gradient descent and
compares; a diagnosis compares a policy with its optimum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from truing.errors import UserError
from truing.objectives.kl import exact

# --- rewards under KL control: J(pi) = E[r] - beta KL(pi || ref) ----------------------------------------------------


def log_partition(ref_logp_V: Tensor, reward_V: Tensor, beta: float) -> Tensor:
    """log Z = log E_ref[exp(r/beta)]; the best value of J is beta log Z."""
    return (ref_logp_V + reward_V / beta).logsumexp(-1)


def optimum(ref_logp_V: Tensor, reward_V: Tensor, beta: float) -> Tensor:
    """log pi* = log ref + r/beta - log Z: the policy that maximises J (Rafailov et al. 2023, eq. 4,
    arXiv 2305.18290).

    >>> even = torch.full((2,), 0.5).log()
    >>> [round(x, 4) for x in optimum(even, torch.tensor([1.0, 0.0]), 1.0).exp().tolist()]
    [0.7311, 0.2689]
    """
    return (ref_logp_V + reward_V / beta).log_softmax(-1)


def value(logp_V: Tensor, ref_logp_V: Tensor, reward_V: Tensor, beta: float) -> Tensor:
    """J(pi) = E[r] - beta KL(pi || ref), which equals beta log Z - beta KL(pi || pi*) for every pi."""
    return (logp_V.exp() * reward_V).sum(-1) - beta * exact(logp_V, ref_logp_V)


def soft_value(ref_logp_V: Tensor, next_value_V: Tensor, beta: float) -> Tensor:
    """V(h) = beta log E_ref[exp(V(h, y_t)/beta)] from the values after each next token; the reward is the last one's.

    Applied from the last token back, it gives pi*(y_t | h) = ref(y_t | h) exp[(V(h, y_t) - V(h))/beta].
    """
    return beta * log_partition(ref_logp_V, next_value_V, beta)


def geometric_mixture(logp_MV: Tensor, weight_M: Tensor) -> Tensor:
    """log of the normalised product of M distributions to their weights: the optimum of a weighted sum of rewards is
    that of the single optima, and IPO-MD samples from such a mixture of policy and reference (Calandriello et al.
    2024, arXiv 2403.08635)."""
    return (weight_M[:, None] * logp_MV).sum(0).log_softmax(-1)


# --- the optimum of single pairs ------------------------------------------------------------------------------------


def cdpo_margin(label_smoothing: float) -> float:
    """beta * h at cdpo's optimum: ln((1 - e)/e); exo has the same."""
    return math.log1p(-label_smoothing) - math.log(label_smoothing)


def ipo_margin(win: float, tau: float) -> float:
    """h at ipo's optimum, in nats, where the chosen response wins with probability `win`: (2 win - 1)/(2 tau)."""
    return (2 * win - 1) / (2 * tau)


# --- the explicit divergence objective: KL(pi || safe) - alpha KL(pi || unsafe) + beta KL(pi || ref) ----------------


def explicit_loss(
    logp_V: Tensor, safe_V: Tensor, unsafe_V: Tensor, alpha: float, ref_V: Tensor | None = None, beta: float = 0.0
) -> Tensor:
    """KL(pi || safe) - alpha KL(pi || unsafe) + beta KL(pi || ref), nats; with beta 0 no reference is needed."""
    to_reference = 0.0 if ref_V is None else beta * exact(logp_V, ref_V)
    return exact(logp_V, safe_V) - alpha * exact(logp_V, unsafe_V) + to_reference


def explicit_optimum(
    safe_V: Tensor, unsafe_V: Tensor, alpha: float, ref_V: Tensor | None = None, beta: float = 0.0
) -> tuple[Tensor, Tensor]:
    """log pi* and the least loss: pi* ~ (safe * unsafe^-alpha * ref^beta)^(1/c), c = 1 - alpha + beta.

    Without a reference the least loss is -alpha times the Renyi divergence of order 1/(1 - alpha) of safe from unsafe.
    UserError unless c > 0: otherwise the loss is not convex and its least value lies on a single, maybe rare, response.
    """
    c = 1 - alpha + (0.0 if ref_V is None else beta)
    if not c > 0:
        raise UserError(f"alpha {alpha:g} is not below 1 + beta; the explicit objective then has no interior optimum")
    energy = safe_V - alpha * unsafe_V + (0.0 if ref_V is None else beta * ref_V)
    return (energy / c).log_softmax(-1), -c * (energy / c).logsumexp(-1)


def floored_log_ratio(safe_V: Tensor, unsafe_V: Tensor, floor: float) -> Tensor:
    """log of safe over (1 - floor) unsafe + floor safe: never above -log floor."""
    mixed = torch.logaddexp(unsafe_V + math.log1p(-floor), safe_V + math.log(floor))
    return safe_V - mixed


# --- divergences between two given distributions --------------------------------------------------------------------


def total_variation(p_V: Tensor, q_V: Tensor) -> Tensor:
    """Half the summed difference of probabilities; 2 * accuracy - 1 of the best balanced classifier."""
    return (p_V.exp() - q_V.exp()).abs().sum(-1) / 2


def jensen_shannon(p_V: Tensor, q_V: Tensor) -> Tensor:
    """Mean KL to the mixture of both, nats; at most ln 2. Least losses: bco ln 4 - 2 JS, fdo the same."""
    m = torch.logaddexp(p_V, q_V) - math.log(2)
    return (exact(p_V, m) + exact(q_V, m)) / 2


def ordered_pairs(p_V: Tensor, q_V: Tensor) -> tuple[Tensor, Tensor]:
    """The joint laws of (chosen, rejected) and (rejected, chosen), drawn independently from p and q; [V * V] each.

    The least loss of dpo and bradley_terry is ln 2 minus the Jensen-Shannon divergence of the two.
    """
    return (p_V[:, None] + q_V).flatten(), (q_V[:, None] + p_V).flatten()


def renyi(p_V: Tensor, q_V: Tensor, order: float) -> Tensor:
    """Renyi divergence of p from q, nats, of an order above 0 and other than 1."""
    return (order * p_V + (1 - order) * q_V).logsumexp(-1) / (order - 1)


def pearson(p_V: Tensor, q_V: Tensor) -> Tensor:
    """Chi-squared divergence of p from q: sum of (p - q)^2/q."""
    return (2 * p_V - q_V).exp().sum(-1) - 1


def bhattacharyya(p_V: Tensor, q_V: Tensor) -> Tensor:
    """-log of the summed geometric means, nats; 1 - exp(-it) is half the summed squared difference of the roots."""
    return -((p_V + q_V) / 2).logsumexp(-1)


def donsker_varadhan(witness_V: Tensor, p_V: Tensor, q_V: Tensor) -> Tensor:
    """E_p[T] - log E_q[exp T], a lower bound of KL(p || q) for every T; -1 times kldo's value (Belghazi et al. 2018,
    MINE, arXiv 1801.04062)."""
    return (p_V.exp() * witness_V).sum(-1) - (q_V + witness_V).logsumexp(-1)


def nwj(witness_V: Tensor, p_V: Tensor, q_V: Tensor) -> Tensor:
    """E_p[T] - E_q[exp(T - 1)], a lower bound of Donsker and Varadhan's; exact at T = 1 + log p/q (Nguyen et al.
    2010, arXiv 0809.0853)."""
    return (p_V.exp() * witness_V).sum(-1) - (q_V + witness_V - 1).exp().sum(-1)


# --- how far optimisation goes wrong --------------------------------------------------------------------------------


def tilted(logp_V: Tensor, x_V: Tensor, inverse_beta: float) -> tuple[Tensor, Tensor]:
    """Mean and variance of x under the distribution tilted by exp(x/beta): first two derivatives of the cumulants.

    Of noise in a reward, independent of the truth under the reference and of mean 0, the mean is the over-estimate at
    the optimum, and the variance how fast that grows with 1/beta.
    """
    p = (logp_V + inverse_beta * x_V).log_softmax(-1).exp()
    mean = (p * x_V).sum(-1)
    return mean, (p * (x_V - mean).square()).sum(-1)


def gaussian_gain(spread: float, noise: float, distance: float) -> tuple[float, float]:
    """True gain and over-estimate at distance sqrt(KL) from the reference, of a Gaussian reward and independent noise.

    Both are linear in the distance: independent light-tailed noise shrinks the gain by spread^2/(spread^2 + noise^2)
    and never turns it over.
    """
    scale = math.sqrt(2) * distance / math.hypot(spread, noise)
    return scale * spread**2, scale * noise**2


def best_of(logp_V: Tensor, n: int) -> Tensor:
    """log-probability that each response is the best of n draws; responses stand in rising order of distinct rewards.

    F(y)^n - F(y-)^n, whose KL from one draw stays below `best_of_bound`.
    """
    cumulative = logp_V.exp().cumsum(-1)
    return (cumulative**n - (cumulative - logp_V.exp()).clamp(min=0) ** n).log()


def best_of_bound(n: int) -> float:
    """ln n - (n - 1)/n: the KL of best-of-n from one draw, if no two rewards are ever equal; else an upper bound
    (Beirami et al. 2024, arXiv 2401.01879)."""
    return math.log(n) - (n - 1) / n


def gold_after_best_of(distance: float, alpha: float, beta: float) -> float:
    """Gold reward after best-of-n at distance sqrt(KL): d (alpha - beta d), largest at alpha/(2 beta) (Gao et al.
    2023, arXiv 2210.10760)."""
    return distance * (alpha - beta * distance)


def gold_after_rl(distance: float, alpha: float, beta: float) -> float:
    """Gold reward after RL at distance sqrt(KL): d (alpha - beta ln d), largest at exp(alpha/beta - 1) (Gao et al.
    2023, arXiv 2210.10760)."""
    return distance * (alpha - beta * math.log(distance)) if distance > 0 else 0.0
