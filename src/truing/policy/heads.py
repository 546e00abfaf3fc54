"""Reward heads: `AutoModelForSequenceClassification(num_labels=1)`, so that plain transformers gives the same score."""

from __future__ import annotations

from pathlib import Path

import torch

from truing.errors import UserError
from truing.policy import adapters
from truing.policy.load import load
from truing.policy.policy import Policy


def fresh_reward(name: str, *, seed: int, whole: bool = True) -> Policy:
    """The causal model `name` with its language head replaced by a scalar head drawn from `seed`.

    Plain transformers finds the token to read the score from as the last one that is not padding. Where a tokenizer
    pads with its end token that would be one token too early, so such a model gets a padding token of its own. An
    adapter (`whole` false) cannot bring an embedding for one: UserError where the model has no row left.
    """
    policy = load(name, "reward", seed=seed, fresh_head=True)
    tokenizer, model = policy.tokenizer, policy.model
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            if policy.adapter is not None or not whole:
                raise UserError(
                    f"model '{name}': its tokenizer has no padding token of its own, and an adapter cannot add one.\n"
                    "  Name one of its unused tokens as pad_token in tokenizer_config.json, or leave a whole model "
                    "(lora_merge: true)."
                )
            model.resize_token_embeddings(len(tokenizer))
    model.config.pad_token_id = tokenizer.pad_token_id
    if not hasattr(model, "score"):  # an encoder's classifier: transformers has drawn it from `seed`
        return policy
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        weight = model.score.weight
        drawn = torch.randn(weight.shape, generator=generator) / (weight.shape[1] + 1) ** 0.5
        weight.copy_(drawn.to(weight.device))
    return policy


def save(policy: Policy, folder: Path) -> None:
    """Write a policy in Hugging Face layout (safetensors, tokenizer with its template): plain transformers loads it.

    An adapter is written alone, as peft writes it, or if the policy is to be merged, merged first.
    """
    if policy.merge:
        adapters.merge(policy)
    if policy.adapter is None:
        policy.model.save_pretrained(folder)
    else:
        adapters.save(policy, folder)
    policy.tokenizer.save_pretrained(folder)
