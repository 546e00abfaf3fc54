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
    """Turn on activation checkpointing for every decoder layer. UserError for a model that names no such layers.

    transformers' own switch needs a model in training mode, where dropout is on; here it never is.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(f"{type(model).__name__} has no layers to compute again; leave out gradient_checkpointing")
    for layer in layers:
        layer.forward = MethodType(_again, layer)  # a method, so that a copy of the layer computes its own again


def _again(layer: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = MethodType(type(layer).forward, layer)
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=_contexts, **kwargs)


def _contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """Contexts of the forward and the recomputation: the latter runs under this batch's plan, which is no longer in
    force by the backward pass."""
    return nullcontext(), attending(current())
