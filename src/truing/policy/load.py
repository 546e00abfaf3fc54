"""A model and its tokenizer, from a folder or a Hub name: safetensors only, no code from outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from truing.errors import UserError
from truing.policy import trees
from truing.policy.policy import Policy

transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()  # a fresh reward head is announced as a missing weight
Kind = Literal["causal", "reward"]


def load(name: str, kind: Kind = "causal", *, seed: int = 0) -> Policy:
    """Load a policy (`causal`) or a reward model (`reward`) with attention over trees.

    `name` is a folder or a Hub name. A causal model loaded as a reward model gets a fresh scalar head, drawn from
    `seed`. Raises UserError for a missing folder, pickled weights, a tokenizer without chat template, no network.
    """
    folder = Path(name)
    if folder.exists():
        check_folder(folder)
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"model '{name}': no such folder, and a Hub name has the form owner/name")
    tokenizer = load_tokenizer(name)
    auto = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    more: dict[str, Any] = {} if kind == "causal" else {"num_labels": 1}
    torch.manual_seed(seed)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        layout: Literal["trees", "padded"] = "trees" if attends_by_mask(config) else "padded"
        implementation = trees.NAME if layout == "trees" else "eager"
        model = auto.from_pretrained(
            name,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            attn_implementation=implementation,
            **more,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(_why(name, error)) from error
    model.eval()  # dropout stays off in training too: a run is exact and step 0 of DPO is ln 2
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Policy(model=model, tokenizer=tokenizer, name=name, layout=layout)


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model, which must bring a chat template."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(_why(name, error)) from error
    if not getattr(tokenizer, "chat_template", None):
        raise UserError(
            f"model '{name}': its tokenizer has no chat template, so it is not known how a conversation is "
            "written for it.\n"
            "  Put a chat_template.jinja beside its tokenizer files, or use the chat version of the model."
        )
    return tokenizer


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no model, or whose weights are pickled (a pickle can run code when it is read)."""
    if not (folder / "config.json").exists():
        raise UserError(f"model '{folder}': there is no config.json in it")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "auto_map" in config:
        raise UserError(f"model '{folder}': its config.json asks to run code of its own (auto_map); that is refused")
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl") for p in folder.glob(pattern))
    if pickled:
        raise UserError(
            f"model '{folder}': its weights are pickled ({', '.join(pickled)}), and a pickle can run code when it "
            "is read.\n"
            "  Convert them: model.save_pretrained(FOLDER, safe_serialization=True)"
        )
    raise UserError(f"model '{folder}': there are no weights (*.safetensors) in it")


def attends_by_mask(config: Any) -> bool:
    """Whether every layer is attention that can be told by a mask what to see (no recurrent or hybrid layers)."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    recurrent = getattr(config, "model_type", "") in {
        "mamba",
        "mamba2",
        "rwkv",
        "falcon_mamba",
        "recurrent_gemma",
        "jamba",
        "zamba",
    }
    encoder = not getattr(config, "is_decoder", False) and getattr(config, "model_type", "") in {
        "bert",
        "roberta",
        "deberta-v2",
        "modernbert",
    }
    alibi = getattr(config, "alibi", False) or getattr(config, "model_type", "") in {"bloom", "mpt"}
    return kinds <= {"full_attention", "sliding_attention", "attention"} and not (recurrent or encoder or alibi)


def _why(name: str, error: Exception) -> str:
    text = str(error)
    if Path(name).exists():
        return f"model '{name}': {text.splitlines()[0]}"
    return (
        f"model '{name}' is not a folder here, and the Hugging Face Hub could not give it "
        f"({text.splitlines()[0][:160]}).\n  Check the name and the network, or download it first and give the folder."
    )
