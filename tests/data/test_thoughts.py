"""Reasoning models: a thought is part of the response, for templates that open it, strip it, or write it otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import template_forms
from small_templates import CLOSED, HYBRID, R1, TEMPLATES, THINKING, tokenizer
from truing.data.formats.loading import as_row, load
from truing.data.rendering.render import Renderer
from truing.data.rendering.whole_conversation import WholeConversation
from truing.data.thoughts import answer_of, parted
from truing.data.trees import THOUGHT_OUT, build_trees
from truing.errors import DataError
from truing.records import Demonstration, Judgement, Message, Messages, Records, Verdict
from truing.rewards.builtin_verifier import verifier

ASK = (Message("user", "two and two?"),)
ROW = "<think>\nwe add them\n</think>\n\nfour"
CHANNELS = "<|channel|>analysis<|message|>we add them<|end|><|start|>assistant<|channel|>final<|message|>four<|return|>"
WRITTEN = {  # the end of the prompt, and the response behind it
    "r1": ("<|bot|><think>\n", "we add them\n</think>\n\nfour</s>"),
    "qwq": ("<|im_start|>assistant\n<think>\n", "we add them\n</think>\n\nfour<|im_end|>"),
    "hybrid": ("<|im_start|>assistant\n", "<think>\nwe add them\n</think>\n\nfour<|im_end|>"),
    "thinking": ("<|im_start|>assistant\n<think>\n", "we add them\n</think>\n\nfour<|im_end|>"),
    "channels": ("<|start|>assistant", CHANNELS),
    "magistral": ("[/INST]", "[THINK]we add them[/THINK]four</s>"),
    "deepseek": ("<|bot|><think>", "\nwe add them\n</think>\n\nfour</s>"),
    "reasoning": ("<|bot|><reasoning>\n", "we add them\n</reasoning>\n\nfour</s>"),
}
READ = {  # what a reward model of the template reads of the same response
    "r1": "<|bot|>\n\nfour</s>",
    "qwq": "<|im_start|>assistant\nfour<|im_end|>",
    "hybrid": "<|im_start|>assistant\n<think>\nwe add them\n</think>\n\nfour<|im_end|>",
    "thinking": "<|im_start|>assistant\n<think>\nwe add them\n</think>\n\nfour<|im_end|>",
    "channels": "<|start|>assistant" + CHANNELS,
    "magistral": "[/INST][THINK]we add them[/THINK]four</s>",
    "deepseek": "<|bot|></think>\n\nfour</s>",
    "reasoning": "<|bot|>\n\nfour</s>",
}


def said(text: str) -> Messages:
    return (Message("assistant", text),)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_thought_is_learned_as_it_is_generated(name: str) -> None:
    """Behind the very prompt that generation sees, whether the template keeps the thought, strips it, or takes it apart;
    and what a policy writes comes back as a row that gives the same tokens."""
    renderer = Renderer(tokenizer(TEMPLATES[name]))
    row, decode = renderer.encode(ASK, said(ROW)), renderer.tokenizer.decode
    prompt, response = WRITTEN[name]
    assert row.prompt_ids == renderer.prompt_ids(ASK) and decode(row.prompt_ids).endswith(prompt)
    assert decode(row.response_ids) == response and all(row.loss_mask) and not row.unread
    assert row.response_ids[-1] in renderer.stop_ids
    text = renderer.text(row.prompt_ids, row.response_ids[:-1])
    again = renderer.encode(ASK, said(text))
    assert (again.prompt_ids, again.response_ids) == (row.prompt_ids, row.response_ids)
    assert parted(text).thought.strip() == "we add them" and answer_of(text).strip() == "four"


@pytest.mark.parametrize("name", TEMPLATES)
def test_masked_thoughts_are_read_and_not_learned(name: str) -> None:
    renderer = Renderer(tokenizer(TEMPLATES[name]))
    learned, masked = renderer.encode(ASK, said(ROW)), renderer.encode(ASK, said(ROW), thoughts="mask")
    assert masked.response_ids == learned.response_ids
    kept = [i for i, m in zip(masked.response_ids, masked.loss_mask, strict=True) if m]
    assert renderer.tokenizer.decode(kept) == "four" + renderer.tokenizer.decode(learned.response_ids[-1:])


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_reward_model_reads_what_its_template_writes(name: str) -> None:
    """Token for token what plain transformers gives it, without the thought where the template takes it out."""
    renderer = Renderer(tokenizer(TEMPLATES[name]), generates=False)
    row = renderer.encode(ASK, said(ROW))
    ids = [*row.prompt_ids, *row.response_ids]
    assert renderer.tokenizer.decode(ids).endswith(READ[name])
    assert row.unread == (name in ("r1", "qwq", "deepseek", "reasoning"))
    if name not in ("channels", "magistral", "reasoning"):  # these take a thought from elsewhere than the text
        messages = [{"role": "user", "content": ASK[0].content}, {"role": "assistant", "content": ROW}]
        plain = renderer.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert plain[: len(ids)] == ids
    no_thought = renderer.encode(ASK, said("four"))
    assert no_thought.prompt_ids == row.prompt_ids and not no_thought.unread


@pytest.mark.parametrize("name", ["r1", "qwq", "deepseek", "reasoning"])
def test_a_response_without_a_thought_is_not_learned_inside_one(name: str) -> None:
    renderer = Renderer(tokenizer(TEMPLATES[name]))
    with pytest.raises(
        DataError, match=r"opens a thought in its generation prompt .* never closes[\s\S]*<think></think>"
    ):
        renderer.encode(ASK, said("four"))
    none = renderer.encode(ASK, said("<think></think>\n\nfour"))
    closing = renderer.template.form.closing
    assert renderer.tokenizer.decode(none.response_ids) == f"{closing}\n\nfour</s>".replace(
        "</s>", renderer.tokenizer.decode(none.response_ids[-1:])
    )


def test_a_template_may_write_an_empty_thought_itself() -> None:
    renderer = Renderer(tokenizer(THINKING))
    assert renderer.tokenizer.decode(renderer.encode(ASK, said("four")).response_ids) == "\n</think>\n\nfour<|im_end|>"
    masked = renderer.encode(ASK, said("four"), thoughts="mask")
    assert sum(masked.loss_mask) == len(renderer.ids.of("four<|im_end|>"))


def test_a_thought_spaced_otherwise_is_spaced_as_the_template_does() -> None:
    """White space around the marks is the template's; a thought that it would lose part of is refused with both."""
    renderer = Renderer(tokenizer(HYBRID))
    row = renderer.encode(ASK, said("<think>one and one</think>two"))
    assert renderer.tokenizer.decode(row.response_ids) == "<think>\none and one\n</think>\n\ntwo<|im_end|>"
    with pytest.raises(DataError, match="is left out or changed by the chat template, which wrote"):
        renderer.encode(ASK, said("so: <think>one</think> two"))


