"""A model's folder that somebody else made: whatever stands in it, it is read right, or refused in one sentence that names
the folder, the file and what is wrong. Nothing hangs, takes the memory, or gives numbers that are none."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from small_models import build_rows
from truing.errors import UserError
from truing.policy import trees
from truing.policy.files import grammar
from truing.policy.load import load, load_any, load_config

UP = "model.layers.0.mlp.up_proj.weight"
Change = Callable[[Path], object]


def told(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(str(folder))
    message = str(caught.value)
    assert message.startswith(f"model '{folder}'") and len(message) < 1500
    return message


def put(path: Path, **entries: Any) -> None:
    body = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(body | entries))


NUMBER = "is to be a whole number from 1 to 1,000,000,000"
CONFIGS: list[tuple[str, Any, str]] = [
    ("num_hidden_layers", 10**9, "says num_hidden_layers 1,000,000,000, and its weights are 30 tensors"),
    ("n_layers_of_a_kind_to_come_layers", 10**12, "is to be a whole number up to 1,000,000,000, or a list of them"),
    ("num_hidden_layers", "3", f"num_hidden_layers is '3', and {NUMBER}"),
    ("num_hidden_layers", True, f"num_hidden_layers is True, and {NUMBER}"),
    ("num_hidden_layers", [3], "num_hidden_layers is [3]"),
    ("num_hidden_layers", 90, "its files lack model.layers.10."),
    ("hidden_size", 10**9, "numbers, and its files hold 149,440; they do not belong together"),
    ("hidden_size", 10**30, f"hidden_size is 1000000000000000000000000000000, and {NUMBER}"),
    ("hidden_size", 63, "its config.json describes no model"),
    ("vocab_size", 10**12, "vocab_size is 1000000000000"),
    ("vocab_size", 10**8, "they do not belong together"),
    ("vocab_size", 5, "by its config.json lm_head.weight has the shape [5, 64], and in its files [300, 64]"),
    ("intermediate_size", 10**9, "they do not belong together"),
    ("num_attention_heads", 0, "num_attention_heads is 0"),
    ("num_attention_heads", 3, "its config.json describes no model"),
    ("num_key_value_heads", 3, "has the shape [48, 64], and in its files [32, 64]"),
    ("num_key_value_heads", 0, "its config.json describes no model: "),
    ("head_dim", 0, "its config.json describes no model: "),
    ("rms_norm_eps", float("nan"), "rms_norm_eps is nan, and is to be a number from 0 to 1"),
    ("rms_norm_eps", -1, "rms_norm_eps is -1"),
    ("rope_theta", 0, "rope_theta is 0"),
    ("rope_scaling", 3, "rope_scaling is 3, and is to be an object, or null"),
    ("rope_parameters", {"rope_type": "zzz"}, "its config.json describes no model: "),
    ("rope_parameters", {"rope_type": "linear", "factor": 0, "rope_theta": 1e4}, "of 8 tokens is NaN or infinite"),
    (
        "rope_parameters",
        {"rope_type": "yarn", "factor": float("nan"), "rope_theta": 1e4},
        "rope_parameters.factor is nan",
    ),
    ("max_position_embeddings", 0, "max_position_embeddings is 0"),
    ("hidden_act", "nope", "its config.json describes no model: KeyError: 'nope'"),
    ("hidden_act", 3, "hidden_act is 3, and is to be text"),
    ("model_type", "nope", "has model type `nope`"),
    ("model_type", None, "model_type is None, and is to be text"),
    ("model_type", "gpt2", "its files lack transformer.h.0.attn.c_attn.bias"),
    ("architectures", "x", "architectures is 'x', and is to be a list, each text, or null"),
    ("dtype", [1], "dtype is [1], and is to be text, or an object, or null"),
    ("pad_token_id", 10**6, "Padding_idx must be within num_embeddings"),
    ("eos_token_id", [None], "eos_token_id is [None]"),
    ("id2label", [1], "id2label is [1], and is to be an object of up to 100,000 names, numbered from 0"),
    ("id2label", {"7": "a"}, "id2label is {'7': 'a'}"),
    ("num_labels", 10**7, "num_labels is 10000000, and is to be a whole number from 1 to 100,000"),
    ("tie_logit", 1e999, "tie_logit is inf, and is to be a finite number"),
    ("head_weights", [float("nan")], "head_weights is [nan]"),
    ("auto_map", {"AutoConfig": "a.B"}, "its config.json asks to run code of its own (auto_map)"),
    ("text_config", {"auto_map": {"AutoConfig": "a.B"}}, "its config.json asks to run code of its own (auto_map)"),
    ("vision_config", {"hidden_size": "x"}, "vision_config.hidden_size is 'x'"),
    ("text_config", 3, "its config.json describes no model"),
    ("quantization_config", {"quant_method": "x"}, "says that its weights are quantised (quantization_config)"),
    ("tie_word_embeddings", "yes", "tie_word_embeddings is 'yes', and is to be true or false, or null"),
    ("attention_bias", "x", "its config.json describes no model: "),
    ("attention_bias", True, "its files lack model.layers.0.self_attn.k_proj.bias"),
    ("layer_types", ["x"], "its config.json describes no model"),
    ("return_dict", False, "it cannot read 8 tokens"),
    ("output_hidden_states", "x", "it cannot read 8 tokens"),
    ("to_dict", 3, "its config.json describes no model: TypeError: 'int' object is not callable"),
    ("__class__", 3, "its config.json describes no model: TypeError: "),
    ("base_model_tp_plan", 3, "its config.json describes no model: TypeError: "),
]


@pytest.mark.parametrize(("key", "value", "words"), CONFIGS, ids=[f"{k}={str(v)[:20]}" for k, v, _ in CONFIGS])
def test_a_config_that_says_what_it_should_not(folder, key, value, words) -> None:
    put(folder / "config.json", **{key: value})
    assert words in told(folder)


def raw(name: str, content: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def entry(name: str, **entries: Any) -> Change:
    return lambda folder: put(folder / name, **entries)


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(folder: Path) -> None:
        body = json.loads((folder / "tokenizer.json").read_text())
        change(body)
        (folder / "tokenizer.json").write_text(json.dumps(body))

    return apply


def cut(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def grown(times: int, text: str = "a") -> dict[str, Any]:
    swap = {"type": "Replace", "pattern": {"String": text}, "content": text * 9}
    return {"type": "Sequence", "normalizers": [swap] * times}


WORD_PIECE = {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]", "max_input_chars_per_word": 9}
WORD_PIECE["continuing_subword_prefix"] = "##"
PRECOMPILED = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
FILES: dict[str, tuple[Change, str]] = {
    "a list": (raw("config.json", "[]"), "its config.json: holds a list where an object {...} is needed"),
    "a number": (raw("config.json", "3"), "its config.json: holds a number where an object"),
    "null": (raw("config.json", "null"), "its config.json: holds null"),
    "nothing in it": (raw("config.json", "{}"), "its config.json describes no model: Unrecognized model"),
    "no UTF-8": (raw("config.json", b'{"a": "\xff"}'), "its config.json: is not UTF-8 text (line 1"),
    "digits": (raw("config.json", '{"a": ' + "1" * 5000 + "}"), "a number of 5,000 digits is too large"),
    "large": (raw("config.json", '{"a": "' + "x" * 11_000_000 + '"}'), "and at most 10,000,000 are read"),
    "deep": (raw("generation_config.json", "[" * 200 + "]" * 200), "is nested more than 100 deep"),
    "generation": (entry("generation_config.json", eos_token_id="x"), "its generation_config.json cannot be used"),
    "generation type": (entry("generation_config.json", temperature="hot"), "temperature is 'hot'"),
    "generation cache": (entry("generation_config.json", cache_implementation="zz"), "cache_implementation"),
    "generation code": (entry("generation_config.json", auto_map={"a": "b.C"}), "asks to run code of its own"),
    "tokenizer list": (raw("tokenizer_config.json", "[]"), "its tokenizer_config.json: holds a list"),
    "class": (entry("tokenizer_config.json", tokenizer_class=3), "tokenizer_class is 3, and is to be text, or null"),
    "classes": (entry("tokenizer_config.json", tokenizer_class=["A"]), "tokenizer_class is ['A']"),
    "processor": (entry("tokenizer_config.json", processor_class={}), "processor_class is {}"),
    "other class": (entry("tokenizer_config.json", tokenizer_class="BertTokenizer"), "cannot read a few words"),
    "length": (entry("tokenizer_config.json", model_max_length="x"), "model_max_length is 'x'"),
    "eos": (entry("tokenizer_config.json", eos_token=3), "eos_token is 3"),
    "side": (entry("tokenizer_config.json", padding_side="up"), "padding_side is 'up', and is to be left or right"),
    "decoder": (entry("tokenizer_config.json", added_tokens_decoder={"x": {"content": "a"}}), "invalid literal"),
    "method": (entry("tokenizer_config.json", apply_chat_template=3), "its tokenizer cannot be read: AttributeError"),
    "special": (raw("special_tokens_map.json", '{"eos_token": 3}'), "its special_tokens_map.json cannot be used"),
    "added": (raw("added_tokens.json", '{"a": "x"}'), "its added_tokens.json is {'a': 'x'}"),
    "template": (raw("chat_template.jinja", "{{"), "the chat template is no template: "),
    "template bytes": (raw("chat_template.jinja", b"\xff\xfe"), "its chat_template.jinja: is not UTF-8 text"),
    "template power": (raw("chat_template.jinja", "{{ 9**9**9 }}"), "raises to a power (line 1)"),
    "vocabulary": (tokenizer(lambda body: body.update(model=3)), "its tokenizer cannot be read: "),
    "vocabulary file": (raw("tokenizer.json", "{}"), "its tokenizer cannot be read: KeyError"),
    "unknown": (tokenizer(lambda body: body.update(model=WORD_PIECE)), "its tokenizer cannot read a few words: "),
    "panic": (tokenizer(lambda body: body.update(normalizer=PRECOMPILED)), "a library that reads it gave up"),
    "dropout": (tokenizer(lambda body: body["model"].update(dropout=0.5)), "cuts words by chance"),
    "endless": (tokenizer(lambda body: body.update(normalizer=grown(3))), "may make a text 729 times as long"),
    "search": (tokenizer(lambda body: body.update(pre_tokenizer=cut("(a+)+$"))), "repeats a part that varies itself"),
    "search in a class": (tokenizer(lambda b: b.update(pre_tokenizer=cut(r"(\p{L}*)*!"))), "repeats a part that"),
    "search either": (tokenizer(lambda b: b.update(pre_tokenizer=cut("(?:ab|ab|a)+x"))), "repeats a part that"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_not_what_it_should_be(folder, name) -> None:
    change, words = FILES[name]
    change(folder)
    assert words in told(folder)


def weights(name: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Change:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        new = change(tensors.pop(name, torch.ones(3)))
        save_file(tensors | ({} if new is None else {name: new}), folder / "model.safetensors", {"format": "pt"})

    return apply


def headed(header: object, length: int | None = None) -> Change:
    text = json.dumps(header).encode()
    return raw("model.safetensors", struct.pack("<Q", len(text) if length is None else length) + text)


HOLDS = f"its model.safetensors holds '{UP}' as "
TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
WEIGHTS: dict[str, tuple[Change, str]] = {
    "nan": (
        weights(UP, lambda t: t.index_fill(0, torch.tensor([3]), float("nan"))),
        f"64 of the 8,192 weights in {UP}",
    ),
    "infinite": (weights(UP, lambda t: t * float("inf")), f"8,192 of the 8,192 weights in {UP} are NaN or infinite"),
    "beyond fp32": (weights(UP, lambda t: t.double() * 1e300), "are NaN or infinite"),
    "int8": (weights(UP, lambda t: t.to(torch.int8)), HOLDS + "I8, and weights are read as F64, F32, F16, BF16"),
    "fp8": (weights(UP, lambda t: t.to(torch.float8_e4m3fn)), HOLDS + "F8_E4M3"),
    "bool": (weights(UP, lambda t: t > 0), HOLDS + "BOOL"),
    "complex": (weights(UP, lambda t: t.to(torch.complex64)), HOLDS + "C64"),
    "packed": (weights("a.qweight", lambda t: t.int()), "holds 'a.qweight' as I32"),
    "shape": (weights(UP, lambda t: t[:5].clone()), f"{UP} has the shape [128, 64], and in its files [5, 64]"),
    "absent": (weights(UP, lambda _: None), f"its files lack {UP}"),
    "header list": (headed([]), "its header cannot be read"),
    "header long": (headed({}, 2**40), "it is no safetensors file: it begins with other bytes"),
    "header empty": (headed({}), "its files lack "),
    "header types": (headed({"a": TENSOR | {"dtype": 3}}), "its header cannot be read"),
    "header shape": (headed({"a": TENSOR | {"shape": [-1]}}), "its header cannot be read"),
    "header ends": (headed({"a": TENSOR | {"data_offsets": [4, 0]}}), "its header cannot be read"),
    "header size": (headed({"a": TENSOR | {"shape": [10**12], "data_offsets": [0, 0]}}), "invalid shape"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none(folder, name) -> None:
    change, words = WEIGHTS[name]
    change(folder)
    assert words in told(folder)


def test_weights_of_other_sizes_are_read_and_what_is_not_used_is_said(folder) -> None:
    weights(UP, lambda tensor: tensor.half())(folder)
    weights("model.layers.0.attn.bias", lambda _: torch.ones(4, 4, dtype=torch.bool))(folder)  # GPT-2's mask
    policy = load(str(folder))
    assert policy.model.dtype == torch.float32 and not policy.notes
    put(folder / "config.json", num_hidden_layers=2)
    (note,) = load(str(folder)).notes
    assert "its config.json has no place for model.layers.2.input_layernorm.weight" in note


PART = "model-00001-of-00001.safetensors"
INDEXES: dict[str, tuple[Callable[[list[str]], object], str]] = {
    "pickled": (lambda names: dict.fromkeys(names, "pytorch_model.bin"), "is said to be in 'pytorch_model.bin'"),
    "outside": (lambda names: dict.fromkeys(names, "../there.safetensors"), "only safetensors files of the folder itself"),
    "absolute": (lambda names: dict.fromkeys(names, "/tmp/there.safetensors"), "only safetensors files of the folder"),
    "below": (lambda names: dict.fromkeys(names, "sub/there.safetensors"), "only safetensors files of the folder"),
    "backslash": (lambda names: dict.fromkeys(names, "..\\there.safetensors"), "only safetensors files of the folder"),
    "number": (lambda names: dict.fromkeys(names, 3), "is said to be in 3"),
    "list": (lambda _: [1], "weight_map is [1]"),
    "null": (lambda _: None, "weight_map is None"),
    "absent": (lambda names: dict.fromkeys(names, "model-00002-of-00002.safetensors"), "a part of its weights is missing"),
    "some": (lambda names: dict.fromkeys(names[1:], PART), "its files lack "),
}  # fmt: skip


def indexed(folder: Path, table: object) -> None:
    (folder / "model.safetensors").rename(folder / PART)
    body = {"metadata": {}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(body))


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_names_files_of_the_folder_alone(made, folder, name) -> None:
    make, words = INDEXES[name]
    names = sorted(load_file(folder / "model.safetensors"))
    for place in (folder.parent, folder / "sub"):  # what must not be read is there
        place.mkdir(exist_ok=True)
        shutil.copy(made / "model.safetensors", place / "there.safetensors")
    indexed(folder, make(names))
    if name == "some":
        weights_of_part = load_file(folder / PART)
        weights_of_part.pop(names[0])
        save_file(weights_of_part, folder / PART, {"format": "pt"})
    assert words in told(folder)


def test_an_index_without_its_other_half(folder) -> None:
    indexed(folder, dict.fromkeys(load_file(folder / "model.safetensors"), PART))
    load(str(folder))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "a.safetensors"}}')
    assert "metadata is None, and is to be an object" in told(folder)


def test_a_link_into_a_cache_is_a_file(folder) -> None:
    """The Hub's library keeps content under its hash, and names by links."""
    for path in list(folder.iterdir()):
        path.rename(folder.parent / f"blob-{path.name}")
        path.symlink_to(folder.parent / f"blob-{path.name}")
    load(str(folder))


