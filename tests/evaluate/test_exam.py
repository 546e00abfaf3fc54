"""The exam on small random models: what is measured, in whose tokens, and what is left out rather than made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from small_models import CONFIGS, build
from truing.errors import RunFailed, UserError
from truing.evaluate.exam import Responses, answer, compare, drift, no_kl, same_tokens, truncated
from truing.policy import heads
from truing.policy.load import context_length, load, load_any
from truing.policy.policy import Policy
from truing.records import Message, Messages, Score
from truing.rewards.scoring import RewardModel, scores
from truing.rollout.engine import Sampling, fits, generate

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5
OTHER = ["zebras gallop over yellow meadows", "quick brown foxes jump"] * 5
PROMPTS = [(Message("user", f"is a refund due, {i} days late?"),) for i in range(6)]


def silent(prompts: list[Messages], responses: list[str]) -> list[Score]:
    return [Score(float(len(text))) for text in responses]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models of one tokenizer, and one of another with fewer tokens."""
    root = tmp_path_factory.mktemp("models")
    made = {"one": (TEXT, 400, 0), "two": (TEXT, 400, 1), "other": (OTHER, 300, 0)}
    return {n: build("llama", texts, root / n, vocab=vocab, seed=seed) for n, (texts, vocab, seed) in made.items()}


@pytest.fixture(scope="module")
def policies(folders: dict[str, Path]) -> dict[str, Policy]:
    return {name: load(str(folder)) for name, folder in folders.items()}


def shortened(folder: Path, copy: Path, positions: int) -> Path:
    """A copy of a model that reads fewer tokens."""
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    config = json.loads((copy / "config.json").read_text()) | {"max_position_embeddings": positions}
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def test_kl_is_the_mean_log_ratio_of_plain_transformers(folders: dict[str, Path], policies: dict[str, Policy]) -> None:
    given = answer("one", policies["one"], PROMPTS, silent, Sampling(max_new_tokens=7, seed=3))
    found = drift(given, policies["one"], policies["two"], "two", PROMPTS)
    sums = []
    for name in ("one", "two"):
        model = AutoModelForCausalLM.from_pretrained(folders[name]).eval()
        total = 0.0
        for r in given.rollouts:
            with torch.no_grad():
                logp = model(torch.tensor([[*r.prompt_ids, *r.response_ids]])).logits[0].log_softmax(-1)
            at = range(len(r.prompt_ids) - 1, len(r.prompt_ids) + len(r.response_ids) - 1)
            total += sum(logp[t, i].item() for t, i in zip(at, r.response_ids, strict=True))
        sums.append(total / len(given.rollouts))
    assert found.value == pytest.approx(sums[0] - sums[1], abs=1e-3) and abs(found.value) > 0.05
    assert (found.check, found.model, found.against, found.n) == ("kl_to_reference", "one", "two", len(PROMPTS))
    assert drift(given, policies["one"], policies["one"], "one", PROMPTS).value == 0.0
    assert truncated(given, PROMPTS).value == sum(r.stop == "length" for r in given.rollouts) / len(PROMPTS)


def test_what_is_no_kl_is_not_called_one(policies: dict[str, Policy]) -> None:
    one, two, other = (policies[name] for name in ("one", "two", "other"))
    assert no_kl(one, two, Sampling()) == ""
    assert no_kl(one, two, Sampling(temperature=0.7)) == (
        "responses were drawn at temperature 0.7, and a KL needs them drawn at 1"
    )
    assert "drawn with top_p or top_k" in no_kl(one, two, Sampling(top_k=9))
    assert no_kl(one, other, Sampling()) == "their tokenizers or chat templates differ"
    assert same_tokens(one, two) and not same_tokens(one, other)


def test_another_chat_template_is_another_tokenizer(folders: dict[str, Path], policies: dict[str, Policy]) -> None:
    changed = load(str(folders["two"]))
    changed.tokenizer.chat_template = "{{ '<|user|>' }}" + changed.tokenizer.chat_template
    assert not same_tokens(policies["one"], changed)


def test_lengths_are_in_tokens_of_one_tokenizer(policies: dict[str, Policy]) -> None:
    """The same words from two models are equally long, whatever their tokenizers make of them."""
    words = ("the desk grants a refund within thirty days",) * len(PROMPTS)
    given = [Responses(n, words, (0.0,) * len(PROMPTS), policy=policies[n]) for n in ("one", "other")]
    (found,) = (f for f in compare(*given, PROMPTS, "gold") if f.check == "mean_length_delta_tokens")
    count = len(policies["one"].tokenizer(words[0], add_special_tokens=False).input_ids)
    assert len(policies["other"].tokenizer(words[0], add_special_tokens=False).input_ids) != count
    assert found.value == 0.0
    assert found.evidence == (
        f"6 pairs of responses: {count}.0 against {count}.0 tokens on average, counted by one's tokenizer"
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_says_how_much_it_reads(name: str, tmp_path: Path) -> None:
    assert context_length(load(str(build(name, TEXT, tmp_path / name, vocab=300)))) == 2048


def test_a_prompt_without_room_for_its_answer_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    policy = load(str(shortened(folders["one"], tmp_path / "short", 32)))
    sampling = Sampling(max_new_tokens=12)
    assert fits(policy, range(20), sampling) and not fits(policy, range(21), sampling)
    assert len(generate(policy, [[5] * 20], sampling)) == 1
    with pytest.raises(UserError, match=r"prompt 2 has 21 tokens; with max_new_tokens 12 that is beyond the 32 that"):
        generate(policy, [[5] * 20, [5] * 21], sampling)


def test_a_response_the_judge_cannot_read_whole_has_no_score(folders: dict[str, Path], tmp_path: Path) -> None:
    judge = RewardModel(heads.fresh_reward(str(shortened(folders["one"], tmp_path / "short", 48)), seed=0))
    found = judge(PROMPTS[:2], ["fine", "a refund " * 40])
    assert [s.failed for s in found] == [False, True] and "the reward model reads 48" in found[1].why
    with pytest.raises(RunFailed, match="the reward failed on response 2: prompt and response have"):
        scores(judge, PROMPTS[:2], ["fine", "a refund " * 40])


def test_a_model_is_loaded_as_what_it_is(folders: dict[str, Path], tmp_path: Path) -> None:
    """A language model is no judge, and a reward model answers nothing, its tied head notwithstanding."""
    reward = tmp_path / "reward"
    heads.save(heads.fresh_reward(str(folders["one"]), seed=0), reward)
    assert load(str(reward), "reward").is_reward and load_any(str(reward)).is_reward
    assert not load_any(str(folders["one"])).is_reward
    with pytest.raises(UserError, match=r"reward' is a reward model \(LlamaForSequenceClassification\)"):
        load(str(reward))
    with pytest.raises(UserError, match="one' is no reward model: it has no scalar head"):
        load(str(folders["one"]), "reward")
    config = json.loads((reward / "config.json").read_text()) | {"tie_word_embeddings": True}
    (reward / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="a language model is needed"):
        load(str(reward))
    with pytest.raises(UserError, match=r"there is no config\.json in it"):
        load_any(str(tmp_path))
