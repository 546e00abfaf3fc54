"""Which patterns of a stranger's file are given to `re`, and that those which are take no time."""

from __future__ import annotations

import re
import time

import pytest

from truing.policy.files import tokenizer_files
from truing.policy.files.patterns import trouble

READ = [
    r".*\.(q_proj|v_proj)$",
    r"^(?!.*visual).*(?:q_proj|k_proj)$",
    r"(?:.*?(?:vision|image|visual).*?(?:attn|attention|mlp).*?(?:qkv|proj|fc1).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn)\.(?:(?:q_proj|k_proj|v_proj|o_proj)))",
    r"model\.language_model(?=\.).*\.(k_proj|gate_proj|down_proj|q_proj)",
    r"^(language_model|aligner)(?!.*(lm_head|output|emb)).*",
    r"^(?:model\.|)layers\.(?:\d|1\d|2[0-7])\.self_attn\.q_proj$",
    "[qkv]_proj",
    "layers.[0-9].*",
]
ENDLESS = [
    *("(a+)+$", "(a|a)*$", "(a|aa)+$", "(.*)*", "(.*a){20}", "(a*)*b", "(a?){50}a{50}", "((a+))*", "(?=(a+)+$)"),
    *("(?:a|b|ab)+c", "(?:(?:a+)?)+", "(?i:(a|A)+)+", "(a{0,5}){30}", r"(\w+\s?)*$", "(?>a+)*", "()*", "(a|)*b"),
]
SLOW = ["a?" * 40 + "a" * 40, ".*" * 9 + "x", "(a|a)" * 40 + "b", "a*" * 30 + "b", "[ab]{0,9}" * 20]
SLOW += [".?" * 26 + "w", ".{0,3}" * 13 + "w"]


@pytest.mark.parametrize("pattern", READ)
def test_patterns_that_people_use_are_read_in_no_time(pattern) -> None:
    assert trouble(pattern) == ""
    begun = time.process_time()
    for name in ("model.layers.11.self_attn.q_proj", "a" * 64, "model." * 10, "vision.attn." * 5):
        re.fullmatch(pattern, name)
        re.match(rf"(.*\.)?({pattern})$", name)
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("pattern", ENDLESS)
def test_repeated_parts_that_vary_are_refused(pattern) -> None:
    assert trouble(pattern) == "repeats a part that varies itself, which may take for ever"


@pytest.mark.parametrize("pattern", SLOW)
def test_too_many_choices_in_a_row_are_refused(pattern) -> None:
    assert trouble(pattern) == "can be tried in too many ways, which may take for ever"


@pytest.mark.parametrize(("pattern", "words"), [("(", "is no pattern"), ("x" * 3000, "has 3,000 characters")])
def test_what_is_no_pattern_is_said(pattern, words) -> None:
    assert words in trouble(pattern)


CUTS = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re)?|\p{N}{1,3}",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    r"(?:\p{L}\p{M}*)+|\p{N}",
    r"[[:alpha:]]+|\h+",
]


@pytest.mark.parametrize("pattern", CUTS)
def test_what_published_tokenizers_cut_texts_by_is_read(pattern) -> None:
    tokenizer_files.check_body("model 'm'", {"pre_tokenizer": {"pattern": {"Regex": pattern}}})
