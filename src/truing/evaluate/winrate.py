"""Win rates: how often one model's responses score higher than another's, prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from truing.evaluate.intervals import (
    Interval,
    finite,
    independent,
    mean_interval,
    same_length,
    settled,
    share_interval,
)
from truing.records import Finding


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
) -> list[Finding]:
    """Compare two models on the same prompts: `win_rate`, `win_delta`, both mean scores and their difference.

    Row i of both score lists answers prompt `prompt_ids[i]`. A tie counts as half a win, and scores `within` so much of
    each other (the judge's rounding) are one; `win_delta` is `win_rate - 0.5`, so 0 is level. Intervals are over whole
    prompts (`intervals.share_interval`). `prefix` goes before every check's name (`held_out_`
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
    rate, between = 0.5 + 0.5 * float(sign.mean()), share_interval(points, prompt_ids)
    beyond = (between[0] - 0.5, between[1] - 0.5) if between else None
    word = held_against(0.5, between)

    def finding(check: str, value: float, interval: Interval | None, bound: float | None, verdict: str) -> Finding:
        return Finding(
            prefix + check, model, value, against, slice, interval, prompts, bound, verdict, evidence=evidence
        )

    spread = mean_interval(delta.tolist(), prompt_ids)
    means = [
        Finding(
            prefix + "mean_score",
            name,
            float(x.mean()),
            slice=slice,
            interval=mean_interval(x.tolist(), prompt_ids),
            n=prompts,
            verdict="measured",
            evidence=f"{_counted(prompts, len(ours))}; judged by {judged_by}",
        )
        for name, x in ((model, ours), (against, theirs))
    ]
    return [
        finding("win_rate", rate, between, 0.5, word),
        finding("win_delta", rate - 0.5, beyond, 0.0, word),
        *means,
        finding("mean_score_delta", float(delta.mean()), spread, 0.0, held_against(0.0, spread)),
    ]


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
