"""Load a data set: rows of any accepted convention become records, and every odd row is accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from truing import seals
from truing.data.formats import column_hints, files, written
from truing.data.formats.beside import Beside
from truing.data.formats.conventions import META, ROLES, SAFE, Record, Turns, Want, as_demonstration
from truing.data.formats.marks import says_nothing
from truing.data.formats.oddities import Oddities, Unusable
from truing.data.formats.recognise import find
from truing.data.thoughts import joined, parted
from truing.errors import DataError, UserError, listed, one_line, short, unknown
from truing.records import (
    ColumnNote,
    Demonstration,
    Messages,
    Records,
    RowNote,
    digest,
    marked_json,
    messages_json,
    prompt_id,
)

SHOWN = 20


def load(
    source: str,
    *,
    want: Want = "any",
    on_bad_row: Literal["error", "drop"] = "error",
    columns: Mapping[str, str | None] | None = None,
    turns: Turns = "all",
    unmarked: bool = False,
    first: int | None = None,
    keep: bool = False,
) -> Records:
    """Read a file or Hub data set into records.

    `want` says which kind is asked for: `pairs` (judgements of any kind), `demonstrations`, or `prompts` (rows of any
    kind, with a response or without). `columns` says which column of the file plays which role (`{"prompt": "question",
    "response": "answer"}`), and by None which one is not to be read (`{"winner": None}`). `turns` says whether a
    conversation teaches every assistant turn or its last one only; `unmarked` that nothing is learned, so that marks of
    what is (`weight: 0`) play no part; `keep` that columns which no convention reads stay with rows that have a
    response too, for rewards that read them. A row that cannot be used is an error that names row and field, all of
    them at once; with `on_bad_row="drop"` it is left out and noted. With `first` only so many rows
    are read. UserError for a file of a run's stage that was changed since the stage left it.
    """
    for name, value, accepted in (
        ("want", want, get_args(Want)),
        ("on_bad_row", on_bad_row, ("error", "drop")),
        ("turns", turns, ("last", "all")),
    ):
        if value not in accepted:
            raise UserError(unknown(f"value of {name}", value, accepted))
    seals.check_file(Path(source))
    bad: list[tuple[int, str, str]] = []
    read = list(islice(files.rows(source, lambda row, field, problem: bad.append((row, field, problem))), first))
    found_columns = list(dict.fromkeys(str(name) for _, row in read for name in row))
    hidden: tuple[ColumnNote, ...] = ()
    if columns:
        read, found_columns, hidden = _renamed(source, read, found_columns, columns)
    beside: Beside | None = None
    records: list[Record] = []
    rows: list[int] = []
    notes: list[RowNote] = []
    if read:
        mapped = {role: name for role, name in (columns or {}).items() if name is not None}
        beside = Beside(source, find(source, found_columns, want), want, mapped, [row for _, row in read], keep)
        records, rows, notes = _records(beside, read, bad, turns, unmarked)
    bad.sort()
    if bad and on_bad_row == "error":
        raise _bad_rows(source, bad)
    if not records:
        raise DataError(source, f"no usable row is left: all {len(bad)} were dropped", _list(source, bad))
    notes += [RowNote(row, field, problem, "dropped") for row, field, problem in bad]
    notes.sort(key=lambda note: note.row)
    fates = (*(beside.notes() if beside else ()), *hidden)
    return Records(Path(source).name, tuple(records), tuple(rows), tuple(notes), content_digest(records), fates)


def without_tools(records: Records) -> Records:
    """The same records; DataError for a row that names tools, where prompts are sampled from: none of them is given
    tools."""
    for row, record in zip(records.rows, records.records, strict=True):
        if "tools" in record.meta:
            raise DataError(
                files.place(records.name, row, "tools"),
                "names tools, and a prompt is answered without any",
                "Leave the row out, or the column: columns: {tools: null}",
            )
    return records


def content_digest(records: Iterable[Record]) -> str:
    """A content hash of records in their order: equal words, roles and verdicts give an equal hash."""
    return digest([record_json(record) for record in records])


def record_json(record: Record) -> dict[str, Any]:
    """A record's content as plain data."""
    if isinstance(record, Demonstration):
        return {
            "prompt": messages_json(record.prompt),
            "response": marked_json(record.response),
            "meta": dict(record.meta),
        }
    verdict = record.verdict
    return {
        "prompt": messages_json(record.prompt),
        "responses": [marked_json(response) for response in record.responses],
        "verdict": [verdict.kind, verdict.value, verdict.probability],
        "strength": record.strength,
        "rater": record.rater,
        "meta": dict(record.meta),
    }


