"""The last layer's feed-forward part, computed only where something is read from it.

Keys and values of every token are needed in the last layer too, but what its feed-forward part adds to a prompt's token
is read by nobody: a head reads the positions that predict a response, or at the ends of branches. The values read
are the same, and the first batch of a policy is checked against the model's own forward with this in force.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from truing.policy.trees import current


def spare_last_layer(model: nn.Module) -> bool:
    """Let the last layer's feed-forward part follow the plan in force; False where the model names no such part."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    part = getattr(layers[-1], "mlp", None) if layers else None
    if not type(part).__name__.endswith("MLP"):
        return False  # a mixture of experts routes tokens by their company
    assert part is not None
    part.register_forward_pre_hook(_take)
    part.register_forward_hook(_put)
    return True


def _take(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    plan = current()
    if plan is None or plan.read is None:
        return None
    return (inputs[0].index_select(1, plan.read), *inputs[1:])


def _put(_: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
    plan = current()
    if plan is None or plan.read is None:
        return None
    return output.new_zeros(output.shape[0], plan.tokens, output.shape[2]).index_copy(1, plan.read, output)
