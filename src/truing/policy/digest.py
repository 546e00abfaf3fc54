"""Content hashes of weights: two models with the same digest give the same numbers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn


def tensors_digest(facts: Any, module: nn.Module) -> str:
    """A content hash of plain facts and of every tensor of a module, with its name, shape and dtype."""
    out = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        out.update(name.encode() + str(tuple(tensor.shape)).encode() + str(tensor.dtype).encode())
        out.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return out.hexdigest()[:16]
