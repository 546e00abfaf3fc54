"""Figures and findings in words: units, intervals, one sentence per comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from truing.records import Finding


def unit(check: str) -> str:
    """The unit in which a check's values are shown: `%`, `points` (of per cent), `tokens`, `nats` or none.

    >>> unit("held_out_win_rate"), unit("held_out_accuracy_delta"), unit("mean_length_delta_tokens"), unit("mean_score")
    ('%', 'points', 'tokens', '')
    """
    if check.endswith(("win_delta", "accuracy_delta", "share_delta")) or (
        check.startswith("pass_at_") and check.endswith("_delta")
    ):
        return "points"
    if check.endswith(("rate", "accuracy", "share")) or check.startswith("pass_at_"):
        return "%"
    if check.endswith("tokens"):
        return "tokens"
    return "nats" if check.endswith("_nats") or "kl_to" in check else ""


def label(name: str) -> str:
    """A check's or metric's name as words; the unit is shown with the value.

    >>> label("mean_length_delta_tokens")
    'mean length delta'
    """
    words = name.replace("_", " ").strip()
    return re.sub(r" (tokens|nats)$", "", words) or name


def number(x: float) -> str:
    """A number to about four figures, with a true minus sign.

    >>> number(-0.01234), number(1234567), number(3)
    ('−0.01234', '1,234,567', '3')
    """
    if not math.isfinite(x):
        return str(x)
    if x == int(x) and abs(x) < 1e12:
        text = f"{int(x):,}"
    elif abs(x) >= 1000:
        text = f"{x:,.0f}"
    else:
        text = f"{x:.4g}"
    return text.replace("-", "−")


def figure(check: str, x: float) -> str:
    """A value in the unit of its check, without the unit's name unless it is %.

    >>> figure("win_rate", 0.623), figure("win_delta", 0.123), figure("mean_length_delta_tokens", -3.21)
    ('62.3 %', '+12.3', '−3.2')
    """
    kind = unit(check)
    sign = "+" if "delta" in check else ""
    if kind in ("%", "points"):
        return f"{100 * x:{sign}.1f}".replace("-", "−") + (" %" if kind == "%" else "")
    if kind in ("tokens", "nats"):
        return f"{x:{sign}.{1 if kind == 'tokens' else 2}f}".replace("-", "−")
    return f"{x:{sign}.3f}".replace("-", "−") if abs(x) < 100 else number(x)


def interval(f: Finding) -> str:
    """The interval of a finding in its unit, or an empty string.

    >>> interval(Finding("win_rate", "m", 0.62, interval=(0.58, 0.66)))
    '58.0 to 66.0'
    """
    if f.interval is None:
        return ""
    return " to ".join(figure(f.check, x).removesuffix(" %") for x in f.interval)


def seconds(x: float) -> str:
    """A duration.

    >>> seconds(4.21), seconds(75), seconds(7300)
    ('4.2 s', '1 min 15 s', '2 h 1 min')
    """
    if x < 60:
        return f"{x:.1f} s"
    whole = round(x)
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def summary(findings: Sequence[Finding]) -> str:
    """A paragraph in plain words: who beats whom, by how much, and at what price in length and distance.

    >>> summary([Finding("win_rate", "direct", 0.62, "warm", interval=(0.58, 0.66), n=500)])
    'direct beats warm: win rate 62 % (58–66 %; ties half) on 500 prompts.'
    """
    everywhere = [f for f in findings if f.slice == "all"]
    rates = [f for f in everywhere if f.check.endswith("win_rate") and f.check != "judged_win_rate"]
    sentences = [_compared(f) for f in rates][:6]
    sentences += [_priced(f) for f in everywhere if f.check.endswith("mean_length_delta_tokens") and f.against][:6]
    sentences += [_distance(f) for f in everywhere if "kl_to" in f.check][:6]
    sentences += [_told_apart(f) for f in everywhere if f.check.endswith("accuracy") and f.check != "judge_accuracy"][
        :3
    ]
    return " ".join(sentences)


def _compared(f: Finding) -> str:
    spread = f"{100 * f.interval[0]:.0f}–{100 * f.interval[1]:.0f} %; " if f.interval else ""
    counted = f"; {f.evidence}" if f.evidence else f" on {f.n} prompts" if f.n else ""
    rate = f"win rate {100 * f.value:.0f} % ({spread}ties half){counted}."
    other = f.against or "the other"
    if f.reservation:
        return f"Nothing is concluded of {f.model} and {other}: {f.reservation}. As judged, {rate}"
    if f.interval and f.interval[0] > 0.5:
        return f"{f.model} beats {other}: {rate}"
    if f.interval and f.interval[1] < 0.5:
        return f"{f.model} is worse than {other}: {rate}"
    return f"{f.model} and {other} cannot be told apart: {rate}"


def _priced(f: Finding) -> str:
    spread = f" ({interval(f)})" if f.interval else ""
    if f.interval is None or f.interval[0] <= 0 <= f.interval[1]:
        by = f"{figure(f.check, f.value)} tokens{spread or ', too few to say'}"
        return f"Responses of {f.model} cannot be told to be longer or shorter than those of {f.against}: {by}."
    word = "longer" if f.value > 0 else "shorter"
    size = f"{abs(f.value):.1f} tokens {word}"
    return f"Responses of {f.model} are {size} than those of {f.against}{spread}."


def _distance(f: Finding) -> str:
    spread = f" ({interval(f)})" if f.interval else ""
    return f"{f.model} lies {figure(f.check, f.value)} nats per response{spread} from {f.against or 'its reference'}."


def _told_apart(f: Finding) -> str:
    spread = f" ({100 * f.interval[0]:.0f}–{100 * f.interval[1]:.0f} %)" if f.interval else ""
    of = f" of {f.n} pairs or prompts" if f.n else ""
    return f"{f.model} puts the better response first in {100 * f.value:.0f} %{of}{spread}."
