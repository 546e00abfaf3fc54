"""Curves of proxy and gold over the distance from the start, as a `diagnose` stage left them, checked and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from truing.records import is_number
from truing.report import words

COLUMNS = (
    "curve", "gold", "evaluations", "prompts", "highest at", "KL there", "gold first", "gold there", "gold last",
    "proxy gained", "alpha", "beta", "misfit",
)  # fmt: skip


@dataclass(frozen=True)
class Way:
    """One curve: a point per evaluation, in the order of the updates. `line` is the fitted form, `best` the evaluation
    of highest gold, `word` what gold does; errors are standard errors, None where there are none."""

    name: str
    form: str
    word: str
    best: int
    prompts: int
    at: list[float]
    distance: list[float]
    kl: list[float]
    proxy: list[float]
    gold: list[float]
    proxy_error: list[float] | None
    gold_error: list[float] | None
    line: list[tuple[float, float]]
    fit: Mapping[str, Any]

    @property
    def gained(self) -> list[float]:
        """The proxy above its start, in the proxy's own unit."""
        return [x - self.proxy[0] for x in self.proxy]

    @classmethod
    def from_json(cls, row: Any) -> Way:
        """The curve that a stage wrote; ValueError says what is wrong with it."""
        if not isinstance(row, Mapping):
            raise ValueError("is not an object")
        at = _numbers(row, "at")
        distance, kl, proxy, gold = (_numbers(row, key, len(at)) for key in ("distance", "kl", "proxy", "gold"))
        best, prompts = row.get("best"), row.get("prompts")
        if not isinstance(best, int) or not 0 <= best < len(at) or not isinstance(prompts, int):
            raise ValueError("'best' is no evaluation, or 'prompts' no number")
        errors = [_errors(row, key, len(at)) for key in ("proxy_error", "gold_error")]
        form_fit = row.get("fit")
        fit: Mapping[str, Any] = form_fit if isinstance(form_fit, Mapping) else {}
        points = fit["line"] if isinstance(fit.get("line"), list) else []
        line = [(float(p[0]), float(p[1])) for p in points if _is_point(p)]
        name, form, word = (str(row.get(key, "")) for key in ("name", "form", "word"))
        return cls(name, form, word, best, prompts, at, distance, kl, proxy, gold, errors[0], errors[1], line, fit)

    def cells(self) -> list[str]:
        """The curve as a row of a table; see `COLUMNS`."""
        where = f"{'n =' if self.form == 'best_of' else 'update'} {self.at[self.best]:g}"
        gold = [words.figure("gold", self.gold[i]) for i in (0, self.best, -1)]
        first = [self.name, self.word, str(len(self.at)), f"{self.prompts:,}", where, f"{self.kl[self.best]:.2f}"]
        return [*first, *gold, words.number(self.gained[-1]), *map(self._fitted, ("alpha", "beta", "misfit"))]

    def _fitted(self, name: str) -> str:
        value: Any = self.fit.get(name)
        between = self.fit.get(f"{name}_interval")
        if not is_number(value):
            return "–"
        ends = f" [{words.number(between[0])}, {words.number(between[1])}]" if between and _is_point(between) else ""
        return f"{words.number(value)}{ends}"


def _numbers(row: Mapping[str, Any], key: str, count: int | None = None) -> list[float]:
    value = row.get(key)
    if not isinstance(value, list) or not value or not all(map(is_number, value)) or count not in (None, len(value)):
        raise ValueError(f"'{key}' has not one number for each evaluation")
    return [float(x) for x in value]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _errors(row: Mapping[str, Any], key: str, count: int) -> list[float] | None:
    value = row.get(key)
    if not isinstance(value, list) or len(value) != count or not all(is_number(x) and x >= 0 for x in value):
        return None
    return [float(x) for x in value]
