"""Does a reward model say of data it has not seen what the raters said? Each way of saying it has its measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from truing.evaluate.intervals import Interval, bootstrap, finite, independent, mean_interval, same_length, settled
from truing.evaluate.winrate import held_against, share_interval
from truing.types import Finding


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
    seed: int = 0,
) -> Finding:
    """The share of pairs with chosen reward above rejected reward, equal rewards counted as half. Rewards are equal
    that differ by no more than `within` (of all pairs, or of each): by their rounding.

    The strict share (equal is a miss, as RewardBench counts) stands in the evidence. With `groups` (the prompt of
    each pair) the interval is one over whole groups, else Wilson's. `ties_left_out` says how many pairs are not among
    these because the raters called them a tie.

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
    return share(check, model, points.tolist(), groups, 0.5, evidence, slice=slice, seed=seed)


def share(
    check: str,
    model: str,
    points: Sequence[float],
    groups: Sequence[str] | None,
    bound: float,
    evidence: str,
    *,
    slice: str = "all",
    seed: int = 0,
) -> Finding:
    """A mean of points in [0, 1], held against a bound: `better`, `worse` or `unclear`."""
    interval = share_interval(points, groups, seed)
    value = float(finite(points, "point").mean())
    n, verdict = independent(points, groups), held_against(bound, interval)
    return Finding(check, model, value, "", slice, interval, n, bound, verdict, evidence)


def label_accuracy(
    check: str,
    model: str,
    logits: Sequence[float],
    labels: Sequence[bool],
    groups: Sequence[str],
    slice: str = "all",
    within: float = 0.0,
) -> Finding:
    """The share of labels told right by the sign of a logit (0, or what is `within` its rounding, counts as half), held
    against always giving the commoner label.

    >>> f = label_accuracy("held_out_accuracy", "rm", [2.0, -1.0, 0.5], [True, False, False], ["a", "b", "c"])
    >>> round(f.value, 3), round(f.bound, 3), f.evidence
    (0.667, 0.667, '3 labels, 1 of them good: 2 told right; always the commoner one is right for 66.7 %')
    """
    same_length(logits=logits, labels=labels, groups=groups)
    sign = np.sign(settled(finite(logits, "logit"), within))
    good = np.asarray(labels, dtype=bool)
    points = 0.5 + 0.5 * sign * np.where(good, 1, -1)
    common = float(max(good.mean(), 1 - good.mean()))
    evidence = (
        f"{_counted(len(good), 'label', groups)}, {int(good.sum())} of them good: {int((points == 1).sum())} told "
        f"right; always the commoner one is right for {100 * common:.1f} %"
    )
    return share(check, model, points.tolist(), groups, common, evidence, slice=slice)


