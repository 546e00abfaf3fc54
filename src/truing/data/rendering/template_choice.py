"""The chat template that a model is read with: its own, with the values that a recipe gives it, or none.

Values such as `enable_thinking: false` are written into the template as defaults, so that whatever reads the model
that a run leaves (another stage, transformers, vLLM, llama.cpp) writes what it was trained on, and may still say
otherwise. A base without a template gets one that writes a prompt and its response as one text, and refuses what needs
more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.ext import loopcontrols

from truing.data.rendering.template_program import Generation
from truing.data.rendering.template_values import FIXED
from truing.errors import UserError, listed, short

NEEDS_ONE = (
    "the model has no chat template, and only a prompt and its response can be written without one: put a "
    "chat_template.jinja beside the tokenizer's files, or use the chat version of the model"
)
_PLAIN = (
    "{% for m in messages %}{% if loop.index0 == 0 and m['role'] == 'user' %}{{ m['content'] }}"
    "{% elif loop.index0 == 1 and m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    '{% else %}{{ raise_exception("' + NEEDS_ONE + '") }}{% endif %}{% endfor %}'
)
_BOS = "{{ bos_token }}"
PLAIN = frozenset({_PLAIN, _BOS + _PLAIN})
"""Templates set for a model that has none, without BOS and with it."""
NOTE = "its tokenizer has no chat template: a prompt and its response are read as one plain text, and end with EOS"
_VALUES: ContextVar[Mapping[str, Any] | None] = ContextVar("template_values", default=None)


def plain(tokenizer: Any) -> bool:
    """Give a tokenizer without chat template the one for plain texts, and say whether it could be given: not where it
    puts other tokens around a text ([CLS], [SEP]), which a template has to write itself, nor where it has no EOS."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    around, words = list(tokenizer("A").input_ids), list(tokenizer("A", add_special_tokens=False).input_ids)
    begins = bos is not None and around[:1] == [bos] != words[:1]
    if eos is None or around not in (words, [bos, *words], [*words, eos], [bos, *words, eos]):
        return False
    tokenizer.chat_template = _BOS + _PLAIN if begins else _PLAIN
    return True


def is_plain(tokenizer: Any) -> bool:
    """Return whether a tokenizer's template is the one set for a model that has none."""
    return getattr(tokenizer, "chat_template", None) in PLAIN


@contextmanager
def with_values(values: Mapping[str, Any]) -> Iterator[None]:
    """Within this block the templates of models that are loaded have these values."""
    before = _VALUES.set(values or None)
    try:
        yield
    finally:
        _VALUES.reset(before)


def settle(tokenizer: Any, who: str, *, needed: bool) -> None:
    """Write the values of the recipe into a tokenizer's chat template. UserError where it reads none of a name, if it
    `needed` to; a reward model from elsewhere may not."""
    values = _VALUES.get()
    if not values:
        return
    several = tokenizer.chat_template
    sources = several if isinstance(several, dict) else {"": several}
    read = frozenset().union(*map(names, sources.values()))
    missing = next((name for name in values if name not in read), None)
    if missing is not None and needed:
        raise UserError(
            f"{who}: its chat template reads no '{short(missing)}', so chat_template_kwargs has no effect; it reads "
            f"{listed(sorted(read), 20) or 'nothing that could be given'}"
        )
    read_values = {name: value for name, value in values.items() if name in read}
    changed = {key: _with(source, read_values) for key, source in sources.items()}
    tokenizer.chat_template = changed if isinstance(several, dict) else changed[""]


def _with(source: str, values: Mapping[str, Any]) -> str:
    """A template that takes these values where whoever uses it says nothing."""
    for name, value in values.items():
        shown = "none" if value is None else json.dumps(value)  # of all others Jinja and JSON write the same
        line = f"{{%- if {name} is not defined %}}{{%- set {name} = {shown} %}}{{%- endif %}}"
        source = source if line in source else line + source
    return source


def names(source: str) -> frozenset[str]:
    """The names that a template reads and that may be given to it.

    >>> sorted(names("{% for m in messages %}{{ m.content if enable_thinking else style }}{% endfor %}"))
    ['enable_thinking', 'style']
    """
    environment = jinja2.Environment(extensions=[Generation, loopcontrols])
    try:
        undeclared = meta.find_undeclared_variables(environment.parse(source))
    except (jinja2.TemplateError, RecursionError):
        return frozenset()
    return frozenset(undeclared) - FIXED - {"raise_exception", "strftime_now"}
