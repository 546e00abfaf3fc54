"""Several named heads, their weights and the tie parameter: written, read again, and what plain transformers makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import bounds
from small_models import build, build_rows
from small_trees import ragged
from truing.data.batch import Batch
from truing.errors import UserError
from truing.policy import adapters, heads
from truing.policy.load import load
from truing.policy.probes import plain_rows
from truing.policy.scalars import Heads
from truing.settings import Lora

NAMED = Heads(("clarity", "truth"), (2.0, -1.0), 0.1)
BATCH = Batch(ragged("pairs", 3))
TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5


@pytest.fixture(scope="module", params=["llama", "gpt2", "bert"])
def folder(request, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp(request.param)
    return build_rows("bert", place) if request.param == "bert" else build(request.param, TEXT, place, vocab=300)


def test_they_are_read_again_and_are_what_transformers_reads(folder, tmp_path) -> None:
    policy = heads.fresh_reward(str(folder), seed=3, heads=NAMED)
    with torch.no_grad():
        policy.model.tie_logit += 0.123
        scores = policy.head_rewards(BATCH)
    heads.save(policy, tmp_path / "rm")
    again = load(str(tmp_path / "rm"), "reward")
    assert again.scalars == policy.scalars and again.heads == NAMED.names
    assert again.scalars.tie_logit == pytest.approx(0.223) and again.model.tie_logit.requires_grad
    assert torch.equal(again.head_rewards(BATCH), scores)
    assert torch.allclose(again.rewards(BATCH), 2 * scores[:, 0] - scores[:, 1], atol=1e-6)
    plain, said = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm", output_loading_info=True)
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert plain.config.id2label == {0: "clarity", 1: "truth"}
    with torch.no_grad():
        wanted = torch.cat([plain.eval()(input_ids=torch.tensor([ids])).logits for ids in plain_rows(BATCH)])
    assert torch.allclose(scores, wanted, atol=bounds.LOGP) and (scores[:, 0] - scores[:, 1]).abs().min() > 1e-4


def test_an_adapter_has_them_beside_it(tmp_path) -> None:
    base = build("llama", TEXT, tmp_path / "base", vocab=300)
    policy = heads.fresh_reward(str(base), seed=3, heads=Heads(NAMED.names, NAMED.weights))
    adapters.put_on(policy, Lora(lora_rank=2), seed=0)
    policy.put_heads(NAMED)
    assert policy.model.tie_logit.requires_grad, "it is trained with the adapter"
    heads.save(policy, tmp_path / "rm")
    again = load(str(tmp_path / "rm"), "reward")
    assert again.scalars == policy.scalars and again.scalars.names == NAMED.names
    assert again.scalars.tie_logit == pytest.approx(0.1)
    assert torch.equal(again.head_rewards(BATCH), policy.head_rewards(BATCH))
    (tmp_path / "rm" / "heads.json").write_text('{"weights": [1.0]}')
    with pytest.raises(
        UserError, match=r"its heads.json cannot be read \(its names are None, and are to be a list of text\)"
    ):
        load(str(tmp_path / "rm"), "reward")


def test_one_head_without_a_name_is_as_it_was(tmp_path) -> None:
    base = build("llama", TEXT, tmp_path / "base", vocab=300)
    named = heads.fresh_reward(str(base), seed=3, heads=NAMED)
    heads.save(named, tmp_path / "named")
    policy = heads.fresh_reward(str(tmp_path / "named"), seed=3)
    assert policy.heads == ("",) and policy.scalars == Heads(), "nothing of the earlier heads is left"
    heads.save(policy, tmp_path / "rm")
    config = json.loads((tmp_path / "rm" / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0"} and not {"head_weights", "tie_logit"} & set(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"problem_type": None},
            r"it tells 2 classes apart \(clarity, truth\), and these are no rewards. Where each is",
        ),
        ({"head_weights": [1.0]}, r"its head_weights are \[1.0\], and it has the heads clarity, truth"),
        ({"tie_logit": "often"}, "tie_logit is 'often', and is to be a finite number, or null"),
    ],
)
def test_a_config_that_says_something_else(tmp_path, change, message) -> None:
    base = build("llama", TEXT, tmp_path / "base", vocab=300)
    heads.save(heads.fresh_reward(str(base), seed=3, heads=NAMED), tmp_path / "rm")
    path = tmp_path / "rm" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / "rm"), "reward")
