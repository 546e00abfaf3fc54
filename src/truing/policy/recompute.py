"""Activations computed again in the backward pass instead of kept: less memory, the same gradients."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from truing.errors import UserError
from truing.policy.trees import attending, current


def recompute_layers(model: nn.Module) -> None:
    """Let every decoder layer keep its input alone. UserError for a model that names no such layers.

    transformers' own switch needs a model in training mode, where dropout is on; here it never is.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"{type(model).__name__} has no layers to compute again; leave out gradient_checkpointing")
    for layer in layers:
        layer.forward = MethodType(_again, layer)  # a method, so that a copy of the layer computes its own again


def _again(layer: nn.Module, *given: Any, **named: Any) -> Any:
    forward = MethodType(type(layer).forward, layer)
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, preserve_rng_state=False, context_fn=_contexts, **named)


def _contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For the backward pass the plan of this batch, which by then is no longer in force."""
    return nullcontext(), attending(current())
