"""The values that a recipe gives to chat templates (`chat_template_kwargs`), checked without running any."""

from __future__ import annotations

import math
from typing import Any

from truing.errors import short

FIXED = frozenset(
    {"messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "chat_template", "documents"}
)
"""Names in a template that say what is written, and are nobody's to set."""


def check(values: Any) -> dict[str, Any]:
    """The values as a recipe gives them. ValueError, in words, for a name that is none and for a value that is neither
    text, number, true, false nor null."""
    if not isinstance(values, dict) or not values:
        raise ValueError(f"chat_template_kwargs is a mapping such as {{enable_thinking: false}}, not {values!r}")
    for name, value in values.items():
        if not isinstance(name, str) or not name.isidentifier() or name in FIXED:
            raise ValueError(f"chat_template_kwargs: '{short(str(name))}' is no name that a template lets others set")
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
            raise ValueError(f"chat_template_kwargs: {name} is text, a number, true, false or null, not {value!r}")
    return dict(values)
