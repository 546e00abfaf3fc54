"""What can go wrong when a model is loaded, and what the user is told. Sampling, scoring, and the trees under it."""

import json
import os

import pytest
import torch

from small_models import build
from truing.data.batch import Batch, Branch, Tree
from truing.errors import RunFailed, UserError
from truing.policy import heads
from truing.policy import policy as policies
from truing.policy.load import load
from truing.policy.logp import chunk_rows, token_logp
from truing.rollout.engine import Sampling, generate, stop_ids

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5


@pytest.fixture()
def folder(tmp_path):
    return build("llama", TEXT, tmp_path / "model", vocab=300)


def told(name) -> str:
    with pytest.raises(UserError) as caught:
        load(str(name))
    return str(caught.value)


def test_hub_name_without_network() -> None:
    message = told("nobody/no-such-model")
    assert message.startswith(
        "model 'nobody/no-such-model' is not a folder here, and the Hugging Face Hub could not give it"
    )
    assert "Check the name and the network, or download it first and give the folder." in message


def test_no_such_folder() -> None:
    assert "no such folder, and a Hub name has the form owner/name" in told("./nowhere")


def test_pickled_weights_are_refused(folder) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    message = told(folder)
    assert "its weights are pickled (pytorch_model.bin), and a pickle can run code when it is read" in message
    assert "save_pretrained(FOLDER, safe_serialization=True)" in message


def test_no_weights_at_all(folder) -> None:
    (folder / "model.safetensors").unlink()
    assert "there are no weights (*.safetensors) in it" in told(folder)


def test_no_config(folder) -> None:
    (folder / "config.json").unlink()
    assert "there is no config.json in it" in told(folder)


def test_code_in_the_model_folder_is_refused(folder) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    assert "asks to run code of its own (auto_map); that is refused" in told(folder)


def test_tokenizer_without_chat_template(folder) -> None:
    (folder / "chat_template.jinja").unlink()
    message = told(folder)
    assert "its tokenizer has no chat template, so it is not known how a conversation is written for it" in message
    assert "Put a chat_template.jinja beside its tokenizer files" in message


def test_a_damaged_weight_file_is_the_users_to_mend(folder) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert str(folder) in told(folder)


def tree(seed: int = 0, size: int = 6) -> Tree:
    generator = torch.Generator().manual_seed(seed)
    ids = [tuple(torch.randint(10, 290, (n,), generator=generator).tolist()) for n in (5, size, 4)]
    return Tree(
        ids[0],
        tuple(Branch(r, i, (True,) * len(i)) for r, i in zip(("chosen", "rejected"), ids[1:], strict=True)),
        0,
        1,
    )


def test_an_architecture_that_trees_do_not_fit_is_found_out(folder, monkeypatch) -> None:
    """Attention that lets siblings see each other is caught on the first batch, and nothing is trained."""
    monkeypatch.setattr("truing.policy.trees.Segment.sees", lambda self, window, device: None)
    with pytest.raises(RunFailed, match=r"reading trees differs from plain rows by .* per token"):
        load(str(folder)).logp(Batch((tree(),)))


def test_a_recurrent_model_falls_back_to_plain_rows(tmp_path) -> None:
    """A model that cannot attend by mask (Mamba) is read one row per answer, and gives its own numbers."""
    from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

    source = build("llama", TEXT, tmp_path / "source", vocab=300)
    config = MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4)
    torch.manual_seed(0)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    for name in os.listdir(source):
        if name.startswith(("tokenizer", "chat_template", "special")):
            (tmp_path / "mamba" / name).write_bytes((source / name).read_bytes())
    policy = load(str(tmp_path / "mamba"))
    assert policy.layout == "padded"
    one = tree()
    got = policy.logp(Batch((one,)))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "mamba").eval()
    wanted = []
    for branch in one.branches:
        ids = torch.tensor([[*one.prompt, *branch.ids]])
        logp = model(input_ids=ids).logits[0].log_softmax(-1)[len(one.prompt) - 1 : -1]
        wanted.append(logp.gather(1, torch.tensor(branch.ids)[:, None]).squeeze(1))
    assert torch.allclose(got, torch.cat(wanted), atol=2e-5)