def as_row(record: Record) -> dict[str, Any]:
    """A record as a row of a file, in the columns of the conventions; UserError where none of them can hold it.

    Read again it is the same record, but for what only its maker knew of it (generators, rater, the rest of meta).
    """
    meta = {name: record.meta[name] for name in (*META, *SAFE) if name in record.meta}
    meta = dict(record.meta.get("columns", {})) | meta
    if isinstance(record, Demonstration):
        if record.meta.get("plain"):
            return {"text": record.response[0].content} | meta
        return _columns(record.prompt, {"response": _spoken(record.response)} if record.response else {}) | meta
    responses, verdict = [_spoken(response) for response in record.responses], record.verdict
    kind, value, alone = verdict.kind, verdict.value, len(responses) == 1
    if kind in ("choice", "tie") and len(responses) == 2:
        first = value if kind == "choice" else 0
        fields: dict[str, Any] = {"chosen": responses[first], "rejected": responses[1 - first]}
        more = {"margin": record.strength, "preference": verdict.probability, "tie": kind == "tie" or None}
        fields |= {name: value for name, value in more.items() if value is not None}
    elif kind == "score" and alone:
        fields = {"response": responses[0], "scores" if isinstance(value[0], Mapping) else "score": value[0]}
    elif kind in ("score", "ranking", "comparisons"):
        fields = {"responses": responses, "scores" if kind == "score" else kind: value}
    elif kind == "steps" and alone:
        fields = {"completions": record.meta["steps"], "ratings": value[0]}
    else:
        raise UserError(f"a {kind} among {len(responses)} responses has no columns that a file could hold it in")
    return _columns(record.prompt, fields) | meta


def _columns(prompt: Messages, more: Mapping[str, Any]) -> dict[str, Any]:
    return {"prompt": _spoken(prompt), **more}


def _spoken(messages: Messages) -> list[dict[str, Any]]:
    """Messages as a file holds them, with a thought that stood apart in a key of its own again."""
    rows = marked_json(messages)
    for row, message in zip(rows, messages, strict=True):
        parts = parted(message.content)
        if message.apart and joined(thought := str(parts.thought), parts.answer) == message.content:
            row |= {"content": parts.answer.lstrip("\n"), "reasoning_content": thought.strip("\n")}
    return rows


def summary(records: Records) -> dict[str, Any]:
    """Counts of rows read and usable, and the notes on odd ones: the form that a stage's summary.json keeps."""
    dropped = {note.row for note in records.notes if note.action == "dropped"}
    notes = sorted(grouped(records.notes), key=lambda note: (-note["count"], note["field"], note["problem"]))
    counts = {"file": records.name, "read": len(records) + len(dropped), "usable": len(records)}
    return counts | {"notes": notes, "columns": [note.text for note in records.columns]}


def grouped(notes: Iterable[RowNote]) -> list[dict[str, Any]]:
    """Notes by field, problem and action, in the order met, with how many rows each is about and which."""
    groups: dict[tuple[str, str, str], set[int]] = {}
    for note in notes:
        problem = "duplicate of an earlier row" if note.problem.startswith("duplicate of row") else note.problem
        groups.setdefault((note.field, problem, note.action), set()).add(note.row)
    return [
        {"field": field, "problem": problem, "action": action, "count": len(rows), "rows": sorted(rows)}
        for (field, problem, action), rows in groups.items()
    ]


def describe(records: Records, *, columns: bool = True) -> str:
    """The summary as lines to print, with what became of other `columns` unless that has been said already."""
    facts = summary(records)
    lines = [f"{one_line(facts['file'])}: {facts['read']} rows read, {facts['usable']} usable"]
    for note in facts["notes"]:
        rows, field = note["rows"], f"{note['field']} " if note["field"] else ""
        lines.append(f"  {note['action']} {len(rows)}: {one_line(field + note['problem'])} ({_row_list(rows)})")
    return "\n".join([*lines, *(f"  {one_line(note.text)}" for note in records.columns if columns)])


def _row_list(rows: list[int]) -> str:
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:SHOWN]))}{more}"


