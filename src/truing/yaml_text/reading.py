"""Reading YAML 1.2 by its core schema: plain values that know their line.

`1e-5` is a number, `010` is ten, and `on`, `no`, `1:30` and dates are text. Nothing but text, numbers, true, false,
null, lists and mappings comes out: anchors, aliases, merge keys and tags are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from truing.errors import short

LARGEST = 1_000_000
"""Most characters of a text, where its reader sets no smaller limit."""
DEEPEST = 100
"""Most lists and mappings within each other."""
BITS = 1100
"""Most bits of a whole number: any of fp64 has fewer, and a longer one stays text."""
CONSTANTS: dict[str, Any] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
CONSTANTS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
CONSTANTS |= {f"{sign}.{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")}
CONSTANTS |= dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan)
WHOLE = re.compile(r"[-+]?[0-9]+")
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class YamlError(ValueError):
    """A text is not YAML as it is read here: the problem with its way out, and its line (0: the text as a whole)."""

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(f"line {line}: {problem}" if line else problem)
        self.problem = problem
        self.line = line


@dataclass
class Node:
    """A value (a scalar, a dict or a list of Nodes), the line it stands on (0: none), and the recipe's input it came
    from, if from one."""

    value: Any
    line: int = 0
    input: str = ""

    @property
    def plain(self) -> Any:
        """The value without its lines."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        return self.value

    @property
    def entries(self) -> dict[str, Node]:
        """The entries of a mapping; empty for anything else."""
        return self.value if isinstance(self.value, dict) else {}


Report: TypeAlias = Callable[[int, str], None]
"""Called with the line and the words of a mistake after which reading can go on."""


def _raise(line: int, problem: str) -> NoReturn:
    raise YamlError(problem, line)


def read(text: str, kind: str, report: Report = _raise, most: int = LARGEST) -> Node:
    """Return the document in a text as Nodes, an entry's line that of its key; `kind` is what the text is in messages.

    YamlError for what cannot be read. A key that is none or stands twice is reported, which raises too by default.

    >>> read("rates: [1e-5, 010, on, 2024-01-01]", "a recipe").plain
    {'rates': [1e-05, 10, 'on', '2024-01-01']}
    """
    if len(text) > most:
        raise YamlError(f"has {len(text):,} characters, and {kind} has at most {most:,}")
    try:
        return _Reader(text, kind, report).document()
    except AssertionError:  # ruamel's own, at a %YAML line of a version that it does not have
        _raise(next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith("%")), DIRECTIVES.format(kind))
    except MarkedYAMLError as error:
        raise YamlError(str(error.problem), error.problem_mark.line + 1 if error.problem_mark else 1) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"is not YAML: the character U+{error.character:04X} may not stand in it", line) from None
    except YAMLError as error:
        raise YamlError(f"is not YAML: {' '.join(str(error).split())}") from None


DIRECTIVES = "{} is YAML 1.2 without tags: take out the lines that begin with %"


class _Reader:
    """Builds Nodes from the events of ruamel's parser, which knows nothing of what scalars mean."""

    def __init__(self, text: str, kind: str, report: Report) -> None:
        self.events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)
        self.kind = kind
        self.report = report

    def document(self) -> Node:
        """The only document of the text; an empty mapping where there is none."""
        next(self.events)
        start = next(self.events)
        if not isinstance(start, DocumentStartEvent):
            return Node({}, 1)
        if start.tags or start.version not in (None, (1, 2)):
            _raise(_line(start), DIRECTIVES.format(self.kind))
        root = self.node(next(self.events), 0)
        next(self.events)
        end = next(self.events)
        if not isinstance(end, StreamEndEvent):
            _raise(_line(end), f"{self.kind} is one document: take out the line --- and what another file should hold")
        return root

    def node(self, event: Event, depth: int) -> Node:
        """The value that begins with an event."""
        line = _line(event)
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            _raise(line, f"{self.kind} has no anchors (&) and aliases (*): write the value out wherever it is used")
        if isinstance(event, ScalarEvent):
            self.refuse_tag(event)
            return Node(event.value if event.style else scalar(event.value), line)
        if depth >= DEEPEST:
            _raise(line, f"is nested too deeply: more than {DEEPEST} lists and mappings stand within each other")
        if isinstance(event, SequenceStartEvent):
            self.refuse_tag(event)
            parts = []
            while not isinstance(part := next(self.events), SequenceEndEvent):
                parts.append(self.node(part, depth + 1))
            return Node(parts, line)
        assert isinstance(event, MappingStartEvent)
        self.refuse_tag(event)
        return Node(self.entries(depth), line)

    def entries(self, depth: int) -> dict[str, Node]:
        """The entries of the mapping that has begun."""
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            line = _line(event)
            self.node(event, depth + 1)  # refuses what a key may be as little as a value
            value = self.node(next(self.events), depth + 1)
            value.line = line
            if not isinstance(event, ScalarEvent):
                self.report(line, "a key must be a word")
            elif event.value == "<<" and not event.style:
                _raise(line, f"{self.kind} has no merge keys (<<): write the merged entries out")
            elif event.value in entries:
                self.report(line, f"'{short(event.value)}' stands twice (first on line {entries[event.value].line})")
            else:
                entries[event.value] = value
        return entries

    def refuse_tag(self, event: ScalarEvent | SequenceStartEvent | MappingStartEvent) -> None:
        """YamlError where a value has a tag."""
        if event.ctag is not None:
            _raise(_line(event), f"{self.kind} has no tags ({short(str(event.tag))}): write the value without one")


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def scalar(text: str) -> Any:
    """Return the value of a scalar without quotes; a number that fp64 does not hold stays text.

    >>> [scalar(text) for text in ("1e-5", "010", "0o10", "0x10", "-.5", "yes", "1:30", "", "1e999")]
    [1e-05, 10, 8, 16, -0.5, 'yes', '1:30', None, '1e999']
    """
    if text in CONSTANTS:
        return CONSTANTS[text]
    number: int | float
    if len(text) <= BITS and WHOLE.fullmatch(text):
        number = int(text)
        return number if number.bit_length() <= BITS else text
    if len(text) <= BITS and BASED.fullmatch(text):
        number = int(text, 0)
        return number if number.bit_length() <= BITS else text
    if NUMBER.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text
