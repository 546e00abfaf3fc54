"""A chat template that writes the date: one moment for all that is rendered, carried by the model's own folder."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from small_templates import DATED, R1, tokenizer
from truing.data import clock
from truing.data.rendering.render import Renderer
from truing.errors import UserError
from truing.policy.files import portable
from truing.policy.load import load_tokenizer
from truing.records import Message

ASK = (Message("user", "two and two?"),)
THEN = datetime(2024, 2, 29, 7, 8, 9)


def written(made: object) -> str:
    renderer = Renderer(made)
    return str(renderer.tokenizer.decode(renderer.prompt_ids(ASK)))


def saved(folder: Path, template: str = DATED) -> str:
    tokenizer(template).save_pretrained(folder)
    return str(folder)


def test_a_model_loaded_at_a_moment_keeps_it_wherever_it_goes(tmp_path: Path) -> None:
    """As Llama 3.1 and 3.2 write today's date: what was fixed once is in the folder that is saved."""
    base = saved(tmp_path / "base")
    with clock.fixed(THEN):
        made = load_tokenizer(base)
    assert "Today Date: 29 Feb 2024" in written(made)
    made.save_pretrained(tmp_path / "trained")
    with clock.fixed(THEN + timedelta(days=300)):
        assert "Today Date: 29 Feb 2024" in written(load_tokenizer(str(tmp_path / "trained")))
        assert "Today Date: 25 Dec 2024" in written(load_tokenizer(base))
    assert (
        json.loads((tmp_path / "trained" / "tokenizer_config.json").read_text())["template_moment"] == THEN.isoformat()
    )
    plain = AutoTokenizer.from_pretrained(tmp_path / "trained")
    assert plain.chat_template == DATED  # plain transformers goes on to write the day


def test_without_a_fixed_moment_it_is_that_of_the_machine(tmp_path: Path) -> None:
    before = datetime.now().strftime("%d %b %Y")
    text = written(load_tokenizer(saved(tmp_path / "base")))
    assert f"Today Date: {before}" in text or datetime.now().strftime("%d %b %Y") in text


def test_templates_that_read_no_clock_carry_nothing(tmp_path: Path) -> None:
    made = load_tokenizer(saved(tmp_path / "base", R1))
    assert clock.NAME not in made.init_kwargs and clock.note(made) == ""


@pytest.mark.parametrize(
    "format",
    ["%d %b %Y", "%Y-%m-%d", "%-d. %B", "at %H:%M:%S", "100%% %A", "%%d", "%j%U", "%I %p|%y", "", "no directive", "%c"],
)
def test_every_format_is_written_as_strftime_writes_it(format: str) -> None:
    made = tokenizer(
        "{{ messages[0].content }}|{{ strftime_now('" + format + "') }}|{{ strftime_now('%d') | int + 1 }}"
    )
    made.init_kwargs[clock.NAME] = THEN.isoformat()
    assert Renderer(made).template.text(ASK) == f"<s>two and two?|{THEN.strftime(format)}|30".removeprefix(
        "" if made("A").input_ids[0] == made.bos_token_id else "<s>"
    )


def test_the_rest_of_the_template_is_as_it_was() -> None:
    """Blanks at its beginning, its own macros and its question whether there is a clock at all."""
    odd = (
        "\n  {%- macro day() %}{{ strftime_now('%d') }}{% endmacro %}\n"
        "{% if strftime_now is defined %}\n{{ day() }}\n{% endif %}\n  {{ messages[0].content }}"
    )
    for template in (odd, "\n\n x" + odd, DATED):
        made = tokenizer(template)
        made.init_kwargs[clock.NAME] = datetime.now().isoformat()
        plain = made.apply_chat_template([{"role": "user", "content": "two and two?"}], tokenize=False)
        assert Renderer(made).template.text(ASK) == plain


def test_what_is_no_moment_is_refused_with_its_place(tmp_path: Path) -> None:
    folder = saved(tmp_path / "base")
    path = tmp_path / "base" / "tokenizer_config.json"
    for wrong in ("yesterday", 12, ["2024"]):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"template_moment": wrong}))
        with pytest.raises(UserError, match=r"base: template_moment is .*2026-11-29T12:00:00"):
            load_tokenizer(folder)


def test_a_template_without_a_generation_prompt_is_settled_on_any_day() -> None:
    """Its header and its BOS are compared at the tokenizer's own moment, and not against today's text."""
    bare = DATED.split("{% if add_generation_prompt %}")[0]
    made = tokenizer(bare)
    made.init_kwargs[clock.NAME] = THEN.isoformat()
    ours = Renderer(made).prompt_ids(ASK)
    settled = portable.settled(made)
    assert settled.chat_template != bare and portable.plain(settled, ASK) == ours
    assert settled.decode(ours).endswith("assistant\n") and "29 Feb 2024" in settled.decode(ours)


def test_the_moment_is_written_out_once() -> None:
    assert clock.written(THEN) is clock.written(datetime(2024, 2, 29, 7, 8, 9))
    assert clock.written(THEN)["Y"] == "2024" and clock.written(THEN + timedelta(days=366))["Y"] == "2025"