def _records(
    beside: Beside, read: list[tuple[int, files.Row]], bad: list[tuple[int, str, str]], turns: Turns, unmarked: bool
) -> tuple[list[Record], list[int], list[RowNote]]:
    records: list[Record] = []
    rows: list[int] = []
    notes: list[RowNote] = []
    first_rows: dict[str, int] = {}
    named: dict[str, str] = {}
    turns_of_rows = written.Turns([row for _, row in read])
    for number, row in read:
        odd = Oddities(unmarked=unmarked)
        try:
            record = _record(beside, turns_of_rows.row(written.unpacked(row), odd), odd)
        except Unusable as why:
            bad.append((number, why.field, why.problem))
            continue
        if turns == "last" and isinstance(record, Demonstration) and len(record.response) > 1:
            record = as_demonstration(record.prompt + record.response, "last", record.meta)
        if (first := first_rows.setdefault(digest(record_json(record)), number)) != number:
            odd.add("", f"duplicate of row {first}", "kept")
        written_id, prompt = str(record.meta.get("prompt_id", "")), ""
        if written_id:  # a judgement has its own hash of the prompt already
            prompt = prompt_id(record.prompt) if isinstance(record, Demonstration) else record.prompt_id
        if written_id and named.setdefault(written_id, prompt) != prompt:
            odd.add("prompt_id", "is that of an earlier row with another prompt", "kept")
        notes += [RowNote(number, field, problem, action) for field, problem, action in odd.notes]
        records.append(record)
        rows.append(number)
    return records, rows, notes


def _record(beside: Beside, row: files.Row, odd: Oddities) -> Record:
    chosen = beside.chosen
    missing = [name for name in chosen.columns if name not in row]
    if missing:
        raise Unusable(missing[0], _absent(missing[0], tuple(row), chosen.columns))
    return beside.record(row, odd)


@lru_cache(maxsize=256)
def _absent(name: str, columns: tuple[str, ...], expected: tuple[str, ...]) -> str:
    """The problem of a row without a column; cached, since the rows of a file lack the same ones, and searching for a
    similar name takes longer than reading a row."""
    guess = column_hints.match(name, [column for column in columns if column not in expected])
    hint = f"; did you mean '{short(guess)}'" if guess else ""
    return f"missing column '{name}' (found columns: {listed(columns, SHOWN) or 'none'}{hint})"


def _renamed(
    source: str, read: list[tuple[int, files.Row]], column_names: list[str], columns: Mapping[str, str | None]
) -> tuple[list[tuple[int, files.Row]], list[str], tuple[ColumnNote, ...]]:
    """Rows and columns by their roles, without the columns that are not to be read; and what became of these."""
    for name, actual in columns.items():
        if actual is not None and name not in ROLES:
            raise UserError(f"columns: {column_hints.unknown_role(name, actual)}")
        if (actual or name) not in column_names:
            raise DataError(source, f"columns: {unknown('column', actual or name, column_names)}")
    names = {actual: name for name, actual in columns.items() if actual is not None}
    hidden = set(columns) - set(names)

    def rename(row: files.Row) -> files.Row:
        return {names.get(name, name): value for name, value in row.items() if name not in hidden}

    fates = []
    for name in sorted(hidden & set(column_names)):
        rows = sum(not says_nothing(row.get(name)) for _, row in read)
        unread = columns[name] is None
        fates.append(ColumnNote((name,), "not read, as asked" if unread else f"not read: '{columns[name]}' is", rows))
    renamed = [(number, rename(row)) for number, row in read]
    return renamed, [names.get(n, n) for n in column_names if n not in hidden], tuple(fates)


def _bad_rows(source: str, bad: list[tuple[int, str, str]]) -> DataError:
    if len(bad) == 1:
        row, field, problem = bad[0]
        return DataError(files.place(source, row, field), problem, "Mend the row, or set on_bad_row: drop")
    return DataError(
        source,
        f"{len(bad)} rows cannot be used\n{_list(source, bad)}",
        "Mend the rows, or set on_bad_row: drop",
    )


def _list(source: str, bad: list[tuple[int, str, str]]) -> str:
    name = Path(source).name
    lines = [f"  {files.place(name, row, field)}: {problem}" for row, field, problem in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  and {len(bad) - SHOWN} more")
    return "\n".join(lines)


__all__ = [
    "as_demonstration",
    "as_row",
    "content_digest",
    "describe",
    "grouped",
    "load",
    "record_json",
    "summary",
    "without_tools",
]
