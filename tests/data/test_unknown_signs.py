"""A sign that a vocabulary lacks refuses its row, names the way out and says how many such rows there are."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from truing.data.formats.loading import load
from truing.data.rendering.whole_conversation import WholeConversation
from truing.data.trees import build_trees
from truing.errors import DataError

WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "a", "good", "bad", "word"]
BERT = "{{ cls_token }}{% for m in messages %}{{ m['content'] }}{{ sep_token }}{% endfor %}"


@pytest.fixture
def renderer() -> WholeConversation:
    """That of a reward model on an encoder's vocabulary, with the template that docs/models.md shows."""
    vocabulary = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "eos_token": "[SEP]",
    }
    return WholeConversation(PreTrainedTokenizerFast(tokenizer_object=vocabulary, chat_template=BERT, **names))


def rows(bad: int) -> list[dict[str, Any]]:
    good = [{"prompt": "a " * (i + 1), "chosen": "good", "rejected": "bad"} for i in range(8)]
    return good + [
        {"prompt": "word " * (i + 1), "chosen": "good \N{GRINNING FACE}", "rejected": "bad"} for i in range(bad)
    ]


@pytest.mark.parametrize("bad", [1, 2])
def test_a_sign_without_token_names_the_way_out_and_its_share(
    write: Any, renderer: WholeConversation, bad: int
) -> None:
    records = load(write(rows(bad)))
    with pytest.raises(DataError) as caught:
        build_trees(records, renderer, max_length=64, shape="pairs")
    said = str(caught.value)
    assert "row 9" in said and "has no token for a part of this text ('[UNK]')" in said
    assert "set on_bad_row: drop" in said
    assert f"{bad} of {8 + bad} rows cannot be used." in said
    dataset = build_trees(records, renderer, max_length=64, shape="pairs", on_bad_row="drop")
    assert len(dataset.trees) == 8
    assert sum(note.action == "dropped" for note in dataset.notes) == bad


def test_the_template_of_the_docs_writes_the_tokens_itself(write: Any, renderer: WholeConversation) -> None:
    dataset = build_trees(load(write(rows(0))), renderer, max_length=64, shape="pairs")
    first = dataset.trees[0]
    assert [*first.prompt, *first.branches[0].ids] == [1, 4, 2, 5, 2]
