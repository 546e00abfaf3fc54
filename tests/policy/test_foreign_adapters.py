"""An adapter's folder that somebody else made: read as peft reads it, or refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from small_models import build
from truing.errors import UserError
from truing.policy import adapters, heads
from truing.policy.load import load
from truing.settings import Lora

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    policy = load(str(build("llama", TEXT, root / "base", vocab=300)))
    adapters.put_on(policy, Lora(lora_rank=2), seed=0)
    heads.save(policy, root / "adapter")
    return root / "adapter"


@pytest.fixture()
def folder(made, tmp_path) -> Path:
    shutil.copytree(made.parent / "base", tmp_path / "base")
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def told(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(str(folder))
    return str(caught.value)


def put(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


SCALE = "and is to be a number from -1e+06 to 1e+06"
RANK = "and is to be a whole number from 1 to 1,000,000"
ENDLESS = "repeats a part that varies itself, which may take for ever"
CONFIGS: list[tuple[str, Any, str]] = [
    ("lora_alpha", 1e308, f"lora_alpha is 1e+308, {SCALE}"),
    ("lora_alpha", float("nan"), f"lora_alpha is nan, {SCALE}"),
    ("lora_alpha", float("inf"), f"lora_alpha is inf, {SCALE}"),
    ("lora_alpha", "8", "lora_alpha is '8'"),
    ("alpha_pattern", {"q_proj": 1e308}, "alpha_pattern is {'q_proj': 1e+308}"),
    ("r", 0, f"r is 0, {RANK}"),
    ("r", 2.5, f"r is 2.5, {RANK}"),
    ("r", 500_000, "says a rank of 500,000 ('r'), and no side of its weights is longer than 128"),
    ("r", 3, "size mismatch for base_model.model.model.layers.0"),
    ("rank_pattern", {"q_proj": 500_000}, "says a rank of 500,000 ('q_proj')"),
    ("rank_pattern", [1], "rank_pattern is [1]"),
    ("lora_dropout", -1, "lora_dropout is -1, and is to be a number from 0 to 1"),
    ("target_modules", "(a+)+$", f"target_modules: the pattern '(a+)+$' {ENDLESS}"),
    ("target_modules", "(.*)*x", f"target_modules: the pattern '(.*)*x' {ENDLESS}"),
    ("target_modules", ".*" * 9 + "x", "can be tried in too many ways, which may take for ever"),
    ("target_modules", r"(.+)\1+$", "refers back to what it matched"),
    ("target_modules", "(q_proj", "is no pattern: missing )"),
    ("target_modules", [3], "target_modules is [3], and is to be text, or a list, each text, or null"),
    ("target_modules", "nothing", "Target modules nothing not found"),
    ("exclude_modules", "(a|a)*$", f"exclude_modules: the pattern '(a|a)*$' {ENDLESS}"),
    ("modules_to_save", ["(x*)*"], f"modules_to_save: the pattern '(x*)*' {ENDLESS}"),
    ("layers_pattern", ["(a|aa)+"], f"layers_pattern: the pattern '(a|aa)+' {ENDLESS}"),
    ("rank_pattern", {"(a+)+$": 2}, f"rank_pattern: the pattern '(a+)+$' {ENDLESS}"),
    ("alpha_pattern", {"(": 2}, "alpha_pattern: the pattern '(' is no pattern"),
    ("layers_to_transform", [99], "cannot take this adapter"),
    ("layers_to_transform", "x", "layers_to_transform is 'x'"),
    ("trainable_token_indices", [10**6], "cannot take this adapter: IndexError"),
    ("bias", 3, "bias is 3, and is to be none, all or lora_only"),
    ("use_rslora", 1, "use_rslora is 1, and is to be true or false"),
    ("peft_type", 3, "is of the kind 3; truing reads LoRA adapters"),
    ("peft_type", None, "is of the kind None"),
    ("base_model_name_or_path", 3, "does not say what it belongs to"),
    ("base_model_name_or_path", "a\0b", "and is to be the name of a folder or of a model on the Hub"),
    ("base_model_name_or_path", "x" * 5000, "and is to be the name of a folder"),
    ("base_model_name_or_path", "a/../" * 900, "and is to be the name of a folder"),
    ("revision", 3, "revision is 3"),
    ("auto_map", {"a": "b"}, "asks to run code of its own (auto_map)"),
    ("corda_config", 3, "its adapter_config.json cannot be read: TypeError"),
    ("to_dict", 3, "has to_dict, which truing does not read"),
]


@pytest.mark.parametrize(("key", "value", "words"), CONFIGS, ids=[f"{k}={str(v)[:20]}" for k, v, _ in CONFIGS])
def test_a_config_that_says_what_it_should_not(folder, key, value, words) -> None:
    put(folder / "adapter_config.json", **{key: value})
    begun = time.process_time()
    message = told(folder)
    assert words in message and "adapter" in message and time.process_time() - begun < 10


FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[FIRST].fill_(float("nan")), f"256 of the 256 weights in {FIRST} are NaN or infinite"),
        (lambda t: t[FIRST][0].fill_(float("-inf")), f"128 of the 256 weights in {FIRST}"),
        (lambda t: t.update({FIRST: t[FIRST].long()}), f"its adapter_model.safetensors holds '{FIRST}' as I64"),
        (lambda t: t.update({FIRST: t[FIRST].to(torch.float8_e5m2)}), "as F8_E5M2, and weights are read as"),
        (lambda t: [x.fill_(1e30) for x in t.values()], "what it gives of 8 tokens is NaN or infinite"),
        (lambda t: t.clear(), "do not belong together"),
    ],
)
def test_weights_that_are_none(folder, change: Callable[[dict[str, torch.Tensor]], object], words) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    assert words in told(folder)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("adapter_config.json", "[]", "its adapter_config.json: holds a list"),
        ("adapter_config.json", "3", "its adapter_config.json: holds a number"),
        ("adapter_config.json", "{}", "it has no peft_type and no base_model_name_or_path"),
        ("base.json", "[]", "its base.json: holds a list"),
        ("base.json", '{"way": 3}', "its base.json cannot be used: way is 3"),
        ("base.json", '{"way": "\\u0000"}', "its base.json cannot be used: way is"),
        ("base.json", "{", "its base.json: is not JSON"),
        ("heads.json", "[]", "its heads.json: holds a list"),
        ("heads.json", '{"names": [1]}', "its heads.json cannot be read (its names are [1]"),
        ("heads.json", '{"names": ["a", "a"]}', "two of its heads have one name"),
        ("heads.json", '{"names": ["a"], "weights": [1e999]}', "its head_weights are [inf]"),
        ("heads.json", '{"names": ["a"], "read": ["end"]}', "it is read at ['end']"),
    ],
)
def test_a_file_that_is_not_what_it_should_be(folder, name, text, words) -> None:
    (folder / name).write_text(text)
    assert words in told(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "base.json", "tokenizer.json"])
def test_a_pipe_is_not_waited_for(folder, name) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"its {name} is no file but a pipe, a socket or a device" in told(folder)


def test_patterns_that_people_use_are_read(folder) -> None:
    """The whole adapter is targeted by one pattern, as trainers write it."""
    put(folder / "adapter_config.json", target_modules=r"(?:.*?(?:language|text|model).*?(?:mlp|self_attn).*?_proj)")
    wanted = load(str(folder)).model.state_dict()
    assert sum("lora_A" in name for name in wanted) == 21