def test_a_thought_behind_a_prompt_that_closes_it_is_refused() -> None:
    renderer = Renderer(tokenizer(CLOSED))
    assert renderer.tokenizer.decode(renderer.encode(ASK, said("four")).response_ids) == "four<|im_end|>"
    with pytest.raises(DataError, match="closes the thought in its generation prompt"):
        renderer.encode(ASK, said(ROW))


@pytest.mark.parametrize("template", [R1, HYBRID, THINKING])
def test_thoughts_of_earlier_turns_go_by_the_template(template: str) -> None:
    """In a prompt they are left out as at generation; where every turn is to be learned, the way out is named."""
    renderer = Renderer(tokenizer(template))
    talk = (*ASK, *said(ROW), Message("user", "and two?"))
    last = renderer.encode(talk, said("<think>\nmore\n</think>\n\nsix"))
    assert "we add them" not in renderer.tokenizer.decode(last.prompt_ids)
    assert "more" in renderer.tokenizer.decode(last.response_ids)
    with pytest.raises(DataError, match="set turns: last"):
        renderer.encode(ASK, (*said(ROW), talk[-1], *said(ROW)))


def test_marks_that_are_control_tokens_stand_where_the_template_writes_them() -> None:
    renderer = Renderer(tokenizer(TEMPLATES["magistral"]))
    own = renderer.encode(ASK, said("[THINK]we add them[/THINK]four"))
    assert own.response_ids == renderer.encode(ASK, said(ROW)).response_ids
    with pytest.raises(DataError, match=r"holds the control token '\[THINK\]'"):
        renderer.encode(ASK, said("four[THINK]x"))


def test_a_template_that_refuses_system_messages_says_so() -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + R1
    renderer = Renderer(tokenizer(refuses))
    assert renderer.encode(ASK, said(ROW)).response_ids == Renderer(tokenizer(R1)).encode(ASK, said(ROW)).response_ids
    with pytest.raises(DataError, match="refuses the conversation: no system role"):
        renderer.prompt_ids((Message("system", "be kind"), *ASK))


