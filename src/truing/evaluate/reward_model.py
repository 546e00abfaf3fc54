"""Does a reward model put the chosen response above the rejected one, on pairs it has not seen?"""

from __future__ import annotations

from collections.abc import Sequence

from truing.evaluate.intervals import finite, independent, same_length
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
    seed: int = 0,
) -> Finding:
    """The share of pairs with chosen reward above rejected reward, a tie counted as half.

    The strict share (a tie is a miss, as RewardBench counts) stands in the evidence. With `groups` (the prompt of
    each pair) the interval is one over whole groups, else Wilson's.

    >>> f = accuracy("rm", [1.0, 0.2, 0.5, 0.5], [0.5, 0.4, 0.5, 0.1])
    >>> f.value, f.evidence
    (0.625, '4 pairs: 2 right, 1 tied (counted half), 1 wrong; strict accuracy 50.0 %')
    """
    same_length(chosen=chosen, rejected=rejected, groups=groups)
    gap = finite(chosen, "chosen reward") - finite(rejected, "rejected reward")
    points = (gap > 0) + 0.5 * (gap == 0)
    right, tied, wrong = int((gap > 0).sum()), int((gap == 0).sum()), int((gap < 0).sum())
    interval = share_interval(points.tolist(), groups, seed)
    pairs = f"{len(gap)} pair{'s' if len(gap) != 1 else ''}"
    n = independent(points.tolist(), groups)
    grouped = f" from {n} prompt{'s' if n != 1 else ''}" if n < len(gap) else ""
    return Finding(
        check,
        model,
        float(points.mean()),
        slice=slice,
        interval=interval,
        n=n,
        bound=0.5,
        verdict=held_against(0.5, interval),
        evidence=f"{pairs}{grouped}: {right} right, {tied} tied (counted half), {wrong} wrong; "
        f"strict accuracy {100 * right / len(gap):.1f} %",
    )
