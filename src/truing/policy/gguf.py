"""A model in GGUF, llama.cpp's format, dequantised once into a folder in Hugging Face format."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from truing import caches, door
from truing.data.foreign import SECONDS, foreign
from truing.disk import file_digest
from truing.errors import UserError
from truing.policy import soundness
from truing.policy.files import grammar, model_files


def dequantised(file: Path, cache: Path, sha256: str = "", say: Callable[[str], None] = lambda _: None) -> Path:
    """The folder in `cache` that holds the weights of a GGUF file in fp32, its tokenizer and its chat template.

    Made by transformers' own reader at the first call and found by the file's content later; a folder that is no
    longer what was made is made again, and `say` is told so. What quantisation has rounded stays rounded: the model is
    the one that llama.cpp runs, and not the one that was quantised.

    UserError for a file that is not there, is not GGUF, has another hash than `sha256`, or whose architecture or
    tokenizer transformers does not read, and where the library `gguf` is missing.
    """
    with door.opened(file, f"model '{file}'") as handle:
        if handle.read(4) != b"GGUF":
            raise UserError(f"model '{file}' is no GGUF file: it does not begin with 'GGUF'")
    digest = file_digest(file)
    if sha256 and digest != sha256:
        raise UserError(f"model '{file}' has the SHA-256 {digest}, and {sha256} was expected; fetch it again")
    return caches.cached(cache / f"{file.stem}-{digest[:16]}", lambda part: convert(file, part), say)


def check_head(file: Path) -> None:
    """Refuse a GGUF file whose head counts more than it holds, or whose model has more layers than it has tensors."""
    who = f"model '{file}'"
    with door.opened(file, who) as handle:
        head = handle.read(24)
        size = os.fstat(handle.fileno()).st_size
    tensors, facts = (int.from_bytes(head[start : start + 8], "little") for start in (8, 16))
    if len(head) < 24 or tensors * 24 + facts * 12 > size:  # no entry of either kind is shorter
        raise UserError(f"{who} is cut off or damaged: it has {size:,} bytes, {tensors:,} tensors and {facts:,} facts")
    with foreign(lambda text: UserError(f"{who}: transformers cannot read it ({text})"), SECONDS):
        text = AutoConfig.from_pretrained(file.parent, gguf_file=file.name).to_json_string(use_diff=False)
    config = json.loads(text)  # as it would stand in config.json, where every key is text
    model_files.check_grammar(who, "metadata", config, grammar.CONFIG)
    for key, count in grammar.layers(config):
        if count > max(tensors, 100):
            raise UserError(f"{who}: it says {key} {count:,} and holds {tensors:,} tensors; it is damaged")


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer into `folder`."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"model '{file}': reading GGUF needs the library gguf: pip install truing[gguf]")
    check_head(file)
    with foreign(lambda text: UserError(f"model '{file}': transformers cannot read it ({text})")):
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32")
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    weights = model.state_dict()
    soundness.check_finite(f"model '{file}'", weights)
    model.config.quantization_config = None  # the weights are plain numbers by now, and are saved as such
    del model.config.quantization_config
    plain = type(model)(model.config)
    plain.load_state_dict(weights, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    tokenizer.save_pretrained(folder)
    plain.save_pretrained(folder)
