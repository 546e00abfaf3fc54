"""Equality of scores: the one rule, of every advantage, scale and comparison of scores.

A number is rounded to its type, by up to half a step of it. So two scores that are equal stand up to one step apart,
eps (the type's) times their size: 0.1 + 0.2 and 0.3 are equal in fp64. What lies further apart is a difference,
however small: 1e-8 and 2e-8 differ in every type, 1 and 1 + 1e-8 in fp64 and not in fp32.

A spread of equal scores is 0 and not what is left of rounding: their mean is rounded too, and three scores of 0.1 lie
1.4e-17 beside it, which over a deviation of the same 1.4e-17 would be an advantage of 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rounding(dtype: torch.dtype = torch.float64) -> float:
    """Relative difference at which two numbers of a type may still be equal.

    >>> rounding(torch.bfloat16) == 2**-7, rounding() == 2**-52
    (True, True)
    """
    return torch.finfo(dtype).eps


def alike(scores: Sequence[float]) -> bool:
    """Return whether all scores are equal but for rounding; two that are not finite are only if they are the same.

    >>> alike([0.1 + 0.2, 0.3]), alike([1e-8, 2e-8]), alike([1e6 + 0.1] * 5), alike([])
    (True, False, True, True)
    """
    if len(set(scores)) < 2:
        return True
    return max(scores) - min(scores) <= rounding() * max(map(abs, scores)) < float("inf")


def distances(score_N: Tensor, group_N: Tensor) -> Tensor:
    """Each score minus the mean of its group (numbered from 0), fp64; exactly 0 in a group of equal scores.

    >>> distances(torch.tensor([0.1, 0.1, 0.1, 1.0, 2.0]), torch.tensor([0, 0, 0, 1, 1])).tolist()
    [0.0, 0.0, 0.0, -0.5, 0.5]
    """
    values = score_N.detach().double()
    size = group_N.bincount().to(values)
    mean = torch.zeros_like(size).index_add(0, group_N, values) / size
    high, low, largest = (
        torch.zeros_like(size).scatter_reduce(0, group_N, each, way, include_self=False)
        for each, way in ((values, "amax"), (values, "amin"), (values.abs(), "amax"))
    )
    equal = high - low <= rounding(score_N.dtype) * largest
    return torch.where(equal[group_N], 0.0, values - mean[group_N])


def deviation(distance_N: Tensor, *, sample: bool = False) -> Tensor:
    """The standard deviation that distances from a mean have: the population's, or with `sample` the sample's."""
    return (distance_N.square().sum() / (len(distance_N) - sample)).sqrt()
