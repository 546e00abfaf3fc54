"""Objectives that estimate a divergence between desirable and undesirable responses and make the policy its witness."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from truing.objectives.ratio import log_mean_exp, log_ratio, softplus, tangent_exp
from truing.records import Positive, PositiveFraction
from truing.registry import objective


def class_weight(desirable_B: Tensor) -> Tensor:
    """Rows of the step over rows of the row's own class, so that the mean over rows is a sum of two class means."""
    share = (desirable_B > 0.5).double().mean()
    return torch.where(desirable_B > 0.5, 1 / share, 1 / (1 - share))


def prompt_weight(desirable_B: Tensor, prompt_B: Tensor, *, per_prompt: bool) -> Tensor:
    """`class_weight` over the step, or within each prompt: then every prompt with both classes weighs the same.

    A prompt with rows of one class alone tells nothing of a divergence, and its rows weigh 0.
    """
    if not per_prompt:
        return class_weight(desirable_B)
    prompts, counts = _counts(desirable_B, prompt_B)
    both = (counts > 0).all(0)
    class_count = counts[(desirable_B <= 0.5).long(), prompts]
    weight = len(prompt_B) / (both.sum().clamp(min=1) * class_count)
    return torch.where(both[prompts], weight, 0.0)


def log_mean_exp_undesirable(
    logp_B: Tensor, ref_logp_B: Tensor, desirable_B: Tensor, prompt_B: Tensor, *, beta: Positive, per_prompt: bool
) -> Tensor:
    """log of the mean of exp(r) over undesirable rows: of the step, or per row over those of its prompt.

    0 where there are none; `prompt_weight` leaves such rows out.
    """
    r = beta * log_ratio(logp_B, ref_logp_B)
    bad = desirable_B <= 0.5
    if not per_prompt:
        return log_mean_exp(r[bad]) if bool(bad.any()) else r.new_zeros(())
    prompts, counts = _counts(desirable_B, prompt_B)
    by_prompt = [
        log_mean_exp(r[bad & (prompts == i)]) if n else r.new_zeros(()) for i, n in enumerate(counts[1].tolist())
    ]
    return torch.stack(by_prompt)[prompts]


