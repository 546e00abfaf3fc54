"""Keys of a message beside its role and content: marks that say whether it is learned from, in the words of the
ecosystem; keys that would change what it says, which are refused; and keys that nobody reads, which are counted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from truing.data.formats import cells
from truing.data.formats.oddities import Oddities, Unusable
from truing.data.thoughts import KEYS
from truing.door import shown

LEARNED = frozenset(
    {
        "weight", "train", "training", "loss", "loss_mask", "trainable", "learn", "learnable", "loss_weight",
        "loss_scale", "train_on", "train_on_turn", "train_mask", "training_mask", "step_loss_mask", "compute_loss",
        "calculate_loss", "supervised", "is_trainable", "is_training", "output_with_loss", "do_train", "should_train",
    }
)  # fmt: skip
"""Marks of which true or 1 says that a turn is learned: `weight` of OpenAI, Mistral and Together, `train` and
`training` of Axolotl, `loss` of ms-swift and XTuner, `loss_mask` of verl, ..."""
HIDDEN = frozenset(
    {
        "masked", "is_masked", "ignore", "ignored", "no_loss", "no_train", "exclude_from_loss", "mask_loss",
        "skip_loss", "skip_training", "do_not_train",
    }
)  # fmt: skip
"""Marks of which true or 1 says that a turn is not learned: `masked` of torchtune, ..."""
UNCLEAR: Mapping[str, str] = {
    "mask": "is written both ways round: call it loss_mask (1: learned) or masked (true: not learned)",
    **dict.fromkeys(
        ("train_detail", "training_detail", "train_details", "training_details"),
        "marks a part of a turn, and turns are learned whole or not at all (train, weight)",
    ),
}
MEDIA = re.compile(
    r"(image|img|video|audio|picture|photo|pixel_value)s?(_(path|url|uri|file|byte|base64|b64|data|list)s?)?"
)
"""Names of keys and columns that hold no text."""
UNREAD: Mapping[str, str] = {
    **dict.fromkeys(("tool_calls", "function_call"), "calls of tools are not read; write the call into the content"),
    **dict.fromkeys(
        ("thought", "thoughts"),
        "a thought is read from reasoning_content, thinking or reasoning, or in the content, as <think>...</think>",
    ),
}
"""Keys that change what a message says, and why they are refused."""


@cache
def snake(name: str) -> str:
    """A name as its words joined by underscores, in small letters.

    >>> snake("systemPrompt"), snake("Human-Ref A")
    ('system_prompt', 'human_ref_a')
    """
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def says_nothing(value: Any) -> bool:
    """Return whether a value is empty: null, or an empty text, list or object."""
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)


def learned(item: Mapping[str, Any], main_keys: tuple[str, str], name: str, odd: Oddities) -> bool | None:
    """Return whether a message is learned by its keys beside its two `main_keys`; None where they do not say.

    Keys that nobody reads are counted in `odd`. Unusable for those that change what the message says, for marks that
    are neither yes nor no, and for two that disagree.
    """
    verdicts: dict[bool, str] = {}
    for key, value in item.items():
        if key in main_keys or says_nothing(value):
            continue
        if key in KEYS:  # a thought: read with the content
            if not isinstance(value, str):
                raise Unusable(f"{name}.{key}", "is no text, and a thought is text")
            continue
        word = snake(str(key))
        if word in LEARNED or word in HIDDEN:
            verdicts[yes(value, f"{name}.{key}") == (word in LEARNED)] = str(key)
        elif why := UNCLEAR.get(word) or UNREAD.get(word):
            raise Unusable(f"{name}.{key}", why)
        elif MEDIA.fullmatch(word):
            raise Unusable(f"{name}.{key}", "is no text, and text is all that is read")
        else:
            odd.keys.add(str(key))
    if len(verdicts) > 1:
        raise Unusable(name, f"is to be learned by its '{verdicts[True]}', and is not by its '{verdicts[False]}'")
    return next(iter(verdicts), None)


def is_flag(value: Any) -> bool:
    """Return whether a value is true or false, or the word of one; a number may be a count."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))


def yes(value: Any, name: str) -> bool:
    """A mark as true or false; Unusable for a weight between them or beyond, which no objective gives one turn."""
    try:
        return cells.boolean(value, name)
    except Unusable:
        raise Unusable(
            name, f"is {shown(value)}: 1 (learned) or 0 (not learned) is read, and no other weight"
        ) from None
