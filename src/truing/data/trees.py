"""From records to trees: rendering, the length limit, and an account of every row that was cut or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from truing.data.batch import Branch, Tree
from truing.data.formats.loading import grouped
from truing.data.kinds import Shape, Ties
from truing.data.rendering.render import Rendered, Renderer, Turns
from truing.data.rendering.whole_conversation import common
from truing.data.shapes import Shaped, shaped
from truing.data.thoughts import Thoughts
from truing.errors import DataError, UserError
from truing.records import Demonstration, Judgement, Messages, Records, RowNote
from truing.streams import Stream, generator

THOUGHT_OUT = "its thought is taken out by the chat template"
"""Note on a response that is read without its thought."""


@dataclass(frozen=True)
class TreeDataset:
    """Trees of a data set, notes on its rows, and the data set's name."""

    trees: tuple[Tree, ...]
    notes: tuple[RowNote, ...]
    name: str = ""

    def text(self) -> str:
        """One line for people, printed before training.

        >>> TreeDataset((), (RowNote(3, "prompt", "longer than max_length", "dropped"),)).text()
        'kept 0 rows, truncated 0, dropped 1 (prompt longer than max_length: row 3)'
        """
        actions = Counter(note.action for note in self.notes)
        counts = f"kept {len(self.trees)} rows, truncated {actions['truncated']}, dropped {actions['dropped']}"
        parts = [f"{_problem(note)}: {_some(note['rows'])}" for note in grouped(self.notes)]
        return counts + (f" ({'; '.join(parts)})" if parts else "")


def _problem(note: Mapping[str, Any]) -> str:
    return f"{note['field']} {note['problem']}".strip()


def _some(rows: list[int]) -> str:
    more = f" and {len(rows) - 10} more" if len(rows) > 10 else ""
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:10]))}{more}"


def build_trees(
    records: Records,
    renderer: Renderer,
    *,
    max_length: int,
    shape: Shape,
    on_bad_row: Literal["error", "drop"] = "error",
    turns: Turns = "all",
    ties: Ties = "refused",
    thoughts: Thoughts = "learn",
    alike: Literal["left out", "kept"] = "left out",
) -> TreeDataset:
    """Render every record into a tree of a `shape` (see `data.shapes`): `single` (one response a record), `pairs`, ...,
    or `text` (one response, and the prompt's tokens are learned too: pretraining).

    A prompt that leaves no room for a response within `max_length` tokens drops its row; a response that reaches over
    the limit is cut and loses its end token. Both are noted. Comparisons of responses that are the same once cut are
    left out; of equal responses of a ranking the best place counts, and a response called both desirable and
    undesirable is left out. Where labels are wanted, a score other than 0 and 1 is an error of the whole data. Of a
    conversation every assistant turn is learned, or with `turns: last` only the last one; with `thoughts: mask` without
    its thought. A response whose thought the template takes out is read without it, and noted; where nothing is
    learned, responses that are then the same may be `kept`. A row that the template cannot write (a control token in
    its text), or that does not hold what the shape needs, is an error, or dropped with `on_bad_row: drop`.
    """
    trees: list[Tree] = []
    notes: list[RowNote] = []
    refused: list[tuple[int, DataError]] = []
    _check_labels(records, shape)
    for row, record in zip(records.rows, records.records, strict=True):
        try:
            prompt, form = _context(record, shaped(record, shape, ties), turns if shape == "single" else "all")
            tools = record.meta.get("tools")
            rendered = [renderer.encode(prompt, side.response, tools=tools, thoughts=thoughts) for side in form.sides]
        except DataError as error:
            if on_bad_row == "drop":
                notes.append(RowNote(row, error.place, error.problem, "dropped"))
            else:
                refused.append((row, error))
            continue
        prompt_ids, branches = _cut_point(rendered, form, renderer, shape)
        if (room := max_length - len(prompt_ids)) < 1:
            notes.append(RowNote(row, "prompt", f"longer than max_length {max_length}", "dropped"))
            continue
        tree = Tree(prompt_ids, tuple(_cut(b, room) for b in branches), len(trees), row, form.values, form.comparisons)
        distinct, since = tree if alike == "kept" else _distinct(tree, shape), _since(tree, branches, rendered)
        if distinct is None:
            notes.append(RowNote(row, "responses", f"are the same {since}", "dropped"))
            continue
        if missing := _missing(tree, shape):
            notes.append(RowNote(row, "response", f"has no {missing} within max_length", "dropped"))
            continue
        notes += _left_out(tree, distinct, form, rendered, since)
        if any(len(branch.ids) > room for branch in branches):
            notes.append(RowNote(row, "response", f"cut at max_length {max_length}", "truncated"))
        trees.append(distinct)
    if refused:
        raise _refusal(records, refused)
    if not trees:
        raise UserError(f"{records.name}: no row is left to train on. " + TreeDataset((), tuple(notes)).text())
    return TreeDataset(tuple(trees), tuple(notes), records.name)


