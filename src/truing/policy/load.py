"""A model and its tokenizer, from a folder or a Hub name: safetensors only, no code from outside."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from truing import seals
from truing.data import clock
from truing.data.foreign import SECONDS, foreign
from truing.data.rendering import template_choice
from truing.data.rendering.template import ChatTemplate
from truing.errors import UserError
from truing.policy import adapters, soundness, trees
from truing.policy.files import adapter_files, model_files
from truing.policy.files.folders import check_folder
from truing.policy.files.hub import located
from truing.policy.files.weight_files import BUFFERS
from truing.policy.policy import Layout, Policy
from truing.policy.scalars import Heads
from truing.policy.spare import spare_last_layer
from truing.streams import Weights, weights_seed

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()  # a fresh reward head is announced as a missing weight
Kind: TypeAlias = Literal["causal", "reward"]
PROBES = ("A", "Hello, world! 12", "d\u00e9j\u00e0 vu \u4f60\u597d \U0001f642", " \n\t")
"""Texts that every tokenizer makes some tokens of."""
ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "distilbert", "electra", "albert", "camembert", "modernbert"})


def load(
    name: str, kind: Kind = "causal", *, seed: int = 0, fresh: Heads | None = None, revision: str | None = None
) -> Policy:
    """Load a policy (`causal`) or a reward model (`reward`) with attention over trees.

    `name` is a folder, of a model or of an adapter, or a Hub name. With `fresh` a causal model is loaded as a reward
    model with these new scalar heads, drawn from `seed`; every other weight must be in the files. `revision` is that of
    a Hub name. Raises UserError for a missing folder, pickled or missing weights, a tokenizer that needs a chat
    template and has none, no network.
    """
    seals.check_model(Path(name))
    if adapter_files.is_adapter(Path(name)):
        return load_adapter(Path(name), kind, seed=seed, fresh=fresh)
    folder = Path(located(name, revision))
    who, tensors = f"model '{folder}'", check_folder(folder)
    config, tokenizer = load_config(folder), load_tokenizer(str(folder), kind=kind)
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    if kind == "causal" and kind_of(config) == "reward":
        raise UserError(f"{who} is a reward model ({config.architectures[0]}); a language model is needed")
    if kind == "reward" and type(config) not in auto._model_mapping:
        raise UserError(f"{who}: transformers has no reward form ({auto.__name__}) of {config.model_type}")
    heads = fresh or (scalar_heads(who, config) if kind == "reward" else Heads())
    if fresh is not None:
        config.num_labels = len(fresh.names)
    layout: Layout = "trees" if attends_by_mask(config, auto) else "padded"
    soundness.check_size(who, auto, config, tensors)
    torch.manual_seed(weights_seed(Weights.MISSING, seed))
    with foreign(lambda text: UserError(f"{who}: {text}")):
        model, report = auto.from_pretrained(
            str(folder),
            config=config,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation=trees.NAME if layout == "trees" else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_weights` names them
        )
    check_weights(who, model, report, kind, fresh is not None)
    soundness.check_finite(who, dict(model.named_parameters()))
    if layout == "trees":
        spare_last_layer(model)
    model.eval()  # dropout stays off in training too: a run is exact and step 0 of DPO is ln 2
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    policy = Policy(model=model, tokenizer=tokenizer, name=name, layout=layout, notes=unused(who, report))
    if template_choice.is_plain(tokenizer):
        policy.notes.append(f"{who}: {template_choice.NOTE}")
    if kind == "reward":
        policy.put_heads(heads)
    soundness.check_reading(who, policy)
    return policy


def load_config(folder: Path) -> Any:
    """The config of a model, without what it says of how attention and experts are computed: that is ours to say, and
    a name of a kernel there would be fetched from the Hub and run."""
    who = f"model '{folder}'"
    with foreign(lambda text: UserError(f"{who}: its config.json describes no model: {text}"), SECONDS):
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        config._attn_implementation = None  # of the configs within it too, as the next
        config._experts_implementation = None
    return config


def scalar_heads(who: str, config: Any) -> Heads:
    """The heads of a reward model by its config; UserError for a classifier's, whose numbers are no rewards."""
    labels = list(config.id2label.values())
    if kind_of(config) == "reward" and len(labels) > 1 and config.problem_type != "regression":
        raise UserError(
            f"{who}: it tells {len(labels)} classes apart ({', '.join(map(str, labels[:3]))}), and these are "
            'no rewards. Where each is a score of its own, say so in its config.json: "problem_type": "regression"'
        )
    try:
        return Heads.of(config)
    except ValueError as error:
        raise UserError(f"{who}: {error}") from error


def load_adapter(folder: Path, kind: Kind, *, seed: int, fresh: Heads | None) -> Policy:
    """The base that an adapter's folder names, with the adapter on it; its tokenizer where it brings one.

    Only the adapter (of a reward model: and the head) is trained further.
    """
    config = adapter_files.read_config(folder)
    if kind == "causal" and kind_of_adapter(config) == "reward":
        raise UserError(f"adapter '{folder}' is one of a reward model; a language model is needed")
    head = adapter_files.has_head(folder)
    if kind == "reward" and not (head or fresh):
        raise UserError(f"adapter '{folder}' is no reward model's: it has no scalar head; fit one with fit_reward")
    heads = fresh or Heads.beside(folder)
    check_labels(folder, heads)
    for base in adapter_files.bases(folder, config):
        try:
            new = heads if kind == "reward" else None
            policy = load(base, kind, seed=seed, fresh=new, revision=config.get("revision"))
        except UserError as error:
            raise UserError(f"adapter '{folder}': its base cannot be loaded: {error}") from error
        if adapters.fits(policy, folder):
            break
    adapters.read_onto(policy, folder, seed=seed)
    if note := adapter_files.misplaced(folder, config, base):
        policy.notes.append(note)
    if (folder / "tokenizer_config.json").exists():
        policy.tokenizer = load_tokenizer(str(folder), kind=kind)
    if kind == "reward":
        policy.model.config.pad_token_id = policy.tokenizer.pad_token_id
    policy.name = str(folder)
    return policy


