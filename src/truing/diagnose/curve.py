"""Proxy and gold over the distance from the start: as a `reinforce` stage was monitored, or as best-of-n goes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from truing import door
from truing.errors import DataError, UserError, unknown
from truing.records import is_number

Form = Literal["rl", "best_of"]
Array = NDArray[np.float64]
FIGURES = ("step", "kl", "proxy")


@dataclass(frozen=True)
class Series:
    """One quantity per evaluation: its mean over prompts and the standard error of that (not a number where there is
    none). `rows` [prompts, evaluations] where every prompt's value is known, so that evaluations are compared prompt by
    prompt."""

    mean: Array
    error: Array
    rows: Array | None = None

    def above(self, i: int, j: int) -> tuple[float, float]:
        """Evaluation `i` less evaluation `j`, and its standard error: paired where `rows` are known. Without them the
        two count as independent, which is too wide where both used the same prompts."""
        value = float(self.mean[i] - self.mean[j])
        if self.rows is None:
            return value, math.hypot(self.error[i], self.error[j])
        return value, float(_error(self.rows[:, i] - self.rows[:, j]))

    @classmethod
    def of(cls, rows: Array) -> Series:
        """The series of every prompt's values [prompts, evaluations]."""
        return cls(rows.mean(0), _error(rows), rows)


@dataclass(frozen=True)
class Curve:
    """The evaluations of a policy in the order of its updates: `at` counts updates (form `rl`) or is n (`best_of`),
    `kl` is to the start (nats a response). `notes` are reservations for the reader."""

    name: str
    against: str
    form: Form
    at: tuple[int, ...]
    kl: Array
    proxy: Series
    gold: Series
    prompts: int
    kl_error: Array | None = None
    notes: tuple[str, ...] = ()

    @property
    def distance(self) -> Array:
        """sqrt(KL); an estimate of the KL below 0, which is noise about 0, counts as 0."""
        root: Array = np.sqrt(np.maximum(self.kl, 0))
        return root

    def place(self, i: int) -> str:
        """Name of evaluation `i`: `update 40` or `n = 16`."""
        return f"update {self.at[i]}" if self.form == "rl" else f"n = {self.at[i]}"


def read_curve(path: Path, name: str, against: str = "", truth: str = "gold") -> Curve:
    """The curve of a `monitor.jsonl`: a line per evaluation, the first before any update. `truth` is the monitored
    reward that counts as gold.

    An evaluation in which proxy or truth has no number is left out, and `notes` say so. Where every evaluation holds
    each prompt's score, evaluations are compared prompt by prompt, without the prompts that lack a score. UserError
    names the file and the line that cannot be read, and lists the monitored rewards where `truth` is none of them.
    """
    evaluations = list(_evaluations(path, truth))
    numbered = [row for row in evaluations if all(is_number(row.get(key)) for key in (*FIGURES, truth))]
    if not numbered or numbered[0]["step"] != 0:
        raise UserError(f"{path}: has no evaluation at step 0, and gains are counted from there")

    def column(key: str) -> Array:
        cells = [row.get(key) for row in numbered]
        return np.array([x if is_number(x) else math.nan for x in cells], dtype=np.float64)

    left_out = [str(row.get("step")) for row in evaluations if row not in numbered]
    notes = (
        [f"{name}: {len(left_out)} evaluations without a number left out: step {', '.join(left_out)}"]
        if left_out
        else []
    )
    steps = tuple(int(row["step"]) for row in numbered)
    prompts, each = int(numbered[0].get("prompts") or 0), _each(numbered, ("proxy", truth))
    if each is None:
        proxy, gold = (Series(column(key), column(f"{key}_se")) for key in ("proxy", truth))
    else:
        proxy, gold = (Series.of(rows) for rows in each)
        if len(each[0]) < prompts:
            notes.append(f"{name}: {prompts - len(each[0])} of {prompts} prompts left out: a response has no score")
        prompts = len(each[0])
    return Curve(name, against, "rl", steps, column("kl"), proxy, gold, prompts, column("kl_se"), tuple(notes))


def _evaluations(path: Path, truth: str) -> list[dict[str, Any]]:
    try:
        lines = door.read_text(path, most=door.LOG_BYTES).splitlines()
    except DataError as error:
        way_out = f"A `reinforce` stage writes it that has `monitor: [{truth}]` and `monitor_prompts`."
        raise DataError(error.place, error.problem, way_out) from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = door.parse_json(line, strict=False)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: is no JSON ({error})") from error
        missing = [key for key in (*FIGURES, truth) if not isinstance(row, Mapping) or key not in row]
        if missing == [truth]:
            monitored = [key for key in row if f"{key}_se" in row and key not in (*FIGURES, "length")]
            raise UserError(f"{path}, line {number}: {unknown('monitored reward', truth, monitored)}")
        if missing:
            raise UserError(f"{path}, line {number}: has no {missing[0]}")
        rows.append(row)
    return rows


def _each(evaluations: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Array] | None:
    """Every prompt's score per evaluation, of each name [prompts, evaluations], without prompts that lack a score; None
    where an evaluation does not hold them."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for evaluation in evaluations:
        each = evaluation.get("each")
        for name in names:
            columns[name].append(each.get(name) if isinstance(each, Mapping) else None)
    lists = [column for name in names for column in columns[name]]
    if not all(isinstance(column, list) for column in lists) or len({len(column) for column in lists}) != 1:
        return None
    whole = [i for i in range(len(lists[0])) if all(is_number(column[i]) for column in lists)]
    if not whole:
        return None
    return [np.array([[column[i] for column in columns[name]] for i in whole], dtype=np.float64) for name in names]


def _error(rows: Array) -> Array:
    """The standard error of the mean over the first axis; not a number of one item alone."""
    n = len(rows)
    spread = rows.std(0, ddof=1) if n > 1 else np.full(rows.shape[1:], math.nan)
    error: Array = np.asarray(spread / math.sqrt(n))
    return error
