"""The embedding and the head of a model, as they are with an adapter on it.

Log-probabilities are made from the head's weight (`logp.py`) and not by calling it, so what peft puts around a head has
to be known: a head saved whole, single tokens that are trained, low-rank weights. Input and output may share a weight,
which an adapter may change for one of them alone.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, TrainableTokensWrapper
from torch import Tensor, nn


def head(model: Any) -> tuple[Tensor, Tensor | None]:
    """The weight and bias that a language model's head multiplies with and adds, with whatever adapter is switched on;
    gradients reach what is trained of them."""
    module = model.get_output_embeddings()
    if isinstance(module, TrainableTokensWrapper) and not module.disable_adapters:
        return module.weight, None  # peft reads a head whose tokens are trained without its bias
    if isinstance(module, AuxiliaryTrainingWrapper):
        module = module.original_module if module.disable_adapters else module.modules_to_save["default"]
    if not isinstance(module, LoraLinear):
        return module.weight, module.bias
    base = module.get_base_layer()
    if module.disable_adapters or module.merged:
        return base.weight, base.bias
    extra: Tensor | None = module.lora_B["default"].bias
    bias = base.bias if extra is None else extra * module.scaling["default"] + (0 if base.bias is None else base.bias)
    return base.weight + module.get_delta_weight("default"), bias


def bare(module: Any) -> Any:
    """A layer without what peft put around it."""
    while isinstance(module, AuxiliaryTrainingWrapper | BaseTunerLayer):
        module = module.original_module if isinstance(module, AuxiliaryTrainingWrapper) else module.get_base_layer()
    return module


def rows(model: Any) -> int:
    """Number of tokens that a model has an embedding for."""
    return int(bare(model.get_input_embeddings()).weight.shape[0])


def are_one(model: Any) -> bool:
    """Return whether the embedding and the head of a base share a weight."""
    first, last = bare(model.get_input_embeddings()), bare(model.get_output_embeddings())
    return last is not None and first.weight is last.weight


def part(model: Any) -> None:
    """Give a head that shares its weight with the embedding a weight of its own."""
    last = bare(model.get_output_embeddings())
    last.weight = nn.Parameter(last.weight.detach().clone(), requires_grad=last.weight.requires_grad)


def settle(model: Any) -> None:
    """Share the weight of embedding and head again where they are the same numbers, and say in the config whether they
    are shared: programs that go by the config alone would put the one in the other's place."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    if last is None or first.weight.shape != last.weight.shape:
        return
    if shared := torch.equal(first.weight, last.weight):
        last.weight = first.weight
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = shared
