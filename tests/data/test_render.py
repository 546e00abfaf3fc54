"""The line between prompt and response, for templates and tokenizers of every habit, built on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from truing.data.formats.loading import load
from truing.data.rendering.render import Renderer, as_demonstration
from truing.errors import DataError, UserError
from truing.records import Demonstration, Judgement, Message, Messages

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
NO_GENERATION_PROMPT = "{% for m in messages %}<|start|>{{ m.role }}<|end|>{{ m.content }}</s>{% endfor %}"
PLAIN_WORDS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
THINKS = (  # thinking is taken out of earlier turns; the generation prompt adds an empty block
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last %}{{ m.content }}{% else %}{{ m.content.split('</think>')[-1] }}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}"
)
LAST_THINKS = (  # an empty block before the last answer only
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COUNTS = "{{ messages | length }} messages\n" + CHATML
TOOLS = "{% if tools %}{{ tools | tojson }}\n{% endif %}" + CHATML
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<unk>"]


def wrapped(base: Tokenizer, template: str | None, **more: Any) -> Any:
    base.add_special_tokens(SPECIAL)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"} | more
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, **names)
    tokenizer.chat_template = template
    return tokenizer


def byte_level(template: str | None = CHATML, adds_bos: bool = False, nfc: bool = False, **more: Any) -> Any:
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    text = ["assistant\n\nhello there\n\n  \n user assistant: hello, the answer is here [INST] [/INST]"] * 5
    base.train_from_iterator(text, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    tokenizer = wrapped(base, template, **more)
    if nfc:
        base.normalizer = normalizers.NFC()
        tokenizer = wrapped(base, template, **more)
    if adds_bos:
        base.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", base.token_to_id("<s>"))]
        )
        tokenizer = wrapped(base, template, **more)
    return tokenizer


def metaspace(template: str, scheme: str = "first") -> Any:
    base = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    base.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    base.decoder = decoders.Metaspace(prepend_scheme=scheme)
    text = [
        "user assistant: hello, the answer is here\n\n[INST] [/INST] messages 0123 abcdefghijklmnopqrstuvwxyz ABQZHk"
    ] * 5
    base.train_from_iterator(text, trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False))
    return wrapped(base, template, unk_token="<unk>")


def talk(*said: str) -> Messages:
    names = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    return tuple(Message(names[m[0]], m[2:]) for m in said)


def shown(renderer: Renderer, prompt: Messages, response: Messages) -> tuple[str, str, str]:
    """Prompt, response, and the learned part of the response as text; ids must be what generation sees."""
    out = renderer.encode(prompt, response)
    assert out.prompt_ids == renderer.prompt_ids(prompt)
    assert len(out.response_ids) == len(out.loss_mask)
    learned = [i for i, m in zip(out.response_ids, out.loss_mask, strict=True) if m]
    decode = renderer.tokenizer.decode
    return decode(out.prompt_ids), decode(out.response_ids), decode(learned)


def test_the_newline_behind_chatml_is_no_part_of_the_response() -> None:
    prompt, response, learned = shown(Renderer(byte_level(CHATML)), talk("u:hi"), talk("a:hello"))
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert response == learned == "hello<|im_end|>"
    assert not prompt.startswith("<s>")


@pytest.mark.parametrize("adds_bos", [False, True])
def test_bos_stands_once(adds_bos: bool) -> None:
    prompt, response, _ = shown(Renderer(byte_level(LLAMA3, adds_bos)), talk("u:  hi "), talk("a: hello \n"))
    assert prompt == "<s><|start|>user<|end|>\n\nhi<|im_end|><|start|>assistant<|end|>\n\n"
    assert response == "hello<|im_end|>"
    prompt, _, _ = shown(Renderer(byte_level("{{ bos_token }}" + LLAMA3, adds_bos)), talk("u:hi"), talk("a:hello"))
    assert prompt.count("<s>") == 1
    prompt, _, _ = shown(Renderer(byte_level(CHATML, adds_bos)), talk("u:hi"), talk("a:hello"))
    assert prompt.count("<s>") == int(adds_bos)
    prompt, _, _ = shown(Renderer(byte_level(CHATML, bos_token=None)), talk("u:hi"), talk("a:hello"))
    assert prompt.count("<s>") == 0


def test_a_template_without_generation_prompt_gets_its_own_header() -> None:
    renderer = Renderer(byte_level(NO_GENERATION_PROMPT))
    prompt, response, _ = shown(renderer, talk("u:hi"), talk("a:hello"))
    assert prompt == "<|start|>user<|end|>hi</s><|start|>assistant<|end|>"
    assert response == "hello</s>"
    prompt, response, learned = shown(Renderer(byte_level(INST)), talk("u:hi"), talk("a:hello", "u:more", "a:yes"))
    assert prompt == "<s>[INST] hi [/INST]"
    assert response == " hello</s>[INST] more [/INST] yes</s>"
    assert learned == " hello</s> yes</s>"


def test_a_template_without_end_token_gets_eos_once() -> None:
    prompt, response, learned = shown(Renderer(byte_level(PLAIN_WORDS)), talk("u:hi"), talk("a:hello", "u:x", "a:yes "))
    assert prompt == "user: hi\nassistant:"
    assert response == " hello\nuser: x\nassistant: yes </s>"
    assert learned == " hello yes </s>"
    twice = CHATML.replace("<|im_end|>\n", "<|im_end|></s>\n</s>")
    assert shown(Renderer(byte_level(twice)), talk("u:hi"), talk("a:hello"))[1] == "hello<|im_end|>"


@pytest.mark.parametrize("template", [CHATML, LLAMA3, LAST_THINKS, NO_GENERATION_PROMPT])
def test_several_turns_are_learned_without_what_the_user_says(template: str) -> None:
    renderer = Renderer(byte_level(template))
    conversation = talk("s:be kind", "u:one", "a:two", "u:three", "a:four")
    every, last = as_demonstration(conversation, "all"), as_demonstration(conversation, "last")
    end = "</s>" if template == NO_GENERATION_PROMPT else "<|im_end|>"
    block = "<think>\n\n</think>\n\n" if template == LAST_THINKS else ""
    assert shown(renderer, every.prompt, every.response)[2] == f"two{end}{block}four{end}"
    whole = "".join(shown(renderer, every.prompt, every.response)[:2])
    assert "".join(shown(renderer, last.prompt, last.response)[:2]) == whole
    assert shown(renderer, last.prompt, last.response)[1] == f"{block}four{end}"


def test_a_generation_prompt_may_add_an_empty_thought() -> None:
    renderer = Renderer(byte_level(THINKS))
    prompt, response, _ = shown(renderer, talk("u:hi"), talk("a:<b>hello"))
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert response == "<b>hello<|im_end|>"
    open_thought = THINKS.replace("<think>\n\n</think>\n\n", "<think>\n")
    with pytest.raises(DataError, match=r"opens a thought in its generation prompt .* that the response never closes"):
        Renderer(byte_level(open_thought)).encode(talk("u:hi"), talk("a:hello"))


def test_thoughts_taken_out_of_earlier_turns_are_refused_there_and_fine_in_the_prompt() -> None:
    renderer = Renderer(byte_level(THINKS))
    conversation = talk("u:one", "a:<think>x</think>two", "u:three", "a:four")
    with pytest.raises(DataError, match=r"differently once more follows it[\s\S]*set turns: last"):
        renderer.demonstration(as_demonstration(conversation, "all"))
    prompt, response, _ = shown(renderer, conversation[:3], conversation[3:])
    assert "two" in prompt and "x</think>" not in prompt
    assert response == "four<|im_end|>"


@pytest.mark.parametrize("change", ["split('</think>')[-1]", "upper()"])
def test_a_template_that_changes_what_is_learned_is_refused(change: str) -> None:
    """Thoughts taken out of the answer, or its letters changed: another text would be learned than the row says."""
    words = "{{ m.content." + change + " if m.role == 'assistant' else m.content }}"
    template = CHATML.replace("{{ m.content }}", words)
    with pytest.raises(DataError, match=r"message 2 \(assistant\): is left out or changed by the chat template"):
        Renderer(byte_level(template)).encode(talk("u:hi"), talk("a:<b>two and two</think>four"))


def test_control_tokens_in_a_rows_tools_are_refused() -> None:
    with pytest.raises(DataError, match=r"tools: holds the control token '<\|im_end\|>'"):
        Renderer(byte_level(TOOLS)).encode(talk("u:hi"), talk("a:ho"), tools=[{"name": "f<|im_end|>"}])


def test_a_template_that_keeps_no_prefix_is_refused_with_both_texts() -> None:
    with pytest.raises(DataError) as caught:
        Renderer(byte_level(COUNTS)).encode(talk("u:hi"), talk("a:hello"))
    assert r"alone:     '1 messages\n<|im_start|>user\nhi<|im_end|>" in str(caught.value)
    assert r"continued: '2 messages\n<|im_start|>user\nhi<|im_end|>" in str(caught.value)


def test_pad_makes_no_difference() -> None:
    outs = [
        Renderer(byte_level(CHATML, eos_token=eos, pad_token=pad)).encode(talk("u:hi"), talk("a:hello"))
        for eos, pad in (("<|im_end|>", "<|im_end|>"), ("<|im_end|>", "<unk>"), ("</s>", "<|im_end|>"))
    ]
    assert outs[0] == outs[1] == outs[2]
    assert all(outs[0].loss_mask)
    assert outs[0].response_ids[-1] == byte_level().convert_tokens_to_ids("<|im_end|>")


def test_plain_text_starts_at_bos_and_ends_at_eos() -> None:
    tokenizer = byte_level(None)
    out = Renderer(tokenizer).demonstration(Demonstration((), talk("a:hello there"), {"plain": True}))
    assert tokenizer.decode(out.response_ids) == "hello there</s>"
    assert out.prompt_ids == [tokenizer.bos_token_id] == Renderer(tokenizer).prompt_ids(())
    assert all(out.loss_mask)
    without = byte_level(None, bos_token=None)
    assert Renderer(without).encode((), talk("a:x")).prompt_ids == [without.eos_token_id]
    with pytest.raises(UserError, match="neither a BOS nor an EOS"):
        Renderer(byte_level(None, bos_token=None, eos_token=None)).prompt_ids(())


def test_what_cannot_be_rendered_is_said() -> None:
    with pytest.raises(UserError, match=r"no chat template[\s\S]*Put a chat_template.jinja"):
        Renderer(byte_level(None)).prompt_ids(talk("u:hi"))
    renderer = Renderer(byte_level(CHATML))
    for token in ("<|im_end|>", "</s>"):
        with pytest.raises(
            DataError, match=rf"message 2 \(assistant\): holds the control token '{token}'".replace("|", r"\|")
        ):
            renderer.encode(talk("u:hi"), talk(f"a:x {token} y"))
    with pytest.raises(DataError, match=r"message 1 \(user\): holds the control token"):
        renderer.prompt_ids(talk("u:<|im_start|>system"))
    with pytest.raises(DataError, match="must begin and end with an assistant message"):
        renderer.encode(talk("u:hi"), talk("a:x", "u:y"))
    raising = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
    )
    with pytest.raises(DataError, match="refuses the conversation: System role not supported"):
        Renderer(byte_level(raising)).prompt_ids(talk("s:x", "u:y"))
    silent = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'tool' %}")
    with pytest.raises(DataError, match=r"message 3 \(tool\): is left out or changed by the chat template"):
        Renderer(byte_level(silent)).prompt_ids(talk("u:hi", "a:call", "t:42 degrees"))
    with pytest.raises(UserError, match="token that ends a response"):
        Renderer(byte_level(PLAIN_WORDS, eos_token=None)).encode(talk("u:hi"), talk("a:x"))


def test_tools_are_passed_or_refused() -> None:
    tools = [{"type": "function", "function": {"name": "weather"}}]
    row = Demonstration(talk("u:hi", "a:call", "t:42"), talk("a:warm"), {"tools": tools})
    renderer = Renderer(byte_level(TOOLS))
    assert "weather" in renderer.tokenizer.decode(renderer.demonstration(row).prompt_ids)
    with pytest.raises(DataError, match="the chat template takes no tools"):
        Renderer(byte_level(CHATML)).demonstration(row)


@pytest.mark.parametrize("scheme", ["first", "always"])
@pytest.mark.parametrize("template", [CHATML, INST, PLAIN_WORDS, LLAMA3])
@pytest.mark.parametrize("words", ["hello", " hello", "the answer ", "\nhello"])
def test_tokenizers_that_put_a_blank_before_words(scheme: str, template: str, words: str) -> None:
    tokenizer = metaspace(template, scheme)
    renderer = Renderer(tokenizer)
    out = renderer.encode(talk("u:is here"), (Message("assistant", words),))
    assert out.prompt_ids == renderer.prompt_ids(talk("u:is here"))
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "is here"}, {"role": "assistant", "content": words}], tokenize=False
    )
    exact = tokenizer.decode(tokenizer(whole, add_special_tokens=False).input_ids)
    got = tokenizer.decode(out.prompt_ids + out.response_ids)
    assert got.removesuffix("</s>").rstrip() in {text.rstrip().removesuffix("</s>").rstrip() for text in (whole, exact)}


def test_text_a_tokenizer_has_no_token_for_is_refused() -> None:
    renderer = Renderer(metaspace(CHATML))
    with pytest.raises(DataError, match=r"has no token for a part of this text \('<unk>'\): '😀"):
        renderer.encode(talk("u:hello"), talk("a:😀"))
    with pytest.raises(DataError, match="has no token for a part of this text"):
        renderer.prompt_ids(talk("u:😀"))


def test_a_tokenizer_that_normalises_is_followed() -> None:
    renderer = Renderer(byte_level(CHATML, nfc=True))
    assert shown(renderer, talk("u:hi"), talk("a:e\u0301"))[1] == "\u00e9<|im_end|>"


def test_stop_ids_hold_the_templates_end_token_and_eos() -> None:
    tokenizer = byte_level(CHATML)
    assert Renderer(tokenizer).stop_ids == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}


@pytest.mark.data
def test_real_conversations_come_back_exactly(real_data: Path) -> None:
    records = load(str(real_data / "hh_harmless_base_test" / "pairs.dev.jsonl.gz"), on_bad_row="drop")
    renderer = Renderer(byte_level(CHATML))
    for record in records.records[:300]:
        assert isinstance(record, Judgement)
        prompt, response, learned = shown(renderer, record.prompt, record.chosen)
        assert prompt.endswith(record.prompt[-1].content + "<|im_end|>\n<|im_start|>assistant\n")
        assert response == learned == record.chosen[0].content + "<|im_end|>"


RENDERERS = {name: Renderer(byte_level(t)) for name, t in (("chatml", CHATML), ("words", PLAIN_WORDS), ("inst", INST))}
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    st.text("ab \n\u2028\u00a0😀é:,<>", min_size=1, max_size=30),
).filter(lambda text: bool(text.strip()))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(RENDERERS)), TEXT, TEXT, TEXT, TEXT)
def test_any_text_comes_back_as_it_went_in(name: str, ask: str, reply: str, more: str, last: str) -> None:
    renderer = RENDERERS[name]
    prompt = (Message("user", ask),)
    response = (Message("assistant", reply), Message("user", more), Message("assistant", last))
    for said in (response[:1], response):
        out = renderer.encode(prompt, said)
        text = renderer.tokenizer.decode(out.prompt_ids + out.response_ids)
        plain = [{"role": m.role, "content": m.content} for m in (*prompt, *said)]
        whole = renderer.tokenizer.apply_chat_template(plain, tokenize=False)
        assert text in (whole.removesuffix("\n"), whole, whole + "</s>", whole.removesuffix("\n") + "</s>")
        assert out.prompt_ids == renderer.prompt_ids(prompt)
        learned = renderer.tokenizer.decode([i for i, m in zip(out.response_ids, out.loss_mask, strict=True) if m])
        assert learned.replace("<|im_end|>", "").replace("</s>", "").replace(" ", "").replace("\n", "") == "".join(
            m.content for m in said if m.role == "assistant"
        ).replace(" ", "").replace("\n", "")
