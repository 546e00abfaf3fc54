"""What a model was taught to end with ends its answers elsewhere, and its prompts are written there as they are here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import xllamacpp
import yaml
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from template_forms import TEMPLATES, TEXTS, TOKENS, base, tokenizer
from truing.commands import model_commands
from truing.data.rendering.render import Renderer
from truing.evaluate.exam import same_tokens
from truing.policy import adapters, heads
from truing.policy.load import load
from truing.recipe.check import check
from truing.records import Message
from truing.report.usage import TESTED
from truing.rollout.engine import stop_ids
from truing.run.runner import run
from truing.settings import Lora

ENDS = {  # the taught end, and the tokenizer's EOS in the folder that is left
    "chatml": ("<|im_end|>", "<|im_end|>"),
    "gemma": ("<end_of_turn>", "<end_of_turn>"),
    "zephyr": ("</s>", "</s>"),
    "llama3": ("<|eot_id|>", "<|eot_id|>"),
    "phi3": ("<|end|>", "<|endoftext|>"),  # its template asks what EOS is, and writes it somewhere else
    "mistral": ("</s>", "</s>"),
    "plain": ("<|endoftext|>", "<|endoftext|>"),
    "thinking": ("<|im_end|>", "<|im_end|>"),
    "mute": ("<|im_end|>", "<|im_end|>"),
}
ASKED = [[{"role": "user", "content": text.strip()}] for text in TEXTS[:3]]
LONGER = [*ASKED[0], {"role": "assistant", "content": "yes."}, *ASKED[1]]


@pytest.fixture(scope="module", params=sorted(TEMPLATES))
def left(request, tmp_path_factory):
    """A form, its base model's folder and the folder that a stage leaves of it."""
    place = tmp_path_factory.mktemp(request.param)
    policy = load(str(base(request.param, place / "base")))
    heads.save(policy, place / "model")
    return request.param, place / "base", place / "model"


def test_every_end_is_named(left) -> None:
    """An instance of: an end that was learned and that the exported folder does not name, so that nothing stops there."""
    form, before, folder = left
    taught, eos = ENDS[form]
    made, settings = AutoTokenizer.from_pretrained(folder), GenerationConfig.from_pretrained(folder)
    named = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    assert made.convert_ids_to_tokens(named) == list(dict.fromkeys([taught, TOKENS[form][0]]))
    assert made.eos_token == eos and settings.pad_token_id == made.pad_token_id
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == made.eos_token_id
    assert stop_ids(load(str(folder))) == set(named) == stop_ids(load(str(before)))


def test_prompts_are_written_as_here(left) -> None:
    """BOS where truing puts it and a generation prompt where the template knows none: in the template that is left."""
    _, before, folder = left
    renderer, made = Renderer(AutoTokenizer.from_pretrained(before)), AutoTokenizer.from_pretrained(folder)
    for prompt in (*ASKED, LONGER):
        ours = renderer.prompt_ids(tuple(Message(**m) for m in prompt))
        assert made.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False) == ours
        assert Renderer(made).prompt_ids(tuple(Message(**m) for m in prompt)) == ours


def test_the_base_and_what_was_made_of_it_speak_the_same(left) -> None:
    """A policy is held against its base: what the folder says more changes no token."""
    form, before, folder = left
    one, other = load(str(before)), load(str(folder))
    assert same_tokens(one, other)
    two = tuple(Renderer(p.tokenizer) for p in (one, other))
    said = tuple(Message(**m) for m in [*LONGER, {"role": "assistant", "content": "no refund."}])
    if form != "thinking":  # which writes the thought of the last turn alone, so that earlier ones are no responses
        assert two[0].encode(said[:1], said[1:]) == two[1].encode(said[:1], said[1:])
    assert two[0].encode(said[:3], said[3:]) == two[1].encode(said[:3], said[3:])


def test_plain_texts_begin_and_end_as_before(left, tmp_path) -> None:
    """EOS of the folder ends a turn; what ends a text of pretraining stays what the base knows, over several stages."""
    _, before, folder = left
    heads.save(load(str(folder)), tmp_path / "again")
    places = (before, folder, tmp_path / "again")
    texts = [Renderer(load(str(p)).tokenizer).encode((), (Message("assistant", TEXTS[0]),)) for p in places]
    assert texts[0] == texts[1] == texts[2]
    assert texts[0].response_ids[-1] == AutoTokenizer.from_pretrained(before).eos_token_id


def test_left_once_more_nothing_is_added(left, tmp_path) -> None:
    _, _, folder = left
    heads.save(load(str(folder)), tmp_path / "again")
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer_config.json", "config.json"):
        assert (tmp_path / "again" / name).read_text() == (folder / name).read_text()


def test_other_templates_speak_otherwise(tmp_path) -> None:
    one = load(str(base("chatml", tmp_path / "one")))
    other = load(str(tmp_path / "one"))
    other.tokenizer.chat_template = other.tokenizer.chat_template.replace("assistant\n", "assistant ")
    assert not same_tokens(one, other)