KEYS = [
    {"content": "four", "reasoning_content": "we add them"},
    {"content": "four", "thinking": "we add them"},
    {"content": "four", "reasoning": "\nwe add them\n"},
    {"content": "four", "reasoning_content": "we add them", "thinking": "we add them"},
    {"content": ROW, "reasoning_content": "we add them"},
    {"content": [{"type": "thinking", "thinking": "we add them"}, {"type": "text", "text": "four"}]},
    {
        "content": [
            {"type": "thinking", "thinking": [{"type": "text", "text": "we add them"}]},
            {"type": "text", "text": "four"},
        ]
    },
    {"content": [{"type": "reasoning", "text": "we add them"}, {"type": "text", "text": "four"}]},
    {"content": ROW, "reasoning_content": None},
]


@pytest.mark.parametrize("message", KEYS)
def test_a_files_thought_is_read_from_wherever_it_stands(message: dict, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "two and two?"}, {"role": "assistant"} | message]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    record = load(str(tmp_path / "rows.jsonl")).records[0]
    assert isinstance(record, Demonstration) and record.response[0].content == ROW


def test_two_thoughts_that_differ_are_refused(tmp_path: Path) -> None:
    for i, message in enumerate(
        [
            {"content": "four", "reasoning_content": "we add", "thinking": "we guess"},
            {"content": ROW, "reasoning_content": "we guess"},
        ]
    ):
        row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant"} | message]}
        (tmp_path / f"{i}.jsonl").write_text(json.dumps(row))
        with pytest.raises(DataError, match=r"reasoning_content: is another thought than"):
            load(str(tmp_path / f"{i}.jsonl"))


def test_a_row_read_without_its_thought_is_noted_with_a_count() -> None:
    rows = Records("rows", tuple(Demonstration(ASK, said(text)) for text in (ROW, "four", ROW)), (1, 2, 3))
    dataset = build_trees(rows, Renderer(tokenizer(R1), generates=False), max_length=200, shape="single")
    assert [(n.row, n.problem, n.action) for n in dataset.notes] == [(1, THOUGHT_OUT, "kept"), (3, THOUGHT_OUT, "kept")]
    assert "rows 1, 3" in dataset.text()
    assert not build_trees(rows, Renderer(tokenizer(HYBRID), generates=False), max_length=200, shape="single").notes


def test_a_text_that_is_all_thought_has_no_answer() -> None:
    assert answer_of("<think>2 + 2 is 4") == "" and answer_of("4</think>") == ""
    assert answer_of("no </think> marks </think> left") == " left"
    assert answer_of("5 < 6 and <think is no mark") == "5 < 6 and <think is no mark"


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("control", [False, True])
@pytest.mark.parametrize("closed", [False, True])
def test_what_is_thought_is_no_answer_whatever_tokens_mark_it(name: str, control: bool, closed: bool) -> None:
    """A verifier would otherwise read the number that the model only thinks of. The marks are control tokens or words,
    the template's own or truing's, written by the model or by the prompt; and the thought may be cut."""
    renderer = Renderer(tokenizer(TEMPLATES[name], marks_are_control=control))
    form, prompt = renderer.template.form, renderer.prompt_ids(ASK)
    opened = renderer.tokenizer.decode(prompt).rstrip().endswith(form.opening)
    written = ("" if opened else form.opening) + "is it 7? no" + (form.closing + "so: none</s>" if closed else "")
    text = renderer.text(prompt, renderer.ids.of(written))
    assert parted(text).thought.strip() == "is it 7? no" and text.startswith("<think>")
    assert answer_of(text) == ("so: none" if closed else "")
    assert verifier(text, {"answer": "7"}) == 0


@pytest.mark.parametrize("control", [False, True])
def test_marks_that_are_words_become_truings(control: bool) -> None:
    """As control tokens of a template that writes them as a part, and as words."""
    own = tokenizer(TEMPLATES["magistral"].replace("THINK]", "MUSE]") if not control else TEMPLATES["magistral"])
    renderer = Renderer(own)
    opening, closing = renderer.template.form.marks
    prompt = renderer.prompt_ids(ASK)
    text = renderer.text(prompt, renderer.ids.of(f"{opening}is it 7? no{closing}none</s>"))
    assert text == "<think>is it 7? no</think>none"
    assert renderer.text(prompt, renderer.ids.of("none, said [/the muse]</s>")) == "none, said [/the muse]"


@pytest.mark.parametrize("text", ["[MUSE]is it 7", "[MUSE] is it 7? [/MUSE] no"])
def test_own_marks_are_written_again_where_a_policys_text_is_read(text: str) -> None:
    renderer = Renderer(tokenizer(TEMPLATES["magistral"].replace("THINK]", "MUSE]")))
    prompt = renderer.prompt_ids(ASK)
    ids = renderer.ids.of(text)
    read = renderer.read(ASK, renderer.text(prompt, ids))
    assert renderer.tokenizer.decode(read.response_ids) == text + "</s>"


