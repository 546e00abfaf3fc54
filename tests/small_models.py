"""Small models of many architectures, built from config, with a tokenizer made from given text."""

from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from truing.policy.fresh import tokenizer_from

COMMON = dict(
    hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, max_position_embeddings=2048
)
CONFIGS = {
    "llama": dict(COMMON, num_key_value_heads=2),
    "qwen2": dict(COMMON, num_key_value_heads=2),
    "gemma2": dict(COMMON, num_key_value_heads=2, head_dim=16, sliding_window=96, query_pre_attn_scalar=16),
    "gpt_neox": dict(COMMON),
    "llama-tied": dict(COMMON, num_key_value_heads=2, tie_word_embeddings=True),
    "llama-spare": dict(COMMON, num_key_value_heads=2, spare=64),  # rows of the embedding that are no token
    "mistral": dict(COMMON, num_key_value_heads=2, sliding_window=48),
    "qwen3": dict(COMMON, num_key_value_heads=2, head_dim=16),
    "gemma3_text": dict(
        COMMON,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=48,
        query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "cohere": dict(COMMON, num_key_value_heads=2, logit_scale=0.25),
    "granite": dict(
        COMMON,
        num_key_value_heads=2,
        logits_scaling=4.0,
        attention_multiplier=0.3,
        embedding_multiplier=2.0,
        residual_multiplier=0.5,
    ),
    "phi3": dict(COMMON, num_key_value_heads=2, sliding_window=48),
    "olmo2": dict(COMMON, num_key_value_heads=2),
    "gpt2": dict(n_embd=64, n_layer=3, n_head=4, n_positions=2048, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0),
}

SIZE = dict(vocab_size=300, hidden_size=32)
ROWS = {  # architectures that cannot attend by mask
    "gpt_neo": dict(
        SIZE,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=12,
        max_position_embeddings=256,
    ),
    "mamba": dict(SIZE, num_hidden_layers=2, state_size=4),
    "bert": dict(SIZE, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, initializer_range=0.2),
}


def build_rows(name: str, folder: Path) -> Path:
    """Write a random model of one of `ROWS` (BERT as a classifier) with a tokenizer of 300 tokens."""
    build("llama", ["a tokenizer of bytes, and a few words of its own"] * 9, folder, vocab=300)
    torch.manual_seed(0)
    auto = AutoModelForSequenceClassification if name == "bert" else AutoModelForCausalLM
    model = auto.from_config(AutoConfig.for_model(name, **ROWS[name]))
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(8)
    model.save_pretrained(folder)
    return folder


def build(name: str, texts, folder: Path, vocab: int = 800, seed: int = 0) -> Path:
    """Write a random model of this architecture and its tokenizer in Hugging Face format."""
    tokenizer = tokenizer_from(texts, vocab)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(seed)
    options = dict(CONFIGS[name])
    rows = len(tokenizer) + options.pop("spare", 0)
    config = AutoConfig.for_model(name.partition("-")[0], vocab_size=rows, **options, **ids)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # spread the logits, as in a trained model; at random they are all but uniform
        model.get_input_embeddings().weight.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class ExactNorm(LlamaRMSNorm):
    """Llama's norm in the type of its input."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        square = hidden_states.square().mean(-1, keepdim=True)
        return self.weight * (hidden_states * (square + self.variance_epsilon).rsqrt())


def exact(model) -> None:
    """Put a Llama into fp64, all of it. Its own norm computes in fp32 whatever it is given: a value that lies where fp32
    rounds up or down is decided by the last bit of fp64, and then a hidden state is off by 1e-7 and not by 1e-16."""
    model.double()
    for module in model.modules():
        if type(module) is LlamaRMSNorm:
            module.__class__ = ExactNorm
