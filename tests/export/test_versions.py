"""Exported folders in version 4 of transformers: the same tokens, logits, scores and ends as in version 5."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from export.client import read
from template_forms import TEXTS, base
from truing.policy import heads
from truing.policy.files.portable import both_forms
from truing.policy.load import load
from truing.report.usage import TESTED

ROOT = Path(__file__).parents[2]
OLDER = ROOT / ".clients" / "transformers4"
ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
MODELS = {  # a kind of model, its template, and how it knows where a token stands
    "llama": ("llama3", {"rope_parameters": {"rope_theta": 5e5, **ROPE, "original_max_position_embeddings": 64}}),
    "mistral": ("mistral", {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}),
    "qwen2": ("chatml", {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}),
    "qwen3": ("thinking", {"rope_parameters": {"rope_theta": 5e6, "rope_type": "default"}, "head_dim": 16}),
    "gemma2": ("gemma", {"rope_parameters": {"rope_theta": 3e4, "rope_type": "default"}, "head_dim": 16}),
    "gemma3_text": (
        "gemma",
        {
            "head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "rope_parameters": {
                "full_attention": {"rope_theta": 2e6, "rope_type": "linear", "factor": 4.0},
                "sliding_attention": {"rope_theta": 2e4, "rope_type": "default"},
            },
        },
    ),
    "phi3": ("phi3", {"rope_parameters": {"rope_theta": 3e4, "rope_type": "default", "partial_rotary_factor": 0.5}}),
    "gpt_neox": (
        "plain",
        {"rope_parameters": {"rope_theta": 3e4, "rope_type": "default", "partial_rotary_factor": 0.5}},
    ),
    "gpt2": ("zephyr", {"n_layer": 2}),
}
ADDED = ("rope_theta", "rope_scaling", "rotary_emb_base", "rotary_pct", "partial_rotary_factor", "torch_dtype")
ADDED += ("rope_local_base_freq",)
SAID = [{"role": "user", "content": " ".join(TEXTS[:4]).strip()}]
JUDGED = [[*SAID, {"role": "assistant", "content": text.strip()}] for text in TEXTS[:4]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    for kind, (form, config) in MODELS.items():
        base(form, place / kind / "base", kind=kind, **config)
        heads.save(load(str(place / kind / "base")), place / kind / "language")
        heads.save(heads.fresh_reward(str(place / kind / "base"), seed=5), place / kind / "reward")
    return {f"{kind} {task}": place / kind / task for kind in MODELS for task in ("language", "reward")}


def work(folders: dict[str, Path]) -> list[tuple[str, str, list[list[dict[str, str]]]]]:
    return [(str(p), p.name, JUDGED if p.name == "reward" else [SAID]) for p in folders.values()]


def test_both_forms_of_a_config_are_one(folders) -> None:
    """What version 4 reads is written beside, and version 5 reads what it read without it."""
    for name, folder in folders.items():
        written = json.loads((folder / "config.json").read_text())
        kind, config = name.split()[0], AutoConfig.from_pretrained(folder)
        theta = MODELS[kind][1].get("rope_parameters", {})
        theta = theta.get("full_attention", theta).get("rope_theta")
        assert written.get("rotary_emb_base" if kind == "gpt_neox" else "rope_theta") == theta
        assert written["torch_dtype"] == written["dtype"] == "float32"
        bare = AutoConfig.for_model(**{k: v for k, v in written.items() if k not in ADDED})
        both = {k: v for k, v in config.to_dict().items() if k in bare.to_dict()}
        assert bare.to_dict() | {"_name_or_path": ""} == both | {"_name_or_path": ""}


def test_no_form_is_written_that_would_change_what_version_5_reads() -> None:
    config = json.loads(AutoConfig.for_model("llama").to_json_string(use_diff=False))
    config["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}

    class Forgetful(type(AutoConfig.for_model("llama"))):
        """A config that takes the older name for something else."""

        @classmethod
        def from_dict(cls, values, **more):
            found = super().from_dict({k: v for k, v in values.items() if k != "rope_theta"}, **more)
            found.hidden_size = 1 if "rope_theta" in values else found.hidden_size
            return found

    assert "rope_theta" not in both_forms(config, Forgetful)


@pytest.fixture(scope="module")
def elsewhere(folders) -> dict[str, object]:
    """What version 4 makes of the folders."""
    if not OLDER.is_dir():
        message = f"no version 4 of transformers at {OLDER}: make older"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    script = str(Path(__file__).parent / "client.py")
    environment = os.environ | {"PYTHONPATH": str(OLDER)}
    ran = subprocess.run(
        [sys.executable, script], input=json.dumps(work(folders)), env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_the_version_is_the_one_that_cards_name(elsewhere) -> None:
    import transformers

    assert f"transformers {elsewhere['version']} and {transformers.__version__}" == TESTED


def test_it_reads_what_version_5_reads(folders, elsewhere) -> None:
    """An instance of: another rope_theta and no tokenizer for clients of version 4."""
    for name, there, (folder, kind, conversations) in zip(folders, elsewhere["found"], work(folders), strict=True):
        here = read(folder, kind, conversations)
        assert (there["eos"], there["ends"]) == (here["eos"], here["ends"]), name
        for one, other in zip(there["rows"], here["rows"], strict=True):
            assert one["ids"] == other["ids"], name
            assert one["scores"] == pytest.approx(other["scores"], abs=1e-4), name
            assert one.get("answer") == other.get("answer"), name


def test_without_the_older_names_it_reads_another_model(folders, tmp_path) -> None:
    """The difference that they make, so that the comparison above can fail: theta 500,000 or 10,000."""
    config = json.loads((folders["llama language"] / "config.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(folders["llama language"]).eval()
    other = AutoModelForCausalLM.from_pretrained(
        folders["llama language"], rope_parameters={"rope_theta": 1e4, "rope_type": "default"}
    ).eval()
    ids = torch.arange(5, 105)[None]
    with torch.no_grad():
        assert (model(ids).logits - other(ids).logits).abs().max() > 0.01
    assert config["rope_scaling"]["rope_type"] == "llama3"
