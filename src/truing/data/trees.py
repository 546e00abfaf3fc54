"""From records to trees: rendering, the length limit, and an account of every row that was cut or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from truing.data.batch import Branch, Tree
from truing.data.formats import grouped
from truing.data.render import Rendered, Renderer, Turns
from truing.errors import DataError, UserError
from truing.types import Demonstration, Judgement, Messages, Records, RowNote

Shape = Literal["pairs", "single", "text"]


@dataclass(frozen=True)
class Planted:
    """Trees of a data set, and what happened to its rows on the way."""

    trees: tuple[Tree, ...]
    notes: tuple[RowNote, ...]

    def text(self) -> str:
        """One line for people, printed before training.

        >>> Planted((), (RowNote(3, "prompt", "longer than max_length", "dropped"),)).text()
        'kept 0 rows, truncated 0, dropped 1 (prompt longer than max_length: row 3)'
        """
        actions = Counter(note.action for note in self.notes)
        told = f"kept {len(self.trees)} rows, truncated {actions['truncated']}, dropped {actions['dropped']}"
        parts = [f"{_problem(note)}: {_some(note['rows'])}" for note in grouped(self.notes)]
        return told + (f" ({'; '.join(parts)})" if parts else "")


def _problem(note: Mapping[str, Any]) -> str:
    return f"{note['field']} {note['problem']}".strip()


def _some(rows: list[int]) -> str:
    more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:10]))}{more}"


def plant(
    records: Records,
    renderer: Renderer,
    *,
    max_length: int,
    shape: Shape,
    on_bad_row: Literal["error", "drop"] = "error",
    turns: Turns = "all",
) -> Planted:
    """Render every record into a tree. `shape` is `pairs` (chosen and rejected), `single` (one response a record) or
    `text` (one response, and the prompt's tokens are learned too: pretraining).

    A prompt that leaves no room for a response within `max_length` tokens drops its row; a response that reaches over
    the limit is cut and loses its end token. Both are noted. Pairs whose responses are the same once cut are dropped.
    Of a conversation every assistant turn is learned, or with `turns: last` only the last one. A row that the
    template cannot write (a control token in its text) is an error, or dropped with `on_bad_row: drop`.
    """
    trees: list[Tree] = []
    notes: list[RowNote] = []
    for row, record in zip(records.rows, records.records, strict=True):
        try:
            tools = record.meta.get("tools")
            sides_of = _sides(record, shape, turns)
            rendered = [(role, renderer.encode(prompt, said, tools=tools)) for role, prompt, said in sides_of]
        except DataError as error:
            if on_bad_row == "drop":
                notes.append(RowNote(row, error.place, error.problem, "dropped"))
                continue
            place = f"{records.name}, row {row}" + (f", {error.place}" if error.place else "")
            raise DataError(place, error.problem, error.way_out) from error
        prompt_ids, sides = _cut_point(rendered, shape)
        room = max_length - len(prompt_ids)
        if room < 1:
            notes.append(RowNote(row, "prompt", f"longer than max_length {max_length}", "dropped"))
            continue
        branches = tuple(Branch(side.role, side.ids[:room], side.loss[:room]) for side in sides)
        if shape == "pairs" and branches[0].ids == branches[1].ids:
            notes.append(RowNote(row, "responses", "are the same once cut to max_length", "dropped"))
            continue
        if not all(any(b.loss) for b in branches):
            notes.append(RowNote(row, "response", "has no learned token within max_length", "dropped"))
            continue
        if any(len(side.ids) > room for side in sides):
            notes.append(RowNote(row, "response", f"cut at max_length {max_length}", "truncated"))
        trees.append(Tree(prompt_ids, branches, len(trees), row, _values(record)))
    if not trees:
        raise UserError(f"{records.name}: no row is left to train on. " + Planted((), tuple(notes)).text())
    return Planted(tuple(trees), tuple(notes))


def _cut_point(rendered: list[tuple[str, Rendered]], shape: Shape) -> tuple[tuple[int, ...], list[Branch]]:
    prompt = tuple(rendered[0][1].prompt_ids)
    if shape == "text":
        ids = (*prompt, *rendered[0][1].response_ids)
        return ids[:1], [Branch("response", ids[1:], (True,) * (len(ids) - 1))]
    return prompt, [Branch(role, tuple(r.response_ids), tuple(r.loss_mask)) for role, r in rendered]


def _sides(record: Demonstration | Judgement, shape: Shape, turns: Turns) -> Iterable[tuple[str, Messages, Messages]]:
    if isinstance(record, Demonstration):
        if not record.response:
            raise DataError("", "this is a prompt alone, without a response to learn from or to score")
        if shape == "pairs":
            raise DataError(
                "", "this is a demonstration, and the stage learns from pairs", "Give pairs: prompt, chosen, rejected."
            )
        if turns == "last":
            return [("response", (*record.prompt, *record.response[:-1]), record.response[-1:])]
        return [("response", record.prompt, record.response)]
    if record.verdict.kind != "choice" or len(record.responses) != 2:
        raise DataError("", f"this row holds a {record.verdict.kind}, and the stage learns from a choice between two")
    if shape != "pairs":
        return [("response", record.prompt, record.chosen)]
    return [("chosen", record.prompt, record.chosen), ("rejected", record.prompt, record.rejected)]


def _values(record: Demonstration | Judgement) -> dict[str, float]:
    if isinstance(record, Demonstration):
        return {}
    values = {"margin_B": record.strength, "preference_B": record.verdict.probability}
    return {name: float(value) for name, value in values.items() if value is not None}
