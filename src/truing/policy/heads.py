"""Reward heads: `AutoModelForSequenceClassification`, a label a head: plain transformers gives the same scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from truing.data.rendering.render import Renderer
from truing.data.rendering.whole_conversation import WholeConversation
from truing.disk import share_alike
from truing.errors import DataError, UserError
from truing.policy import adapters, value
from truing.policy.files import portable
from truing.policy.load import load
from truing.policy.policy import TIES, Policy
from truing.policy.scalars import Heads
from truing.streams import Weights, weights_seed


def fresh_reward(name: str, *, seed: int, whole: bool = True, heads: Heads = Heads()) -> Policy:
    """The causal model `name` with its language head replaced by scalar heads drawn from `seed`: one by default.

    Plain transformers finds the token to read the score from as the last one that is not padding. Where a tokenizer
    pads with an end token that would be one token too early, so such a model gets a padding token of its own. An
    adapter (`whole` false) cannot bring an embedding for one: UserError where the model has no row left.
    """
    policy = load(name, "reward", seed=seed, fresh=heads)
    policy.tokenizer = portable.settled(policy.tokenizer)
    tokenizer, model = policy.tokenizer, policy.model
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id, last_id(tokenizer)):
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
        generator = torch.Generator().manual_seed(weights_seed(Weights.HEAD, seed))
        weight = model.score.weight
        drawn = torch.randn(weight.shape, generator=generator) / (weight.shape[1] + 1) ** 0.5
        weight.copy_(drawn.to(weight.device))
    return policy


def last_id(tokenizer: Any) -> int | None:
    """The last token of a short conversation as the template writes it; None for a template that refuses one."""
    try:
        return WholeConversation(tokenizer).end_id
    except (DataError, UserError):
        return None


def renderer(policy: Policy) -> Renderer:
    """The renderer of records for a policy: a reward model reads whole conversations as its template ends them, a
    language model the response as it would have generated it."""
    return WholeConversation(policy.tokenizer) if policy.is_reward else Renderer(policy.tokenizer)


def save(policy: Policy, folder: Path) -> None:
    """Write a policy in Hugging Face layout (safetensors, tokenizer with its template): plain transformers loads it,
    stops where it was taught to stop, and gives the same scores (`policy/files/portable.py`).

    An adapter is written alone, as peft writes it, or if the policy is to be merged, merged first. What no
    transformers model has, the tie parameter and the heads' weights, stands in the config, or beside an adapter. A
    value head or model is taken off the policy.
    """
    value.take_off(policy)
    if policy.merge:
        adapters.merge(policy)
    if policy.is_reward:
        policy.scalars.into(policy.model.config)
    if policy.adapter is None:
        weights = {name: weight for name, weight in policy.model.state_dict().items() if name != TIES}
        policy.model.save_pretrained(folder, state_dict=weights)
    else:
        adapters.save(policy, folder)
        if policy.is_reward and policy.scalars != Heads():
            policy.scalars.keep(folder)
    portable.write_beside(policy.model, policy.tokenizer, folder, speaks=not policy.is_reward)
    share_alike(folder)
