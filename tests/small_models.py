"""Small models of five architectures, built from config, with a tokenizer made from given text."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from truing.policy.fresh import tokenizer_from

COMMON = dict(
    hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, max_position_embeddings=2048
)
CONFIGS = {
    "llama": dict(COMMON, num_key_value_heads=2),
    "qwen2": dict(COMMON, num_key_value_heads=2),
    "gemma2": dict(COMMON, num_key_value_heads=2, head_dim=16, sliding_window=96, query_pre_attn_scalar=16),
    "gpt_neox": dict(COMMON),
    "gpt2": dict(n_embd=64, n_layer=3, n_head=4, n_positions=2048, attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0),
}


def build(name: str, texts, folder: Path, vocab: int = 800, seed: int = 0) -> Path:
    """Write a random model of this architecture and its tokenizer in Hugging Face format."""
    tokenizer = tokenizer_from(texts, vocab)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(name, vocab_size=len(tokenizer), **CONFIGS[name], **ids)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # spread the logits, as in a trained model; at random they are all but uniform
        model.get_input_embeddings().weight.mul_(8)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
