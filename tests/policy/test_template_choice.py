"""A base without a chat template reads a prompt and its response as one text; the values that a recipe gives a template
are in every text, and in the folder that is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from small_models import build
from small_templates import HYBRID, model
from truing.data.formats import loading
from truing.data.rendering import template_choice
from truing.data.rendering.render import Renderer
from truing.data.rendering.template_choice import names, with_values
from truing.data.rendering.template_values import check
from truing.data.trees import build_trees
from truing.errors import DataError, UserError
from truing.policy import heads
from truing.policy.load import load, load_tokenizer
from truing.records import Message

PLAINLY = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ASK, REPLY = (Message("user", "what is 1?"),), (Message("assistant", " it is 2"),)
OFF = {"enable_thinking": False}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model without a chat template."""
    folder = build("llama", ["what is 1? it is 2, it is 3"] * 9, tmp_path_factory.mktemp("bare"), vocab=300)
    (folder / "chat_template.jinja").unlink()
    return folder


def test_a_base_without_template_reads_plain_texts_and_says_so(bare: Path, tmp_path: Path) -> None:
    policy = load(str(bare))
    [note] = policy.notes
    assert "no chat template: a prompt and its response are read as one plain text" in note
    renderer = Renderer(policy.tokenizer)
    rendered = renderer.encode(ASK, REPLY)
    eos = policy.tokenizer.eos_token
    assert policy.tokenizer.decode([*rendered.prompt_ids, *rendered.response_ids]) == f"what is 1? it is 2{eos}"
    assert all(rendered.loss_mask)
    assert rendered.prompt_ids == renderer.prompt_ids(ASK)
    assert renderer.stop_ids == {policy.tokenizer.eos_token_id} == {renderer.end_id}
    heads.save(policy, tmp_path / "saved")
    again = Renderer(load(str(tmp_path / "saved")).tokenizer).encode(ASK, REPLY)
    assert again == rendered, "what is left reads as it was read"


def test_bos_stands_before_a_plain_text_where_the_tokenizer_puts_it(bare: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bare)
    tokenizer.backend_tokenizer.post_processor = AutoTokenizer.from_pretrained(bare).backend_tokenizer.post_processor
    from tokenizers.processors import TemplateProcessing

    begin = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin])
    assert template_choice.plain(tokenizer)
    rendered = Renderer(tokenizer).encode(ASK, REPLY)
    assert rendered.prompt_ids[0] == tokenizer.bos_token_id
    assert (rendered.prompt_ids + rendered.response_ids).count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ((Message("system", "s"), *ASK), REPLY),
        ((*ASK, Message("assistant", "a"), *ASK), REPLY),
        (ASK, (*REPLY, *ASK, *REPLY)),
    ],
    ids=["system", "turns before", "turns behind"],
)
def test_what_needs_a_template_is_refused_with_the_way_out(bare: Path, prompt: Any, response: Any) -> None:
    renderer = Renderer(load_tokenizer(str(bare)))
    with pytest.raises(DataError, match="the model has no chat template, and only a prompt and its response can be"):
        renderer.encode(prompt, response)


def test_plain_texts_pairs_and_text_are_planted(bare: Path, tmp_path: Path) -> None:
    renderer = Renderer(load_tokenizer(str(bare)))
    for shape, row in (("pairs", {"prompt": "q", "chosen": "a", "rejected": "b"}), ("text", {"text": "it is"})):
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
        records = loading.load(str(tmp_path / "rows.jsonl"))
        assert len(build_trees(records, renderer, max_length=64, shape=shape).trees) == 1  # type: ignore[arg-type]


def test_values_are_in_every_text_and_in_what_is_saved(tmp_path: Path) -> None:
    folder = model(tmp_path / "hybrid", HYBRID)
    thinks = Renderer(load(str(folder)).tokenizer)
    with with_values(OFF):
        policy = load(str(folder))
    short = Renderer(policy.tokenizer)
    theirs = AutoTokenizer.from_pretrained(folder)
    ask = [{"role": "user", "content": "what is 1?"}]
    for renderer, more in ((thinks, {}), (short, OFF)):
        text = theirs.apply_chat_template(ask, add_generation_prompt=True, tokenize=False, **more)
        assert renderer.ids.decode(renderer.prompt_ids(ASK)) == text
    assert thinks.prompt_ids(ASK) != short.prompt_ids(ASK)
    heads.save(policy, tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    off = theirs.apply_chat_template(ask, add_generation_prompt=True, tokenize=False, **OFF)
    assert saved.apply_chat_template(ask, add_generation_prompt=True, tokenize=False) == off
    on = saved.apply_chat_template(ask, add_generation_prompt=True, tokenize=False, enable_thinking=True)
    assert on == theirs.apply_chat_template(ask, add_generation_prompt=True, tokenize=False)
    with with_values(OFF):
        assert load_tokenizer(str(tmp_path / "saved")).chat_template == saved.chat_template, "written once"


def test_a_value_that_no_template_reads_is_refused(tmp_path: Path) -> None:
    folder = str(model(tmp_path / "m", PLAINLY))
    with with_values(OFF):
        with pytest.raises(
            UserError, match="its chat template reads no 'enable_thinking', so chat_template_kwargs has"
        ):
            load(folder)
        assert load_tokenizer(folder, kind="reward").chat_template == PLAINLY, "a judge from elsewhere is left as it is"
    hybrid = str(model(tmp_path / "h", HYBRID))
    with with_values({"enable_thinkin": False}), pytest.raises(UserError, match=r"it reads .*enable_thinking"):
        load(hybrid)


def test_values_are_plain_ones(tmp_path: Path) -> None:
    assert check({"enable_thinking": False, "style": "a", "n": None}) == {
        "enable_thinking": False,
        "style": "a",
        "n": None,
    }
    for wrong in ({}, [], {"messages": 1}, {"a b": 1}, {"x": [1]}, {"x": {"y": 1}}, {3: 1}):
        with pytest.raises(ValueError, match="chat_template_kwargs"):
            check(wrong)
    assert names("{{ a }}{% set b = 1 %}{{ b }}{{ messages }}{% generation %}{{ c }}{% endgeneration %}") == {"a", "c"}
    assert names("{% if %}") == frozenset()


def test_null_true_and_texts_are_written_as_jinja_reads_them(tmp_path: Path) -> None:
    template = PLAINLY + "{{ style }}{{ n is none }}{{ on }}"
    folder = str(model(tmp_path / "m", template))
    with with_values({"style": 'a"\n{{ é', "n": None, "on": True}):
        tokenizer = load_tokenizer(folder)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False)
    assert text.endswith('a"\n{{ éTrueTrue')
