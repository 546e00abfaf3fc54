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
from peft.tuners.lora.layer import Linear, LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import TrainableTokensWrapper
from safetensors.torch import load_file

from truing.data.foreign import SECONDS, foreign
from truing.errors import UserError
from truing.policy import ends, soundness
from truing.policy.digest import tensors_digest
from truing.policy.files.adapter_files import (
    BASE,
    CONFIG,
    HEADS,
    MEND,
    MERGE,
    WEIGHTS,
    absolute,
    brought,
    no_bias,
    recorded,
)
from truing.policy.policy import Policy
from truing.settings import Lora
from truing.streams import Weights, weights_seed


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
    )
    wrap(policy, config, seed)
    for name, module in targeted_ends(policy):
        if isinstance(module, BaseTunerLayer):
            raise UserError(
                f"model '{policy.name}': its embedding and its head are read as they are, and the adapter changes "
                f"{name}; leave it out of lora_targets"
            )


def wrap(policy: Policy, config: Any, seed: int) -> None:
    """Put peft's layers into the policy's model as `config` says; only they, and a reward's head, are then trained."""
    config.task_type = TaskType.SEQ_CLS if policy.is_reward else TaskType.CAUSAL_LM
    config.inference_mode = False
    policy.base_digest = policy.base_digest or body_digest(policy)
    torch.manual_seed(weights_seed(Weights.ADAPTER, seed))
    tried = foreign(lambda text: UserError(f"model '{policy.name}' cannot take this adapter: {text}"), SECONDS)
    with tried, warnings.catch_warnings(action="ignore"):  # of what is as it should be: GPT-2's Conv1D, the base's name
        policy.adapter = get_peft_model(policy.model, config)
    config.base_model_name_or_path = absolute(policy.name)  # peft writes the name that the model was loaded by
    policy.model.eval()  # an adapter read from a folder may have dropout


def targeted_ends(policy: Policy) -> list[tuple[str, Any]]:
    """The embedding and the head of a model, by name, with what peft has put around them."""
    both = {id(m) for m in (policy.model.get_input_embeddings(), policy.model.get_output_embeddings())}
    return [(name, module) for name, module in policy.model.named_modules() if id(module) in both]


def body_digest(policy: Policy) -> str:
    """A content hash of the weights below the head: what an adapter belongs to, as a language model and as a reward."""
    return tensors_digest([], policy.body)


def fits(policy: Policy, folder: Path) -> bool:
    """Return whether a base, just loaded, is the one that a folder's adapter was trained on, as far as its hash
    tells."""
    policy.base_digest = policy.base_digest or body_digest(policy)
    return recorded(folder).get("weights", policy.base_digest) == policy.base_digest


def read_onto(policy: Policy, folder: Path, *, seed: int) -> None:
    """Put the adapter of a folder onto its base, just loaded. A reward's head that it lacks stays as the base has it.

    Raises UserError where the base is not the one it was trained on, or the files do not fit.
    """
    base = policy.name
    if not fits(policy, folder):
        raise UserError(
            f"adapter '{folder}' was trained on other weights than those of '{base}' now "
            f"({recorded(folder)['weights']} then, {policy.base_digest} now).\n{MEND}"
        )
    who = f"adapter '{folder}'"
    described = foreign(lambda text: UserError(f"{who}: its {CONFIG} cannot be read: {text}"))
    with described, warnings.catch_warnings(action="ignore"):
        config = LoraConfig.from_pretrained(str(folder))
    with foreign(lambda text: UserError(f"{who}: {WEIGHTS} cannot be read ({text})")):
        tensors = load_file(folder / WEIGHTS)
    soundness.check_finite(who, {name: tensor.float() for name, tensor in tensors.items()})
    resize(policy, folder)
    wrap(policy, config, seed)
    check_ends(policy, folder)
    fill(policy, folder, tensors)
    soundness.check_reading(who, policy)


def resize(policy: Policy, folder: Path) -> None:
    """Give a base as many rows of embedding as the adapter brings: it was trained with tokens of its own.

    UserError where the adapter does not bring the rows of both embedding and head: they would be random numbers.
    """
    model, counts, whole = policy.model, set(), set()
    layers = {"embedding": model.get_input_embeddings(), "head": model.get_output_embeddings()}
    names = {id(module): name for name, module in model.named_modules()}
    for end, module in layers.items():
        if module is None:
            continue
        start = f"base_model.model.{names[id(module)]}."
        for name, shape in brought(folder).items():
            if not name.startswith(start) or len(shape) != 2:
                continue
            if "lora_" not in name and name.endswith(".weight"):
                counts.add(shape[0])
                whole.add(end)
            elif "lora_B" in name or "lora_embedding_A" in name:
                counts.add(shape[0] if "lora_B" in name else shape[1])
    if counts <= {ends.rows(model)}:
        return
    needed = {end for end, module in layers.items() if module is not None}
    lacking = set() if whole and ends.are_one(model) else needed - whole
    if len(counts) > 1 or lacking:
        raise UserError(
            f"adapter '{folder}' was trained with {' or '.join(map(str, sorted(counts)))} rows of embedding and "
            f"'{policy.name}' has {ends.rows(model)}; it does not bring the others (of {', '.join(sorted(lacking))}).\n"
            "  Save it with peft with save_embedding_layers=True."
        )
    model.resize_token_embeddings(counts.pop(), mean_resizing=False)


