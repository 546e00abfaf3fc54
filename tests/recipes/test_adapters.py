"""Adapters, precision and recomputed layers as a recipe names them, from check to the evaluated model."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from small_models import build
from truing.policy.load import load, load_any

RECIPE = """\
title: small
base: {new: llama, hidden: 64, layers: 2, vocab: 300, text: $inputs.data}
inputs: {data: pairs.jsonl}
stages:
  data: {do: split, data: $inputs.data, eval: 0.2}
  warm: {do: sft, model: $base, data: $data.train, steps: 3, rows_per_step: 2, lora_rank: 4, learning_rate: 1e-2}
  rm: {do: fit_reward, model: $warm, data: $data.train, eval: $data.eval, steps: 2}
  direct: {do: prefer, model: $warm, data: $data.train, steps: 2, gradient_checkpointing: true}
  whole: {do: prefer, model: $base, data: $data.train, steps: 2, lora_rank: 2, lora_merge: true, precision: bf16}
  exam: {do: evaluate, models: [$rm, $direct, $whole], against: $warm, data: $data.eval}
"""


def test_a_recipe_of_adapters(desk) -> None:
    desk.write(RECIPE)
    assert desk.run() == 0, desk.said
    assert "warm (sft)\n" in desk.said and "an adapter is trained: " in desk.said
    assert "precision bf16 on a CPU: correct, and often slower than fp32" in desk.said
    for stage, adapter in (("warm", True), ("rm", True), ("direct", True), ("whole", False)):
        there = {p.name for p in (desk.out / stage / "model").iterdir()}
        assert ({"adapter_model.safetensors", "adapter_config.json"} <= there) == adapter, stage
        assert ("model.safetensors" in there) != adapter, stage
        assert {"tokenizer.json", "chat_template.jinja", "README.md"} <= there
    assert load_any(str(desk.out / "rm" / "model")).is_reward
    base = str(next(desk.out.glob("base-*")).resolve())
    assert {
        load(str(desk.out / s / "model")).adapter.peft_config["default"].base_model_name_or_path
        for s in ("warm", "direct")
    } == {base}
    plain = AutoModelForCausalLM.from_pretrained(desk.out / "whole" / "model")
    assert torch.equal(plain.lm_head.weight, plain.get_input_embeddings().weight)
    checks = {(f["check"], f["model"]) for f in desk.read("exam/findings.json")["findings"]}
    assert {("held_out_accuracy", "rm"), ("implicit_accuracy", "direct"), ("implicit_accuracy", "whole")} <= checks


def test_options_that_say_nothing_are_refused_before_the_run(desk) -> None:
    desk.write(RECIPE.replace("lora_rank: 4", "lora_alpha: 4"))
    assert desk.run() == 2
    assert "stage 'warm': 'lora_alpha' has no effect without 'lora_rank'" in desk.said
    desk.write(RECIPE.replace("lora_rank: 4", "lora_dropout: 0.1"))
    assert desk.run() == 2 and "lora_dropout" in desk.said
    desk.write(RECIPE.replace("lora_rank: 4", "lora_rank: 0"))
    assert desk.run() == 2 and "lora_rank must be a whole number from 1 up or none, got 0" in desk.said
    desk.write(RECIPE.replace("precision: bf16", "precision: fp16"))
    assert desk.run() == 2 and "precision must be one of fp32, bf16" in desk.said
    assert not desk.out.exists()


def test_merging_what_is_no_adapter(desk) -> None:
    desk.write(RECIPE.replace("lora_rank: 4", "lora_merge: true"))
    assert desk.run() == 2
    assert "stage warm: lora_merge, and" in desk.said and "give lora_rank, or leave it out" in desk.said


def test_a_run_that_was_moved_still_finds_its_base(desk) -> None:
    desk.write(RECIPE)
    assert desk.run() == 0
    moved = desk.folder / "moved"
    shutil.move(desk.out, moved)
    score = ("score", str(moved / "warm" / "model"), str(desk.folder / "pairs.jsonl"), "--out", str(desk.folder / "s"))
    assert desk(*score) == 0, desk.said
    assert "where peft, transformers and vLLM will not find it; for them write" in desk.said
    shutil.rmtree(next(moved.glob("base-*")))
    assert desk(*score) == 2
    assert "its base model" in desk.said and "base_model_name_or_path" in desk.said


BROUGHT = """\
title: small
inputs: {data: pairs.jsonl}
stages:
  data: {do: split, data: $inputs.data, eval: 0.2}
  warm: {do: sft, model: brought, data: $data.train, steps: 2, rows_per_step: 2}
"""


@pytest.fixture()
def brought(desk):
    """An adapter of peft beside the recipe, on a base beside it."""
    build("llama", ["a word and another"] * 9, desk.folder / "base", vocab=300)

    def bring(**options):
        model = AutoModelForCausalLM.from_pretrained(desk.folder / "base")
        get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **options)).save_pretrained(
            desk.folder / "brought"
        )
        AutoTokenizer.from_pretrained(desk.folder / "base").save_pretrained(desk.folder / "brought")
        desk.write(BROUGHT)
        return desk.folder / "brought"

    return bring


def test_what_cannot_be_read_or_merged_is_refused_before_the_run(desk, brought) -> None:
    """Kind: an adapter's trouble is known after hours of other stages; its files tell it without torch."""
    config = brought(lora_bias=True) / "adapter_config.json"
    assert desk("check", str(desk.folder / "r.yaml")) == 0, desk.said
    desk.write(BROUGHT.replace("steps: 2", "steps: 2, lora_merge: true"))
    assert desk("check", str(desk.folder / "r.yaml")) == 2
    assert "stage 'warm': adapter '" in desk.said and "has a bias (lora_bias) for model.layers.0" in desk.said
    whole = config.read_text()
    for changes, said in (
        ({"use_qalora": True}, "has use_qalora, which truing does not read"),
        ({"peft_type": "IA3"}, "is of the kind IA3"),
        ({"base_model_name_or_path": "./gone"}, "its base model './gone' is not there"),
    ):
        config.write_text(json.dumps(json.loads(whole) | changes))
        assert desk("check", str(desk.folder / "r.yaml")) == 2
        assert f"stage 'warm': model: adapter '{config.parent}'" in desk.said and said in desk.said
    assert not desk.out.exists()


def test_an_adapter_on_another_base_is_another_input(desk, brought) -> None:
    """Kind: a stage is reused though what it reads has changed. An adapter of peft knows its base by name alone."""
    folder = brought(lora_dropout=0.1)
    assert desk.run() == 0, desk.said
    assert "lora_dropout 0.1 of this adapter is off: truing trains without dropout" in desk.said
    assert desk.run() == 0 and "an adapter is trained: " not in desk.said
    shutil.move(desk.folder / "base", desk.folder / "moved")
    config = json.loads((folder / "adapter_config.json").read_text())
    moved = config | {"base_model_name_or_path": str(desk.folder / "moved")}
    (folder / "adapter_config.json").write_text(json.dumps(moved))
    assert desk.run() == 0 and "an adapter is trained: " not in desk.said, "the same base at another place"
    build("llama", ["a word and another"] * 9, desk.folder / "moved", vocab=300, seed=5)
    assert desk.run("--overwrite") == 0, desk.said
    assert "an adapter is trained: " in desk.said
