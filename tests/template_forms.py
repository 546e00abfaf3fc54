"""Chat templates with the structure of those that people's models have, and small models that write them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

WORDS = [
    "the",
    "desk",
    "grants",
    "a",
    "refund",
    "within",
    "thirty",
    "days",
    "yes",
    "no",
    "maybe",
    "please",
    "order",
    "ticket",
    "price",
    "who",
    "when",
    "where",
    "how",
]
TEXTS = [" ".join(WORDS[(3 * i + k) % len(WORDS)] for k in range(9)) + ".?\n"[i % 3] for i in range(200)]


def turns(turn: str, ask: str, begin: str = "") -> str:
    """A template of one form for every turn, with what it begins and asks with."""
    return f"{begin}{{% for m in messages %}}{turn}{{% endfor %}}{{% if add_generation_prompt %}}{ask}{{% endif %}}"


ROLE = "{{ 'model' if m['role'] == 'assistant' else m['role'] }}"
BOS = "{{ bos_token }}"
TEMPLATES = {
    "chatml": turns("<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n", "<|im_start|>assistant\n"),
    "gemma": turns(
        f"<start_of_turn>{ROLE}\n{{{{ m['content'] | trim }}}}<end_of_turn>\n", "<start_of_turn>model\n", BOS
    ),
    "zephyr": turns("<|{{ m['role'] }}|>\n{{ m['content'] + eos_token }}\n", "<|assistant|>\n"),
    "llama3": turns(
        "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        BOS,
    ),
    "phi3": turns("<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n", "<|assistant|>\n").replace(
        "{% endif %}", "{% else %}{{ eos_token }}{% endif %}"
    ),
    "mistral": BOS
    + "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }}[/INST]{% else %}"
    + " {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}",
    "plain": turns("### {{ m['role'] }}:\n{{ m['content'] }}\n\n", "### assistant:\n"),
    "thinking": turns(
        "<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
        "{{ m['content'] }}<|im_end|>\n",
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ),
    "mute": turns("<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n", ""),
}
"""`plain` writes no end token, `mute` knows no generation prompt, and `thinking` closes an empty thought."""
TOKENS = {  # what a base model's tokenizer has: EOS, PAD, BOS, special tokens, and whether it puts BOS before a text
    "chatml": ("<|endoftext|>", "<|endoftext|>", None, ["<|im_start|>", "<|im_end|>"], False),
    "gemma": ("<eos>", "<pad>", "<bos>", ["<start_of_turn>", "<end_of_turn>"], True),
    "zephyr": ("</s>", "</s>", "<s>", [], True),
    "llama3": (
        "<|end_of_text|>",
        None,
        "<|begin_of_text|>",
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"],
        True,
    ),
    "phi3": ("<|endoftext|>", "<|endoftext|>", "<s>", ["<|user|>", "<|assistant|>", "<|end|>"], False),
    "mistral": ("</s>", None, "<s>", [], True),
    "plain": ("<|endoftext|>", None, None, [], False),
    "thinking": ("<|im_end|>", "<|endoftext|>", None, ["<|im_start|>", "<|im_end|>"], False),
    "mute": ("<|endoftext|>", None, "<s>", ["<|im_start|>", "<|im_end|>"], True),
}
DIGITS = pre_tokenizers.Digits(individual_digits=True)


def tokenizer(form: str, *cuts) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of TEXTS with the special tokens and the template of a form."""
    eos, pad, bos, special, adds = TOKENS[form]
    bpe = Tokenizer(models.BPE())
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([*cuts, cut]) if cuts else cut
    bpe.decoder = decoders.ByteLevel()
    named = list(dict.fromkeys(t for t in ("<unused>", eos, pad, bos, *special) if t))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=named, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(TEXTS, trainer)
    if adds:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bpe.token_to_id(bos))]
        )
    words = {"eos_token": eos, "pad_token": pad, "bos_token": bos}
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        additional_special_tokens=[AddedToken(t, special=True, normalized=False) for t in special],
        **{name: token for name, token in words.items() if token},
    )
    made.chat_template = TEMPLATES[form]
    return made


def base(form: str, folder: Path, *cuts, kind: str = "llama", **config) -> Path:
    """Write a random base model: its generation settings and its config name its tokenizer's EOS alone."""
    made = tokenizer(form, *cuts)
    torch.manual_seed(3)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    ids = {key: getattr(made, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    size = dict(vocab_size=len(made) + 4, max_position_embeddings=512, initializer_range=0.2)
    if kind != "gpt2":
        size |= dict(num_key_value_heads=2)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **size, **ids, **config))
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
