"""Answers of two models together: each token's log-probability is the closed form's, whoever shares a prompt."""

import dataclasses

import pytest
import torch

from small_models import build, build_rows
from truing.data.batch import Branch, Tree
from truing.objectives import closed_form
from truing.policy.load import load
from truing.policy.plain import own_logits
from truing.rollout import engine as engines
from truing.rollout.engine import InProcess, Sampling, generate
from truing.rollout.mixture import Mixture

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5
PROMPTS = [tuple(range(20, 23)), tuple(range(30, 60)), tuple(range(40, 47)), tuple(range(20, 23))]
ENDS = tuple(range(10, 40, 2))
"""End tokens, so that answers of all lengths end."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two models of one tokenizer that say other things."""
    place = tmp_path_factory.mktemp("mixed")
    return [str(build("llama", TEXT, place / str(seed), vocab=300, seed=seed)) for seed in (0, 1)]


@pytest.fixture()
def pair(folders):
    found = [load(folder) for folder in folders]
    with torch.no_grad():
        for one in found:
            one.model.lm_head.weight.mul_(12)
    return found


def mixed_logp(pair, share, rollout):
    """The closed form at every token of an answer, from each model's own forward over the plain row."""
    row, end = [*rollout.prompt_ids, *rollout.response_ids], len(rollout.prompt_ids) - 1
    with torch.no_grad():
        said = [next(own_logits(one, [row], 1))[1][0][end:-1].double().log_softmax(-1) for one in pair]
    whole = [
        closed_form.geometric_mixture(torch.stack(z), torch.tensor([1 - share, share])) for z in zip(*said, strict=True)
    ]
    return torch.stack(whole).gather(1, torch.tensor(rollout.response_ids)[:, None])[:, 0]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_its_log_probabilities_are_those_of_the_geometric_mixture(share, shared, pair, monkeypatch) -> None:
    """Answers of all lengths, some ended by a string, rows that end and move in between, prompts that come twice."""
    for one in pair:
        one.shares_prompts = None if shared else False
    monkeypatch.setattr(engines, "BATCH_TOKENS", 150)
    word = pair[0].tokenizer.decode([70])
    sampling = Sampling(max_new_tokens=20, seed=3, stop_tokens=ENDS, stop_strings=(word,))
    rollouts = generate(pair[0], PROMPTS, sampling, 4, Mixture(pair[1], share))
    assert all(one.shares_prompts is shared for one in pair)
    assert all(one.model.config._attn_implementation == "tree" for one in pair)
    assert len({len(r.response_ids) for r in rollouts}) > 4 and {"eos", "length"} <= {r.stop for r in rollouts}
    for r in rollouts:
        assert torch.allclose(torch.tensor(r.logp_T).double(), mixed_logp(pair, share, r), atol=1e-4)
    alone = generate(pair[0], PROMPTS, sampling, 4)
    apart = [max(map(abs, mixed_logp(pair, share, r) - torch.tensor(r.logp_T))) for r in alone]
    assert max(apart) > 0.5, "the policy alone says something else"


def test_where_one_of_them_cannot_share_prompts_neither_does(pair) -> None:
    sampling = Sampling(max_new_tokens=6, seed=1, stop_tokens=ENDS)
    wanted = generate(pair[0], PROMPTS, sampling, 3, Mixture(pair[1], 0.5))
    pair[1].shares_prompts = False
    found = generate(pair[0], PROMPTS, sampling, 3, Mixture(pair[1], 0.5))
    assert [r.response_ids for r in found] == [r.response_ids for r in wanted]


def test_recurrent_models_are_mixed_too(tmp_path) -> None:
    pair = [load(str(build_rows("mamba", tmp_path / "a"))) for _ in range(2)]
    with torch.no_grad():
        pair[1].model.get_input_embeddings().weight.mul_(0.5)
    for r in generate(pair[0], PROMPTS[:2], Sampling(max_new_tokens=4, seed=2), 2, Mixture(pair[1], 0.5)):
        assert torch.allclose(torch.tensor(r.logp_T).double(), mixed_logp(pair, 0.5, r), atol=1e-4)


def test_tokens_come_as_often_as_the_closed_form_says(pair) -> None:
    """4,000 answers of one token: no token of a hundredth or more is four deviations off, and no other model fits."""
    n, share = 4000, 0.5
    rollouts = generate(pair[0], PROMPTS[:1], Sampling(max_new_tokens=1, seed=5), n, Mixture(pair[1], share))
    count = torch.bincount(torch.tensor([r.response_ids[0] for r in rollouts]), minlength=300).double()

    def misfit(p):
        often = p > 0.01
        return ((count - n * p) / (n * p * (1 - p)).sqrt())[often].abs().max().item()

    tree = Tree(PROMPTS[0], (Branch("response", (1,), (True,)),), 0, 1)
    with torch.no_grad():
        said = [next(own_logits(one, [list(tree.prompt)], 1))[1][0][-1].double().log_softmax(-1) for one in pair]
    law = closed_form.geometric_mixture(torch.stack(said), torch.tensor([1 - share, share])).exp()
    arithmetic = (said[0].exp() + said[1].exp()) / 2
    assert misfit(law) < 4 < min(misfit(said[0].exp()), misfit(said[1].exp()), misfit(arithmetic))


def test_the_ends_of_the_mixture_are_the_two_models(pair) -> None:
    sampling = Sampling(max_new_tokens=8, seed=4, stop_tokens=ENDS)
    for share, alone in ((0.0, pair[0]), (1.0, pair[1])):
        found, wanted = (
            generate(pair[0], PROMPTS, sampling, 2, Mixture(pair[1], share)),
            generate(alone, PROMPTS, sampling, 2),
        )
        assert [r.response_ids for r in found] == [r.response_ids for r in wanted]
        assert all(a.logp_T == pytest.approx(b.logp_T, abs=1e-5) for a, b in zip(found, wanted, strict=True))


def test_the_engine_samples_from_it_and_says_whose_weights_it_read(pair) -> None:
    """Its answers are not the trainer's, so they are not held against it."""
    sampling = Sampling(max_new_tokens=6, seed=1, stop_tokens=ENDS)
    engine = InProcess(pair[0], 2, Mixture(pair[1], 0.5))
    for version in (2, 3):
        found = engine.generate(PROMPTS, 2, sampling)
        wanted = generate(pair[0], PROMPTS, sampling, 2, Mixture(pair[1], 0.5))
        assert found == [dataclasses.replace(r, policy_version=version) for r in wanted]
        engine.sync(pair[0], 3)
    assert engines.sampler_agrees(pair[0], found).largest > 0.1