@pytest.mark.parametrize("length", [0x80 + 0x100 * protocol for protocol in range(2, 6)])
def test_a_weight_file_whose_first_bytes_a_pickle_has_too(folder, length) -> None:
    """The length of a header stands first, and of some 2,000 lengths one looks like a protocol of pickle."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    length += -(-(size - length) // 0x10000) * 0x10000 if size > length else 0
    header = content[8 : 8 + size].ljust(length)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    assert path.read_bytes()[0] == 0x80 and path.read_bytes()[1] in (2, 3, 4, 5)
    load(str(folder))


def test_null_stands_for_nothing_where_older_programs_wrote_it() -> None:
    keys = ("hidden_act", "hidden_activation", "attention_dropout", "resid_pdrop", "embd_pdrop", "rope_theta", "dtype")
    assert not list(grammar.wrong(dict.fromkeys(keys), grammar.CONFIG))
    assert not list(grammar.wrong({"sliding_window": None, "rope_theta": [1e4, 1e6]}, grammar.CONFIG))
    switches = dict.fromkeys(("use_dora", "use_rslora", "lora_bias", "fan_in_fan_out", "lora_dropout"))
    assert not list(grammar.wrong(switches, grammar.ADAPTER))


def test_a_small_model_with_wide_masks_is_read(tmp_path) -> None:
    """Masks are made anew, and larger than all weights of the smallest models that people publish."""
    build_rows("gpt_neo", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    weights = load_file(tmp_path / "model.safetensors")
    name = next(key for key in weights if key.endswith("wpe.weight"))
    weights[name] = torch.zeros(4096, weights[name].shape[1])
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
    load(str(tmp_path))  # two masks of 4,096 squared, and 150,000 weights


OPENED = ("config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja", "generation_config.json")


@pytest.mark.parametrize("name", [*OPENED, "tokenizer_config.json", "processor_config.json", "a name to come.json"])
def test_a_pipe_is_not_waited_for(folder, name) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    message = told(folder)
    assert f"its {name} is no file but a pipe, a socket or a device" in message
    with pytest.raises(UserError, match="is no file but a pipe"):
        load_any(str(folder))


@pytest.mark.parametrize(
    "key",
    ["_attn_implementation", "attn_implementation", "_attn_implementation_internal", "experts_implementation"],
)
@pytest.mark.parametrize("value", ["owner/kernel", "flash_attention_2", {"": "owner/kernel"}, 3])
def test_attention_is_ours_whatever_the_config_says(folder, key, value) -> None:
    put(folder / "config.json", use_kernels=True, **{key: value})
    policy = load(str(folder))
    assert policy.layout == "trees" and policy.model.config._attn_implementation == trees.NAME
    assert {m.config._attn_implementation for m in policy.model.modules() if hasattr(m, "config")} == {trees.NAME}
    assert "kernel" not in str(policy.model.config._experts_implementation)


def test_so_is_that_of_a_config_within_another(folder) -> None:
    within = {"hidden_size": 64, "_attn_implementation": "owner/kernel", "_experts_implementation": "owner/kernel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": within}))
    config = load_config(folder)
    assert config.text_config.hidden_size == 64
    for level in (config, config.text_config):
        assert level._attn_implementation is None and level._experts_implementation is None


def test_every_config_that_transformers_knows_passes() -> None:
    """The grammar refuses nothing that a model is published with, read from the defaults of all their classes."""
    tried, refused = 0, []
    for name in CONFIG_MAPPING:
        try:
            body = json.loads(CONFIG_MAPPING[name]().to_json_string(use_diff=False))
        except Exception:  # a class that has no defaults says nothing of the grammar
            continue
        tried += 1
        refused += [f"{name}: {mistake}" for mistake in grammar.wrong(body, grammar.CONFIG)]
    assert tried > 300 and not refused


def test_what_is_infinite_on_purpose_passes() -> None:
    body = {"time_step_limit": [0.0, float("inf")], "model_max_length": 1e30}
    assert not list(grammar.wrong(body, grammar.CONFIG))


@pytest.mark.parametrize("place", [("backend\x1b[31m",), ("extra_special_tokens", "a\nb"), ("x", "y", "\u202ename")])
def test_a_key_that_is_not_shown_is_refused(folder, place) -> None:
    """A library in Rust prints the keys that it does not know, to the terminal itself."""
    value: Any = 1
    for key in reversed(place):
        value = {key: value}
    put(folder / "tokenizer_config.json", **value)
    assert "its tokenizer_config.json has the key" in told(folder)
