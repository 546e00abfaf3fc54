"""The curve of best-of-n: proxy and gold of the response that the proxy likes best among n."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from truing.diagnose.curve import Array, Curve, Series
from truing.errors import UserError
from truing.objectives.closed_form import best_of_bound
from truing.rollout.best import expected_best

POINTS = 16  # all n from 1 on while they are few, then evenly by their logarithm


def best_of_curve(name: str, proxy: Sequence[Sequence[float]], gold: Sequence[Sequence[float]]) -> Curve:
    """Best-of-n for n from 1 to N, from N responses to each prompt ([prompts, N]): the proxy of the response it likes
    best among n, and the gold of that response, both without bias (`rollout.best.expected_best`).

    The KL is the bound ln n - (n - 1)/n, which is met where no two responses are ever of equal proxy. UserError where
    prompts have different numbers of responses.
    """
    if len({len(row) for row in (*proxy, *gold)}) != 1:
        raise UserError(
            f"{name}: the curve of best-of-n needs the same number of responses to every prompt, each scored by both"
        )
    most = len(proxy[0])
    counts = tuple(sorted({round(float(x)) for x in np.geomspace(1, most, POINTS)}))

    def rows(value: Sequence[Sequence[float]]) -> Array:
        return np.array(
            [[expected_best(p, v, n) for n in counts] for p, v in zip(proxy, value, strict=True)], dtype=np.float64
        )

    kl = np.array([best_of_bound(n) for n in counts])
    picked, true = Series.of(rows(proxy)), Series.of(rows(gold))
    return Curve(f"{name} best of n", name, "best_of", counts, kl, picked, true, len(proxy))
