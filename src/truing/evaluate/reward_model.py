"""Agreement of a reward model with the raters on held-out data: one measure for each kind of label."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from truing.evaluate import baselines
from truing.evaluate.intervals import (
    CORRELATION,
    FEWEST,
    SHARE,
    Interval,
    Scale,
    finite,
    independent,
    jackknife,
    mean_interval,
    not_below,
    same_length,
    settled,
    share_interval,
)
from truing.evaluate.winrate import held_against
from truing.records import Finding


def accuracy(
    model: str,
    chosen: Sequence[float],
    rejected: Sequence[float],
    groups: Sequence[str] | None = None,
    check: str = "held_out_accuracy",
    *,
    slice: str = "all",
    ties_left_out: int = 0,
    within: float | Sequence[float] = 0.0,
) -> Finding:
    """The share of pairs with chosen reward above rejected reward, equal rewards counted as half. Rewards are equal
    that differ by no more than `within` (of all pairs, or of each): by their rounding.

    The strict share (equal is a miss, as RewardBench counts) stands in the evidence. With `groups` (the prompt of
    each pair) the interval is one over whole groups. `ties_left_out` says how many pairs are not among these because
    the raters called them a tie.

    >>> f = accuracy("rm", [1.0, 0.2, 0.5, 0.5], [0.5, 0.4, 0.5, 0.1])
    >>> f.value, f.evidence
    (0.625, '4 pairs: 2 right, 1 tied (counted half), 1 wrong; strict accuracy 50.0 %')
    """
    same_length(chosen=chosen, rejected=rejected, groups=groups)
    gap = settled(finite(chosen, "chosen reward") - finite(rejected, "rejected reward"), within)
    points = (gap > 0) + 0.5 * (gap == 0)
    right, tied, wrong = int((gap > 0).sum()), int((gap == 0).sum()), int((gap < 0).sum())
    left = f"; {ties_left_out} tie{'s' * (ties_left_out > 1)} of the raters left out" if ties_left_out else ""
    evidence = f"{_counted(len(gap), 'pair', groups)}: {right} right, {tied} tied (counted half), {wrong} wrong; "
    evidence += f"strict accuracy {100 * right / len(gap):.1f} %{left}"
    return share(check, model, points.tolist(), groups, 0.5, evidence, slice=slice)


def share(
    check: str,
    model: str,
    points: Sequence[float],
    groups: Sequence[str] | None,
    bound: float | None,
    evidence: str,
    *,
    slice: str = "all",
) -> Finding:
    """A mean of points in [0, 1], compared with a bound: `better`, `worse` or `unclear`; without one it is `measured`.
    A bound measured on these same rows cannot be used so (see `baselines`)."""
    interval = share_interval(points, groups)
    value = float(finite(points, "point").mean())
    n, verdict = independent(points, groups), "measured" if bound is None else held_against(bound, interval)
    return Finding(check, model, value, "", slice, interval, n, bound, verdict, evidence)


def label_accuracy(
    check: str,
    model: str,
    logits: Sequence[float],
    labels: Sequence[bool],
    groups: Sequence[str],
    slice: str = "all",
    within: float = 0.0,
) -> list[Finding]:
    """The share of labels that the sign of a logit predicts (0, or what is `within` its rounding, counts as half), and
    how far it lies above always giving the commoner label.

    >>> found = label_accuracy("held_out_accuracy", "rm", [2.0, -1.0, 0.5], [True, False, False], ["a", "b", "c"])
    >>> [round(f.value, 3) for f in found], found[0].evidence
    ([0.667, 0.0], '3 labels, 1 of them good: 2 predicted right')
    """
    same_length(logits=logits, labels=labels, groups=groups)
    sign = np.sign(settled(finite(logits, "logit"), within))
    good = np.asarray(labels, dtype=bool)
    points = (0.5 + 0.5 * sign * np.where(good, 1, -1)).tolist()
    counted = f"{_counted(len(good), 'label', groups)}, {int(good.sum())} of them good"
    evidence = f"{counted}: {points.count(1.0)} predicted right"
    measured = share(check, model, points, groups, None, evidence, slice=slice)
    return [measured, above_commonest(measured, points, good.tolist(), groups, "the commoner label")]


def above_commonest(
    measured: Finding, points: Sequence[float], labels: Sequence[Hashable], groups: Sequence[str], what: str
) -> Finding:
    """The difference of an accuracy from always giving the commonest of these labels (`what` in words)."""
    value, interval = baselines.over_commonest(points, labels, groups)
    evidence = f"beside always giving {what}, right for {100 * (measured.value - value):.1f} % of the same rows"
    return baselines.delta(measured, value, interval, held_against(0.0, interval), evidence)


def rankings(
    model: str, rewards: Sequence[Sequence[float]], groups: Sequence[str], slice: str = "all", within: float = 0.0
) -> list[Finding]:
    """Measure rankings, each given by the rewards of its responses from best to worst: Kendall's tau (a), the mean over
    rankings, and the share of their pairs that are in order, equal rewards (`within` their rounding) counted as half.

    >>> [round(f.value, 3) for f in rankings("rm", [[3.0, 2.0, 1.0], [1.0, 0.0, 2.0]], ["a", "b"])]
    [0.333, 0.667]
    """
    same_length(rewards=rewards, groups=groups)
    points, owners, taus = [], [], []
    for row, group in zip(rewards, groups, strict=True):
        r = finite(row, "reward")
        first, second = np.triu_indices(len(r), k=1)
        signs = np.sign(settled(r[first] - r[second], within)).tolist()
        points += [0.5 + 0.5 * sign for sign in signs]
        owners += [group] * len(signs)
        taus.append(float(np.mean(signs)))
    between = share_interval([(tau + 1) / 2 for tau in taus], groups)
    interval = (2 * between[0] - 1, 2 * between[1] - 1) if between else None
    counted = _counted(len(taus), "ranking", groups)
    tau = Finding(
        "held_out_kendall_tau",
        model,
        float(np.mean(taus)),
        slice=slice,
        interval=interval,
        n=independent(taus, groups),
        bound=0.0,
        verdict=held_against(0.0, interval),
        evidence=f"mean over {counted} of Kendall's tau",
    )
    evidence = f"{len(points)} pairs of responses in {counted}: {sum(p == 1 for p in points)} in the raters' order"
    return [tau, share("held_out_accuracy", model, points, owners, 0.5, evidence, slice=slice)]


def squared_error(
    model: str, rewards: Sequence[float], targets: Sequence[float], groups: Sequence[str], slice: str = "all"
) -> list[Finding]:
    """The mean squared difference of rewards and raters' scores, in squared units of the score, and its difference
    from giving the mean of these scores to every response: below 0 is better.

    >>> [f.value for f in squared_error("rm", [1.0, 2.0], [1.0, 4.0], ["a", "b"])]
    [2.0, -2.5]
    """
    same_length(rewards=rewards, targets=targets, groups=groups)
    scores = finite(targets, "score")
    errors = ((finite(rewards, "reward") - scores) ** 2).tolist()
    apart = baselines.over_mean(errors, targets)
    measured = _loss("held_out_squared_error", model, errors, groups, slice, _counted(len(errors), "score", groups))
    evidence = f"beside always giving the mean score, which is off by {measured.value - apart.mean():.4g}"
    return [measured, _below(measured, apart, baselines.paired(apart, targets, groups), evidence)]


def rank_correlation(
    model: str, rewards: Sequence[float], targets: Sequence[float], groups: Sequence[str], slice: str = "all"
) -> Finding | str:
    """Spearman's correlation of rewards and raters' scores, ties at their mean rank; where either is constant it is
    undefined, and why is returned instead.

    >>> rank_correlation("rm", [1.0, 2.0, 4.0], [10.0, 30.0, 20.0], ["a", "b", "c"]).value
    0.5
    >>> rank_correlation("rm", [1.0, 1.0], [1.0, 2.0], ["a", "b"])
    'no rank correlation of rm: it scores every held-out response alike'
    """
    same_length(rewards=rewards, targets=targets, groups=groups)
    x, y = finite(rewards, "reward"), finite(targets, "score")
    of = model if slice == "all" else f"{model} ({slice})"
    if x.min() == x.max():
        return f"no rank correlation of {of}: it scores every held-out response alike"
    if y.min() == y.max():
        return f"no rank correlation of {of}: every held-out score is {y[0]:g}"
    evidence = f"Spearman's correlation over {_counted(len(x), 'score', groups)}"
    return _statistic("held_out_spearman", model, x, y, spearman, groups, 0.0, CORRELATION, evidence, slice)


def area(
    model: str, logits: Sequence[float], labels: Sequence[bool], groups: Sequence[str], slice: str = "all"
) -> Finding | str:
    """The area under the ROC curve: how often a good response has a higher logit than a bad one, equal ones half.
    No interval below 10 prompts with a label of either kind; with labels of one kind it is undefined, and why is
    returned instead.

    >>> area("rm", [0.1, 0.9, 0.4], [False, True, True], ["a", "b", "c"]).value
    1.0
    """
    same_length(logits=logits, labels=labels, groups=groups)
    x, good = finite(logits, "logit"), np.asarray(labels, dtype=np.float64)
    of = model if slice == "all" else f"{model} ({slice})"
    if good.min() == good.max():
        return f"no ROC curve of {of}: every held-out label is {'good' if good[0] else 'bad'}"
    evidence = f"{_counted(len(x), 'label', groups)}, {int(good.sum())} of them good"
    measured = _statistic("held_out_auc", model, x, good, under_curve, groups, 0.5, SHARE, evidence, slice)
    rarer = min(len({group for group, g in zip(groups, good, strict=True) if g == kind}) for kind in (0.0, 1.0))
    return measured if rarer >= FEWEST else replace(measured, interval=None, verdict="unclear")


def ties(
    model: str,
    predicted: Sequence[float],
    loss: Sequence[float],
    tied: Sequence[bool],
    groups: Sequence[str],
    slice: str = "all",
) -> list[Finding]:
    """Measure a reward model that predicts ties: the mean probability of a tie, and its difference from the true share;
    the log-loss of all outcomes, nats, and its difference from knowing that share alone.

    >>> [f.check.removeprefix("held_out_") for f in ties("rm", [0.2, 0.4], [0.9, 0.7], [False, True], ["a", "b"])]
    ['tie_share', 'tie_share_delta', 'log_loss', 'log_loss_delta']
    """
    same_length(predicted=predicted, loss=loss, tied=tied, groups=groups)
    p, losses, was = finite(predicted, "probability"), finite(loss, "loss"), np.asarray(tied, dtype=np.float64)
    counted, true = _counted(len(p), "pair", groups), int(was.sum())
    mean = share(
        "held_out_tie_share", model, p.tolist(), groups, None, f"probability of a tie over {counted}", slice=slice
    )
    off = baselines.paired(p - was, was.tolist(), groups)
    word = {"better": "too many", "worse": "too few", "unclear": "unclear"}[held_against(0.0, off)]
    of_ties = f", {losses[was > 0].mean():.3f} on the ties" if true else ""
    measured = _loss("held_out_log_loss", model, losses.tolist(), groups, slice, f"nats over {counted}{of_ties}")
    apart = baselines.over_share(losses.tolist(), [bool(x) for x in was])
    evidence = f"beside knowing the share of ties alone, which gives {measured.value - apart.mean():.3f} nats"
    return [
        mean,
        baselines.delta(mean, float((p - was).mean()), off, word, f"beside the share there is: {true} are ties"),
        measured,
        _below(measured, apart, baselines.paired(apart, was.tolist(), groups), evidence),
    ]


def lower_is_better(bound: float, interval: Interval | None) -> str:
    """`better` if the whole interval lies below the bound, `worse` if above, else `unclear`.

    >>> lower_is_better(1.0, (0.5, 0.9)), lower_is_better(1.0, None)
    ('better', 'unclear')
    """
    return {"better": "worse", "worse": "better", "unclear": "unclear"}[held_against(bound, interval)]


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The correlation of ranks; not a number where either is constant."""
    a, b = mean_ranks(x), mean_ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else math.nan


