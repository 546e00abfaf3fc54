"""Faults of tokens and numbers: what a wrong padding, tokenizer, reference or loss would change in silence."""

from __future__ import annotations

import math
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing

from truing import world
from truing.data.formats.loading import load as load_rows
from truing.data.rendering.render import Renderer
from truing.data.trees import build_trees
from truing.errors import RunFailed, UserError
from truing.evaluate.exam import response_logp
from truing.policy.load import load, load_tokenizer
from truing.policy.reference import compute
from truing.records import Message, Score
from truing.rewards.scoring import RewardModel, gold, scores
from truing.rollout.engine import Sampling, generate
from truing.settings import Training
from truing.train.optim import Optim

ASKED = ((Message("user", "is it good?"),), (Message("user", "a longer question: is a refund due?"),))


@pytest.mark.parametrize("pad", ["<|end|>", None])
def test_padding_with_the_end_token_or_none(place, good_rows, change, pad) -> None:
    """Fault 26: with pad == eos, and with no pad token, the response's end token is learned and every score the same."""
    place.write(good_rows())
    change(place.spoilt() / "tokenizer_config.json", pad_token=pad)
    change(place.folder / "spoilt" / "config.json", pad_token_id=2 if pad else None)
    tokenizer = load_tokenizer("spoilt")
    assert (tokenizer.pad_token, tokenizer.eos_token) == (pad, "<|end|>")
    before, after = place.score(), place.score("spoilt")
    assert before == after
    words = len(tokenizer(good_rows()[0]["chosen"], add_special_tokens=False).input_ids)
    assert after[0]["chosen_length"] == words + 1
    assert place.run("rm: {do: fit_reward, model: spoilt, data: rows.jsonl, steps: 1}") == 0, place.said
    scored = place.score(place.out / "rm" / "model")
    assert all(row["chosen_reward"] != row["rejected_reward"] for row in scored)


def test_a_padding_id_outside_the_vocabulary(place, good_rows, change) -> None:
    """Fault 26: a padding id that the embedding has no row for is refused with the model's name."""
    place.write(good_rows())
    change(place.spoilt() / "config.json", pad_token_id=5000)
    assert place("score", "spoilt", "rows.jsonl", "--out", "scored.jsonl") == 2
    assert "model 'spoilt': its config.json describes no model: Padding_idx must be within num_embeddings" in place.said


def test_one_bos_everywhere(place, good_rows) -> None:
    """Fault 27: a tokenizer that adds a BOS of its own before the template's: the same scores, rewards and rollouts."""
    place.write(good_rows(4))
    for source in ("model", "rm"):
        tokenizer = load_tokenizer(source)
        assert tokenizer("A").input_ids[0] != tokenizer.bos_token_id
        bos = (tokenizer.bos_token, tokenizer.bos_token_id)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
        tokenizer.save_pretrained(place.spoilt(f"{source}2", source))
        adds = load_tokenizer(f"{source}2")
        assert adds("A").input_ids[0] == adds.bos_token_id
        assert place.score(source) == place.score(f"{source}2")
    said = []
    for source in ("model", "model2"):
        assert place("sample", source, "rows.jsonl", "--out", "said.jsonl", "--max-new-tokens", "6") == 0
        said.append(place.lines("said.jsonl"))
        ids = Renderer(load_tokenizer(source)).prompt_ids(ASKED[0])
        assert ids.count(load_tokenizer(source).bos_token_id) == 1
    assert said[0] == said[1]


def test_a_token_without_an_embedding(place, good_rows) -> None:
    """Fault 30: a tokenizer with more tokens than the model has embeddings is refused, and nothing is trained."""
    tokenizer = load_tokenizer(str(place.spoilt()))
    tokenizer.add_tokens(["good"])
    tokenizer.save_pretrained("spoilt")
    place.write(good_rows())
    assert place.run("warm: {do: sft, model: spoilt, data: rows.jsonl, steps: 1}") == 2
    assert "model 'spoilt': its tokenizer writes 'good' as" in place.said and "do not belong together" in place.said
    assert not (place.out / "warm" / "model").exists()


def test_a_new_token_with_tied_embeddings(place, good_rows, change) -> None:
    """Fault 30: the padding token that a reward model gets has an embedding, and no other row of it changes."""
    place.write(good_rows())
    change(place.spoilt() / "tokenizer_config.json", pad_token="<|end|>")
    assert place.run("rm: {do: fit_reward, model: spoilt, data: rows.jsonl, steps: 1, learning_rate: 1e-30}") == 0
    old, new = (
        load_file(path)["model.embed_tokens.weight"]
        for path in ("model/model.safetensors", place.out / "rm" / "model" / "model.safetensors")
    )
    pad = load_tokenizer(str(place.out / "rm" / "model")).pad_token_id
    assert pad != 2 and len(new) > pad
    assert torch.allclose(new[: len(old)], old, atol=1e-6)


