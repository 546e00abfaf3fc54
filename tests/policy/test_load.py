"""What can go wrong when a model is loaded, and what the user is told. Sampling, scoring, and the trees under it."""

import json
import os
import shutil

import pytest
import torch

import bounds
from small_models import build
from truing.data.batch import Batch, Branch, Tree
from truing.errors import RunFailed, UserError
from truing.policy import heads
from truing.policy import plain as plains
from truing.policy.load import load
from truing.policy.logp import Logits, chunk_rows, token_logp
from truing.policy.probes import plain_rows, probe
from truing.policy.spare import spare_last_layer
from truing.policy.trees import Call
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


def test_a_runs_or_a_stages_folder_names_the_models_in_it(folder, tmp_path) -> None:
    for stage in ("warm", "direct"):
        shutil.copytree(folder, tmp_path / "run" / stage / "model")
    (tmp_path / "run" / "data").mkdir()
    both = ", ".join(str(tmp_path / "run" / stage / "model") for stage in ("direct", "warm"))
    assert told(tmp_path / "run").endswith(f"it holds models, of which one is to be named: {both}")
    assert told(tmp_path / "run" / "warm").endswith(f"to be named: {tmp_path / 'run' / 'warm' / 'model'}")
    assert told(tmp_path / "run" / "data").endswith("there is no config.json in it")


def test_code_in_the_model_folder_is_refused(folder) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    assert "asks to run code of its own (auto_map); that is refused" in told(folder)


def test_tokenizer_without_chat_template_that_puts_its_own_tokens_around_texts(folder) -> None:
    """BERT's [CLS] and [SEP]: without a template nothing says how prompt and response stand between them."""
    (folder / "chat_template.jinja").unlink()
    body = json.loads((folder / "tokenizer.json").read_text())
    begin = {"SpecialToken": {"id": "<|user|>", "type_id": 0}}
    whole = {"Sequence": {"id": "A", "type_id": 0}}
    number = next(t["id"] for t in body["added_tokens"] if t["content"] == "<|user|>")
    around = {"<|user|>": {"id": "<|user|>", "ids": [number], "tokens": ["<|user|>"]}}
    body["post_processor"] = {
        "type": "TemplateProcessing", "single": [begin, whole], "pair": [begin, whole], "special_tokens": around
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(body))
    message = told(folder)
    assert "its tokenizer has no chat template, and puts tokens of its own around a text ([CLS], [SEP])" in message
    assert "Put a chat_template.jinja beside its tokenizer files, which writes these tokens too" in message


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


def all_as_one(segment, window):
    row = slice(segment.start, segment.start + segment.tokens)
    yield row, (row,), None


def whole_row(plan):
    row = slice(0, sum(s.tokens for s in plan.segments))
    return [Call(row, (row,), None)]


def test_an_architecture_that_trees_do_not_fit_is_found_out(folder, monkeypatch) -> None:
    """Attention that lets siblings see each other is caught on the first batch, and nothing is trained."""
    monkeypatch.setattr("truing.policy.trees.Segment.calls", all_as_one)
    with pytest.raises(
        RunFailed,
        match=r"differs from plain rows by .* a token \(root mean square.* rounding explains .*plain rows with the same head agree",
    ):
        load(str(folder)).logp(Batch((tree(),)))


def single(seed: int, size: int) -> Tree:
    whole = tree(seed, size)
    return Tree(whole.prompt, (Branch("response", whole.branches[0].ids, (True,) * size),), seed, seed + 1)


def test_trees_that_see_each_other_are_found_out_for_demonstrations_too(folder, monkeypatch) -> None:
    """One tree of one branch is a plain row; only two of them, packed, show a leak. A second call fails as well."""
    monkeypatch.setattr("truing.policy.trees.Plan.calls", lambda self, w, d: whole_row(self))
    policy = load(str(folder))
    for _ in range(2):
        with pytest.raises(RunFailed, match=r"reading trees differs from plain rows"):
            policy.logp(Batch((single(0, 6), single(1, 9))))


def test_the_probe_reaches_beyond_a_sliding_window() -> None:
    batch = Batch(tuple(single(n, n) for n in (30, 12, 6, 80)))
    assert [t.tokens for t in probe(batch, None).trees] == [11, 17]
    assert [t.tokens for t in probe(batch, 20).trees] == [11, 35]
    assert [t.tokens for t in probe(Batch((single(0, 6),)), 20).trees] == [11, 11]


def dressed(model, source, folder):
    """Save a model beside the tokenizer of another."""
    model.save_pretrained(folder)
    for name in os.listdir(source):
        if name.startswith(("tokenizer", "chat_template", "special")):
            (folder / name).write_bytes((source / name).read_bytes())
    return folder


def test_a_head_with_parts_of_its_own_is_read_through_the_model(folder, tmp_path) -> None:
    """ModernBERT's decoder has a prediction layer before its logits, which a plain linear head would leave out."""
    from transformers import ModernBertDecoderConfig, ModernBertDecoderForCausalLM

    torch.manual_seed(0)
    config = ModernBertDecoderConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, pad_token_id=0
    )
    policy = load(str(dressed(ModernBertDecoderForCausalLM(config), folder, tmp_path / "decoder")))
    one = single(3, 9)
    got = policy.logp(Batch((one,)))
    ids = torch.tensor([[*one.prompt, *one.branches[0].ids]])
    logp = policy.model(input_ids=ids).logits[0].log_softmax(-1)[len(one.prompt) - 1 : -1]
    assert torch.allclose(got, logp.gather(1, ids[0, len(one.prompt) :, None]).squeeze(1), atol=bounds.LOGP)
    assert policy.layout == "padded" and "parts of its own" in policy.notes[0]


