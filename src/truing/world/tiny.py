"""The embedded models: sizes, pretraining texts, and the key under which they are cached. (No torch.)"""

from __future__ import annotations

from typing import Any

from truing.errors import UserError, unknown
from truing.records import digest, source_digest
from truing.settings import Training

PREFIX = "world:desk/"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"new": "llama", "hidden": 96, "layers": 2, "vocab": 1000, "head": 48},
    "small": {"new": "llama", "hidden": 128, "layers": 2, "vocab": 1000, "head": 32, "init_std": 0.08},
    "medium": {"new": "llama", "hidden": 192, "layers": 3, "vocab": 1000, "head": 64},
}
"""Weights of `small` begin with a deviation of about 1 / sqrt(hidden), in four heads: it learns in 1,043 updates what
it learned in 1,768 with 0.04 and two heads (LOG.md, 2026-11-30)."""
POSITIONS = 1024
"""Context length of these models, in tokens."""
TEXTS = {"tiny": 2500, "small": 7000, "medium": 16000}
"""Conversations that a base model is pretrained on, once each."""
TRAINING = Training(
    learning_rate=2e-3,
    warmup=0.05,
    weight_decay=0.05,
    tokens_per_step=768,
    tokens_per_device=768,
    max_length=512,
)
"""Many small steps: a model of this size learns to copy a rule's code from steps, not from tokens."""


def text_name(size: str) -> str:
    """The world's data set that a base model of this size is pretrained on."""
    return f"world:text?n={TEXTS[size]}&seed=1"


def size(name: str) -> str:
    """The size in the name of one of the world's models.

    >>> size("world:desk/small")
    'small'
    """
    models = {PREFIX + size: size for size in SIZES}
    if name not in models:
        raise UserError(unknown("model", name, models))
    return models[name]


def cache_key(size: str) -> str:
    """A content hash of all that a pretrained base model depends on: size, text, options, and the source that reads,
    renders and trains."""
    source = source_digest("world", "data", "objectives", "policy", "signals", "train", "streams.py")
    return digest([SIZES[size], text_name(size), str(TRAINING), source])