def under_curve(x: NDArray[np.float64], good: NDArray[np.float64]) -> float:
    """The area under the ROC curve, from ranks; not a number where all labels are of one kind."""
    ones = float(good.sum())
    zeros = len(good) - ones
    if not ones or not zeros:
        return math.nan
    return (float((mean_ranks(x) * good).sum()) - ones * (ones + 1) / 2) / (ones * zeros)


def mean_ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, equal values at the mean of theirs.

    >>> mean_ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _statistic(
    check: str,
    model: str,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
    groups: Sequence[str],
    bound: float,
    scale: Scale,
    evidence: str,
    slice: str,
) -> Finding:
    interval = jackknife(lambda rows: statistic(x[rows], y[rows]), groups, scale)
    n, verdict = independent(x.tolist(), groups), held_against(bound, interval)
    return Finding(check, model, statistic(x, y), "", slice, interval, n, bound, verdict, evidence)


def _loss(check: str, model: str, losses: Sequence[float], groups: Sequence[str], slice: str, evidence: str) -> Finding:
    """A mean of losses, which are never below 0."""
    interval, n = not_below(0.0, mean_interval(losses, groups)), independent(losses, groups)
    return Finding(check, model, float(np.mean(losses)), "", slice, interval, n, verdict="measured", evidence=evidence)


def _below(measured: Finding, apart: NDArray[np.float64], interval: Interval | None, evidence: str) -> Finding:
    """A loss beside its baseline, from their differences row by row: below 0 is better."""
    return baselines.delta(measured, float(apart.mean()), interval, lower_is_better(0.0, interval), evidence)


def _counted(items: int, what: str, groups: Sequence[str] | None) -> str:
    """`12 pairs from 7 prompts`."""
    text = f"{items} {what}{'s' * (items != 1)}"
    prompts = items if groups is None else len(set(groups))
    return text if prompts == items else f"{text} from {prompts} prompt{'s' * (prompts != 1)}"