def check_ends(policy: Policy, folder: Path) -> None:
    """Refuse an adapter that changes the embedding or the head in a way that is not read here."""
    touched = [module for _, module in targeted_ends(policy) if isinstance(module, BaseTunerLayer)]
    head = policy.model.get_output_embeddings()
    if isinstance(head, BaseTunerLayer) and (not isinstance(head, Linear) or head.lora_variant):
        raise UserError(
            f"adapter '{folder}' changes the head by more than low-rank weights, which is not read.\n{MERGE}"
        )
    if touched and policy.adapter.peft_config["default"].ensure_weight_tying:
        raise UserError(
            f"adapter '{folder}' changes embedding and head by one pair of low-rank weights (ensure_weight_tying), "
            f"which is not read.\n{MERGE}"
        )


def fill(policy: Policy, folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Put an adapter's tensors where they belong, all of them; embeddings that it brings are saved with it again."""
    with warnings.catch_warnings(action="ignore"):
        ours = get_peft_model_state_dict(policy.adapter, save_embedding_layers=False)
        whole = get_peft_model_state_dict(policy.adapter, save_embedding_layers=True)  # some of it twice, by two names
        head = {n: t for n, t in ours.items() if n not in tensors and any(f".{part}." in n for part in HEADS)}
        absent = [n for n in ours if "lora_" not in n and n not in tensors and n not in head]
        with foreign(lambda text: UserError(f"adapter '{folder}': {WEIGHTS} does not fit: {text}")):
            result = None if absent else set_peft_model_state_dict(policy.adapter, head | tensors)
    strange = [] if result is None else [name for name in result.unexpected_keys if name not in whole]
    absent += [] if result is None else [name for name in result.missing_keys if "lora_" in name]
    if absent or strange:
        names = ", ".join([*absent, *strange][:3])
        raise UserError(
            f"adapter '{folder}': {WEIGHTS} and the layers of '{policy.name}' do not belong together ({names})"
        )
    policy.adapter.keeps_embeddings = any(n not in ours and n.endswith(".weight") and "lora_" not in n for n in tensors)


def save(policy: Policy, folder: Path) -> None:
    """Write the adapter as peft does (safetensors and its config), and what it belongs to."""
    keeps = getattr(policy.adapter, "keeps_embeddings", False)
    with warnings.catch_warnings(action="ignore"):  # of a base that the adapter has changed: it is changed again alike
        policy.adapter.save_pretrained(str(folder), save_embedding_layers=keeps)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    for name, value in config.items():  # peft's sets, in an order that is the same in every process
        config[name] = (
            sorted(value) if name in ("target_modules", "exclude_modules") and isinstance(value, list) else value
        )
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    base = config["base_model_name_or_path"]
    way = os.path.relpath(base, folder.resolve()) if Path(base).is_dir() else base
    body = {"way": way, "weights": policy.base_digest}
    (folder / BASE).write_text(json.dumps(body, indent=1), encoding="utf-8")


def size(policy: Policy) -> str:
    """The number of weights that are trained, in words."""
    counts = [(p.numel(), p.requires_grad) for p in policy.model.parameters()]
    learned, whole = sum(n for n, trained in counts if trained), sum(n for n, _ in counts)
    return f"{learned:,} of {whole:,} weights ({100 * learned / whole:.2g} %)"


def check_merge(policy: Policy) -> None:
    """Refuse, before anything is trained, an adapter that no whole model could hold."""
    for name, module in policy.model.named_modules():
        biased = isinstance(module, LoraLayer) and any(module.lora_bias.values())
        if biased and getattr(module.get_base_layer(), "bias", None) is None:
            raise UserError(no_bias(policy.name, name))
    head = policy.model.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper) and head.original_module.bias is not None:
        raise UserError(
            f"adapter '{policy.name}' leaves out the head's bias, and cannot be merged; leave out lora_merge"
        )


def merge(policy: Policy) -> None:
    """Add the adapter into the weights: the policy is then a whole model of the same numbers, but for rounding.

    UserError where no whole model could hold it. Embedding and head stay one weight where the adapter left them so.
    """
    check_merge(policy)
    model = policy.model
    shared = ends.are_one(model)
    if shared and any(isinstance(module, BaseTunerLayer) for _, module in targeted_ends(policy)):
        ends.part(model)  # what is added to the one is not added to the other
    with warnings.catch_warnings(action="ignore"):  # of weights that are no longer shared: `settle` says so
        policy.adapter.merge_and_unload()
    if shared:
        ends.settle(model)
    policy.adapter = None
