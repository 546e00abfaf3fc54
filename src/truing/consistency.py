"""Consistency checks of a finding: ranges that follow from a check's name, and the side of a bound."""

from __future__ import annotations

import math
import re

Ends = tuple[float, float]
MOST = 10**15  # items that anything was ever measured on
ROUNDING = 1e-9  # of a value beside its own interval, as a share of their size

_RANGES: tuple[tuple[re.Pattern[str], Ends], ...] = (
    (re.compile(r"(^|_)win_delta$"), (-0.5, 0.5)),
    (re.compile(r"(win_rate|accuracy|auc|share|pass_at_\d+)_delta$"), (-1.0, 1.0)),
    (re.compile(r"(spearman|pearson|kendall_tau|correlation)$"), (-1.0, 1.0)),
    (re.compile(r"((^|_)win_rate|accuracy|auc|share|(^|_)pass_at_\d+)$"), (0.0, 1.0)),
    (re.compile(r"(squared_error|log_loss|(^|_)disagreement)$"), (0.0, math.inf)),
)
_LOW_IS_GOOD = re.compile(r"(squared_error|log_loss|cost)(_delta)?$")


def range_of(check: str) -> Ends:
    """The range in which a check's value can lie at all, by its name; any other name allows every number.

    >>> range_of("held_out_accuracy"), range_of("win_delta"), range_of("mean_score")
    ((0.0, 1.0), (-0.5, 0.5), (-inf, inf))
    """
    return next((ends for pattern, ends in _RANGES if pattern.search(check)), (-math.inf, math.inf))


def contradiction(check: str, value: float, interval: Ends | None, n: int, bound: float | None, verdict: str) -> str:
    """Describe what cannot be true together in a finding; an empty string where nothing is wrong.

    >>> contradiction("win_rate", 7.0, None, 500, None, "")
    'value 7 is outside [0, 1], where every win_rate lies'
    >>> contradiction("mean_score", 2.0, (0.5, 1.5), 500, None, "")
    'value 2 is outside its own interval [0.5, 1.5]'
    """
    if not all(math.isfinite(x) for x in (value, *(interval or ()))):
        return "its value or interval is not a number"
    if interval is not None and interval[0] > interval[1]:
        return f"interval {_text(interval)} has its ends the wrong way round"
    if not 0 <= n <= MOST:
        return f"n is {n if n < 0 else 'a number of more than fifteen digits'}, and a count is from 0 to {MOST}"
    ends = range_of(check)
    # A mean's interval may reach beyond what a mean can be; that of a share is made so that it cannot.
    further = interval if interval is not None and ends == (0.0, 1.0) else ()
    for what, x in (("value", value), *(("an end of its interval,", x) for x in further)):
        if not _within(x, ends):
            return f"{what} {x:g} is outside {_text(ends)}, where every {check} lies"
    if interval is None:
        return (
            f"verdict '{verdict}' without an interval" if verdict in ("better", "worse") and bound is not None else ""
        )
    if not _within(value, interval):
        return f"value {value:g} is outside its own interval {_text(interval)}"
    return _wrong_side(check, interval, bound, verdict)


def _wrong_side(check: str, interval: Ends, bound: float | None, verdict: str) -> str:
    """Describe a verdict `better` or `worse` whose interval does not lie on that side of the bound; else empty."""
    if bound is None or verdict not in ("better", "worse"):
        return ""
    above = (verdict == "better") != bool(_LOW_IS_GOOD.search(check))
    if interval[0] > bound if above else interval[1] < bound:
        return ""
    return f"verdict '{verdict}', and its interval {_text(interval)} is not {'above' if above else 'below'} {bound:g}"


def _within(x: float, ends: Ends) -> bool:
    slack = ROUNDING * max(1.0, *(abs(end) for end in (x, *ends) if math.isfinite(end)))
    return ends[0] - slack <= x <= ends[1] + slack


def _text(ends: Ends) -> str:
    return f"[{ends[0]:g}, {ends[1]:g}]"