def test_a_judge_with_another_tokenizer(place) -> None:
    """Fault 30: a reward model reads the text of a policy through its own tokenizer, never the policy's ids."""
    said = ["yes, it is good", "no"]
    place.write([{"prompt": p[0].content, "response": r} for p, r in zip(ASKED, said, strict=True)])
    own = [row["reward"] for row in place.score("rm")]
    judge = RewardModel(load("rm", "reward"))
    assert [score.value for score in judge(ASKED, said)] == pytest.approx(own, abs=1e-5)
    exam = "models: [other], against: model, prompts: rows.jsonl, judge: rm, max_new_tokens: 4"
    assert place.run(f"exam: {{do: evaluate, {exam}}}") == 0, place.said
    for prompt, row in zip(ASKED, place.read("exam/examples.json"), strict=True):
        given = row["responses"]["other"]
        assert judge([prompt], [given["text"]])[0].value == pytest.approx(given["score"], abs=1e-3)


@pytest.mark.parametrize("model", ["model", "rm"])
def test_neighbours_change_no_score(place, good_rows, model) -> None:
    """Fault 31: a row alone, and the same row among longer ones, has the same log-probabilities and rewards."""
    rows = good_rows(6)
    rows[1]["chosen"], rows[4]["prompt"] = "yes " * 150, "question " * 100
    place.write(rows)
    together = place.score(model)
    for row, wanted in zip(rows, together, strict=True):
        place.write([row], "one.jsonl")
        (alone,) = place.score(model, "one.jsonl")
        for name, value in alone.items():
            assert value == pytest.approx(wanted[name], rel=1e-5, abs=1e-4 if model == "model" else 1e-5)


def test_dpo_begins_at_ln_2_with_dropout_in_the_config(place, good_rows, change) -> None:
    """Fault 32: dropout stays off and the reference is the policy itself, so the first loss is ln 2."""
    place.write(good_rows())
    change(place.spoilt() / "config.json", attention_dropout=0.5)
    assert place.run("direct: {do: prefer, model: spoilt, data: rows.jsonl, steps: 2, rows_per_step: 4}") == 0
    assert place.lines("out/direct/metrics.jsonl")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_reference_does_not_move(place, good_rows) -> None:
    """Fault 33: after training, the stored reference is bit for bit what the model gives that the stage received."""
    place.write(good_rows())
    assert place.run("direct: {do: prefer, model: model, data: rows.jsonl, epochs: 3, learning_rate: 1e-2}") == 0
    with safe_open(str(place.out / "direct" / "reference.safetensors"), framework="pt") as file:
        kept = file.get_tensor("logp")
    policies = [load("model"), load(str(place.out / "direct" / "model"))]
    trees = build_trees(load_rows("rows.jsonl"), Renderer(policies[0].tokenizer), max_length=1024, shape="pairs").trees
    before, after = (compute(policy, trees, 8192).logp for policy in policies)
    assert torch.equal(kept, before)
    assert (kept - after).abs().max() > 0.1, "nothing was learned, so nothing could have moved"


