"""Small Llama models in Hugging Face format: S (5M) and M (28M parameters besides the embedding), 8k to 128k tokens.

python benchmarks/models.py DATA OUT_FOLDER S-8k M-8k M-32k
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}{{ ('' if loop.first else '\n') + '<|' + m['role'] + '|>\n' }}"
    "{{ m['content'] + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}"
)
SIZES = {"S": (256, 6, 4, 2, 768), "M": (512, 8, 8, 4, 1536)}


def tokenizer(texts: list[str], vocab: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the data's text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(vocab, 32768),
        min_frequency=1,
        show_progress=False,
        special_tokens=["<pad>", "<s>", "</s>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(texts, trainer)
    out = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>", padding_side="left"
    )
    out.chat_template = TEMPLATE
    return out


def make(name: str, texts: list[str], folder: Path) -> None:
    """Write one model: its name is its size and its vocabulary, as in `S-8k`."""
    size, _, thousands = name.partition("-")
    vocab = int(thousands[:-1]) * 1024
    words = tokenizer(texts, vocab)
    hidden, layers, heads, kv, inner = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        intermediate_size=inner,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / name)
    words.save_pretrained(folder / name)
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(folder / f"{name}-reward")
    words.save_pretrained(folder / f"{name}-reward")


def main() -> None:
    """Make the models asked for, unless they are there."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    opened = gzip.open if data.suffix == ".gz" else open
    with opened(data, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file.read().split("\n") if line]
    texts = [m["content"] for r in rows for part in ("prompt", "chosen", "rejected") for m in r[part]]
    for name in sys.argv[3:]:
        if not (out / f"{name}-reward" / "config.json").exists():
            make(name, texts, out)


if __name__ == "__main__":
    main()
