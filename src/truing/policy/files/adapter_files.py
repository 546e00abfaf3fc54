"""An adapter's folder, read without torch: what it asks for, where its base is, and what of it truing does not read.

peft has many options, and a config may come from a newer peft or from another trainer. An option that changes a number
is read as peft reads it, or the adapter is refused by that option's name before anything is loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from truing import door
from truing.errors import UserError, one_line
from truing.policy.files import grammar, model_files, weight_files

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
MEND = f"  Say in its {CONFIG}, under base_model_name_or_path, where the base is: a Hub name, or a folder."
MERGE = "  Let what made it merge it (peft: merge_and_unload) and give the whole model."
HEADS = ("score", "classifier")
"""Names of the scalar heads of reward models, as peft saves them with an adapter."""
READ = {
    *(
        "auto_mapping",
        "base_model_name_or_path",
        "inference_mode",
        "peft_type",
        "peft_version",
        "revision",
        "task_type",
    ),
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "bias"),
    *("target_modules", "exclude_modules", "target_parameters", "layers_to_transform", "layers_pattern"),
    *("modules_to_save", "trainable_token_indices", "ensure_weight_tying", "fan_in_fan_out", "init_lora_weights"),
}
"""Options that are read as peft reads them."""
IDLE = {
    *("lora_dropout", "megatron_core", "qalora_group_size", "runtime_config", "loftq_config", "eva_config"),
    *("corda_config", "lora_ga_config", "lora_dtype", "lorap_lr_ratio", "lorap_emb_lr"),
}
"""Options that change no number that is read: of training, of how the adapter began, or of another option."""
BEGINNINGS = {"gaussian", "eva", "orthogonal", "olora", "pissa", "mica"}
"""Ways for an adapter to begin that leave the base as it is or change it in one way only, so that it can be redone."""


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter and not a whole model."""
    return (folder / CONFIG).exists()


def read_config(folder: Path) -> dict[str, Any]:
    """An adapter's own description; UserError where it cannot be read, asks for something that truing does not read, or
    has no safetensors weights."""
    who = f"adapter '{folder}'"
    model_files.check_natures(who, folder, (CONFIG, weight_files.PATTERN))
    config = door.read_object(folder / CONFIG, f"{who}: its {CONFIG}")
    if absent := [key for key in ("peft_type", "base_model_name_or_path") if key not in config]:
        raise UserError(f"{who}: its {CONFIG} cannot be read: it has no {' and no '.join(absent)}")
    if config["peft_type"] != "LORA":
        raise UserError(
            f"{who} is of the kind {one_line(str(config['peft_type']))[:40]}; truing reads LoRA adapters.\n{MERGE}"
        )
    if not isinstance(config["base_model_name_or_path"], str) or not config["base_model_name_or_path"]:
        raise UserError(f"{who} does not say what it belongs to.\n{MEND}")
    model_files.refuse_code(who, CONFIG, config)
    model_files.check_grammar(who, CONFIG, config, grammar.ADAPTER)
    if problem := grammar.bad_pattern(config):
        raise UserError(f"{who}: its {CONFIG} cannot be used: {problem}.\n{MERGE}")
    if trouble := unread(config):
        raise UserError(f"{who}: its {CONFIG} has {trouble}")
    if not (folder / WEIGHTS).exists():
        raise UserError(f"{who}: there is no {WEIGHTS} in it (pickled weights are not read)")
    _check_ranks(who, config, tensors(folder))
    return config


def _check_ranks(who: str, config: Mapping[str, Any], brought: Mapping[str, weight_files.Tensor]) -> None:
    """Refuse a rank that no tensor of the adapter has a side of: weights of that size would be made before they are
    compared."""
    sides = {side for tensor in brought.values() for side in tensor.shape}
    most = max(sides, default=0)
    for key, rank in {"r": config.get("r", 8), **(config.get("rank_pattern") or {})}.items():
        if rank > max(most, 8):
            raise UserError(
                f"{who}: its {CONFIG} says a rank of {rank:,} ({door.shown(key)}), and no side of its weights is "
                f"longer than {most:,}; they do not belong together"
            )


def unread(config: Mapping[str, Any]) -> str:
    """Describe the options of a config that truing does not read, with the way out; empty where there are none.

    >>> unread({"r": 8, "use_qalora": False, "qalora_group_size": 16})
    ''
    >>> unread({"use_qalora": True}).splitlines()[0]
    'use_qalora, which truing does not read'
    """
    strange = sorted(name for name, value in config.items() if value and name not in READ | IDLE)
    if strange:
        more = f"  Where an option changes no number (a note of the trainer), take it out of {CONFIG}."
        return f"{', '.join(strange)}, which truing does not read\n{MERGE}\n{more}"
    begun = config.get("init_lora_weights", True)
    if not isinstance(begun, bool) and str(begun).lower() not in BEGINNINGS:
        return (
            f"init_lora_weights: {begun}, which changed the base in a way that cannot be done again\n"
            "  Save it with peft as a plain adapter, save_pretrained(..., path_initial_model_for_weight_conversion=...)"
            ", or merge it."
        )
    if config.get("task_type") not in (None, "CAUSAL_LM", "SEQ_CLS"):
        return f"task_type {config['task_type']}; truing reads language models (CAUSAL_LM) and reward models (SEQ_CLS)"
    return ""


