"""The grammar of a tokenizer's files: types by name in its settings, and in tokenizer.json nothing that is drawn by
chance, that makes of a short text an endless one, or that searches for ever.

What cuts texts searches in C, where no time limit arrives. Refused are repetitions whose only content varies itself; a
pattern that is slow on some long text in another way is not seen here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from truing import door
from truing.errors import UserError
from truing.policy.files import patterns
from truing.policy.files.grammar import FLAG, LENGTH, TEXT, Grammar, Kind, either, listed, maybe, named, whole

MOST_GROWTH = 100
"""Factor by which a tokenizer's replacements together may lengthen a text."""
SIDE = Kind(lambda v: v in ("left", "right"), "left or right")
SPECIAL = maybe(either(TEXT, Kind(lambda v: isinstance(v, dict) and isinstance(v.get("content"), str), "its content")))
SETTINGS: Grammar = {
    **dict.fromkeys(("tokenizer_class", "processor_class", "unk_token_lang", "backend"), maybe(TEXT)),
    **dict.fromkeys(("padding_side", "truncation_side"), maybe(SIDE)),
    **dict.fromkeys(("add_bos_token", "add_eos_token", "add_prefix_space", "legacy"), maybe(FLAG)),
    **dict.fromkeys(("split_special_tokens", "clean_up_tokenization_spaces"), maybe(FLAG)),
    **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"), SPECIAL),
    "mask_token": SPECIAL,
    "model_max_length": maybe(LENGTH),
    "model_input_names": maybe(listed(TEXT)),
    "added_tokens_decoder": maybe(named(Kind(lambda v: isinstance(v, dict), "an object"))),
    "additional_special_tokens": maybe(listed(SPECIAL)),
    "chat_template": maybe(either(TEXT, named(TEXT), listed(named(TEXT)))),
}
"""Keys of tokenizer_config.json, special_tokens_map.json and chat_template.json."""
NUMBERED: Kind = named(whole(0, 10_000_000))
"""The form of a vocabulary and of added_tokens.json: every token and its number. Libraries make room for the
largest."""


def check_body(who: str, body: Mapping[str, Any]) -> None:
    """Refuse a tokenizer.json that asks for what is not done here; UserError begins with `who`."""
    model = body.get("model")
    if isinstance(model, dict) and model.get("dropout"):
        raise UserError(
            f"{who}: its tokenizer.json cuts words by chance (model.dropout is {door.shown(model['dropout'])}), so the "
            "same text would be read in another way each time.\n  Set it to null."
        )
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    tokens = body.get("added_tokens")
    entries = enumerate(tokens if isinstance(tokens, list) else [])
    added = {str(place): entry.get("id", 0) for place, entry in entries if isinstance(entry, dict)}
    for name, numbers in (("model.vocab", vocabulary), ("added_tokens", added)):
        if isinstance(numbers, dict) and not NUMBERED.fits(numbers):
            raise UserError(
                f"{who}: its tokenizer.json cannot be used: {name} is to be {NUMBERED.words}.\n"
                "  Take the file as it was published."
            )
    for part in ("normalizer", "decoder"):
        growth = _growth(body.get(part))
        if growth > MOST_GROWTH:
            raise UserError(
                f"{who}: the replacements of the {part} in its tokenizer.json may make a text {growth:,.0f} times as "
                f"long, and at most {MOST_GROWTH} times is read.\n  Take the file as it was published."
            )
    for text in _regexes({key: value for key, value in body.items() if key != "model"}):
        if problem := patterns.trouble(as_python(text), strict=False):
            raise UserError(
                f"{who}: a pattern in its tokenizer.json, {door.shown(text)}, {problem}.\n"
                "  Take the file as it was published."
            )


def hidden_key(body: Any) -> str:
    """The first key, at any depth, with a character that is not shown, or an empty text: the library prints the keys
    that it does not know, past all that is cleaned here."""
    keys = (key for entry in _objects(body) for key in entry)
    return next((key for key in keys if not key.isprintable()), "")


def as_python(text: str) -> str:
    """A pattern of Oniguruma with the classes of characters that `re` does not know as others, for its form alone.

    >>> as_python(r"[^\\r\\n\\p{L}]?+\\p{L}+")
    '[^\\\\r\\\\n\\\\w]?+\\\\w+'
    """
    text = re.sub(r"\\[pP]\{[^}]*\}|\[:\^?\w+:\]", r"\\w", text)
    return re.sub(r"\\[hHXRzGK]", r"\\w", text).replace("&&", "")


def _growth(part: Any) -> float:
    """Factor by which replacements may lengthen a text, all of them together; an upper bound."""
    total = 1.0
    for entry in _objects(part):
        content, pattern = entry.get("content"), entry.get("pattern")
        if entry.get("type") != "Replace" or not isinstance(content, str) or not isinstance(pattern, dict):
            continue
        plain = pattern.get("String")
        total *= max(1.0, len(content) / max(1, len(plain)) if isinstance(plain, str) else 1 + len(content))
    return total


def _regexes(body: Any) -> Iterator[str]:
    for entry in _objects(body):
        if isinstance(entry.get("Regex"), str):
            yield entry["Regex"]


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within a value from JSON, itself included."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from _objects(part)
    elif isinstance(value, list):
        for part in value:
            if isinstance(part, dict | list):
                yield from _objects(part)