FORMS = {name: template_forms.TEMPLATES[name] for name in ("chatml", "gemma", "zephyr", "llama3", "mistral")} | {
    "r1": R1,
    "qwq": TEMPLATES["qwq"],
    "hybrid": HYBRID,
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("message", [KEYS[0], {"content": "a", "reasoning_content": "a"}, {"content": ROW}], ids=str)
def test_a_reward_model_reads_a_files_message_as_plain_transformers_gives_it(
    name: str, message: dict, tmp_path: Path
) -> None:
    """An instance of: a thought in a key that the template does not read. It is not read here either, and that is
    said; nor does it matter that an earlier turn has one, or that the row is written to a file and read again."""
    earlier = [{"role": "user", "content": "a?"}, {"role": "assistant"} | message]
    talk = [*earlier, {"role": "user", "content": "so?"}, {"role": "assistant"} | message]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"messages": t}) + "\n" for t in (earlier, talk)))
    renderer = WholeConversation(tokenizer(FORMS[name]))
    records = load(str(tmp_path / "rows.jsonl"))
    (tmp_path / "again.jsonl").write_text("".join(json.dumps(as_row(r)) + "\n" for r in records.records))
    again = load(str(tmp_path / "again.jsonl"))
    assert again.records == records.records
    for each in (records, again):
        dataset = build_trees(each, renderer, max_length=500, shape="single")
        for tree, messages in zip(dataset.trees, (earlier, talk), strict=True):
            plain = renderer.tokenizer.apply_chat_template(messages, return_dict=False)
            assert [*tree.prompt, *tree.branches[0].ids] == list(plain)
        apart = "reasoning_content" in message
        lost = 2 if name in ("r1", "qwq") or (apart and name != "hybrid") else 0
        assert sum(note.problem == THOUGHT_OUT for note in dataset.notes) == lost


def test_an_empty_block_tells_a_templates_own_marks() -> None:
    """A template that writes an empty thought before an answer without one, between marks of its own."""
    text_alone = [template.replace("m.reasoning_content is string", "false") for template in (THINKING, HYBRID)]
    for template in (THINKING, HYBRID, *text_alone):
        renderer = Renderer(tokenizer(template.replace("think>", "seed:think>")))
        assert renderer.template.form.marks == ("<seed:think>", "</seed:think>")
        row, plain = renderer.encode(ASK, said(ROW)), Renderer(tokenizer(template)).encode(ASK, said(ROW))
        write = renderer.tokenizer.decode
        assert write(row.response_ids) == write(plain.response_ids).replace("think>", "seed:think>")
        assert answer_of(renderer.text(row.prompt_ids, row.response_ids)).strip() == "four"
        reward = WholeConversation(renderer.tokenizer).encode(ASK, said(ROW))
        assert write(reward.response_ids).count("we add them") == 1 and not reward.unread


def test_marks_of_learning_hold_where_whole_conversations_are_read() -> None:
    """Outcome labels fall on what is learned, and on the last token, where the reward is read."""
    answer = (Message("assistant", "four", learned=False), Message("user", "sure?"), Message("assistant", "five"))
    renderer = WholeConversation(tokenizer(template_forms.TEMPLATES["chatml"]))
    row = renderer.encode(ASK, answer)
    learned = [i for i, m in zip(row.response_ids, row.loss_mask, strict=True) if m]
    assert renderer.tokenizer.decode(learned) == "five<|im_end|>"
    records = Records("rows", (Judgement("p", ASK, (answer,), Verdict("score", [1.0])),), (1,))
    [branch] = build_trees(records, renderer, max_length=200, shape="outcomes").trees[0].branches
    last = len(branch.ids) - 1
    assert [at for at, _ in branch.steps] == [at for at, m in enumerate(row.loss_mask) if m or at == last]


def test_responses_that_differ_in_a_thought_alone_are_named_so_or_read_alike() -> None:
    two = (said("<think>\na\n</think>\n\nx"), said("<think>\nb\n</think>\n\nx"))
    other = Judgement("q", ASK, (said("y"), said("x")), Verdict("choice", 0))
    records = Records("rows", (Judgement("p", ASK, two, Verdict("choice", 0)), other), (1, 2))
    renderer = WholeConversation(tokenizer(R1))
    dataset = build_trees(records, renderer, max_length=200, shape="pairs")
    assert "dropped 1 (responses are the same once the chat template has taken their thoughts out" in dataset.text()
    assert "cut" not in dataset.text()
    kept = build_trees(records, renderer, max_length=200, shape="pairs", alike="kept")
    assert len(kept.trees) == 2 and len({branch.ids for branch in kept.trees[0].branches}) == 1