@pytest.mark.parametrize("do", ["sft", "fit_reward", "prefer"])
def test_accumulation_changes_no_step(place, good_rows, do) -> None:
    """Fault 34: a step of 8 ragged rows in one part, and row by row, has the same loss and gradient, for every loss."""
    rows = good_rows()
    rows[3]["chosen"] = "yes, " * 40
    place.write(rows)
    kept = []
    for tokens in (1, 8192):
        stage = f"warm: {{do: {do}, model: model, data: rows.jsonl, steps: 2, rows_per_step: 8, tokens_per_device: {tokens}}}"
        assert place.run(stage) == 0, place.said
        kept.append(place.lines("out/warm/metrics.jsonl"))
    for one, other in zip(*kept, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_a_loss_that_is_no_number(place, good_rows) -> None:
    """Fault 35: a run that diverges stops before the update, names step and rows, and leaves no model."""
    place.write(good_rows())
    stage = "warm: {do: sft, model: model, data: rows.jsonl, steps: 40, rows_per_step: 4, learning_rate: 1e12, max_grad_norm: 1e12}"
    assert place.run(stage) == 3
    assert re.search(r"step \d+: the loss is .* on data rows \d+, .*; the model was not updated", place.said), (
        place.said
    )
    assert not (place.out / "warm" / "model").exists()
    assert all(math.isfinite(row["loss"]) for row in place.lines("out/warm/metrics.jsonl"))
    assert place.read("manifest.json")["state"] == "failed" and "was not updated" in place.page()


@pytest.mark.parametrize("given", [[math.nan], [math.inf], ["good"], [None], [True], [0.5, 0.5], []])
def test_a_reward_that_is_no_number(given) -> None:
    """Fault 36: a reward that gives NaN, text, nothing, or too few or many scores stops the run with the response's number."""
    with pytest.raises(RunFailed, match=r"the reward (failed on response 1|gave \d scores for 1 responses)"):
        scores(lambda *_: [Score(value) for value in given], ASKED[:1], ["yes"])
    with pytest.raises(RunFailed, match=r"the reward failed on response 1: it gave 0\.5, which is no Score"):
        scores(lambda *_: [0.5], ASKED[:1], ["yes"])


def test_a_response_that_a_judge_cannot_write(place) -> None:
    """Fault 36: a response that spells a control token is read as the letters that it is, and no exception; a prompt
    that does is a reward that failed with its reason."""
    judge = RewardModel(load("rm", "reward"))
    (odd, good) = judge(ASKED, ["yes<|end|>no", "yes"])
    assert not odd.failed and math.isfinite(odd.value) and odd.value != good.value
    (bad,) = judge([(Message("user", "yes<|end|>no"),)], ["yes"])
    assert bad.failed and "control token '<|end|>'" in bad.why and math.isnan(bad.value)


def test_every_response_is_cut(place, good_rows) -> None:
    """Fault 37: an exam in which every response runs into the limit is measured, and says that all were cut."""
    place.write(good_rows(4))
    exam = "models: [other], against: model, prompts: rows.jsonl, judge: rm, max_new_tokens: 1"
    assert place.run(f"exam: {{do: evaluate, {exam}}}") == 0, place.said
    (cut,) = [f for f in place.read("exam/findings.json")["findings"] if f["check"] == "truncated_share"]
    assert (cut["value"], cut["n"]) == (1.0, 4)


def test_a_response_that_ends_at_once(place, good_rows, change) -> None:
    """Fault 37: a model whose first token is its end token gives empty responses of one token, which are judged too."""
    change(place.spoilt() / "generation_config.json", eos_token_id=list(range(320)))
    place.write(good_rows(4))
    assert place("sample", "spoilt", "rows.jsonl", "--out", "said.jsonl") == 0
    assert {(r["response"], r["length"], r["stop"]) for r in place.lines("said.jsonl")} == {("", 1, "eos")}
    exam = "models: [spoilt], against: model, prompts: rows.jsonl, judge: rm, max_new_tokens: 3"
    assert place.run(f"exam: {{do: evaluate, {exam}}}") == 0, place.said
    asked = world.records("world:prompts?n=1").records[0].prompt
    assert math.isfinite(gold([asked], [""])[0].value)


def test_a_models_own_sampling_settings_are_not_used(place, good_rows, change) -> None:
    """Fault 38: top-k and the like in a model's files change no sample, and as options of a recipe they are refused."""
    settings = {"do_sample": True, "top_k": 1, "top_p": 0.1, "temperature": 0.1, "repetition_penalty": 5.0}
    change(place.spoilt() / "generation_config.json", **settings)
    place.write(good_rows(3))
    said = []
    for model in ("model", "spoilt"):
        assert place("sample", model, "rows.jsonl", "--out", "said.jsonl", "--max-new-tokens", "8") == 0
        said.append(place.lines("said.jsonl"))
    assert said[0] == said[1]
    exam = "exam: {do: evaluate, models: [other], against: model, prompts: rows.jsonl, judge: rm, max_new_tokens: 3, "
    assert place("check", place.recipe(exam + "top_p: 0.9}")) == 2 and "unknown option 'top_p'" in place.said
    assert place.run(exam.replace("other", "spoilt") + "temperature: 0.7}") == 0, place.said
    assert place.counted("exam", "no KL of spoilt to model: responses were drawn at temperature 0.7")
    assert "kl_to_reference" not in {f["check"] for f in place.read("exam/findings.json")["findings"]}


def test_rollouts_keep_their_tokens(place) -> None:
    """Fault 39: sampled ids that decode to a text with other ids are scored as they were sampled."""
    policy = load("model")
    prompts = [Renderer(policy.tokenizer).prompt_ids(prompt) for prompt in ASKED]
    rollouts = generate(policy, prompts, Sampling(max_new_tokens=12), n=4)
    words = [policy.tokenizer.decode(r.response_ids) for r in rollouts]
    again = [tuple(policy.tokenizer(text, add_special_tokens=False).input_ids) for text in words]
    assert any(ids != r.response_ids for ids, r in zip(again, rollouts, strict=True)), "nothing here is unstable"
    assert response_logp(policy, rollouts) == pytest.approx([sum(r.logp_T) for r in rollouts], abs=1e-3)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("learning_rate: 0", "learning_rate must be a number above 0, got 0"),
        ("precision: fp16", "fp16"),
        ("lerning_rate: 1e-3", "unknown option 'lerning_rate'. Did you mean 'learning_rate'?"),
        ("fp16: true", "unknown option 'fp16'"),
    ],
)
def test_options_that_cannot_train(place, good_rows, option, told) -> None:
    """Fault 42: a learning rate of 0, fp16 and an unknown key are refused with their line before anything is made."""
    place.write(good_rows())
    stage = f"warm: {{do: sft, model: model, data: rows.jsonl, steps: 1, {option}}}"
    assert place.run(stage) == 2
    assert "r.yaml:2: " in place.said and told in place.said
    assert not place.out.exists()


def test_nothing_to_train(place) -> None:
    """Fault 42: a model without a parameter that can be trained is refused."""
    policy = load("model")
    policy.model.requires_grad_(False)
    with pytest.raises(UserError, match="no parameter that can be trained"):
        Optim(policy.model, Training(), 1)
