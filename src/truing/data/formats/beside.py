"""Columns beside those of a file's convention: read into the record, refused, or counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from truing.data.formats import bounds, cells, columns, marks
from truing.data.formats import conversation as talk
from truing.data.formats.conventions import LAST_UNLEARNED, UNLEARNED_END, VERDICTS, Convention, Record, Want
from truing.data.formats.files import Row
from truing.data.formats.nested import figures, nothing, texts
from truing.data.formats.oddities import Oddities, Unusable
from truing.data.formats.verdicts import Sides, Verdicts, turned
from truing.door import kind, shown
from truing.errors import DataError, short
from truing.records import ColumnNote, Demonstration, Message, Messages, prompt_id

UNREAD, KEPT = "not read", "kept for rewards that read them"
READ_AS = {
    1.0: "read as the verdict: the response mapped as chosen is the better one",
    0.0: "read as the verdict: the one mapped as rejected is better, so the two are swapped",
    0.5: "read as the verdict: a tie",
}
JOINED = "\n"
"""Between an instruction and its input, as LLaMA-Factory and Axolotl put them."""


@dataclass(frozen=True)
class Plan:
    """The roles of the other columns in rows with the same columns: `verdicts` may hold a verdict on two responses,
    which alone says which is better where `undecided`; `decides` change the record; `counted` are only counted."""

    verdicts: tuple[str, ...]
    undecided: bool
    says: Verdicts | None
    decides: tuple[tuple[str, str], ...]
    counted: tuple[str, ...]


class Beside:
    """Reader of the columns beside those of the `chosen` convention in the rows of one file.

    `mapped` says which column of the file plays which role, where the user has said so. With `keep` the columns that
    nothing else reads stay with the record.
    """

    def __init__(
        self,
        source: str,
        chosen: Convention,
        want: Want,
        mapped: Mapping[str, str],
        rows: Sequence[Row],
        keep: bool = False,
    ) -> None:
        self.keep = keep
        self.source, self.chosen, self.want, self.mapped, self.rows = source, chosen, want, mapped, rows
        self.asks = "instruction" if "instruction" in chosen.columns else "prompt"
        self.plain = chosen.columns == ("text",)
        self.judged = want != "prompts" and chosen.gives != "prompts"
        self.read: Counter[tuple[str, str]] = Counter()
        self.unread: Counter[str] = Counter()
        self.keys: Counter[str] = Counter()
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._verdicts: dict[tuple[str, ...], Verdicts] = {}
        self._by_meaning: Mapping[str, Callable[[Record, str, Any, Oddities], Record]] = {
            "system": self._system,
            "history": self._history,
            "addition": self._addition,
            "label": self._label,
            "mark": self._mark,
            "flag": self._mark,
        }

    def record(self, row: Row, odd: Oddities) -> Record:
        """The record of a row, with what stands beside the convention's columns.

        Raises Unusable for a column that changes the row and is not read, and DataError for one that no row of this
        file can be understood without.
        """
        keys = tuple(row)
        plan = self._plans.get(keys)
        if plan is None:
            plan = self._plans[keys] = self._plan(keys)
        if plan.verdicts:
            row = self._judged(row, plan, odd)
        record = self.chosen.read(self._with_turn_marks(row, plan) if plan.decides else row, odd)
        for name, what in plan.decides:
            if not nothing(row[name]):
                record = self._beside(record, name, what, row[name], odd)
        for name in plan.counted:
            if not marks.says_nothing(row[name]):
                self.unread[name] += 1
        if odd.keys:
            self.keys.update(odd.keys)
        return self._with_columns(record, row, plan) if self.keep and plan.counted else record

    def _with_columns(self, record: Record, row: Row, plan: Plan) -> Record:
        """The record with the columns that nothing else reads, for rewards that do (meta `columns`)."""
        more = {name: row[name] for name in plan.counted if row[name] is not None}
        there = record.meta.get("columns", {})
        return replace(record, meta={**record.meta, "columns": {**there, **more}}) if more else record

    def notes(self) -> tuple[ColumnNote, ...]:
        """Notes on how the columns were used, columns of the same use in one note."""
        rest = KEPT if self.chosen.gives == "prompts" or self.keep else UNREAD
        fates = [("column", name, what, n) for (name, what), n in self.read.items()]
        fates += [("column", name, rest, n) for name, n in self.unread.items()]
        fates += [("message key", name, UNREAD, n) for name, n in sorted(self.keys.items())]
        groups: dict[tuple[str, str, int], list[str]] = {}
        for sort, name, what, n in fates:
            groups.setdefault((sort, what, n), []).append(name)
        return tuple(ColumnNote(tuple(names), what, n, sort) for (sort, what, n), names in groups.items())

    def _plan(self, keys: tuple[str, ...]) -> Plan:
        undecided = self._undecided(keys)
        if "preference" in keys and "preference" not in self.mapped:
            self._check_preference()
        named = self.judged and "chosen" in self.chosen.columns and not set(VERDICTS) & set(keys)
        decides: list[tuple[str, str]] = []
        verdicts: list[str] = []
        for name in keys:
            own_verdict = undecided and name in ("label", "score", "scores") and name not in self.mapped
            if name in self.chosen.reads and not own_verdict:
                if self.plain and name in ("tools", "functions"):
                    decides.append((name, "tools beside text"))
                continue
            what: str = columns.meaning(name)
            if what in ("label", "mark", "flag") and not self.judged:
                what = ""
            if what == "label" and (self.chosen.gives != "demonstrations" or self.plain):
                what = ""
            if (undecided or named) and columns.is_verdict(name) and name in self._spoken:
                verdicts.append(name)
            elif what:
                decides.append((name, what))
        # Earlier turns stand behind the system message, so it is put there last.
        decides.sort(key=lambda entry: entry[1] == "system")
        other = {*verdicts, *(name for name, _ in decides), *self.chosen.reads}
        says = self._says(tuple(verdicts)) if verdicts and named else None
        counted = tuple(name for name in keys if name not in other)
        return Plan(tuple(verdicts), undecided, says, tuple(decides), counted)

    def _check_preference(self) -> None:
        """DataError where a preference of 0 and 1 stands beside responses mapped from columns called 0 and 1: it may be
        the probability that it is elsewhere, or the number of the better one, which is the opposite."""
        ends = [columns.words(self.mapped.get(role, role))[-1:] for role in ("chosen", "rejected")]
        values = {str(row["preference"]) for row in self.rows if not nothing(row.get("preference"))}
        if self.judged and sorted(ends) == [("0",), ("1",)] and values <= {"0", "1"}:
            raise DataError(
                self.source,
                f"column 'preference' of 0 and 1 beside {_mapping(self.mapped)} may be the number of the better "
                "response, or the probability that chosen is the better one",
                "If it is the probability, map it: columns: {preference: preference}. If it is the number, call the "
                "column better: it is then read as such.",
            )

    @cached_property
    def _spoken(self) -> frozenset[str]:
        """The columns that may hold a verdict, and do in some row."""
        return frozenset(
            name for row in self.rows for name in row if columns.is_verdict(name) and not nothing(row[name])
        )

    def _says(self, names: tuple[str, ...]) -> Verdicts:
        if names not in self._verdicts:
            sides = Sides(*(self.mapped.get(role, role) for role in ("chosen", "rejected")))
            self._verdicts[names] = Verdicts.of(sides, names, self.rows)
        return self._verdicts[names]

    def _undecided(self, keys: tuple[str, ...]) -> bool:
        """True if the user has mapped responses of equal standing and no column is read that says which is better."""
        if not self.judged:
            return False
        if "chosen" in self.chosen.columns:
            sides = [self.mapped.get(role, role) for role in ("chosen", "rejected")]
            return not any(map(columns.says_side, sides)) and not set(VERDICTS) & set(keys)
        mapped = [self.mapped[role] for role in ("response", "completion", "output") if role in self.mapped]
        unsided = [column for column in mapped if not columns.says_side(column)]
        return any(columns.siblings(column, keys) for column in unsided)

    def _beside(self, record: Record, name: str, what: str, value: Any, odd: Oddities) -> Record:
        read = self._by_meaning.get(what)
        if read is not None:
            return read(record, name, value, odd)
        if what == "media":
            raise Unusable(name, "is no text, and text is all that is read" + _way_out(name))
        if what == "tools beside text":
            if cells.tools(value, name):
                raise Unusable(name, "stands beside plain text, which takes no tools" + _way_out(name))
            return record
        raise Unusable(name, f"names tools under another name; say columns: {{tools: {name}}}" + _way_out(name))

    def _judged(self, row: Row, plan: Plan, odd: Oddities) -> Row:
        """The row with the better of its two responses as chosen, by the verdict columns that are read for certain; the
        others are counted, or stop the run where none is read."""
        spoken = [name for name in plan.verdicts if not nothing(row[name])]
        probabilities = plan.says.read(row) if plan.says is not None else {}
        if plan.undecided and not probabilities and spoken:
            if plan.says is None or not any(plan.says.read(other) for other in self.rows):
                raise self._unread_verdict(spoken[0])
            raise Unusable(spoken[0], f"is {shown(row[spoken[0]])}, which names neither response and no tie")
        if plan.undecided and not probabilities:
            raise Unusable(plan.verdicts[0], "is empty, so it is not known which response is better")
        if len(set(probabilities.values())) > 1:
            raise Unusable(" and ".join(probabilities), "contradict each other: which response is better is not known")
        for name in spoken:
            if not any(name in names.split(", ") for names in probabilities):
                self.unread[name] += 1
        for names, better in probabilities.items():
            if plan.undecided:
                self.read[names, READ_AS[better]] += 1
            elif better == 0.0:
                raise Unusable(names, "says that rejected is the better response" + _way_out(names.split(", ")[0]))
            elif better == 0.5:
                odd.add(names, "is the same for both responses, and one of them is the chosen one", "kept")
            else:
                self.unread.update(names.split(", "))
        return turned(row, next(iter(probabilities.values()))) if plan.undecided else row

    def _unread_verdict(self, name: str) -> DataError:
        return DataError(
            self.source,
            f"column '{short(name)}' may say which response is better, and nobody reads it: "
            f"{_mapping(self.mapped)} would be taken for true in every row",
            "It is read where it names the two as their columns do (a, b, tie beside response_a and response_b). Else "
            "map a column with the probability that chosen is the better one (1, 0, or 0.5 for a tie) as preference, "
            "or write the better response of every row as chosen" + _way_out(name, ". "),
        )

    def _system(self, record: Record, name: str, value: Any, odd: Oddities) -> Record:
        text = talk.words(value, name, odd) if isinstance(value, list | tuple) else talk.text(value, name)
        if self._stands(record, text, name):
            return record
        first = record.prompt[0]
        if first.role == "system":
            if first.content.strip() != text.strip():
                raise Unusable(name, "is another system message than the one that the conversation begins with")
            return record
        self.read[name, "read as the system message"] += 1
        return _asking(record, (Message("system", text), *record.prompt))

    def _history(self, record: Record, name: str, value: Any, odd: Oddities) -> Record:
        turns = earlier(value, name, odd)
        if self._stands(record, " ".join(m.content for m in turns), name):
            return record
        lead = 1 if record.prompt[0].role == "system" else 0
        if record.prompt[lead : lead + len(turns)] == turns or record.prompt[: len(turns)] == turns:
            return record
        self.read[name, "read as earlier turns, which are not learned"] += 1
        whole = (*record.prompt[:lead], *turns, *record.prompt[lead:])
        return _asking(record, talk.checked_prompt(whole, name, odd))

    def _addition(self, record: Record, name: str, value: Any, odd: Oddities) -> Record:
        word, prompt_column = marks.snake(name), marks.snake(self.mapped.get(self.asks, self.asks))
        behind, before = word in columns.INPUTS, word in columns.INSTRUCTIONS
        alpaca = (behind and prompt_column in columns.INSTRUCTIONS) or (before and prompt_column in columns.INPUTS)
        if alpaca and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and alpaca and record.prompt:
            self.read[name, "joined to the prompt"] += 1
            *rest, last = record.prompt
            parts = (last.content, value) if behind else (value, last.content)
            return _asking(record, (*rest, Message(last.role, JOINED.join(parts))))
        words = list(texts(value)) or list(figures(value))
        if self._stands(record, " ".join(words), name):
            return record
        turns = [m.content for m in conversation(record)]
        if all(_within(text, turns) for text in words):
            return record
        raise Unusable(
            name,
            "is not a part of the prompt, and how it belongs to it is not known; join the two in the file, "
            f"or map the instruction as prompt: columns: {{prompt: instruction}}{_way_out(name)}",
        )

    def _stands(self, record: Record, text: str, name: str) -> bool:
        """Return whether the record is plain text that holds these words; Unusable for plain text that does not hold
        them, since it has no prompt to put them into."""
        if not self.plain:
            return False
        if not _within(text, [m.content for m in conversation(record)]):
            raise Unusable(name, "stands beside plain text, which has no prompt to hold it" + _way_out(name))
        return True

    def _label(self, record: Record, name: str, value: Any, odd: Oddities) -> Record:
        word = marks.snake(name)
        if word in columns.FLAGS and not marks.is_flag(value):
            self.unread[name] += 1
            return record
        try:
            desirable = cells.boolean(value, name) != (word in columns.AGAINST)
        except Unusable as why:
            if name == "label":
                raise Unusable(name, why.problem + _way_out(name)) from None
            self.unread[name] += 1
            return record
        if not desirable:
            raise Unusable(name, "the response is labelled undesirable, so it is no demonstration")
        if any(problem == UNLEARNED_END for _, problem, _ in odd.notes):
            raise Unusable(name, LAST_UNLEARNED)
        self.read[name, "read as the verdict on the response"] += 1
        return record

    def _mark(self, record: Record, name: str, value: Any, odd: Oddities) -> Record:
        word = marks.snake(name)
        if columns.meaning(name) == "flag" and not (isinstance(value, bool) or value in (0, 1)):
            self.unread[name] += 1
            return record
        if isinstance(value, list | tuple):
            self.read[name, "read as marks of the turns"] += 1
            return record
        if marks.yes(value, name) == (word in marks.HIDDEN):
            raise Unusable(name, "says that the row is not to be learned from; leave it out" + _way_out(name))
        return record

    def _with_turn_marks(self, row: Row, plan: Plan) -> Row:
        """The row with marks that stand in a list, one for each message, on the messages themselves."""
        for name, what in plan.decides:
            value = row[name]
            if what not in ("mark", "flag") or not isinstance(value, list | tuple) or not value:
                continue
            spoken = next((c for c in ("messages", "conversations") if isinstance(row.get(c), list | tuple)), "")
            if not spoken or spoken not in self.chosen.columns:
                raise Unusable(name, "is a list, and marks of turns stand beside messages" + _way_out(name))
            turns = row[spoken]
            if len(value) != len(turns):
                raise Unusable(name, f"has {len(value)} entries for {len(turns)} messages" + _way_out(name))
            marked = [
                {**turn, name: mark} if isinstance(turn, Mapping) and _is_assistant(turn) else turn
                for turn, mark in zip(turns, value, strict=True)
            ]
            row = {**row, spoken: marked}
        return row


def _is_assistant(turn: Mapping[str, Any]) -> bool:
    return talk.SHAREGPT.get(str(turn.get("role", turn.get("from")))) == "assistant"


def earlier(value: Any, name: str, odd: Oddities) -> Messages:
    """Turns before the prompt: [user, assistant] pairs, or messages; also as the JSON text of a list."""
    if isinstance(value, str):
        try:
            value = bounds.parse(value)
        except ValueError:
            raise Unusable(name, "is text, not a list of earlier turns" + _way_out(name)) from None
    if not isinstance(value, list | tuple):
        raise Unusable(name, f"is {kind(value)}, not a list of earlier turns" + _way_out(name))
    if all(isinstance(turn, Mapping) for turn in value):
        return talk.unmarked(talk.messages(value, name, odd))
    if not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in value):
        raise Unusable(name, "is neither a list of [user, assistant] pairs nor one of messages" + _way_out(name))
    roles = ("user", "assistant")
    return tuple(
        Message(role, talk.text(content, f"{name}[{i}][{side}]"))
        for i, turn in enumerate(value)
        for side, (role, content) in enumerate(zip(roles, turn, strict=True))
    )


def _asking(record: Record, prompt: Messages) -> Record:
    """The record with another prompt."""
    if isinstance(record, Demonstration):
        return replace(record, prompt=prompt)
    return replace(record, prompt=prompt, prompt_id=prompt_id(prompt))


def conversation(record: Record) -> Iterator[Message]:
    """Messages of a record's prompt, with the turns of its response where there are several; of plain text the text."""
    yield from record.prompt
    if isinstance(record, Demonstration) and (len(record.response) > 1 or not record.prompt):
        yield from record.response


def _within(text: str, texts: list[str]) -> bool:
    """True if the joined texts contain the words, whitespace aside."""
    return f" {' '.join(text.split())} " in f" {' '.join(' '.join(texts).split())} "


def _mapping(mapped: Mapping[str, str]) -> str:
    roles = ", ".join(f"{role}: {name}" for role, name in mapped.items() if role != "prompt")
    return f"columns: {{{roles}}}"


def _way_out(name: str, before: str = "; ") -> str:
    return f"{before}columns: {{{name}: null}} leaves the column out"
