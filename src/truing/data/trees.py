"""From records to trees: rendering, the length limit, and an account of every row that was cut or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from truing.data.batch import Branch, Tree
from truing.data.formats import grouped
from truing.data.kinds import Shape, Ties
from truing.data.render import Rendered, Renderer, Turns
from truing.data.shapes import Shaped, shaped
from truing.errors import DataError, UserError
from truing.types import Demonstration, Records, RowNote


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
    ties: Ties = "refused",
) -> Planted:
    """Render every record into a tree of a `shape` (see `data.shapes`): `single` (one response a record), `pairs`, ...,
    or `text` (one response, and the prompt's tokens are learned too: pretraining).

    A prompt that leaves no room for a response within `max_length` tokens drops its row; a response that reaches over
    the limit is cut and loses its end token. Both are noted. Comparisons of responses that are the same once cut are
    left out. Of a conversation every assistant turn is learned, or with `turns: last` only the last one. A row that
    the template cannot write (a control token in its text), or that does not hold what the shape needs, is an error,
    or dropped with `on_bad_row: drop`.
    """
    trees: list[Tree] = []
    notes: list[RowNote] = []
    for row, record in zip(records.rows, records.records, strict=True):
        try:
            prompt, form = record.prompt, shaped(record, shape, ties)
            if turns == "last" and isinstance(record, Demonstration) and shape == "single":
                prompt, said = (*record.prompt, *record.response[:-1]), record.response[-1:]
                form = replace(form, sides=(replace(form.sides[0], response=said),))
            tools = record.meta.get("tools")
            rendered = [renderer.encode(prompt, side.response, tools=tools) for side in form.sides]
        except DataError as error:
            if on_bad_row == "drop":
                notes.append(RowNote(row, error.place, error.problem, "dropped"))
                continue
            place = f"{records.name}, row {row}" + (f", {error.place}" if error.place else "")
            raise DataError(place, error.problem, error.way_out) from error
        prompt_ids, branches = _cut_point(rendered, form, renderer, shape)
        room = max_length - len(prompt_ids)
        if room < 1:
            notes.append(RowNote(row, "prompt", f"longer than max_length {max_length}", "dropped"))
            continue
        tree = Tree(prompt_ids, tuple(_cut(b, room) for b in branches), len(trees), row, form.values, form.comparisons)
        distinct = _distinct(tree)
        if distinct is None:
            notes.append(RowNote(row, "responses", "are the same once cut to max_length", "dropped"))
            continue
        if not all(any(b.loss) for b in tree.branches):
            notes.append(RowNote(row, "response", "has no learned token within max_length", "dropped"))
            continue
        if shape == "steps" and not all(b.steps for b in tree.branches):
            notes.append(RowNote(row, "response", "has no labelled step within max_length", "dropped"))
            continue
        if form.ties_left_out:
            notes.append(RowNote(row, "comparisons", "some are ties, from which the objective does not learn", "kept"))
        if any(len(branch.ids) > room for branch in branches):
            notes.append(RowNote(row, "response", f"cut at max_length {max_length}", "truncated"))
        trees.append(distinct)
    if not trees:
        raise UserError(f"{records.name}: no row is left to train on. " + Planted((), tuple(notes)).text())
    return Planted(tuple(trees), tuple(notes))


def _cut_point(
    rendered: list[Rendered], form: Shaped, renderer: Renderer, shape: Shape
) -> tuple[tuple[int, ...], list[Branch]]:
    prompt = tuple(rendered[0].prompt_ids)
    if shape == "text":
        ids = (*prompt, *rendered[0].response_ids)
        return ids[:1], [Branch("response", ids[1:], (True,) * (len(ids) - 1))]
    branches = []
    for r, side in zip(rendered, form.sides, strict=True):
        if shape == "outcomes":
            steps = [(token, side.targets[""]) for token, learned in enumerate(r.loss_mask) if learned]
        else:
            ends = renderer.ends(r, [text for text, _ in side.steps])
            steps = [(end, label) for end, (_, label) in zip(ends, side.steps, strict=True)]
        branches.append(Branch(side.role, tuple(r.response_ids), tuple(r.loss_mask), side.targets, tuple(steps)))
    return prompt, branches


def _cut(branch: Branch, room: int) -> Branch:
    steps = tuple(step for step in branch.steps if step[0] < room)
    return replace(branch, ids=branch.ids[:room], loss=branch.loss[:room], steps=steps)


def _distinct(tree: Tree) -> Tree | None:
    """The tree without comparisons of equal branches; None where no row is left."""
    if not tree.pairs:
        return tree
    kept = tuple(pair for pair in tree.pairs if tree.branches[pair.better].ids != tree.branches[pair.worse].ids)
    if not kept:
        return None
    return replace(tree, comparisons=kept) if tree.comparisons else tree


def with_shadows(trees: Sequence[Tree], seed: int) -> tuple[Tree, ...]:
    """The trees, each with a `shadow`: its own prompt with the responses of another prompt's tree, drawn by `seed`.

    Shadows are numbered on from the last tree. UserError where all trees have one prompt.
    """
    order = np.random.Generator(np.random.Philox(key=[seed % 2**63, 1])).permutation(len(trees)).tolist()
    return tuple(replace(trees[i], shadow=_shadow(trees[i], donor, len(trees))) for i, donor in _donors(trees, order))


def _donors(trees: Sequence[Tree], order: list[int]) -> Iterator[tuple[int, Tree]]:
    """For every tree the next one in `order` that has another prompt."""
    place = {i: at for at, i in enumerate(order)}
    for i, tree in enumerate(trees):
        following = (trees[order[(place[i] + step) % len(order)]] for step in range(1, len(order)))
        donor = next((other for other in following if other.prompt != tree.prompt), None)
        if donor is None:
            raise UserError(
                f"row {tree.row}: its responses cannot be held against another prompt's, for there is none; the "
                "objective needs at least two prompts"
            )
        yield i, donor


def _shadow(tree: Tree, donor: Tree, count: int) -> Tree:
    lent = [donor.branches[k % len(donor.branches)] for k in range(len(tree.branches))]
    return Tree(tree.prompt, tuple(Branch("response", b.ids, b.loss) for b in lent), count + tree.index, tree.row)