def is_reward(config: Mapping[str, Any]) -> bool:
    """Return whether an adapter makes a reward model of its base, by its own config."""
    saved = config.get("modules_to_save") or ()
    return config.get("task_type") == "SEQ_CLS" or (config.get("task_type") is None and any(h in saved for h in HEADS))


def shapes(path: Path) -> dict[str, list[int]]:
    """The shape of every tensor in a safetensors file, from its header; UserError where it cannot be read."""
    who = f"model '{path.parent}'"
    return {name: list(tensor.shape) for name, tensor in weight_files.tensors_of(who, path).items()}


def tensors(folder: Path) -> dict[str, weight_files.Tensor]:
    """Every tensor that an adapter brings, by its file's header; UserError for one that is no floating-point number."""
    who = f"adapter '{folder}'"
    brought = weight_files.tensors_of(who, folder / WEIGHTS)
    weight_files.check_types(who, WEIGHTS, brought)
    return brought


def brought(folder: Path) -> dict[str, list[int]]:
    """The shape of every tensor that an adapter brings."""
    return {name: list(tensor.shape) for name, tensor in tensors(folder).items()}


def has_head(folder: Path) -> bool:
    """Return whether an adapter brings the scalar head of a reward model."""
    return any(f".{head}." in name for name in brought(folder) for head in HEADS)


def recorded(folder: Path) -> dict[str, str]:
    """truing's record of the base beside an adapter: its `weights` by hash, and the `way` there; empty for others."""
    if not (folder / BASE).exists():
        return {}
    body = door.read_object(folder / BASE, f"adapter '{folder}': its {BASE}")
    model_files.check_grammar(f"adapter '{folder}'", BASE, body, grammar.BESIDE)
    return {key: str(value) for key, value in body.items()}


def bases(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Places where the base of an adapter may be, the likeliest first: folders, or a Hub name.

    First the name in its config, seen from the working folder (as peft sees it) and from the adapter; then, where a run
    has been moved as a whole, the way from adapter to base that truing wrote down. Which of several is the base is
    known by the hash beside the adapter; without one, two folders of that name are refused.
    """
    name, record = str(config["base_model_name_or_path"]), recorded(folder)
    named = list(dict.fromkeys(str(p.resolve()) for p in (Path(name), folder / name) if p.is_dir()))
    if len(named) > 1 and "weights" not in record:
        raise UserError(
            f"adapter '{folder}': its base '{name}' may be {' or '.join(named)}.\n{MEND} An absolute path says which."
        )
    way = Path(os.path.realpath(folder / record["way"])) if "way" in record else None
    folders = list(dict.fromkeys([*named, *([str(way)] if way is not None and way.is_dir() else [])]))
    for base in folders:
        if is_adapter(Path(base)):
            raise UserError(
                f"adapter '{folder}': its base '{base}' is an adapter too; merge that one first (lora_merge)"
            )
    if not folders and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise UserError(f"adapter '{folder}': its base model '{name}' is not there.\n{MEND}")
    return folders or [name]


def misplaced(folder: Path, config: Mapping[str, Any], base: str) -> str:
    """A note where other programs, which see the name in the config from the working folder, do not find this base;
    empty where they do."""
    name = str(config["base_model_name_or_path"])
    if not Path(base).is_dir() or os.path.realpath(name) == os.path.realpath(base):
        return ""
    there = json.dumps(base)
    return (
        f"adapter '{folder}': its base is at {there}, and its {CONFIG} says {json.dumps(name)}, where peft, "
        f'transformers and vLLM will not find it; for them write "base_model_name_or_path": {there} there'
    )


def absolute(name: str) -> str:
    """A folder by its whole path, for other programs see a name from their working folder; a Hub name as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def unmergeable(folder: Path) -> str:
    """Why an adapter cannot be merged, as far as its files and those of a base on this disk say; empty where it can."""
    config = read_config(folder)
    base = Path(bases(folder, config)[0])
    if not config.get("lora_bias") or not base.is_dir():
        return ""
    try:
        there = [name for path in base.glob("*.safetensors") for name in shapes(path)]
    except UserError:
        return ""  # the base is refused when it is loaded
    end = ".lora_B.bias"
    for name in (n.removeprefix("base_model.model.") for n in brought(folder) if n.endswith(end)):
        bias = f"{name.removesuffix(end)}.bias"
        if there and not any(bias == other or bias.endswith(f".{other}") for other in there):
            return no_bias(str(folder), bias.removesuffix(".bias"))
    return ""


def no_bias(adapter: str, layer: str) -> str:
    """The refusal of an adapter with a bias for a layer that has none to add it to."""
    return (
        f"adapter '{adapter}' has a bias (lora_bias) for {layer}, which has none in the base, so no weight could hold "
        "it when they are merged; leave out lora_merge"
    )
