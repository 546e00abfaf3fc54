"""The findings of an exam for a terminal: a row per pair of compared models, a line per other finding."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from truing.records import Finding
from truing.report import words

COLUMNS = {
    "win_rate": "win rate",
    "mean_score": "score",
    "mean_score_delta": "gained",
    "mean_length_delta_tokens": "tokens longer",
    "kl_to_reference": "KL, nats",
    "truncated_share": "truncated",
}
"""Checks of responses with the headings of their columns. `win_delta` repeats `win_rate` and has no column."""

PARTS = ("helpful", "harmless", "honest")
"""The parts of the world's gold reward. Their findings stand in the report, not in this table."""

LOOP_TIME = "time in the loop"
"""The figure of a training stage's summary that holds the seconds of training."""


def table(findings: Sequence[Finding], seconds: Mapping[str, float | None]) -> str:
    """All findings of an exam but those of the parts of gold. `seconds` holds the training time of some models.

    >>> print(table([Finding("win_rate", "dpo", 0.6, "warm", interval=(0.5, 0.7))], {"dpo": 12.3}))
                     win rate               training
      dpo over warm  60.0 % (50.0 to 70.0)  12.3 s
    """
    findings = [f for f in findings if not f.check.startswith(tuple(f"{part}_mean" for part in PARTS))]
    of_responses = [f for f in findings if f.slice == "all" and f.check in (*COLUMNS, "win_delta")]
    pairs = dict.fromkeys((f.model, f.against) for f in of_responses if f.check == "win_rate")
    others = [f for f in findings if not pairs or f not in of_responses]
    return "\n".join([*rows(pairs, of_responses, seconds), *lines(others), *doubts(of_responses)])


def doubts(findings: Sequence[Finding]) -> list[str]:
    """Why nothing is concluded, each reason once, with the win rates that it is about.

    >>> doubts([Finding("win_rate", "dpo", 0.6, "warm", reservation="the judge was never tried")])
    ['  nothing is concluded of dpo over warm: the judge was never tried']
    """
    reasons: dict[str, list[str]] = {}
    for f in findings:
        if f.reservation and f.check == "win_rate":
            reasons.setdefault(f.reservation, []).append(who(f))
    return [f"  nothing is concluded of {', '.join(pairs)}: {why}" for why, pairs in reasons.items()]


def rows(
    pairs: Collection[tuple[str, str]], findings: Sequence[Finding], seconds: Mapping[str, float | None]
) -> list[str]:
    """A row for each model and its rival; findings of the model alone are repeated in each of its rows."""
    if not pairs:
        return []
    heads = [check for check in COLUMNS if any(f.check == check for f in findings)]
    cells = [["", *(COLUMNS[check] for check in heads), "training"]]
    for model, rival in pairs:
        texts = {f.check: cell(f) for f in findings if f.model == model and f.against in ("", rival)}
        took = seconds.get(model)
        cells.append(
            [
                f"{model} over {rival}",
                *(texts.get(check, "") for check in heads),
                "" if took is None else words.seconds(took),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  " + "  ".join(f"{text:{w}}" for text, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def cell(f: Finding) -> str:
    """A value in its unit, and the interval of a win rate."""
    spread = f" ({words.interval(f)})" if f.check == "win_rate" and f.interval else ""
    doubt = " (as judged)" if f.check == "win_rate" and f.reservation else ""
    return words.figure(f.check, f.value) + spread + doubt


def lines(findings: Sequence[Finding]) -> list[str]:
    """One finding a line, with its interval and its verdict."""
    width = max((len(f.check) for f in findings), default=0)
    names = max((len(who(f)) for f in findings), default=0)
    listed = []
    for f in findings:
        interval = f"[{f.interval[0]:8.3f}, {f.interval[1]:8.3f}]" if f.interval else " " * 20
        verdict = "decides nothing" if f.reservation else f.verdict
        listed.append(f"  {who(f):{names}}  {f.check:{width}}  {f.value:8.3f}  {interval}  {verdict}")
    return listed


def who(f: Finding) -> str:
    """The model a finding is about, its rival, and the slice of the data."""
    slice = f" ({f.slice})" if f.slice != "all" else ""
    return (f"{f.model} over {f.against}" if f.against else f.model) + slice


def trained(summary: Mapping[str, Any]) -> float | None:
    """The seconds a model was trained, from its stage's summary; None where that does not say."""
    return next((float(f["value"]) for f in summary.get("figures", []) if f["name"] == LOOP_TIME), None)