def _refusal(records: Records, refused: Sequence[tuple[int, DataError]]) -> DataError:
    """The first of the rows that cannot be written, and how many they are of all."""
    row, error = refused[0]
    share = f"{len(refused):,} of {len(records):,} rows cannot be used."
    place = f"{records.name}, row {row}" + (f", {error.place}" if error.place else "")
    return DataError(place, error.problem, f"{error.way_out}\n  {share}" if error.way_out else share)


def _context(record: Demonstration | Judgement, form: Shaped, turns: Turns) -> tuple[Messages, Shaped]:
    """The messages before the responses; of a demonstration, where `turns` is `last`, all but its last response."""
    if turns == "all" or not isinstance(record, Demonstration):
        return record.prompt, form
    last = replace(form.sides[0], response=record.response[-1:])
    return (*record.prompt, *record.response[:-1]), replace(form, sides=(last,))


def _cut_point(
    rendered: list[Rendered], form: Shaped, renderer: Renderer, shape: Shape
) -> tuple[tuple[int, ...], list[Branch]]:
    if shape == "text":
        ids = (*rendered[0].prompt_ids, *rendered[0].response_ids)
        return tuple(ids[:1]), [Branch("response", ids[1:], (True,) * (len(ids) - 1))]
    prompt, rendered = shared_prompt(rendered)
    branches = []
    for r, side in zip(rendered, form.sides, strict=True):
        if shape == "outcomes":  # the last token too, learned or not: a reward is read there
            last = len(r.response_ids) - 1
            taught = [token for token, learned in enumerate(r.loss_mask) if learned or token == last]
            steps = [(token, side.targets[""]) for token in taught]
        else:
            ends = renderer.ends(r, [text for text, _ in side.steps])
            steps = [(end, label) for end, (_, label) in zip(ends, side.steps, strict=True)]
        branches.append(Branch(side.role, tuple(r.response_ids), tuple(r.loss_mask), side.targets, tuple(steps)))
    return prompt, branches


def shared_prompt(rendered: Sequence[Rendered]) -> tuple[tuple[int, ...], list[Rendered]]:
    """The ids that the prompts of these begin with together, and each with what follows them as its response.

    >>> prompt, two = shared_prompt([Rendered([1, 2], [3], [True]), Rendered([1, 4], [5], [True])])
    >>> prompt, two[1].response_ids, two[1].loss_mask
    ((1,), [4, 5], [False, True])
    """
    same = common([r.prompt_ids for r in rendered])
    out = []
    for r in rendered:
        moved = r.prompt_ids[same:]
        out.append(Rendered(r.prompt_ids[:same], [*moved, *r.response_ids], [False] * len(moved) + r.loss_mask))
    return tuple(rendered[0].prompt_ids[:same]), out


def _cut(branch: Branch, room: int) -> Branch:
    steps = tuple(step for step in branch.steps if step[0] < room)
    return replace(branch, ids=branch.ids[:room], loss=branch.loss[:room], steps=steps)


def _missing(tree: Tree, shape: Shape) -> str:
    if not all(any(b.loss) for b in tree.branches):
        return "learned token"
    return "labelled step" if shape == "steps" and not all(b.steps for b in tree.branches) else ""


def _since(tree: Tree, branches: Sequence[Branch], rendered: Sequence[Rendered]) -> str:
    """Why responses that differ in the data are the same in a tree, if some are; its `branches` are those uncut."""
    if any(len(short.ids) < len(whole.ids) for short, whole in zip(tree.branches, branches, strict=True)):
        return "once cut to max_length"
    if any(r.unread for r in rendered):
        return "once the chat template has taken their thoughts out"
    return "as the chat template writes them"


