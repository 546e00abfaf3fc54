"""The time that chat templates write: one moment for a whole run, kept with the models that the run makes.

A template may write today's date (`strftime_now`, as Llama 3.1 does). Then the tokens of one and the same row would
differ from day to day: a run that is resumed would learn other ones than it began with, and a reward model would give
other scores. So the moment is read once: by a run, which keeps it in its manifest, or by a command. The tokenizer of a
model whose template reads the clock carries it (`template_moment` in tokenizer_config.json), wherever the model goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import Any

from truing.errors import UserError

NAME = "template_moment"
MARK = "strftime_now"
"""The only name by which a template can ask for the time."""
_MOMENT: ContextVar[datetime | None] = ContextVar("moment", default=None)
LETTERS = "aAwdbBmyYHIpMSfzZjUWcxXGuVCDeFghklnPrRsTt"
FIXED = (
    # strftime in the template's own language: functions cannot be handed to it. %% is a percent sign.
    "{% macro strftime_now(format) %}{% set at = namespace(escaped=false) %}{% for part in format.split('%') %}"
    "{% if loop.first or at.escaped %}{{ part }}{% set at.escaped = false %}"
    "{% elif not part %}%{% set at.escaped = true %}"
    "{% else %}{% set n = 2 if part[0] in '-_0^#' else 1 %}{{ template_moment[part[:n]] ~ part[n:] }}{% endif %}"
    "{% endfor %}{% endmacro %}{{ '' }}"
)
"""Put before a template, it makes `strftime_now` tell `template_moment` (`written`) and not the time of now."""


@contextmanager
def fixed(moment: datetime) -> Iterator[None]:
    """Within this block models are loaded with this moment, unless they carry one."""
    before = _MOMENT.set(moment)
    try:
        yield
    finally:
        _MOMENT.reset(before)


def now() -> datetime:
    """The moment that is fixed here, or, where none is, that of the machine's clock, to the second."""
    return _MOMENT.get() or datetime.now().replace(microsecond=0)


def read(text: Any, place: str) -> datetime:
    """A moment as files hold it; UserError where it is none."""
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise UserError(f"{place}: {NAME} is {text!r}, and is to be a moment such as 2026-11-29T12:00:00") from None


def reads_clock(tokenizer: Any) -> bool:
    """Return whether a tokenizer's chat template may ask for the time."""
    return MARK in str(getattr(tokenizer, "chat_template", None) or "")


def stamp(tokenizer: Any, name: str) -> None:
    """Give a tokenizer whose template reads the clock its moment, where it carries none. UserError where what it
    carries is no moment."""
    if reads_clock(tokenizer):
        moment_of(tokenizer, name)
        tokenizer.init_kwargs.setdefault(NAME, now().isoformat())


def moment_of(tokenizer: Any, name: str = "tokenizer_config.json") -> datetime:
    """The moment that a tokenizer carries, or that of now."""
    carried = getattr(tokenizer, "init_kwargs", {}).get(NAME)
    return now() if carried is None else read(carried, name)


@lru_cache(maxsize=8)
def written(moment: datetime) -> Mapping[str, str]:
    """The text of each strftime directive at a moment: `d` the day, `-d` without a zero before it, ..."""
    return {flag + letter: moment.strftime(f"%{flag}{letter}") for flag in ("", *"-_0^#") for letter in LETTERS}


def note(tokenizer: Any) -> str:
    """Note for a template that reads the clock; empty for any other."""
    if not reads_clock(tokenizer):
        return ""
    return (
        f"the chat template writes the date ({MARK}), here {moment_of(tokenizer):%Y-%m-%d %H:%M}; a run and the models "
        "that it leaves keep theirs"
    )
