"""Turns that their data marks as not to be learned (OpenAI, Mistral, Axolotl, ms-swift, torchtune, ...), and keys of
messages that change what they say or that nobody reads."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from truing.data.formats.loading import as_row, describe, load
from truing.data.rendering.render import Renderer
from truing.errors import DataError
from truing.records import Demonstration, Judgement

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    base = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    base.decoder = decoders.ByteLevel()
    base.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=base, eos_token="<|im_end|>")
    tokenizer.chat_template = TEMPLATE
    return Renderer(tokenizer)


def dialogue(*marks: dict[str, Any], **columns: Any) -> dict[str, Any]:
    """A conversation of as many assistant turns (`one`, `two`, ...) as there are marks, each with its marks."""
    turns: list[dict[str, Any]] = []
    for name, mark in zip(("one", "two", "three"), marks, strict=False):
        turns += [{"role": "user", "content": f"ask {name}"}, {"role": "assistant", "content": name} | mark]
    return {"messages": turns} | columns


def taught(renderer: Renderer, record: Any) -> str:
    rendered = renderer.demonstration(record)
    kept = [token for token, learned in zip(rendered.response_ids, rendered.loss_mask, strict=True) if learned]
    return str(renderer.tokenizer.decode(kept)).replace("<|im_end|>", " ").strip()


OFF: list[dict[str, Any]] = [
    {"weight": 0},
    {"weight": 0.0},
    {"weight": "0"},
    {"train": False},
    {"training": False},
    {"loss": False},
    {"loss_mask": 0},
    {"trainable": False},
    {"lossMask": 0},
    {"masked": True},
    {"output_with_loss": False},
]


@pytest.mark.parametrize("mark", OFF, ids=str)
def test_a_marked_turn_is_read_and_not_learned_wherever_it_stands(write: Any, renderer: Renderer, mark: Any) -> None:
    on = {key: not value if isinstance(value, bool) else 1 for key, value in mark.items()}
    for marks, learned in (([mark, on], "two"), ([on, mark, {}], "one three"), ([{}, mark], "one")):
        [record] = load(write([dialogue(*marks)])).records
        assert isinstance(record, Demonstration)
        assert taught(renderer, record) == learned
    first = load(write([dialogue(mark, {})])).records[0]
    assert [m.content for m in first.prompt] == ["ask one", "one", "ask two"]


def test_sharegpt_turns_are_marked_too(write: Any, renderer: Renderer) -> None:
    turns = [
        {"from": "human", "value": "a"},
        {"from": "gpt", "value": "bad", "weight": 0},
        {"from": "human", "value": "b", "weight": None},
        {"from": "gpt", "value": "good", "weight": 1},
    ]
    assert taught(renderer, load(write([{"conversations": turns}])).records[0]) == "good"


def test_marks_of_a_row_stand_for_its_messages_in_order(write: Any, renderer: Renderer) -> None:
    """The sibling of a mark on a message: one list with an entry for each message."""
    row = dialogue({}, {}, {}, loss_mask=[0, 1, 0, 0, 0, 1])
    assert taught(renderer, load(write([row])).records[0]) == "one three"
    with pytest.raises(DataError, match=r"row 1, field loss_mask: has 3 entries for 4 messages"):
        load(write([dialogue({}, {}, loss_mask=[0, 1, 0])]))


def test_a_cut_and_a_last_turn_follow_the_marks(write: Any, renderer: Renderer) -> None:
    [note] = load(write([dialogue({}, {"weight": 0})])).notes
    assert (note.problem, note.action) == ("ends with turns that are marked as not to be learned", "truncated")
    [record] = load(write([dialogue({}, {}, {"train": False})]), turns="last").records
    assert taught(renderer, record) == "two"


def test_marks_survive_a_split_and_belong_to_the_digest(write: Any, renderer: Renderer) -> None:
    source = write([dialogue({}, {"weight": 0}, {})])
    records = load(source)
    again = load(write([as_row(records.records[0])], "again.jsonl"))
    assert taught(renderer, again.records[0]) == "one three"
    assert again.digest == records.digest != load(write([dialogue({}, {}, {})], "plain.jsonl")).digest


def test_marks_of_pairs_mask_their_responses_and_never_divide_their_prompt(write: Any, renderer: Renderer) -> None:
    shared = dialogue({"weight": 0}, {})["messages"][:3]
    other = dialogue({}, {})["messages"][:3]
    end = [{"role": "assistant", "content": "bad", "weight": 0}, {"role": "user", "content": "no"}]
    row = {"chosen": [*shared, *end, {"role": "assistant", "content": "good"}]}
    row |= {"rejected": [*other, {"role": "assistant", "content": "worse"}]}
    [record] = load(write([row])).records
    assert isinstance(record, Judgement)
    assert [m.content for m in record.prompt] == ["ask one", "one", "ask two"]
    whole = renderer.encode(record.prompt, record.chosen)
    kept = [t for t, learned in zip(whole.response_ids, whole.loss_mask, strict=True) if learned]
    assert renderer.tokenizer.decode(kept) == "good<|im_end|>"


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ({"weight": 0.5}, r"field messages\[1\].weight: is 0.5: 1 \(learned\) or 0 \(not learned\) is read"),
        ({"weight": 2}, r"field messages\[1\].weight: is 2: "),
        ({"loss_scale": "react"}, r"field messages\[1\].loss_scale: is 'react': "),
        ({"weight": 1, "train": False}, r"is to be learned by its 'weight', and is not by its 'train'"),
        ({"mask": 1}, r"field messages\[1\].mask: is written both ways round"),
        ({"train_detail": [{"begin_offset": 0}]}, "marks a part of a turn"),
        ({"function_call": {"name": "f"}}, r"function_call: calls of tools are not read"),
        ({"thoughts": "hm"}, "a thought is read from reasoning_content, thinking or reasoning"),
        ({"thinking": ["hm"]}, r"messages\[1\].thinking: is no text, and a thought is text"),
        ({"images": ["cat.png"]}, r"field messages\[1\].images: is no text"),
    ],
)
def test_what_is_neither_yes_nor_no_is_refused(write: Any, mark: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write([dialogue(mark)]))


def test_a_row_of_which_nothing_is_learned_is_refused(write: Any) -> None:
    with pytest.raises(DataError, match="has no assistant message to learn from: its marks"):
        load(write([dialogue({"weight": 0}, {"weight": 0})]))
    with pytest.raises(DataError, match="a reply of several messages, of which one is learned and one not"):
        load(write([{"messages": [*dialogue({"weight": 0})["messages"], {"role": "assistant", "content": "more"}]}]))


def test_a_user_message_to_be_learned_is_noted(write: Any) -> None:
    row = dialogue({})
    row["messages"][0]["train"] = True
    [note] = load(write([row])).notes
    assert note.problem == "asks for a message of role 'user' to be learned, and only the assistant's are"


def test_keys_that_nobody_reads_are_named_once_with_a_count(write: Any) -> None:
    rows = [dialogue({"name": "Ann", "id": i}, {"name": "Bob", "refusal": None}) for i in range(3)]
    text = describe(load(write([*rows, dialogue({})])))
    assert "message keys 'id', 'name' not read (3 rows)" in text
    assert "refusal" not in text and "weight" not in text


def test_parts_of_a_message_are_text_or_refused_by_their_type(write: Any) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}}]
    records = load(write([dialogue({"content": parts})]))
    assert records.records[0].response[0].content == "ab"  # type: ignore[union-attr]
    assert "message key 'content[].cache_control' not read (1 row)" in describe(records)
    for part in ({"type": "image_url", "image_url": {"url": "x"}}, {"type": "image"}, {"type": "thinking"}):
        with pytest.raises(DataError, match=rf"content\[1\]: is a part of type '{part['type']}'"):
            load(write([dialogue({"content": [parts[0], part]})]))


@pytest.mark.parametrize("verdict", [{"label": False}, {"label": True}, {"kto_tag": True}])
@pytest.mark.parametrize("mark", [{"weight": 0}, {"train": False}, {"masked": True}])
def test_a_verdict_does_not_move_to_another_answer(write: Any, verdict: dict[str, Any], mark: dict[str, Any]) -> None:
    """An instance of: what is said of a row's last answer, read of the one that the marks of learning leave."""
    with pytest.raises(
        DataError, match="is a verdict on the last response of the conversation, which is marked as not"
    ):
        load(write([dialogue({}, mark) | verdict]))
    assert len(load(write([dialogue(mark, {}) | {"label": True}])).records) == 1


def test_marks_of_learning_play_no_part_where_nothing_is_learned(write: Any) -> None:
    rows = [dialogue({}, {"weight": 0}), dialogue({"train": False}, {"train": False}), dialogue({"weight": 0}, {})]
    assert load(write(rows), unmarked=True).records == load(write([dialogue({}, {})] * 3)).records
    assert all(m.learned for r in load(write(rows), unmarked=True).records for m in r.response)  # type: ignore[union-attr]
