"""Baselines that ignore the response. A baseline is fitted on the rows that it is measured on, so the test is of the
difference row by row, and never of the model's own interval against the baseline's value."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from truing.evaluate.intervals import Array, Interval, finite, mean_interval, vary
from truing.records import Finding


def over_commonest(
    points: Sequence[float], labels: Sequence[Hashable], clusters: Sequence[str]
) -> tuple[float, Interval | None]:
    """The excess of a share of right labels over that of always giving the commonest label of these rows; its interval.

    Which label is the commonest is itself measured. The lower end holds for every label; the upper one for all that
    cannot be distinguished from the commonest, at a level divided by their number (Bonferroni's).

    >>> over_commonest([1.0, 1.0, 0.0, 1.0], [True, True, True, False], ["a", "b", "c", "d"])
    (0.0, None)
    """
    x = finite(points, "point")
    kinds = list(dict.fromkeys(labels))
    is_kind = [np.array([label == kind for label in labels], dtype=np.float64) for kind in kinds]
    best = max(is_kind, key=lambda constant: constant.mean())
    rivals = [constant for constant in is_kind if constant is best or not _less(constant, best, clusters)]
    lows = [mean_interval((x - constant).tolist(), clusters) for constant in is_kind]
    level = 1 - 0.05 / len(rivals)
    highs = [mean_interval((x - constant).tolist(), clusters, level) for constant in rivals]
    value = float(x.mean() - best.mean())
    if None in lows or None in highs:
        return value, None
    return value, (max(-1.0, min(ends[0] for ends in lows if ends)), min(1.0, *(ends[1] for ends in highs if ends)))


def over_mean(errors: Sequence[float], targets: Sequence[float]) -> Array:
    """Row by row, a squared error less that of giving the mean of these targets to every row, which is too small by
    (n - 1)/n on the rows that the mean is of.

    >>> over_mean([0.0, 1.0], [1.0, 3.0]).tolist()
    [-2.0, -1.0]
    """
    t = finite(targets, "score")
    difference: Array = finite(errors, "squared error") - (t - t.mean()) ** 2 * len(t) / max(1, len(t) - 1)
    return difference


def over_share(losses: Sequence[float], tied: Sequence[bool]) -> Array:
    """Row by row, a log-loss (nats) less that of knowing the share of ties alone, where a win of either side is as
    likely as the other's.

    >>> over_share([1.0, 1.0], [True, False]).round(3).tolist()
    [0.307, -0.386]
    """
    was = np.asarray(tied, dtype=bool)
    share = float(was.mean())
    with np.errstate(divide="ignore"):  # a share of 0 or 1: no row uses the infinite logarithm
        blind = np.where(was, -np.log(share), -np.log((1 - share) / 2))
    difference: Array = finite(losses, "loss") - blind
    return difference


def paired(difference: Array, outcomes: Sequence[float], clusters: Sequence[str]) -> Interval | None:
    """The interval of the mean of a difference row by row. None where the outcomes themselves hardly vary, however much
    predictions of them do: the difference would depend on outcomes that did not occur."""
    return mean_interval(difference.tolist(), clusters) if vary(outcomes, clusters) else None


def delta(of: Finding, value: float, interval: Interval | None, verdict: str, evidence: str) -> Finding:
    """The finding of another's difference from its baseline: `..._delta`, compared with 0."""
    return Finding(
        f"{of.check}_delta", of.model, value, of.against, of.slice, interval, of.n, 0.0, verdict, evidence=evidence
    )


def _less(constant: Array, best: Array, clusters: Sequence[str]) -> bool:
    """True if a label is rarer than the commonest beyond noise."""
    apart = mean_interval((best - constant).tolist(), clusters)
    return apart is not None and apart[0] > 0
