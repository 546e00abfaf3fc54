"""A chat template is a stranger's program: what it may use, and that it is stopped."""

from __future__ import annotations

import resource
import time

import pytest

from truing.data.rendering import template_program
from truing.data.rendering.template import ChatTemplate
from truing.errors import DataError, UserError
from truing.policy.fresh import tokenizer_from
from truing.records import Message

ASKED = (Message("user", "A word"),)
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]


def template(source: object) -> ChatTemplate:
    tokenizer = tokenizer_from(["hello there one two"] * 9, 300)
    tokenizer.chat_template = source
    return ChatTemplate(tokenizer)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ 10 ** 10 ** 10 }}", "raises to a power (line 1)"),
        ("x\n{% set n = messages|length %}\n{{ 10 ** n }}", "raises to a power (line 3)"),
        ("{{ 1|round(10 * 100000000, 'ceil') }}", "rounds to places that it computes"),
        ("{{ [1]|map('round', 400000000, 'ceil')|list }}", "rounds to places that it computes"),
        ("{{ 'ff'|int(0, 16) }}", "reads whole numbers in another base"),
        ("{{ ['ff']|map('int', 0, 16)|list }}", "reads whole numbers in another base"),
        ("{{ 'x'", "is no template: unexpected end of template"),
        ("{% if (" + "(" * 5000, "is no template: "),
        ("{% nonsense %}", "is no template: Encountered unknown tag 'nonsense'"),
        (3, "is no text"),
        ({"default": 3}, "is no text"),
    ],
)
def test_what_is_refused_before_it_runs(source, words) -> None:
    with pytest.raises(UserError) as caught:
        template(source)
    assert words in str(caught.value)


GROWN = "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 1000000000 }}",
        "{{ 'a'|center(10000000000) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 'x'.ljust(10000000000) }}",
        "{{ [0] * 1000000000 }}",
        GROWN,
    ],
)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_memory_is_bounded(monkeypatch, source, tools) -> None:
    monkeypatch.setattr(template_program, "BYTES", 100_000_000)
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="the chat template took more than 100 MB to write one conversation"):
        template(source).text(ASKED, tools)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 300_000  # kB


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
        "{{ lipsum(n=1000000000) }}",
        # only where there are tools: the second rendering of a row
        "{% if tools %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}",
    ],
)
def test_time_is_bounded(monkeypatch, source) -> None:
    monkeypatch.setattr(template_program, "SECONDS", 0.3)
    begun = time.process_time()
    with pytest.raises(UserError, match=r"took more than 0\.3 s to write one conversation"):
        template(source).text(ASKED, TOOLS)
    assert time.process_time() - begun < 5


def test_what_it_writes_is_bounded() -> None:
    with pytest.raises(UserError, match="the chat template wrote 20,000,000 characters of one conversation"):
        template("{{ 'a' * 20000000 }}").text(ASKED)
    long = (Message("user", "word " * 500_000),)
    assert len(template("{{ messages[0].content }}").text(long)) > 2_000_000, "a long conversation is no such text"


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content }}{{ 1.2345|round(2) }}{{ 2 ** 10 }}",
        "{% generation %}{{ messages[0].content }}{% endgeneration %}{{ [1.5]|map('round')|list }}",
        "{{ messages|map(attribute='content')|join }}{% for m in messages %}{% if loop.first %}{% break %}{% endif %}{% endfor %}",
    ],
)
def test_what_templates_use_is_left_to_them(source) -> None:
    assert "A word" in template(source).text(ASKED)


def test_a_refusal_of_its_own_is_the_row_s() -> None:
    with pytest.raises(DataError, match="refuses the conversation: no such role"):
        template("{{ raise_exception('no such role') }}").text(ASKED)
