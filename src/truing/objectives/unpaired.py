"""Objectives on single responses called desirable or undesirable, against a reference."""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from truing.errors import UserError
from truing.objectives.ratio import log_ratio, softplus
from truing.records import Positive, PositiveFraction
from truing.registry import objective


def kl_baseline(mismatched_logp_B: Tensor, ref_mismatched_logp_B: Tensor) -> Tensor:
    """max(0, mean log-ratio of responses put after another row's prompt), nats: KTO's point of reference.

    Not an estimate of KL(pi || ref), only a cheap positive stand-in: the responses are not drawn from pi.
    """
    return log_ratio(mismatched_logp_B, ref_mismatched_logp_B).mean().clamp(min=0)


@objective(
    source="Ethayarajh et al. 2024, KTO, arXiv 2402.01306",
    coupled={"kl_baseline_B": kl_baseline},
    estimates="1 - TV(D+, D-) with free rewards; no policy reaches it",
)
def kto(
    logp_B: Tensor,
    ref_logp_B: Tensor,
    desirable_B: Tensor,
    kl_baseline_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
    desirable_weight: Annotated[Positive, "weight of a desirable response in the loss; balances unequal classes"] = 1.0,
    undesirable_weight: Annotated[
        Positive, "weight of an undesirable response in the loss; balances unequal classes"
    ] = 1.0,
) -> Tensor:
    """Raise desirable responses above a common baseline and lower undesirable ones below it, the near ones most.

        loss_b = w_d * (1 - sigmoid(s * beta * (h_b - z))),   h = log[pi(y)/ref(y)], s = +1 desirable, -1 undesirable

    Returns [B], between 0 and the weight. z is the step's `kl_baseline`, in nats, without gradient. Choose the weights
    so that desirable_weight * n_desirable is 1 to 4/3 times undesirable_weight * n_undesirable. The gradient vanishes
    for rows far from the baseline on either side.
    Differs from the source: nothing; z is of the whole step on all ranks, and its mismatched responses
    are drawn once, by the seed, from the whole data set, which needs at least two prompts.

    >>> import torch
    >>> rows = [torch.tensor(v) for v in ([-3.2, -4.5], [-4.0, -4.0], [1.0, 0.0], [0.35, 0.35])]
    >>> [round(x, 4) for x in kto(*rows, beta=1.0).tolist()]
    [0.3894, 0.2994]
    """
    v = beta * (log_ratio(logp_B, ref_logp_B) - kl_baseline_B)
    return desirable_B * desirable_weight * (-v).sigmoid() + (1 - desirable_B) * undesirable_weight * v.sigmoid()


def shift(
    logp_B: Tensor, ref_logp_B: Tensor, *, beta: Positive, rate: PositiveFraction, previous: Tensor | None
) -> Tensor:
    """Moving mean of the implicit reward over the rows of both classes; the first step's own mean begins it."""
    now = beta * log_ratio(logp_B, ref_logp_B).mean()
    return now if previous is None else previous + rate * (now - previous)


@objective(
    source="Jung et al. 2024, BCO, arXiv 2404.04656",
    coupled={"shift_B": shift},
    estimates="ln 4 - 2 JS(D+, D-), if the shift is the best one",
)
def bco(
    logp_B: Tensor,
    ref_logp_B: Tensor,
    desirable_B: Tensor,
    shift_B: Tensor,
    *,
    beta: Annotated[Positive, "price in reward of a nat of log-ratio to the reference; larger stays nearer"] = 0.1,
    rate: Annotated[
        PositiveFraction, "share of the newest step in the moving threshold; smaller is steadier and lags"
    ] = 0.1,
) -> Tensor:
    """Train the implicit reward as a classifier of desirable against undesirable, around a moving threshold.

        loss_b = -log sigmoid(s * (r_b - shift)),   r = beta log[pi(y)/ref(y)], s = +1 desirable, -1 undesirable

    Returns [B]. The shift is the moving mean of r over both classes, without gradient; `rate` is how much of it is the
    newest step's.
    Differs from the source: an exponential moving mean, begun by the first step (TRL: the mean of all steps); no
    density-ratio weights for classes with different prompts.

    >>> import torch
    >>> rows = [torch.tensor(v) for v in ([-3.2, -4.5], [-4.0, -4.0], [1.0, 0.0], [0.02, 0.02])]
    >>> [round(x, 4) for x in bco(*rows).tolist()]
    [0.6636, 0.6588]
    """
    v = beta * log_ratio(logp_B, ref_logp_B) - shift_B
    return desirable_B * softplus(-v) + (1 - desirable_B) * softplus(v)


def balanced_weights(n_desirable: int, n_undesirable: int, *, undesirable_weight: float = 1.0) -> tuple[float, float]:
    """The smallest and largest `desirable_weight` that the source of kto recommends for these class sizes.

    >>> balanced_weights(1000, 4000)
    (4.0, 5.333333333333333)

    UserError where a class is empty.
    """
    if min(n_desirable, n_undesirable) < 1:
        raise UserError(f"kto needs rows of both classes, got {n_desirable} desirable and {n_undesirable} undesirable")
    even = undesirable_weight * n_undesirable / n_desirable
    return even, even * 4 / 3
