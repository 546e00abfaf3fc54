"""A language model as one GGUF file, for llama.cpp and what is built on it (Ollama, LM Studio, llama-cpp-python).

llama.cpp's own converter writes it (`pip install 'truing[gguf]'`). It knows published tokenizers by a hash of what they
make of a test text. A tokenizer that it does not know is compared part by part with the few forms that llama.cpp reads
exactly as transformers does; one of any other form has no GGUF, and the error says so.
"""

from __future__ import annotations

import importlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch

from truing.data.rendering.render import Renderer
from truing.disk import check_target
from truing.errors import UserError
from truing.policy import heads
from truing.policy.policy import Policy

Dtype: TypeAlias = Literal["f32", "f16", "bf16", "q8_0"]
"""The type in which weights are stored: whole, in half the space, or in about a quarter."""
FILE_TYPES: Mapping[Dtype, str] = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
}

LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
Split: TypeAlias = tuple[tuple[str, ...], bool]
"""The parts that cut a text into words, in order, and whether a word that is a token is taken whole
(`ignore_merges`)."""
PRE: Mapping[Split, str] = {
    (("bytes",), False): "trillion",  # of those with GPT-2's pattern one that leaves blanks as they are
    (("digit", "bytes"), False): "smollm",
    ((LETTERS + r"\p{N}" + REST, "raw bytes"), False): "qwen2",
    ((LETTERS + r"\p{N}{1,3}" + REST, "raw bytes"), True): "llama-bpe",
}
"""llama.cpp's names of its pre-tokenizers that cut texts as transformers does."""


def write(policy: Policy, out: Path, dtype: Dtype = "f16") -> None:
    """Write a language model, an adapter merged into its base, as the GGUF file `out`, whole or not at all.

    Its chat template, its end and whether BOS is added stand in it as they stand in the folder that `heads.save`
    writes. UserError for a reward model, and for an architecture or a tokenizer that llama.cpp has no form of.
    """
    if policy.is_reward:
        raise UserError(
            f"model '{policy.name}' is a reward model, and llama.cpp gives no scores of one; serve its folder with "
            "transformers or vLLM"
        )
    converter, gguf = modules()
    policy.merge = policy.adapter is not None
    check_target(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
        folder, part = Path(place) / out.stem, Path(place) / "whole.gguf"
        heads.save(policy, folder)
        for name in ("config.json", "tokenizer_config.json"):
            facts = json.loads((folder / name).read_text(encoding="utf-8"))
            facts.pop("auto_map", None)  # the converter would run the code that it names
            (folder / name).write_text(json.dumps(facts), encoding="utf-8")
        architecture = type(policy.model).__name__
        try:
            kind = converter.get_model_class(architecture)
        except NotImplementedError:
            raise UserError(f"model '{policy.name}': llama.cpp has no form of {architecture}") from None
        try:
            with torch.inference_mode():
                named(kind, policy)(folder, getattr(gguf.LlamaFileType, FILE_TYPES[dtype]), part).write()
        except (ValueError, KeyError, TypeError, AssertionError, NotImplementedError, FileNotFoundError) as error:
            what = f"{type(error).__name__}: {error}".replace(f"{folder}/", "")
            raise UserError(f"model '{policy.name}': llama.cpp's converter refuses it: {what}") from error
        part.replace(out)


def modules() -> tuple[Any, Any]:
    """llama.cpp's converter and its library of the file's form; UserError where they are not installed."""
    try:
        converter, gguf = importlib.import_module("conversion"), importlib.import_module("gguf")
        converter.get_model_class  # noqa: B018  another package may have this name
    except (ImportError, AttributeError):
        raise UserError("a GGUF needs llama.cpp's converter: pip install 'truing[gguf]'") from None
    logging.getLogger("hf-to-gguf").setLevel(logging.ERROR)
    logging.getLogger("gguf").setLevel(logging.ERROR)
    return converter, gguf


def named(kind: Any, policy: Policy) -> Any:
    """A converter's class that also takes tokenizers whose parts llama.cpp knows, and names the taught end."""

    class Converted(kind):  # type: ignore[misc]
        model_arch = kind.model_arch

        def get_vocab_base_pre(self, tokenizer: Any) -> str:
            try:
                return str(super().get_vocab_base_pre(tokenizer))
            except NotImplementedError:
                backend = getattr(policy.tokenizer, "backend_tokenizer", None)
                parts = (
                    json.loads(backend.to_str()) if backend is not None else {"model": {"type": "no tokenizer.json"}}
                )
                return pre_tokenizer(policy.name, parts)

        def set_vocab(self) -> None:
            super().set_vocab()
            end, written = Renderer(policy.tokenizer).end_id, self.gguf_writer.kv_data[0]
            if written["tokenizer.ggml.eos_token_id"].value != end:  # a template that asks what EOS is keeps its own
                self.gguf_writer.add_eot_token_id(end)
            if "tokenizer.ggml.add_bos_token" not in written:  # what is not said is true for some kinds
                self.gguf_writer.add_add_bos_token(False)
            if written["tokenizer.ggml.model"].value == "llama":
                written.pop("tokenizer.ggml.add_space_prefix", None)
                self.gguf_writer.add_add_space_prefix(blank_behind(policy.tokenizer))

    return Converted


def blank_behind(tokenizer: Any) -> bool:
    """Return whether a SentencePiece tokenizer puts a blank before a word that follows a special token, as all of a
    conversation's words do; llama.cpp does it there and at the beginning of a text, or at neither."""
    ids = tokenizer(f"{tokenizer.eos_token}a", add_special_tokens=False).input_ids
    return str(tokenizer.convert_ids_to_tokens(ids[1])).startswith("▁")


def pre_tokenizer(name: str, tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name of a tokenizer's way (by its tokenizer.json) to cut texts; UserError where it has none.

    >>> cut = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    >>> pre_tokenizer("m", {"model": {"type": "BPE"}, "normalizer": None, "pre_tokenizer": cut})
    'trillion'
    """
    model, cut = tokenizer["model"], tokenizer.get("pre_tokenizer") or {}
    parts = tuple(map(part_name, cut.get("pretokenizers", [cut])))
    whole = bool(model.get("ignore_merges", False))
    composed = tokenizer.get("normalizer") in (None, {"type": "NFC"})  # llama.cpp reads Qwen's texts uncomposed, too
    form = PRE.get((parts, whole)) if model["type"] == "BPE" and composed else None
    if form is None:
        kinds = " + ".join(str(p.get("type", "nothing")) for p in cut.get("pretokenizers", [cut]))
        raise UserError(
            f"model '{name}': its tokenizer ({model['type']}, texts cut by {kinds}) has no form in llama.cpp, which "
            "would make other tokens of the same text. Serve its folder with transformers or vLLM, or begin with a "
            "model whose tokenizer llama.cpp knows"
        )
    return form


def part_name(part: Mapping[str, Any]) -> str:
    """One part of a pre-tokenizer as `PRE` names it; empty where llama.cpp has nothing like it."""
    kind = part.get("type")
    if kind == "ByteLevel" and not part.get("add_prefix_space"):
        return "bytes" if part.get("use_regex", True) else "raw bytes"
    if kind == "Digits" and part.get("individual_digits"):
        return "digit"
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        return str(part.get("pattern", {}).get("Regex", ""))
    return ""