def check_labels(folder: Path, heads: Heads) -> None:
    """Refuse an adapter whose head gives other numbers than the rewards it is known to have: it is a classifier's."""
    ends = tuple(f".{name}.weight" for name in adapter_files.HEADS)
    for name, shape in adapter_files.brought(folder).items():
        if name.endswith(ends) and shape[0] != len(heads.names):
            raise UserError(
                f"adapter '{folder}': its head gives {shape[0]} numbers and not {len(heads.names)}; those of a "
                "classifier are no rewards.\n  Where each is a score of its own, name them in heads.json beside it."
            )


HEADS = ("score", "classifier", "classification_head")


def check_weights(who: str, model: Any, report: Any, kind: Kind, fresh_head: bool) -> None:
    """Refuse a model some of whose weights were not in its files: they would be random numbers."""
    absent = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    if fresh_head:
        absent = {key for key in absent if key.split(".")[0] not in HEADS}
    if not absent:
        return
    for key, there, needed in sorted(report["mismatched_keys"]):
        if key in absent and key.split(".")[0] not in HEADS:
            raise UserError(
                f"{who}: by its config.json {key} has the shape {list(needed)}, and in its files "
                f"{list(there)}; they do not belong together.\n  Take both as they were published."
            )
    if kind == "reward" and all(key.split(".")[0] in HEADS for key in absent):
        raise UserError(
            f"{who} is no reward model: it has no scalar head ({', '.join(sorted(absent))}).\n"
            "  Fit one from it with a fit_reward stage."
        )
    some = ", ".join(sorted(absent)[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
    raise UserError(f"{who}: its files lack {some}, which {type(model).__name__} needs")


def unused(who: str, report: Any) -> list[str]:
    """A note of tensors in the files that the model has no place for; those of heads, and of masks, are none."""
    idle = (*HEADS, "lm_head", "cls")
    extra = sorted(
        key for key in report["unexpected_keys"] if key.split(".")[0] not in idle and not key.endswith(BUFFERS)
    )
    if not extra:
        return []
    more = f" and {len(extra) - 2} more" if len(extra) > 2 else ""
    return [f"{who}: its config.json has no place for {', '.join(extra[:2])}{more}; they are not used"]


def load_any(name: str) -> Policy:
    """A language model or a reward model, as its config says."""
    if adapter_files.is_adapter(Path(name)):
        return load(name, kind_of_adapter(adapter_files.read_config(Path(name))))
    folder = Path(located(name))
    check_folder(folder)
    return load(name, kind_of(load_config(folder)))


def kind_of(config: Any) -> Kind:
    """The kind of model under a config: a reward model (a classifier's head), or else a language model."""
    names = getattr(config, "architectures", None) or [""]
    return "reward" if "ForSequenceClassification" in names[0] else "causal"


def kind_of_adapter(config: Any) -> Kind:
    """The kind of model that an adapter makes of its base, by its own config."""
    return "reward" if adapter_files.is_reward(config) else "causal"


def context_length(policy: Policy) -> int:
    """The most tokens that a model reads (prompt and response together); no bound where its config names none."""
    config = policy.model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or sys.maxsize)


def load_tokenizer(name: str, revision: str | None = None, *, kind: Kind = "causal") -> Any:
    """The tokenizer of a model, with the values that a recipe gives its chat template; without one it reads plain texts
    (`data.rendering.template_choice`), and one that writes the date gets its moment."""
    folder = located(name, revision)
    who = f"model '{folder}'"
    if Path(folder).is_dir():
        model_files.check_tokenizer(Path(folder))
    with foreign(lambda text: UserError(f"{who}: its tokenizer cannot be read: {text}"), SECONDS):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if not getattr(tokenizer, "chat_template", None) and not template_choice.plain(tokenizer):
        raise UserError(
            f"{who}: its tokenizer has no chat template, and puts tokens of its own around a text ([CLS], [SEP]) or "
            "ends none, so it is not known how a prompt and a response are written for it.\n"
            "  Put a chat_template.jinja beside its tokenizer files, which writes these tokens too, or use the chat "
            "version of the model."
        )
    template_choice.settle(tokenizer, who, needed=kind == "causal")
    clock.stamp(tokenizer, name)
    try:
        ChatTemplate(tokenizer)
    except UserError as error:
        raise UserError(f"{who}: {error}") from error
    with foreign(lambda text: UserError(f"{who}: its tokenizer cannot read a few words: {text}"), SECONDS):
        for text in PROBES:
            tokenizer.decode(tokenizer(text).input_ids)
    return tokenizer


def attends_by_mask(config: Any, auto: Any = AutoModelForCausalLM) -> bool:
    """Return whether every layer is causal attention that goes through transformers' interface, so that a mask tells it
    what to see. Recurrent and hybrid layers, encoders and ALiBi are read one row per response instead."""
    model_class = auto._model_mapping.get(type(config), None)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    causal = getattr(config, "is_decoder", None) is not False or not hasattr(config, "is_decoder")
    encoder = getattr(config, "model_type", "") in ENCODERS and not (auto is AutoModelForCausalLM and causal)
    return (
        getattr(model_class, "_supports_attention_backend", False)
        and kinds <= {"full_attention", "sliding_attention", "attention"}
        and not (encoder or getattr(config, "alibi", False) or getattr(config, "is_encoder_decoder", False))
    )
