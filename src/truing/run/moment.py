"""Main metrics of a stage while it trains, in one line: the reward of its responses, or how well it separates pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from truing.report import figures, words
from truing.run import lesson

Row = Mapping[str, float]

OFFLINE = ("margin", "margin_nats", "accuracy", "best_first", "signed_log_ratio")
"""Main metrics of offline methods. Their loss is shown too, and that of a policy gradient never: it is 0 at the first
update of every round, whatever is learned."""


def summary(rows: Sequence[Row]) -> str:
    """Means of the main metrics over these updates; an empty text where there are none.

    >>> summary([{"step": 1, "rows": 2, "loss": 0.69, "accuracy": 0.5, "margin_nats": 0.0}])
    'margin 0 nats  accuracy 50 %  loss 0.69'
    >>> metrics = {"score": 0.25, "score_deviation": 0.4, "equal_groups": 0.5, "truncated": 0.0, "length": 12.0}
    >>> summary([{"step": 1, "rows": 8, "loss": 0.0, "responses": 8, "groups": 2, "failed": 0.0} | metrics])
    'reward 0.25 ± 0.4  equal groups 50 %  truncated 0 %  length 12 tokens'
    """
    if not rows:
        return ""
    return "  ".join([*_of_rounds(rows), *_of_data(rows)])


def _of_rounds(rows: Sequence[Row]) -> list[str]:
    """Metrics of responses: their reward with the deviation within a round, and what can be wrong with them."""
    if "score" not in rows[-1]:
        return []
    spread = _text(rows, "score_deviation")
    parts = [f"reward {_text(rows, 'score')}{f' ± {spread}' if spread else ''}"]
    if any(row.get("responses", 0.0) > row.get("groups", 0.0) for row in rows):  # a single response is equal to itself
        parts.append(f"equal groups {_text(rows, 'equal_groups', share=True)}")
    parts.append(f"truncated {_text(rows, 'truncated', share=True)}")
    parts += [f"KL {_text(rows, 'kl')} nats"] if "kl" in rows[-1] else []
    parts.append(f"length {_text(rows, 'length')} tokens")
    failed = math.fsum(row.get("failed", 0.0) for row in rows)
    return parts + ([f"not scored {failed:.0f}"] if failed else [])


def _of_data(rows: Sequence[Row]) -> list[str]:
    names = [name for name in rows[-1] if name in OFFLINE or name.startswith("squared_error")]
    order = [*(name for name in OFFLINE if name in names), *(name for name in names if name not in OFFLINE)]
    parts = [
        f"{words.label(name)} {_text(rows, name, name in ('accuracy', 'best_first'))}{_unit(name)}" for name in order
    ]
    column = "learned_tokens" if "learned_tokens" in rows[-1] else ""
    return parts if "score" in rows[-1] else [*parts, f"loss {_text(rows, 'loss', column=column)}"]


def _unit(name: str) -> str:
    return " nats" if name in ("margin_nats", "signed_log_ratio") else ""


def _text(rows: Sequence[Row], name: str, share: bool = False, column: str = "") -> str:
    """A mean to three figures, or as a share; `no number` where one of the updates has none."""
    measured = [row for row in rows if name in row]
    value = figures.mean_of(measured, name, column) if measured else None
    if value is None:
        return "no number" if measured else ""
    return lesson.share(value) if share else f"{value:.3g}"