def test_an_encoder_is_a_reward_model_of_plain_rows(folder, tmp_path) -> None:
    from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=2
    )
    source = dressed(BertForSequenceClassification(config), folder, tmp_path / "bert")
    policy = heads.fresh_reward(str(source), seed=0)
    assert policy.layout == "padded" and policy.is_reward
    batch = Batch((tree(1),))
    got = policy.rewards(batch)
    got.sum().backward()
    assert policy.model.classifier.weight.grad.abs().sum() > 0
    heads.save(policy, tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    assert plain.config.num_labels == 1
    wanted = [plain(input_ids=torch.tensor([ids])).logits.item() for ids in plain_rows(batch)]
    assert got.tolist() == pytest.approx(wanted, abs=1e-6)


def without(folder, prefix: str) -> None:
    """Take the weights that begin with `prefix` out of a model's file."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if not name.startswith(prefix)}
    save_file(kept, path, metadata={"format": "pt"})


def test_weights_that_are_not_in_the_files_are_no_random_numbers(folder) -> None:
    without(folder, "model.layers.1.")
    message = told(folder)
    assert "its files lack model.layers.1." in message and "which LlamaForCausalLM needs" in message


def test_a_language_model_is_no_reward_model(folder) -> None:
    with pytest.raises(UserError, match=r"is no reward model: it has no scalar head \(score.weight\)") as caught:
        load(str(folder), "reward")
    assert "Fit one from it with a fit_reward stage" in str(caught.value)


def test_the_digest_follows_the_config_and_not_the_name(folder, tmp_path) -> None:
    """The same weights at another rope base give other numbers, so a reference of theirs is another reference."""
    import shutil

    other, same = shutil.copytree(folder, tmp_path / "other"), shutil.copytree(folder, tmp_path / "same")
    config = json.loads((other / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 500.0}
    (other / "config.json").write_text(json.dumps(config))
    first, second, third = (load(str(f)).weights_digest() for f in (folder, same, other))
    assert first == second != third


def test_a_token_without_an_embedding(folder) -> None:
    policy = load(str(folder))
    bad = Tree((1, 2), (Branch("response", (3, 300), (True, True)),), 0, 1)
    with pytest.raises(UserError, match=r"as 300, and its embedding has 300 rows; they do not belong together"):
        policy.logp(Batch((bad,)))


def test_the_last_layer_computes_what_is_read(folder) -> None:
    """Its feed-forward part is spared the prompt's tokens, but for the last one; the layers below see them all."""
    policy = load(str(folder))
    batch = Batch((tree(1), single(2, 9)))
    seen = {}
    for number, layer in enumerate(policy.model.model.layers):
        layer.mlp.gate_proj.register_forward_pre_hook(
            lambda _, x, n=number: seen.setdefault(n, []).append(x[0].shape[1])
        )
    policy.verified = True
    got = policy.logp(batch)
    last = max(seen)
    read = len(set(batch.source_R.tolist()))
    assert seen[last] == [read] and seen[last - 1] == [batch.tokens] and read < batch.tokens
    assert torch.allclose(got, plains.own_logp(policy, batch, 1), atol=bounds.LOGP)
    experts = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    assert not spare_last_layer(experts), "a model that names no layers is read whole"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_file_that_is_cut_off(folder, name) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:40])
    assert str(folder) in told(folder)


@pytest.mark.parametrize("kept", [0, 26, 26 * 2, 10**6])
@pytest.mark.parametrize("cap", [None, 5.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_token_logp_against_plain_torch(cap, bias, scale, kept, monkeypatch) -> None:
    """Values and gradients of the chunked head, in chunks of two rows, against log_softmax on the whole; with none,
    some and all of the logits kept for the backward pass, which may be run twice."""
    monkeypatch.setattr("truing.policy.logp.KEPT_ELEMENTS", kept)
    monkeypatch.setattr("truing.policy.logp.CHUNK_ELEMENTS", 26)
    assert chunk_rows(13) == 2
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(7, 5, generator=generator).requires_grad_()
    w = torch.randn(13, 5, generator=generator).requires_grad_()
    b = torch.randn(13, generator=generator).requires_grad_() if bias else None
    target = torch.randint(0, 13, (7,), generator=generator)
    z = h @ w.T * scale + (b if bias else 0)
    plain = (cap * torch.tanh(z / cap) if cap else z).log_softmax(-1).gather(1, target[:, None]).squeeze(1)
    ours = token_logp(h, w, target, b, Logits(scale, cap))
    assert torch.allclose(ours, plain, atol=1e-5)
    inputs = [x for x in (h, w, b) if x is not None]
    weight = torch.randn(7, generator=generator)
    theirs = torch.autograd.grad((plain * weight).sum(), inputs)
    for _ in range(2):
        found = torch.autograd.grad((ours * weight).sum(), inputs, retain_graph=True)
        assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(found, theirs, strict=True))


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


def test_answers_that_end_leave_the_others_alone(folder, monkeypatch) -> None:
    """A third of all tokens end an answer, so that rows of all lengths are taken out of the batch all the time."""
    monkeypatch.setattr("truing.rollout.engine.stop_ids", lambda policy: frozenset(range(100)))
    policy = load(str(folder))
    rollouts = generate(policy, prompts(policy, 10), Sampling(max_new_tokens=8, seed=4), n=2)
    assert len({len(r.response_ids) for r in rollouts}) > 4
    for r in rollouts:
        branch = Branch("response", r.response_ids, (True,) * len(r.response_ids))
        with torch.no_grad():
            logp = policy.logp(Batch((Tree(r.prompt_ids, (branch,), 0, 1),)))
        assert torch.allclose(logp, torch.tensor(r.logp_T), atol=bounds.LOGP)


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
