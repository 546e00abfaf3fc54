"""Limits on chat templates, which are strangers' programs: the language they are written in, and the resources they
use.

It runs in Jinja's sandbox, which reaches nothing outside. What is added here is a bound on time, on memory and on what
comes out. The time of one long step of C code cannot be bounded from within, so what makes such steps is refused by the
template's text: powers, and rounding to places that it says itself.
"""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from truing.data.timeout import at_most
from truing.errors import one_line

SECONDS = 10.0
"""Processor time a template may take for one conversation."""
BYTES = 1_000_000_000
"""Memory a template may take for one conversation, beyond what the process has already."""
SPARE = 1_000_000
TIMES = 20
"""A template may write so many characters more than so many times what it is given."""


class Generation(Extension):
    """The block that marks what the assistant says, which transformers adds to the language."""

    tags = {"generation"}  # noqa: RUF012 (so Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Its content, which is all that counts here."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=64)
def trouble(source: str) -> str:
    """Why a template is not run; empty where it is.

    >>> trouble("{{ 10 ** 10 ** 10 }}")
    'raises to a power (line 1), and nothing bounds how long that takes'
    >>> trouble("{% for m in messages %}{{ m.content * 2 }}{% endfor %}")
    ''
    """
    try:
        with at_most(SECONDS):
            tree = jinja2.Environment(extensions=[Generation, loopcontrols]).parse(source)
            powers = next((node for node in tree.find_all(nodes.Pow) if not _small(node)), None)
            rounded = next(filter(_rounds, tree.find_all(nodes.Filter)), None)
            based = next(filter(_has_base, tree.find_all(nodes.Filter)), None)
    except jinja2.TemplateSyntaxError as error:
        return f"is no template: {one_line(str(error.message))[:200]} (line {error.lineno})"
    except (jinja2.TemplateError, RecursionError) as error:
        return f"is no template: {one_line(str(error))[:200]}"
    except TimeoutError:
        return f"takes more than {SECONDS:g} s to be read"
    if powers is not None:
        return f"raises to a power (line {powers.lineno}), and nothing bounds how long that takes"
    if rounded is not None:
        return f"rounds to places that it computes (line {rounded.lineno}), and nothing bounds how long that takes"
    if based is not None:
        return f"reads whole numbers in another base (line {based.lineno}), and nothing bounds how long they are"
    return ""


def _has_base(node: nodes.Filter) -> bool:
    """True if a filter may read a number in a base: of ten Python itself bounds the digits, of others it does not."""
    unseen = _takes_more(node)
    if node.name == "map":
        named = node.args and isinstance(node.args[0], nodes.Const) and node.args[0].value != "int"
        return not named and (unseen or len(node.args) + len(node.kwargs) > 1)
    return node.name == "int" and (unseen or len(node.args) > 1 or any(pair.key == "base" for pair in node.kwargs))


def _takes_more(node: nodes.Filter) -> bool:
    """True if a filter takes arguments that are computed (`*args`, `**options`) and so are not seen here."""
    return node.dyn_args is not None or node.dyn_kwargs is not None


def _small(power: nodes.Pow) -> bool:
    """True if a power is one of two small literals, such as 2 ** 10."""
    return _is_small(power.left) and _is_small(power.right)


def _is_small(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, int | float) and abs(node.value) <= 100


def _rounds(node: nodes.Filter) -> bool:
    """True if a filter may round to as many places as it likes, by itself or through `map`."""
    passed = [*node.args, *(pair.value for pair in node.kwargs)]
    unseen = _takes_more(node)
    if node.name == "map":
        name = node.args[0] if node.args else None
        by_name = isinstance(name, nodes.Const) and name.value != "round"
        return unseen or not (name is None or by_name or len(passed) == 1)
    words = [item for item in passed if not (isinstance(item, nodes.Const) and isinstance(item.value, str))]
    return node.name == "round" and (unseen or not all(map(_is_small, words)))


@contextmanager
def bounded() -> Iterator[None]:
    """Within this block a template runs: TimeoutError after SECONDS of processor time, MemoryError beyond BYTES.

    Not kept: time within one long step of C code; both of them outside of the main thread; memory where the machine
    does not tell how much a process has (/proc), as on macOS. Memory is that of the whole process, so what other
    threads take meanwhile counts.
    """
    with at_most(SECONDS), _at_most_bytes(BYTES):
        yield


def spent(error: Exception) -> str:
    """Describe the limit at which `bounded` stopped a template."""
    if isinstance(error, TimeoutError):
        return f"took more than {SECONDS:g} s to write one conversation"
    return f"took more than {BYTES // 10**6:,} MB to write one conversation"


@contextmanager
def _at_most_bytes(most: int) -> Iterator[None]:
    before, now = resource.getrlimit(resource.RLIMIT_AS), _taken()
    if now is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    limit = now + most if before[0] == resource.RLIM_INFINITY else min(now + most, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _taken() -> int | None:
    """Bytes of this process's address space; None where the machine does not tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(64).split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None


def too_long(text: str, conversation: Any) -> bool:
    """Return whether a template wrote far more than the conversation it was given."""
    return len(text) > SPARE and len(text) > SPARE + TIMES * len(str(conversation))