def _left_out(tree: Tree, distinct: Tree, form: Shaped, rendered: Sequence[Rendered], since: str) -> Iterator[RowNote]:
    if any(r.unread for r in rendered):
        yield RowNote(tree.row, "response", THOUGHT_OUT, "kept")
    if len(distinct.branches) < len(tree.branches):
        yield RowNote(tree.row, "responses", f"some are the same {since}; left out", "kept")
    if form.ties_left_out:
        yield RowNote(tree.row, "comparisons", "some are ties, from which the objective does not learn", "kept")


def _check_labels(records: Records, shape: Shape) -> None:
    """DataError where labels are wanted and some score of the data is neither 0 nor 1: then none of them is a label."""
    if shape not in ("single", "labelled", "outcomes"):
        return
    for row, record in zip(records.rows, records.records, strict=True):
        if isinstance(record, Demonstration) or record.verdict.kind != "score":
            continue
        for score in record.verdict.value:
            if not isinstance(score, Mapping) and score not in (0, 1):
                raise DataError(
                    f"{records.name}, row {row}",
                    f"the score {score:g} is no label: 1 (desirable) or 0 (undesirable)",
                    "No score of this data is taken for a label: give labels, or train an objective that reads scores",
                )


def _distinct(tree: Tree, shape: Shape) -> Tree | None:
    """The tree without comparisons of equal branches, equal responses of a ranking after the best of them, and
    responses of both labels; None where no row is left."""
    if shape == "ranked":
        first = {branch.ids: branch for branch in reversed(tree.branches)}
        ranked = tuple(branch for branch in tree.branches if first[branch.ids] is branch)
        return replace(tree, branches=ranked) if len(ranked) > 1 else None
    if shape == "labelled":
        roles = {(branch.ids, branch.role) for branch in tree.branches}
        both = {ids for ids, role in roles if role == "desirable"} & {ids for ids, role in roles if role != "desirable"}
        sure = tuple(branch for branch in tree.branches if branch.ids not in both)
        return replace(tree, branches=sure) if sure else None
    if not tree.pairs:
        return tree
    distinct = tuple(pair for pair in tree.pairs if tree.branches[pair.better].ids != tree.branches[pair.worse].ids)
    if not distinct:
        return None
    return replace(tree, comparisons=distinct) if tree.comparisons else tree


def with_shadows(trees: Sequence[Tree], seed: int, max_length: int) -> tuple[Tree, ...]:
    """The trees, each with a `shadow`: its own prompt with the responses of another prompt's tree, drawn by `seed` and
    cut to `max_length` tokens with the prompt; responses of which no learned token would be left are not lent.

    Shadows are numbered on from the last tree. UserError where all trees have one prompt, or no response fits.
    """
    order = generator(Stream.LENT_RESPONSES, seed).permutation(len(trees)).tolist()
    lent = _lent(trees, order, max_length)
    pairs = zip(trees, lent, strict=True)
    return tuple(replace(tree, shadow=_shadow(tree, branches, len(trees))) for tree, branches in pairs)


def _lent(trees: Sequence[Tree], order: list[int], max_length: int) -> Iterator[tuple[Branch, ...]]:
    """For every tree the responses, cut, of the next one in `order` that has another prompt and some that fit."""
    place = {i: at for at, i in enumerate(order)}
    for i, tree in enumerate(trees):
        following = (trees[order[(place[i] + step) % len(order)]] for step in range(1, len(order)))
        room = max_length - len(tree.prompt)
        donors = (_learned(other, room) for other in following if other.prompt != tree.prompt)
        branches = next(filter(None, donors), None)
        if branches is None:
            raise UserError(
                f"row {tree.row}: no response to another prompt can be put after its prompt within max_length "
                f"{max_length}; the objective needs at least two prompts in the data"
            )
        yield branches


def _learned(tree: Tree, room: int) -> tuple[Branch, ...]:
    """Its responses cut to so many tokens, without those of which nothing learned is left."""
    return tuple(cut for cut in (_cut(branch, room) for branch in tree.branches) if any(cut.loss))


def _shadow(tree: Tree, branches: Sequence[Branch], count: int) -> Tree:
    lent = [branches[k % len(branches)] for k in range(len(tree.branches))]
    return Tree(tree.prompt, tuple(Branch("response", b.ids, b.loss) for b in lent), count + tree.index, tree.row)
