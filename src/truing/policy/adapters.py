"""Low-rank adapters (LoRA), through peft: put on, read from a folder, saved, merged.

peft puts its layers into the model in place, so a policy with an adapter is the same transformers model as before and
is read in trees like any other. What is saved is what peft itself writes, with the tokenizer and a hash of the base.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from truing.errors import UserError
from truing.policy import model_files
from truing.policy.policy import Policy, tensors_digest
from truing.settings import Lora

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
MEND = f"  Say in its {CONFIG}, under base_model_name_or_path, where the base is: a Hub name, or a folder."


def put_on(policy: Policy, lora: Lora, *, seed: int) -> None:
    """Freeze the policy's weights and add an adapter drawn from `seed`, which changes no number until it is trained.

    A reward model's scalar head is trained and saved with it. Raises UserError for a policy that has an adapter, and
    for targets that are not linear layers of the model's body.
    """
    if policy.adapter is not None:
        raise UserError(
            f"model '{policy.name}' is an adapter already: without lora_rank its own weights are trained on.\n"
            "  For a new adapter over it, let the stage that made it leave a whole model (lora_merge: true)."
        )
    assert lora.lora_rank is not None
    config = LoraConfig(
        r=lora.lora_rank,
        lora_alpha=lora.lora_alpha or 2 * lora.lora_rank,
        lora_dropout=0.0,
        target_modules=lora.lora_targets or "all-linear",
        base_model_name_or_path=absolute(policy.name),
    )
    wrap(policy, config, seed)


def wrap(policy: Policy, config: Any, seed: int) -> None:
    """Put peft's layers into the policy's model as `config` says; only they, and a reward's head, are then trained."""
    config.task_type = TaskType.SEQ_CLS if policy.is_reward else TaskType.CAUSAL_LM
    config.inference_mode = False
    policy.base_digest = body_digest(policy)
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings(action="ignore"):  # of what is as it should be: GPT-2's Conv1D, the base's name
            policy.adapter = get_peft_model(policy.model, config)
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"model '{policy.name}' cannot take this adapter: {str(error).splitlines()[0]}") from error
    policy.model.eval()  # an adapter read from a folder may have dropout
    ends = {id(m) for m in (policy.model.get_input_embeddings(), policy.model.get_output_embeddings())}
    for name, module in policy.model.named_modules():
        if id(module) in ends and isinstance(module, BaseTunerLayer):
            raise UserError(
                f"model '{policy.name}': its embedding and its head are read as they are, and the adapter changes "
                f"{name}; leave it out of lora_targets"
            )


def body_digest(policy: Policy) -> str:
    """A content hash of the weights below the head: what an adapter belongs to, as a language model and as a reward."""
    return tensors_digest([], policy.body)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole model."""
    return (folder / CONFIG).exists()


def read_config(folder: Path) -> dict[str, Any]:
    """An adapter's own description; UserError where it cannot be read, is no LoRA or has no safetensors weights."""
    model_files.check_adapter(folder, CONFIG)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind, base = config["peft_type"], config["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"adapter '{folder}': its {CONFIG} cannot be read ({error!r})") from error
    if kind != "LORA":
        raise UserError(f"adapter '{folder}' is of the kind {kind}; truing reads LoRA adapters")
    if not isinstance(base, str) or not base:
        raise UserError(f"adapter '{folder}' does not say what it belongs to.\n{MEND}")
    if not (folder / WEIGHTS).exists():
        raise UserError(f"adapter '{folder}': there is no {WEIGHTS} in it (pickled weights are not read)")
    return dict(config)


def base_of(folder: Path, config: dict[str, Any]) -> str:
    """The base that an adapter names: a folder seen from the adapter's or the working folder, or a Hub name.

    Where a run has been moved as a whole, the way from adapter to base that truing wrote down still leads there.
    """
    name = str(config["base_model_name_or_path"])
    places = (folder / name, Path(name), folder / recorded(folder).get("way", name))
    base = next((str(place.resolve()) for place in places if place.is_dir()), name)
    if is_adapter(Path(base)):
        raise UserError(f"adapter '{folder}': its base '{base}' is an adapter too; merge that one first (lora_merge)")
    if not Path(base).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise UserError(f"adapter '{folder}': its base model '{name}' is not there.\n{MEND}")
    return base


def read_onto(policy: Policy, folder: Path, *, seed: int) -> None:
    """Put the adapter of a folder onto its base, just loaded. A reward's head that it lacks stays as the base has it.

    Raises UserError where the base is not the one it was trained on, or the files do not fit.
    """
    config = LoraConfig.from_pretrained(str(folder))
    base = policy.name
    wrap(policy, config, seed)
    config.base_model_name_or_path = absolute(base)
    known = recorded(folder).get("weights", policy.base_digest)
    if known != policy.base_digest:
        raise UserError(
            f"adapter '{folder}' was trained on other weights than those of '{base}' now ({known} then, "
            f"{policy.base_digest} now).\n{MEND}"
        )
    try:
        own = get_peft_model_state_dict(policy.adapter, save_embedding_layers=False)
        tensors = {name: value for name, value in own.items() if "lora_" not in name} | load_file(folder / WEIGHTS)
        result = set_peft_model_state_dict(policy.adapter, tensors)
    except (SafetensorError, OSError, RuntimeError, KeyError) as error:
        raise UserError(f"adapter '{folder}': {WEIGHTS} does not fit: {str(error).splitlines()[0]}") from error
    absent = [name for name in result.missing_keys if "lora_" in name]
    if absent or result.unexpected_keys:
        names = ", ".join([*absent, *result.unexpected_keys][:3])
        raise UserError(f"adapter '{folder}': {WEIGHTS} and the layers of '{base}' do not belong together ({names})")


def has_head(folder: Path) -> bool:
    """Whether an adapter brings the scalar head of a reward model."""
    try:
        return any(".score." in name or ".classifier." in name for name in load_file(folder / WEIGHTS))
    except (SafetensorError, OSError) as error:
        raise UserError(f"adapter '{folder}': {WEIGHTS} cannot be read ({error})") from error


def recorded(folder: Path) -> dict[str, str]:
    """What truing wrote of the base beside an adapter: its `weights` by hash, and the `way` there; empty for others."""
    try:
        return {key: str(value) for key, value in json.loads((folder / BASE).read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"adapter '{folder}': its {BASE} cannot be read ({error!r})") from error


def save(policy: Policy, folder: Path) -> None:
    """Write the adapter as peft does (safetensors and its config), and what it belongs to."""
    policy.adapter.save_pretrained(str(folder), save_embedding_layers=False)
    base = policy.adapter.peft_config["default"].base_model_name_or_path
    way = os.path.relpath(base, folder.resolve()) if Path(base).is_dir() else base
    body = {"way": way, "weights": policy.base_digest}
    (folder / BASE).write_text(json.dumps(body, indent=1), encoding="utf-8")


def size(policy: Policy) -> str:
    """How many weights are trained, in words."""
    counts = [(p.numel(), p.requires_grad) for p in policy.model.parameters()]
    learned, whole = sum(n for n, trained in counts if trained), sum(n for n, _ in counts)
    return f"{learned:,} of {whole:,} weights ({100 * learned / whole:.2g} %)"


def merge(policy: Policy) -> None:
    """Add the adapter into the weights: the policy is then a whole model of the same numbers, but for rounding."""
    policy.adapter.merge_and_unload()
    policy.adapter = None


def absolute(name: str) -> str:
    """A folder by its whole path, for an adapter is read from anywhere; a Hub name as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
