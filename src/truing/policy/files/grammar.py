"""The grammar of config.json and adapter_config.json: a type for every key that a model or an adapter is built by.

A library takes a value of another type as far as it goes, and ends in a traceback, in numbers that are none, or never.
So a key is known by its name here, or, where it is a count that nobody listed, by how such names begin and end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

from truing import door
from truing.policy.files import patterns
from truing.records import is_number


class Kind(NamedTuple):
    """A type of value: its check, and the words for it."""

    fits: Callable[[Any], bool]
    words: str


Grammar: TypeAlias = Mapping[str, Kind]
MOST = 10**9
"""No size of a model is larger, whatever its weights."""


def whole(least: int, most: int = MOST) -> Kind:
    """A whole number within these ends."""
    return Kind(lambda v: _is_whole(v) and least <= v <= most, f"a whole number from {least:,} to {most:,}")


def number(least: float, most: float) -> Kind:
    """A number, no infinite one, within these ends."""
    return Kind(lambda v: is_number(v) and least <= v <= most, f"a number from {least:g} to {most:g}")


def maybe(kind: Kind) -> Kind:
    """A value of this kind, or null."""
    return Kind(lambda v: v is None or kind.fits(v), f"{kind.words}, or null")


def listed(kind: Kind) -> Kind:
    """A list of values of this kind."""
    return Kind(lambda v: isinstance(v, list) and all(map(kind.fits, v)), f"a list, each {kind.words}")


def named(kind: Kind) -> Kind:
    """An object of values of this kind, by name."""
    return Kind(
        lambda v: isinstance(v, dict) and all(map(kind.fits, v.values())), f"an object, each value {kind.words}"
    )


def either(*kinds: Kind) -> Kind:
    """One of these kinds."""
    return Kind(lambda v: any(k.fits(v) for k in kinds), ", or ".join(k.words for k in kinds))


def _is_whole(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def _counts(value: Any) -> bool:
    """True if every number in a value could be a count."""
    if isinstance(value, list):
        return all(map(_counts, value))
    return not isinstance(value, int | float) or isinstance(value, bool) or (_is_whole(value) and -1 <= value <= MOST)


def _numbered(value: Any) -> bool:
    return isinstance(value, dict) and len(value) <= LABELS and value.keys() == set(map(str, range(len(value))))


TEXT = Kind(lambda v: isinstance(v, str), "text")
FLAG = Kind(lambda v: type(v) is bool, "true or false")
OBJECT = Kind(lambda v: isinstance(v, dict), "an object")
PLACE = Kind(
    lambda v: (
        isinstance(v, str)
        and len(v) <= 1000
        and not re.search("[\0\ud800-\udfff]", v)
        and all(len(part.encode()) <= 255 for part in v.split("/"))
    ),
    "the name of a folder or of a model on the Hub",
)
ANY_NUMBER = Kind(is_number, "a finite number")
LENGTH = Kind(lambda v: type(v) in (int, float) and (v > 0 or v == -1), "a number above 0, or -1")
"""Also an endless one: tokenizers without a longest text say 1e30."""
ROPE = number(1e-6, 1e15)
SIZE, TOKEN = whole(1), maybe(whole(-1))
SIZES = maybe(either(whole(0), listed(maybe(whole(0)))))
COUNTS = Kind(lambda v: not isinstance(v, str) and _counts(v), f"a whole number up to {MOST:,}, or a list of them")
"""Values of a count that is recognised by its name alone: -1 and null mean none, and some names are switches or
lists."""
COUNT_NAMES = re.compile(r"(num|n|max)_.*|.*_(size|dim|rank|layers|heads|window|length|positions)")
NO_COUNTS = re.compile(
    r".*(ratio|scale|scaling|factor|theta|prob|rate|eps|std|norm|range|bias|type|types|name|class|loss|coef)\b.*"
)

LABELS = 100_000
CONFIG: Grammar = {
    "model_type": TEXT,
    **dict.fromkeys(("hidden_act", "hidden_activation", "activation_function"), maybe(TEXT)),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), SIZE),
    **dict.fromkeys(("vocab_size",), maybe(SIZE)),
    **dict.fromkeys(("num_hidden_layers", "n_layer"), either(SIZE, OBJECT)),
    **dict.fromkeys(("num_attention_heads", "n_head"), either(SIZE, listed(whole(0)))),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), maybe(SIZE)),
    **dict.fromkeys(("sliding_window", "head_dim", "num_key_value_heads"), SIZES),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"), maybe(number(0, 1))),
    **dict.fromkeys(("attention_dropout", "hidden_dropout", "attn_pdrop"), maybe(number(0, 1))),
    **dict.fromkeys(("resid_pdrop", "embd_pdrop"), maybe(number(0, 1))),
    **dict.fromkeys(("initializer_range",), maybe(number(0, 1000))),
    **dict.fromkeys(("rope_theta", "rotary_emb_base"), maybe(either(ROPE, listed(ROPE)))),
    **dict.fromkeys(("logit_scale", "logits_scaling"), maybe(ANY_NUMBER)),
    **dict.fromkeys(("final_logit_softcapping", "attn_logit_softcapping"), maybe(ANY_NUMBER)),
    **dict.fromkeys(("tie_word_embeddings", "use_cache", "is_decoder", "is_encoder_decoder"), maybe(FLAG)),
    **dict.fromkeys(("pad_token_id", "bos_token_id"), TOKEN),
    **dict.fromkeys(("dtype", "torch_dtype"), maybe(either(TEXT, OBJECT))),
    **dict.fromkeys(("problem_type", "transformers_version", "_name_or_path"), maybe(TEXT)),
    **dict.fromkeys(("rope_scaling", "rope_parameters", "task_specific_params"), maybe(OBJECT)),
    **dict.fromkeys(("architectures", "layer_types"), maybe(listed(TEXT))),
    **dict.fromkeys(("head_weights",), maybe(listed(ANY_NUMBER))),
    "eos_token_id": maybe(either(whole(-1), listed(whole(-1)))),
    "model_max_length": maybe(LENGTH),
    "tie_logit": maybe(ANY_NUMBER),
    "head_costs": maybe(listed(TEXT)),
    "head_read": maybe(TEXT),
    "num_labels": maybe(whole(1, LABELS)),
    "id2label": maybe(Kind(_numbered, f"an object of up to {LABELS:,} names, numbered from 0")),
    "label2id": maybe(named(whole(0, LABELS))),
}  # fmt: skip
"""Keys of config.json, in it and in the configs that stand within it."""

GENERATION: Grammar = {
    **{key: CONFIG[key] for key in ("eos_token_id", "pad_token_id", "bos_token_id")},
    **dict.fromkeys(("max_length", "max_new_tokens", "min_length", "top_k", "num_beams"), maybe(whole(-1))),
    **dict.fromkeys(("temperature", "top_p", "typical_p", "repetition_penalty"), maybe(ANY_NUMBER)),
    **dict.fromkeys(("do_sample", "use_cache"), maybe(FLAG)),
}
"""Keys of generation_config.json."""

PATTERN = maybe(either(TEXT, listed(TEXT)))
ADAPTER: Grammar = {
    "peft_type": TEXT,
    "base_model_name_or_path": PLACE,
    "revision": maybe(PLACE),
    **dict.fromkeys(("task_type", "peft_version"), maybe(TEXT)),
    **dict.fromkeys(("target_modules", "exclude_modules", "layers_pattern"), PATTERN),
    **dict.fromkeys(("modules_to_save", "target_parameters"), maybe(listed(TEXT))),
    **dict.fromkeys(("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out"), maybe(FLAG)),
    **dict.fromkeys(("inference_mode", "ensure_weight_tying"), maybe(FLAG)),
    "r": whole(1, 1_000_000),
    "rank_pattern": maybe(named(whole(1, 1_000_000))),
    "lora_alpha": number(-1e6, 1e6),
    "alpha_pattern": maybe(named(number(-1e6, 1e6))),
    "lora_dropout": maybe(number(0, 1)),
    "bias": Kind(lambda v: v in ("none", "all", "lora_only"), "none, all or lora_only"),
    "init_lora_weights": either(maybe(FLAG), TEXT),
    "layers_to_transform": maybe(either(whole(0), listed(whole(0)))),
    "trainable_token_indices": maybe(either(listed(whole(0)), named(listed(whole(0))))),
    "auto_mapping": maybe(OBJECT),
}
"""Keys of adapter_config.json."""
BESIDE: Grammar = {"way": PLACE, "weights": TEXT}
"""Keys of base.json, which truing writes beside an adapter."""
MATCHED = ("modules_to_save", "rank_pattern", "alpha_pattern")
"""Keys whose entries peft takes for patterns, as it does every other PATTERN that is a text."""


def wrong(body: Mapping[str, Any], grammar: Grammar, path: str = "") -> Iterator[str]:
    """A sentence for every key of an object, and of the objects in it, whose value is not what its name asks for.

    >>> list(wrong({"hidden_size": "64"}, CONFIG))
    ["hidden_size is '64', and is to be a whole number from 1 to 1,000,000,000"]
    """
    for key, value in body.items():
        kind = grammar.get(key) or (_count(key) if grammar is CONFIG else None)
        if kind is not None and not kind.fits(value):
            yield f"{path}{door.shown(key)[1:-1]} is {door.shown(value)}, and is to be {kind.words}"
        elif isinstance(value, dict) and str(key).endswith("_config") and grammar is CONFIG:
            yield from wrong(value, grammar, f"{path}{door.shown(key)[1:-1]}.")


def _count(key: str) -> Kind | None:
    """The kind of a key that is not listed: a count, where its name says that it is one."""
    return COUNTS if COUNT_NAMES.fullmatch(key) and not NO_COUNTS.fullmatch(key) else None


LAYERS = re.compile(r"(num|n)_(.*_)?(layers?|layer|blocks|stages|loops)|(encoder|decoder)_layers|depth")


def layers(body: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    """Every number of layers that a config asks for, by its key; a library makes them one by one."""
    for key, value in body.items():
        if LAYERS.fullmatch(key) and _is_whole(value):
            yield f"{path}{key}", int(value)
        elif isinstance(value, dict) and key.endswith("_config"):
            yield from layers(value, f"{path}{key}.")


def asks_for_code(body: Any) -> bool:
    """Return whether a value from JSON asks, at any depth, for code of the folder's own (`auto_map`)."""
    if isinstance(body, dict):
        return bool(body.get("auto_map")) or any(map(asks_for_code, body.values()))
    return isinstance(body, list) and any(map(asks_for_code, body))


def bad_pattern(config: Mapping[str, Any]) -> str:
    """The problem of the first unusable pattern in an adapter's config; empty where there is none."""
    for key, value in config.items():
        if ADAPTER.get(key) is PATTERN and (isinstance(value, str) or key == "layers_pattern"):
            texts = [value] if isinstance(value, str) else list(value or ())
        elif key in MATCHED:
            texts = list(value or ())
        else:
            continue
        for text in texts:
            if problem := patterns.trouble(text):
                return f"{key}: the pattern {door.shown(text)} {problem}"
    return ""