def test_what_the_base_s_settings_said_stays(tmp_path) -> None:
    """Sampling settings (valid or not to transformers) and ends that only a base's settings name, such as <|eom_id|>."""
    folder = base("llama3", tmp_path / "base")
    eom = tokenizer("llama3").convert_tokens_to_ids("<|eom_id|>")
    said = {"eos_token_id": [eom], "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}
    (folder / "generation_config.json").write_text(json.dumps(said))
    heads.save(load(str(folder)), tmp_path / "model")
    left = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    names = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(left["eos_token_id"])
    assert names == ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"]
    assert {key: left[key] for key in said if key != "eos_token_id"} == {k: v for k, v in said.items() if k[0] != "e"}


def test_a_template_that_cannot_write_a_conversation_of_one_turn_is_left_alone(tmp_path) -> None:
    folder = base("chatml", tmp_path / "base")
    template = "{% if messages[0]['role'] != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(template + TEMPLATES["chatml"])
    heads.save(load(str(folder)), tmp_path / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "model").eos_token == "<|endoftext|>"
    assert (tmp_path / "model" / "chat_template.jinja").read_text() == template + TEMPLATES["chatml"]


def test_an_adapter_s_folder_names_them_and_a_merged_model(tmp_path) -> None:
    folder = base("chatml", tmp_path / "base")
    for merge, name in ((False, "adapter"), (True, "merged")):
        policy = load(str(folder))
        adapters.put_on(policy, Lora(lora_rank=2), seed=1)
        policy.merge = merge
        heads.save(policy, tmp_path / name)
        made = AutoTokenizer.from_pretrained(tmp_path / name)
        assert made.eos_token == "<|im_end|>"
        ids = GenerationConfig.from_pretrained(tmp_path / name).eos_token_id
        assert made.convert_ids_to_tokens(ids) == ["<|im_end|>", "<|endoftext|>"]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.generation_config.eos_token_id == ids
    model_commands.export(str(tmp_path / "adapter"), tmp_path / "whole", None)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    for key, weight in merged.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[key])
    assert whole.generation_config.eos_token_id == ids


RECIPE = """
title: ends
seed: 0
base: BASE
inputs: {demos: DEMOS}
stages:
  warm: {do: sft, model: $base, data: $inputs.demos, learning_rate: 1e-2, steps: 40, rows_per_step: 8, max_length: 64}
  tuned: {do: sft, model: $base, data: $inputs.demos, learning_rate: 2e-2, steps: 40, rows_per_step: 8, max_length: 64,
          lora_rank: 8}
"""
CARD = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> tuple[Path, list[str]]:
    """A run that teaches a base, which ends at <|endoftext|>, to answer eight prompts and end at <|im_end|>."""
    place = tmp_path_factory.mktemp("taught")
    prompts = [f"{word} desk" for word in ["yes", "no", "maybe", "please", "order", "ticket", "price", "refund"]]
    said = ["who", "when", "how now", "where"] * 2
    rows = [{"prompt": p, "response": r} for p, r in zip(prompts, said, strict=True)]
    (place / "demos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = RECIPE.replace("BASE", str(base("chatml", place / "base"))).replace("DEMOS", str(place / "demos.jsonl"))
    (place / "recipe.yaml").write_text(text)
    assert run(check(place / "recipe.yaml"), place / "out", quiet=True) == 0
    return place / "out", prompts


@pytest.mark.parametrize("stage", ["warm", "tuned"])
def test_taught_models_stop_in_plain_transformers(taught, stage) -> None:
    out, prompts = taught
    folder = out / stage / "model"
    made = AutoTokenizer.from_pretrained(folder)
    if stage == "warm":
        model = AutoModelForCausalLM.from_pretrained(folder)
    else:
        model = AutoPeftModelForCausalLM.from_pretrained(folder)
        model.generation_config = GenerationConfig.from_pretrained(folder)
    end, stopped = made.convert_tokens_to_ids("<|im_end|>"), 0
    for prompt in prompts:
        asked = made.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        new = model.generate(**asked, do_sample=False, max_new_tokens=24)[0, asked["input_ids"].shape[1] :].tolist()
        stopped += new.index(end) == len(new) - 1 if end in new else 0
    assert stopped == 8


@pytest.mark.parametrize("stage", ["warm", "tuned"])
def test_the_card_s_own_code_runs(taught, stage, capsys) -> None:
    out, prompts = taught
    folder = out / stage / "model"
    (code,) = CARD.findall((folder / "README.md").read_text())
    exec(code.replace("PATH_OR_NAME", str(folder)).replace("...", prompts[0]), {})
    assert capsys.readouterr().out.strip() == "who"


def test_taught_models_stop_in_llama_cpp(taught, tmp_path) -> None:
    """What is written as a GGUF says the same words there and then stops, an adapter too."""
    out, prompts = taught
    for stage in ("warm", "tuned"):
        model_commands.export(str(out / stage / "model"), None, tmp_path / f"{stage}.gguf")
        settings = xllamacpp.CommonParams()
        settings.model.path, settings.n_ctx, settings.verbosity = str(tmp_path / f"{stage}.gguf"), 256, -1
        settings.cpuparams.n_threads, settings.warmup = 1, False
        server, said = xllamacpp.Server(settings), []
        for prompt in prompts:
            body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 24, "temperature": 0}
            (choice,) = server.handle_chat_completions(body)["choices"]
            said.append((choice["message"]["content"], choice["finish_reason"]))
        assert said == [(words, "stop") for words in ["who", "when", "how now", "where"] * 2]


def test_the_card_says_where_it_comes_from_and_how_it_is_read(taught) -> None:
    """An instance of: cards without a task, a way to load, versions; an adapter's names its library."""
    out, _ = taught
    whole, tuned = ((out / stage / "model" / "README.md").read_text() for stage in ("warm", "tuned"))
    front = [yaml.safe_load(card.split("---\n")[1]) for card in (whole, tuned)]
    assert [f["library_name"] for f in front] == ["transformers", "peft"]
    assert [f["pipeline_tag"] for f in front] == ["text-generation"] * 2
    assert "starting from base." in whole and "| demos.jsonl |" in whole and TESTED in whole
    assert str(out.parent) not in whole, "nothing of this machine's folders"
