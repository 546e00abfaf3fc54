"""What is written is read back equal, by our reader of YAML 1.2 and by another's of 1.1."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.yaml_text.reading import read
from truing.yaml_text.writing import write

AMBIGUOUS = [
    "on", "On", "no", "NO", "yes", "off", "y", "n", "Y", "N", "true", "True", "null", "Null", "~", "1e-5", "1E5",
    "1.5e-3", "1_000", "010", "0o10", "0b1", "0x1F", "1:30", "190:20:30.15", "2024-01-01",
    "2001-12-14t21:59:43.10-05:00", "<<", "=", ".5", ".inf", "-.INF", ".nan", "+1", "-1", "-", "?", "|", ">", "---",
    "...", "#a", "a:", "a:b", "a#b", "@x", "`x", "%x", "&x", "*x", "!x", "{x", "[x", "]"
]  # fmt: skip
WORDS = st.one_of(
    st.text(max_size=12),
    st.text(alphabet="ab0-1:?#&*!|>'\"%@`{}[], \n\t.eE_+~=<\u2028\x85\u00e9\U0001f600\\", max_size=8),
    st.sampled_from(AMBIGUOUS),
)
SCALARS = st.one_of(WORDS, st.integers(), st.floats(allow_nan=False), st.booleans(), st.none())
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=8
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(VALUES, st.booleans())
def test_what_is_written_is_read_back_by_1_2_and_by_1_1(value, ascii_only):
    text = write({"key": value}, ascii_only=ascii_only)
    for back in (read(text, "it").plain, yaml.safe_load(text)):
        assert repr(back) == repr({"key": value})
    assert text.isascii() or not ascii_only


@pytest.mark.parametrize("word", ["", " ", "a ", " a", "x" * 3000, *AMBIGUOUS])
def test_an_ambiguous_word_stays_a_word_as_value_key_and_entry(word):
    value = {"value": word, word: 1, "list": [word, [word]]}
    text = write(value)
    assert read(text, "it").plain == yaml.safe_load(text) == value


def test_what_it_looks_like():
    value = {
        "title": "a story", "seed": 3, "learning_rate": 1e-5, "flag": True, "none": None, "word": "on", "text": "it's",
        "data": "world:pairs?n=5", "lines": "a\nb", "empty": [], "also": {}, "list": [1, [2, 3], {"a": 1, "b": [4]}],
    }  # fmt: skip
    assert write(value) == (
        "title: a story\nseed: 3\nlearning_rate: 1.0e-05\nflag: true\nnone: null\nword: 'on'\ntext: it's\n"
        'data: world:pairs?n=5\nlines: "a\\nb"\nempty: []\nalso: {}\n'
        "list:\n- 1\n- - 2\n  - 3\n- a: 1\n  b:\n  - 4\n"
    )


def test_a_tuple_is_a_list_and_what_has_no_form_is_refused():
    assert write({"a": (), "b": (1,)}) == "a: []\nb:\n- 1\n"
    with pytest.raises(TypeError, match="set has no form in YAML"):
        write({"a": {1}})
