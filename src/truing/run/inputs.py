"""The data that a command reads (`split`, `score`, `sample`), with the options that a recipe has for it under the same
names: rows that cannot be used, and columns that are called otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from truing import door, terminal, world
from truing.data.formats import bounds, column_hints, file_nature, files, loading
from truing.data.formats.conventions import ROLES, Want
from truing.data.formats.loading import without_tools
from truing.errors import DataError, UserError, short
from truing.records import Message, Messages, Records
from truing.yaml_text import reading

OnBadRow: TypeAlias = Literal["error", "drop"]


@dataclass(frozen=True)
class Reading:
    """Options for the data of a command: what becomes of rows that cannot be used, and which column plays which
    role."""

    on_bad_row: OnBadRow = "error"
    columns: Mapping[str, str | None] | None = None

    @staticmethod
    def of(on_bad_row: OnBadRow = "error", columns: Sequence[str] | None = None) -> Reading:
        """Read the options of a command line: of `--columns` each `ROLE=COLUMN` or `COLUMN=null`, or the mapping as a
        recipe writes it."""
        named: dict[str, str | None] = {}
        for text in columns or ():
            for role, column in _entries(text):
                if role in named:
                    raise UserError(f"--columns names '{short(role)}' twice")
                named[role] = column
        strange = next((role for role, column in named.items() if column is not None and role not in ROLES), None)
        if strange is not None:
            raise UserError(f"--columns: {column_hints.unknown_role(strange, named[strange])}")
        return Reading(on_bad_row, named or None)

    def check(self, data: str) -> None:
        """UserError where `columns` would play no part: the world's data and lines of text have none to map."""
        if self.columns and (data.startswith("world:") or data.endswith(".txt")):
            raise UserError(f"--columns has no effect on {short(data)}: there are no columns of a file to map")

    def records(self, name: str, want: Want = "any", *, unmarked: bool = False) -> Records:
        """A data set by file, Hub name or world name. With `unmarked` marks of learning play no part."""
        self.check(name)
        if name.startswith("world:"):
            return world.records(name)
        return loading.load(name, want=want, on_bad_row=self.on_bad_row, columns=self.columns, unmarked=unmarked)

    def reported(self, name: str, want: Want = "any", *, unmarked: bool = False) -> Records:
        """Return the same records, and report on stderr what was odd in their rows and what became of columns that no
        convention names."""
        records = self.records(name, want, unmarked=unmarked)
        if records.notes or records.columns:
            terminal.say(loading.describe(records), err=True)
        return records

    def prompts(self, name: str) -> list[Messages]:
        """Prompts from a text file with one a line, from a data set, or from the world; each different prompt once."""
        if name.endswith(".txt"):
            self.check(name)
            return list(dict.fromkeys((Message("user", line),) for line in read_lines(name)))
        return list(dict.fromkeys(record.prompt for record in without_tools(self.reported(name, "prompts")).records))


def _entries(text: str) -> Iterable[tuple[str, str | None]]:
    """Read roles with their columns from one argument of the command line."""
    if not text.lstrip().startswith("{"):
        role, sign, column = text.partition("=")
        if not role or not sign or not column:
            raise UserError(f"--columns is ROLE=COLUMN, or COLUMN=null for one that is not read, not '{short(text)}'")
        return [(role, None if column == "null" else column)]
    try:
        value = reading.read(text, "a mapping of columns").plain
    except reading.YamlError as error:
        raise UserError(f"--columns: '{short(text)}' is no mapping: {short(error.problem)}") from error
    if not isinstance(value, dict) or not all(isinstance(v, str | None) for pair in value.items() for v in pair):
        raise UserError(f"--columns: '{short(text)}' is no mapping of roles to columns, such as {{prompt: question}}")
    return value.items()


def read_lines(name: str) -> list[str]:
    """Lines of a text file that are not blank."""
    path = Path(name)
    files.check_exists(name, path)
    file_nature.check(name, path)
    with door.opened(path, name) as file:
        texts, lines = bounds.Text(name, bounds.lines(name, file, bounds.most_rows(path.stat().st_size))), []
        for text in texts:
            texts.begin_row()
            lines += [text.rstrip("\r\n")] if text.strip() else []
    if not lines:
        raise DataError(name, "the file is empty: there is no prompt in it", "Write one prompt a line.")
    return lines
