"""How often one model's responses score higher than another's, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from truing.evaluate.intervals import Interval, finite, independent, mean_interval, same_length, settled, wilson
from truing.types import Finding


def win_rate(
    model: str,
    scores: Sequence[float],
    against: str,
    scores_against: Sequence[float],
    prompt_ids: Sequence[str],
    slice: str = "all",
    judged_by: str = "gold",
    *,
    prefix: str = "",
    within: float = 0.0,
    seed: int = 0,
) -> list[Finding]:
    """Compare two models on the same prompts: `win_rate`, `win_delta`, both mean scores and their difference.

    Row i of both score lists answers prompt `prompt_ids[i]`. A tie counts as half a win, and scores `within` so much of
    each other (the judge's rounding) are one; `win_delta` is `win_rate - 0.5`, so 0 is level. The interval is Wilson's
    where every prompt occurs once, else one over whole prompts. `prefix` goes before every check's name (`held_out_`
    gives `held_out_win_delta`).

    >>> found = win_rate("direct", [3, 1, 2, 2], "warm", [1, 2, 2, 1], ["a", "b", "c", "d"])
    >>> found[0].value, found[0].verdict, found[0].evidence
    (0.625, 'unclear', '4 prompts: 2 won, 1 tied, 1 lost; judged by gold')
    """
    same_length(scores=scores, scores_against=scores_against, prompt_ids=prompt_ids)
    ours, theirs = finite(scores, f"score of {model}"), finite(scores_against, f"score of {against}")
    delta = ours - theirs
    sign = np.sign(settled(delta, within))
    points = (0.5 + 0.5 * sign).tolist()
    won, tied, lost = (int((sign == side).sum()) for side in (1, 0, -1))
    prompts = independent(ours.tolist(), prompt_ids)
    evidence = f"{_counted(prompts, len(ours))}: {won} won, {tied} tied, {lost} lost; judged by {judged_by}"
    rate, (low, high) = 0.5 + 0.5 * float(sign.mean()), share_interval(points, prompt_ids, seed)
    word = held_against(0.5, (low, high))

    def finding(check: str, value: float, interval: Interval | None, bound: float | None, verdict: str) -> Finding:
        return Finding(
            prefix + check, model, value, against, slice, interval, prompts, bound, verdict, evidence=evidence
        )

    spread = mean_interval(delta.tolist(), prompt_ids, seed)
    means = [
        Finding(
            prefix + "mean_score",
            name,
            float(x.mean()),
            slice=slice,
            interval=mean_interval(x.tolist(), prompt_ids, seed),
            n=prompts,
            verdict="measured",
            evidence=f"{_counted(prompts, len(ours))}; judged by {judged_by}",
        )
        for name, x in ((model, ours), (against, theirs))
    ]
    return [
        finding("win_rate", rate, (low, high), 0.5, word),
        finding("win_delta", rate - 0.5, (low - 0.5, high - 0.5), 0.0, word),
        *means,
        finding("mean_score_delta", float(delta.mean()), spread, 0.0, held_against(0.0, spread)),
    ]


def share_interval(points: Sequence[float], clusters: Sequence[str] | None, seed: int = 0) -> Interval:
    """The 95 % interval of a mean of points in [0, 1] (1, half, 0).

    Wilson where items are independent; else that of a mean over clusters. Where clusters are too few or all alike that
    has no width, which is no certainty: Wilson over the number of clusters stands in.
    """
    items = independent(points, clusters)
    share = float(finite(points, "point").mean())
    spread = mean_interval(points, clusters, seed) if items < len(points) else None
    if spread is None or spread[0] == spread[1]:
        return wilson(share * items, items)
    return max(0.0, spread[0]), min(1.0, spread[1])


def held_against(bound: float, interval: Interval | None) -> str:
    """`better` if the whole interval lies above the bound, `worse` if below, else `unclear`.

    >>> held_against(0.5, (0.58, 0.66)), held_against(0.5, (0.48, 0.52)), held_against(0.5, None)
    ('better', 'unclear', 'unclear')
    """
    if interval is None:
        return "unclear"
    return "better" if interval[0] > bound else "worse" if interval[1] < bound else "unclear"


def _counted(prompts: int, rows: int) -> str:
    text = f"{prompts} prompt{'s' if prompts != 1 else ''}"
    return text if rows == prompts else f"{text}, {rows} responses"