@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_token_logp_against_plain_torch(cap, bias, scale, monkeypatch) -> None:
    """Values and gradients of the chunked head, in chunks of two rows, against log_softmax on the whole."""
    monkeypatch.setattr("truing.policy.logp.CHUNK_ELEMENTS", 26)
    assert chunk_rows(13) == 2
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(7, 5, generator=generator).requires_grad_()
    w = torch.randn(13, 5, generator=generator).requires_grad_()
    b = torch.randn(13, generator=generator).requires_grad_() if bias else None
    target = torch.randint(0, 13, (7,), generator=generator)
    z = h @ w.T * scale + (b if bias else 0)
    plain = (cap * torch.tanh(z / cap) if cap else z).log_softmax(-1).gather(1, target[:, None]).squeeze(1)
    ours = token_logp(h, w, target, b, scale=scale, cap=cap)
    assert torch.allclose(ours, plain, atol=1e-5)
    inputs = [x for x in (h, w, b) if x is not None]
    weight = torch.randn(7, generator=generator)
    theirs = torch.autograd.grad((plain * weight).sum(), inputs)
    for one, two in zip(torch.autograd.grad((ours * weight).sum(), inputs), theirs, strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_padding_with_the_end_token_gets_a_padding_token_of_its_own(folder) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["pad_token"] = config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    policy = heads.fresh_reward(str(folder), seed=0)
    assert policy.tokenizer.pad_token_id not in (None, policy.tokenizer.eos_token_id)
    assert policy.model.config.pad_token_id == policy.tokenizer.pad_token_id
    assert policy.model.get_input_embeddings().weight.shape[0] >= len(policy.tokenizer)


def test_a_reward_head_is_drawn_from_its_seed(folder) -> None:
    weights = [heads.fresh_reward(str(folder), seed=s).model.score.weight for s in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def prompts(policy, n: int = 6):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(3, 20, (n,), generator=generator).tolist()
    return [tuple(torch.randint(10, 290, (k,), generator=generator).tolist()) for k in lengths]


def test_the_samplers_log_probabilities_are_the_trainers(folder) -> None:
    policy = load(str(folder))
    rollouts = generate(policy, prompts(policy), Sampling(max_new_tokens=12, seed=4), n=2)
    assert [r.group for r in rollouts] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for r in rollouts:
        branch = Branch("response", r.response_ids, (True,) * len(r.response_ids))
        with torch.no_grad():
            logp = policy.logp(Batch((Tree(r.prompt_ids, (branch,), 0, 1),)))
        assert torch.allclose(logp, torch.tensor(r.logp_T), atol=1e-4)


def test_sampling_does_not_depend_on_batching(folder, monkeypatch) -> None:
    policy = load(str(folder))
    together = generate(policy, prompts(policy), Sampling(max_new_tokens=8, seed=4), n=2)
    monkeypatch.setattr("truing.rollout.engine.BATCH_TOKENS", 1)
    alone = generate(policy, prompts(policy), Sampling(max_new_tokens=8, seed=4), n=2)
    assert [r.response_ids for r in together] == [r.response_ids for r in alone]
    other = generate(policy, prompts(policy), Sampling(max_new_tokens=8, seed=5), n=2)
    assert [r.response_ids for r in together] != [r.response_ids for r in other]


def test_answers_stop_at_the_end_token_or_the_limit(folder) -> None:
    policy = load(str(folder))
    rollouts = generate(policy, prompts(policy, 40), Sampling(max_new_tokens=40, temperature=2.0))
    stops = stop_ids(policy)
    assert {r.stop for r in rollouts} == {"eos", "length"}, "the case needs both"
    for r in rollouts:
        inner = r.response_ids[:-1]
        assert not stops & set(inner)
        assert (r.response_ids[-1] in stops) == (r.stop == "eos")
        assert r.stop == "eos" or len(r.response_ids) == 40


def test_greedy_is_the_most_likely_token(folder) -> None:
    policy = load(str(folder))
    (rollout,) = generate(policy, prompts(policy, 1), Sampling(max_new_tokens=5, temperature=0.0))
    policy.model.set_attn_implementation("sdpa")
    ids = torch.tensor([[*rollout.prompt_ids, *rollout.response_ids]])
    best = policy.model(ids).logits[0, len(rollout.prompt_ids) - 1 : -1].argmax(-1)
    assert best.tolist() == list(rollout.response_ids)


def test_sampled_frequencies_are_the_models(folder) -> None:
    """2,000 first tokens against the model's distribution: total variation as small as chance allows."""
    policy = load(str(folder))
    prompt = prompts(policy, 1)
    drawn = generate(policy, prompt, Sampling(max_new_tokens=1, seed=9), n=2000)
    counts = torch.bincount(torch.tensor([r.response_ids[0] for r in drawn]), minlength=policy.model.config.vocab_size)
    policy.model.set_attn_implementation("sdpa")
    p = policy.model(torch.tensor([prompt[0]])).logits[0, -1].softmax(-1)
    top = p.argsort(descending=True)[:5]
    assert (counts[top] / 2000 - p[top]).abs().max() < 4 * (0.25 / 2000) ** 0.5


def test_verification_tolerance_names_every_dtype() -> None:
    assert set(policies.TOLERANCE) == {torch.float64, torch.float32, torch.bfloat16, torch.float16}
