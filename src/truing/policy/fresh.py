"""A new model with a tokenizer trained on given text, from which the embedded world and tests start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from truing.errors import UserError, unknown
from truing.policy.files import limits, portable
from truing.streams import Weights, weights_seed

ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
SPEC: dict[str, Any] = {"new": "llama", "hidden": 256, "layers": 6, "vocab": 8000}


def tokenizer_from(texts: Iterable[str], vocab: int, digits: Literal["joined", "single"] = "joined") -> Any:
    """A byte-level BPE tokenizer with a chat template of one token per role and one end token. With single `digits`
    every digit is a token of its own, as a model needs it that is to learn to reckon."""
    bpe = Tokenizer(models.BPE())
    apart = pre_tokenizers.Digits(individual_digits=digits == "single")
    bpe.pre_tokenizer = pre_tokenizers.Sequence([apart, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|begin|>", "<|end|>", *ROLES]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<pad>",
        additional_special_tokens=list(ROLES),
    )
    tokenizer.chat_template = "{{ '<|begin|>' }}" + TEMPLATE
    return tokenizer


def make(
    spec: Mapping[str, Any], texts: Iterable[str], folder: Path, *, seed: int = 0, positions: int = limits.NEW
) -> Path:
    """Write a model with random weights and its tokenizer into `folder`, in Hugging Face format.

    `spec` is a recipe's `{new: llama, hidden: 256, layers: 6, vocab: 8000, digits: joined}`; heads are 64 wide (or the
    hidden size where that is smaller), embeddings are tied. The world's own models also say how wide a `head` is and
    how far new weights spread (`init_std`, their standard deviation).
    """
    spec = SPEC | dict(spec)
    if spec["new"] not in ARCHITECTURES:
        raise UserError(unknown("architecture", str(spec["new"]), ARCHITECTURES))
    hidden = int(spec["hidden"])
    width = int(spec.get("head", 64))
    if hidden % min(width, hidden):
        raise UserError(f"base: hidden must be a multiple of {width}, got {hidden}")
    tokenizer = tokenizer_from(texts, int(spec["vocab"]), spec.get("digits", "joined"))
    config = AutoConfig.for_model(
        spec["new"],
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=int(spec["layers"]),
        num_attention_heads=hidden // min(width, hidden),
        num_key_value_heads=hidden // min(width, hidden),
        head_dim=min(width, hidden),
        intermediate_size=3 * hidden,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        initializer_range=float(spec.get("init_std", 0.04)),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(weights_seed(Weights.NEW_MODEL, seed))
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    portable.write_beside(model, tokenizer, folder)
    return folder