def rankings(
    model: str, rewards: Sequence[Sequence[float]], groups: Sequence[str], slice: str = "all", within: float = 0.0
) -> list[Finding]:
    """Of rankings, each with the rewards of its answers from best to worst: Kendall's tau (a), the mean over rankings,
    and the share of their pairs that are in order, equal rewards (`within` their rounding) counted as half.

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
    interval = mean_interval(taus, groups)
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
    told = f"{len(points)} pairs of answers in {counted}: {sum(p == 1 for p in points)} in the raters' order"
    return [tau, share("held_out_accuracy", model, points, owners, 0.5, told, slice=slice)]


def squared_error(
    model: str, rewards: Sequence[float], targets: Sequence[float], groups: Sequence[str], slice: str = "all"
) -> Finding:
    """The mean squared difference of rewards and raters' scores, in squared units of the score, held against giving
    the mean of these scores to every response (their variance).

    >>> squared_error("rm", [1.0, 2.0], [1.0, 4.0], ["a", "b"]).value
    2.0
    """
    same_length(rewards=rewards, targets=targets, groups=groups)
    given = finite(targets, "score")
    errors = (finite(rewards, "reward") - given) ** 2
    interval, spread = mean_interval(errors.tolist(), groups), float(given.var())
    return Finding(
        "held_out_squared_error",
        model,
        float(errors.mean()),
        slice=slice,
        interval=interval,
        n=independent(errors.tolist(), groups),
        bound=spread,
        verdict=lower_is_better(spread, interval),
        evidence=f"{_counted(len(errors), 'score', groups)}; always their mean would be off by {spread:.4g}",
    )


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
    return _statistic("held_out_spearman", model, x, y, spearman, groups, 0.0, (-1.0, 1.0), evidence, slice)


def area(
    model: str, logits: Sequence[float], labels: Sequence[bool], groups: Sequence[str], slice: str = "all"
) -> Finding | str:
    """The area under the ROC curve: how often a good response has a higher logit than a bad one, equal ones half.
    With labels of one kind it is undefined, and why is returned instead.

    >>> area("rm", [0.1, 0.9, 0.4], [False, True, True], ["a", "b", "c"]).value
    1.0
    """
    same_length(logits=logits, labels=labels, groups=groups)
    x, good = finite(logits, "logit"), np.asarray(labels, dtype=np.float64)
    of = model if slice == "all" else f"{model} ({slice})"
    if good.min() == good.max():
        return f"no ROC curve of {of}: every held-out label is {'good' if good[0] else 'bad'}"
    evidence = f"{_counted(len(x), 'label', groups)}, {int(good.sum())} of them good"
    return _statistic("held_out_auc", model, x, good, under_curve, groups, 0.5, (0.0, 1.0), evidence, slice)


def ties(
    model: str,
    predicted: Sequence[float],
    loss: Sequence[float],
    tied: Sequence[bool],
    groups: Sequence[str],
    slice: str = "all",
) -> list[Finding]:
    """How a reward model that knows ties tells them: the mean probability it gives a tie, beside the share there is,
    and the log-loss of all outcomes, nats, held against knowing that share alone.

    >>> [f.check for f in ties("rm", [0.2, 0.4], [0.9, 0.7], [False, True], ["a", "b"])]
    ['held_out_tie_share', 'held_out_log_loss']
    """
    same_length(predicted=predicted, loss=loss, tied=tied, groups=groups)
    p, losses, was = finite(predicted, "probability"), finite(loss, "loss"), np.asarray(tied, dtype=np.float64)
    n, counted, true = independent(predicted, groups), _counted(len(p), "pair", groups), float(was.mean())
    off = mean_interval((p - was).tolist(), groups)
    word = {"better": "too many", "worse": "too few", "unclear": "unclear"}[held_against(0.0, off)]
    # A win of either side is as likely as the other's where nothing is known of the pair.
    blind = -sum(s * math.log(s / sides) for s, sides in ((true, 1), (1 - true, 2)) if s)
    interval = mean_interval(losses.tolist(), groups)
    of_ties = f", {losses[was > 0].mean():.3f} on the ties" if was.any() else ""
    return [
        Finding(
            "held_out_tie_share",
            model,
            float(p.mean()),
            slice=slice,
            interval=mean_interval(p.tolist(), groups),
            n=n,
            bound=true,
            verdict=word,
            evidence=f"mean probability of a tie over {counted}, of which {int(was.sum())} are ties",
        ),
        Finding(
            "held_out_log_loss",
            model,
            float(losses.mean()),
            slice=slice,
            interval=interval,
            n=n,
            bound=blind,
            verdict=lower_is_better(blind, interval),
            evidence=f"nats over {counted}{of_ties}; the share of ties alone gives {blind:.3f}",
        ),
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
    ends: Interval,
    evidence: str,
    slice: str,
) -> Finding:
    interval = bootstrap(lambda rows: statistic(x[rows], y[rows]), groups)
    if interval is not None:
        interval = max(ends[0], interval[0]), min(ends[1], interval[1])
    n, verdict = independent(x.tolist(), groups), held_against(bound, interval)
    return Finding(check, model, statistic(x, y), "", slice, interval, n, bound, verdict, evidence)


def _counted(items: int, what: str, groups: Sequence[str] | None) -> str:
    """`12 pairs from 7 prompts`."""
    text = f"{items} {what}{'s' * (items != 1)}"
    prompts = items if groups is None else len(set(groups))
    return text if prompts == items else f"{text} from {prompts} prompt{'s' * (prompts != 1)}"