def _counts(desirable_B: Tensor, prompt_B: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's prompt as an index, and the rows of each class (desirable first) per prompt, [2, prompts]."""
    prompts = prompt_B.unique(return_inverse=True)[1]
    good, size = desirable_B > 0.5, int(prompts.max()) + 1
    counts = [prompts[rows].bincount(minlength=size) for rows in (good, ~good)]
    return prompts, torch.stack(counts).double()


def moving_log_mean_exp(
    logp_B: Tensor,
    ref_logp_B: Tensor,
    desirable_B: Tensor,
    *,
    beta: Positive,
    correction: PositiveFraction,
    previous: Tensor | None,
) -> Tensor:
    """log of the moving average of mean exp(r) over undesirable rows, the current step included; the first begins it.

    A step without undesirable rows leaves it as it was (0 at the first step: exp(r) is 1 at the reference).
    """
    r = (beta * log_ratio(logp_B, ref_logp_B))[desirable_B <= 0.5]
    if len(r) == 0:
        return logp_B.new_zeros(()) if previous is None else previous
    now = log_mean_exp(r)
    if previous is None or correction == 1:
        return now
    return torch.logaddexp(now + math.log(correction), previous + math.log1p(-correction))


@objective(
    source="Haldar et al. 2025, arXiv 2502.00657; gradient: Belghazi et al. 2018 (MINE), arXiv 1801.04062",
    estimates="-KL(D+ || D-), Donsker-Varadhan; over several prompts a policy reaches it with per_prompt alone",
    coupled={
        "class_weight_B": prompt_weight,
        "log_mean_exp_B": log_mean_exp_undesirable,
        "moving_log_mean_exp_B": moving_log_mean_exp,
    },
    exempt={"gradient": "corrected: it divides by the moving average, the value takes the log of the step's own mean"},
)
def kldo(
    logp_B: Tensor,
    ref_logp_B: Tensor,
    desirable_B: Tensor,
    class_weight_B: Tensor,
    log_mean_exp_B: Tensor,
    moving_log_mean_exp_B: Tensor,
    *,
    beta: Annotated[Positive, "reward per nat of log-ratio to the reference; larger separates sooner"] = 0.1,
    correction: Annotated[
        PositiveFraction, "share of the newest step in the moving mean; smaller is steadier and lags"
    ] = 0.1,
    per_prompt: Annotated[bool, "take both means within a prompt, where alone the policy can reach -KL"] = False,
) -> Tensor:
    """Separate desirable from undesirable responses as far as KL can tell them apart (Donsker-Varadhan).

        loss = -mean_desirable r + log mean_undesirable exp(r),   r = beta log[pi(y)/ref(y)]

    Returns [B] whose mean over the step is that value. The gradient of the second term is exp(r_i) / m, m a moving
    average of mean exp(r) of which the newest step is `correction`: the step's own mean alone would be biased. With
    `per_prompt` both means are taken within a prompt (and m is its own mean): only so can a policy reach -KL, since
    its probabilities sum to 1 for every prompt. The optimum is pi ~ ref * (p+/p-)^(1/beta).
    Differs from the source: m is not reset at each epoch, and has no 1e-6; no `normalize`, which can turn the sign of
    the gradient; `per_prompt`.

    >>> import torch
    >>> r = torch.tensor([0.6, -0.4])
    >>> rows = r, torch.zeros(2), torch.tensor([1.0, 0.0]), torch.full((2,), 2.0), *[torch.full((2,), -0.4)] * 2
    >>> [round(x, 4) for x in kldo(*rows, beta=1.0).tolist()]
    [-1.2, -0.8]
    """
    r = beta * log_ratio(logp_B, ref_logp_B)
    m = log_mean_exp_B if per_prompt else moving_log_mean_exp_B
    good = desirable_B > 0.5
    share = (r.detach() - m).masked_fill(good, 0.0).exp()
    undesirable = log_mean_exp_B + share * (r - r.detach())
    return class_weight_B * torch.where(good, -r, undesirable)


@objective(
    source="Haldar et al. 2025 (variant 'f-div'), arXiv 2502.00657; Nguyen et al. 2010, arXiv 0809.0853",
    estimates="-KL(D+ || D-) with free rewards, by the bound of Nguyen, Wainwright and Jordan",
    coupled={"class_weight_B": class_weight},
)
def kldo_nwj(
    logp_B: Tensor,
    ref_logp_B: Tensor,
    desirable_B: Tensor,
    class_weight_B: Tensor,
    *,
    beta: Annotated[Positive, "reward per nat of log-ratio; larger separates sooner"] = 0.1,
) -> Tensor:
    """KLDO by the looser bound whose gradient needs no correction: no row's loss depends on the others' exponentials.

        loss = -mean_desirable r + mean_undesirable exp(r - 1),   r = beta log[pi(y)/ref(y)]

    Returns [B] whose mean over the step is that value.
    Differs from the source: exp is followed to e^20 and continued by its tangent, so that one row stays finite.

    >>> import torch
    >>> rows = torch.tensor([0.6, 1.0]), torch.zeros(2), torch.tensor([1.0, 0.0]), torch.full((2,), 2.0)
    >>> [round(x, 4) for x in kldo_nwj(*rows, beta=1.0).tolist()]
    [-1.2, 2.0]
    """
    r = beta * log_ratio(logp_B, ref_logp_B)
    return class_weight_B * torch.where(desirable_B > 0.5, -r, tangent_exp(r - 1))


Pair = tuple[Tensor, Tensor]
WITNESS: dict[str, Callable[[Tensor], Pair]] = {
    "kl": lambda r: (r, tangent_exp(r - 1)),
    "reverse_kl": lambda r: (-tangent_exp(-r), r - 1),
    "jensen_shannon": lambda r: (logsigmoid(r), softplus(r)),
    "total_variation": lambda r: (r.sigmoid() - 0.5, r.sigmoid() - 0.5),
    "hellinger": lambda r: (1 - tangent_exp(-r), tangent_exp(r) - 1),
    "pearson": lambda r: (r, r.square() / 4 + r),
}
"""g(r) and f*(g(r)) of each named divergence."""


@objective(
    source="Haldar et al. 2025 (FDO), arXiv 2502.00657; g and f*: Nowozin et al. 2016, arXiv 1606.00709",
    estimates="-D(D+ || D-) of the divergence it is told, with free rewards",
    coupled={"class_weight_B": class_weight},
)
def fdo(
    logp_B: Tensor,
    ref_logp_B: Tensor,
    desirable_B: Tensor,
    class_weight_B: Tensor,
    *,
    beta: Annotated[Positive, "reward per nat of log-ratio to the reference; larger separates sooner"] = 0.1,
    divergence: Annotated[
        Literal["jensen_shannon", "kl", "reverse_kl", "total_variation", "hellinger", "pearson"],
        "which f-divergence tells the two kinds of response apart",
    ] = "jensen_shannon",
) -> Tensor:
    """Separate desirable from undesirable responses as far as a named f-divergence can tell them apart.

        loss = -mean_desirable g(r) + mean_undesirable f*(g(r)),   r = beta log[pi(y)/ref(y)]

    Returns [B] whose mean over the step is that value; at the free optimum it is -D(p+ || p-) (jensen_shannon:
    ln 4 - 2 JS, which is bco without shift; kl is kldo_nwj; total_variation is kto without baseline, up to a constant).
    Differs from the source: exp is followed to e^20 and continued by its tangent.

    >>> import torch
    >>> rows = torch.tensor([0.6, 1.0]), torch.zeros(2), torch.tensor([1.0, 0.0]), torch.full((2,), 2.0)
    >>> [round(x, 4) for x in fdo(*rows, beta=1.0, divergence="pearson").tolist()]
    [-1.2, 2.5]
    """
    g, conjugate = WITNESS[divergence](beta * log_ratio(logp_B, ref_logp_B))
    return class_weight_B * torch.where(desirable_B > 0.5, -g, conjugate)
