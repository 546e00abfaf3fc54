"""Adapters that people bring from peft, on tied and untied bases: read as peft reads them, trained on, saved again and
merged, with the same numbers each time; or refused by name before anything is trained."""

import json

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from small_models import build, build_rows
from small_pairs import TEXT, ragged
from truing.data.batch import Batch
from truing.errors import UserError
from truing.policy import adapters, heads
from truing.policy.load import load, load_any
from truing.policy.probes import plain_rows

MOST = 3e-5
"""Nats a token between two ways of reading the same fp32 weights, here at most 1e-5 apart."""
BATCH = Batch(ragged())
SEEN = sorted({t for tree in BATCH.trees for t in tree.prompt})[:3]
"""Tokens that stand in the batch, so that training them shows."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Small models by architecture, each built once."""
    folder, built = tmp_path_factory.mktemp("bases"), {}

    def base(arch):
        if arch not in built:
            built[arch] = build(arch, TEXT, folder / arch, vocab=300)
        return built[arch]

    return base


def grown(base, more: int = 0):
    """The base in plain transformers, with so many more rows of embedding."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if more:
        model.resize_token_embeddings(model.get_input_embeddings().weight.shape[0] + more)
    return model


def bring(base, folder, *, more: int = 0, auto=grown, task="CAUSAL_LM", **options):
    """An adapter as people bring it: made, moved off its beginning and saved by peft, with a tokenizer."""
    torch.manual_seed(1)
    options.setdefault("target_modules", ["c_attn"] if base.name == "gpt2" else ["q_proj", "v_proj"])
    model = get_peft_model(auto(base, more), LoraConfig(r=2, task_type=task, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def by_peft(base, folder, more: int = 0):
    """Log-probabilities of the batch by peft itself."""
    return plain(PeftModel.from_pretrained(grown(base, more), folder).eval())


def plain(model):
    """Log-probabilities of the batch in plain transformers, one row an answer."""
    parts = []
    for row, branch in zip(plain_rows(BATCH), BATCH.branches, strict=True):
        with torch.no_grad():
            z = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)[-len(branch.ids) - 1 : -1]
        parts.append(z.gather(1, torch.tensor(branch.ids)[:, None]).squeeze(1))
    return torch.cat(parts)


def logp(policy):
    with torch.no_grad():
        return policy.logp(BATCH)


def apart(one, two) -> float:
    return (one - two).abs().max().item()


TOKENS = {"trainable_token_indices": SEEN}
BOTH = {"modules_to_save": ["embed_tokens", "lm_head"]}
QV = ["q_proj", "v_proj"]
BROUGHT = [
    ("llama-tied", TOKENS),
    ("llama", TOKENS),
    ("gemma2", {"trainable_token_indices": {"embed_tokens": SEEN}}),
    ("gpt2", TOKENS),
    ("llama-tied", {"modules_to_save": ["lm_head"]}),
    ("llama-tied", {"modules_to_save": ["embed_tokens"]}),
    ("llama-tied", BOTH),
    ("llama-tied", BOTH | {"ensure_weight_tying": True}),
    ("llama", BOTH),
    ("llama-tied", {"target_modules": [*QV, "embed_tokens"]}),
    ("llama-tied", {"target_modules": [*QV, "lm_head"]}),
    ("llama", {"target_modules": [*QV, "embed_tokens", "lm_head"]}),
    ("gemma2", {"target_modules": [*QV, "embed_tokens"], "use_dora": True}),
    ("gpt2", {"use_dora": True, "fan_in_fan_out": True}),
    ("gpt2", {"lora_bias": True}),
    ("gpt2", {"bias": "all"}),
    ("qwen2", {"bias": "lora_only", "modules_to_save": ["norm"]}),
    ("llama", {"use_rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {r"layers\.1\..*v_proj": 3}}),
    ("llama", {"target_modules": "all-linear", "exclude_modules": ["gate_proj"]}),
    ("llama", {"layers_to_transform": [1], "layers_pattern": "layers"}),
    ("llama", {"target_modules": [], "target_parameters": ["mlp.up_proj.weight"]}),
    ("llama", {"init_lora_weights": "pissa"}),
    ("gpt2", {"init_lora_weights": "pissa"}),
    ("llama", {"init_lora_weights": "olora"}),
    ("llama", {"init_lora_weights": "mica"}),
    ("llama-tied", {"more": 3}),
    ("llama-tied", {"more": 3} | BOTH),
    ("llama", {"more": 3} | BOTH),
    ("llama", {"more": 3, "target_modules": [*QV, "embed_tokens", "lm_head"]}),
    ("llama-tied", {"more": 3} | TOKENS),
]


@pytest.mark.parametrize(("arch", "options"), BROUGHT, ids=lambda x: x if isinstance(x, str) else "+".join(x))
def test_read_trained_on_saved_and_merged_as_peft_reads_it(bases, tmp_path, arch, options) -> None:
    """Kind: what an adapter does to embedding, head, biases or the base itself is lost, or known only at the end."""
    base, more = bases(arch), options.get("more", 0)
    brought = bring(base, tmp_path / "brought", **options)
    wanted = by_peft(base, brought, more)
    policy = load(str(brought))
    assert apart(logp(policy), wanted) <= MOST and policy.layout == "trees"
    heads.save(policy, tmp_path / "again")
    assert apart(by_peft(base, tmp_path / "again", more), wanted) <= MOST
    again = load(str(tmp_path / "again"))
    assert torch.equal(logp(again), logp(policy))
    step(again)
    moved = logp(again)
    assert apart(moved, wanted) > MOST
    again.merge = True
    adapters.check_merge(again)
    heads.save(again, tmp_path / "whole")
    assert apart(plain(AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()), moved) <= MOST
    with safe_open(tmp_path / "whole" / "model.safetensors", "pt") as file:
        own_head = "lm_head.weight" in file.keys()  # noqa: SIM118  it is no dict
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "whole").config.tie_word_embeddings != own_head


def step(policy) -> None:
    """One step of gradient descent, which has to reach every weight that is trained."""
    policy.logp(BATCH).sum().backward()
    trained = {n: p for n, p in policy.model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in trained.items():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
            parameter.add_(parameter.grad, alpha=2e-3 / float(parameter.grad.norm()))
            parameter.grad = None


def refusal(call, *given) -> str:
    with pytest.raises(UserError) as caught:
        call(*given)
    return str(caught.value)


@pytest.mark.parametrize("arch", ["llama", "llama-tied"])
def test_a_bias_that_no_whole_model_holds_is_known_before_training(bases, tmp_path, arch) -> None:
    """Kind: what cannot be merged is found out when hours of training are to be saved. It is read and kept all the
    same."""
    brought = bring(bases(arch), tmp_path / "brought", lora_bias=True)
    policy = load(str(brought))
    assert apart(logp(policy), by_peft(bases(arch), brought)) <= MOST
    said = refusal(adapters.check_merge, policy)
    assert "has a bias (lora_bias) for model.layers.0.self_attn.q_proj" in said and "leave out lora_merge" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layer_replication": [[0, 2], [1, 3]]}, "has layer_replication, which truing does not read"),
        ({"alora_invocation_tokens": [3, 4]}, "has alora_invocation_tokens, which truing does not read"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: pissa_niter_4, which"),
        ({"target_modules": [*QV, "lm_head"], "use_dora": True}, "changes the head by more than low-rank weights"),
        ({"target_modules": [*QV, "embed_tokens"], "ensure_weight_tying": True}, "by one pair of low-rank weights"),
        ({"more": 3, "target_modules": [*QV, "embed_tokens"], "drop": "base_layer"}, "it does not bring the others"),
        (TOKENS | {"drop": "trainable_tokens_delta"}, "do not belong together"),
        ({"bias": "all", "modules_to_save": ["norm"], "drop": "norm.weight"}, "do not belong together"),
    ],
    ids=lambda x: "+".join(x) if isinstance(x, dict) else "",
)
def test_what_is_not_read_is_refused_by_name(bases, tmp_path, options, said) -> None:
    """Options that change numbers, and weights that would be random ones because the file lacks them."""
    options = dict(options)
    drop = options.pop("drop", None)
    brought = bring(bases("llama-tied"), tmp_path / "brought", **options)
    if drop:
        tensors = load_file(brought / "adapter_model.safetensors")
        left = {name: tensor for name, tensor in tensors.items() if drop not in name}
        assert len(left) < len(tensors)
        save_file(left, brought / "adapter_model.safetensors")
    assert said in refusal(load, str(brought))


def rewrite(folder, **changes) -> None:
    config = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_qalora": True}, "has use_qalora, which truing does not read"),
        ({"megatron_config": {"hidden_size": 64}}, "has megatron_config, which truing does not read"),
        ({"an_option_of_tomorrow": 0.5}, "has an_option_of_tomorrow, which truing does not read"),
        ({"enable_lora": [True, False, True]}, "has enable_lora"),
        ({"init_lora_weights": "loftq"}, "has init_lora_weights: loftq"),
        ({"task_type": "TOKEN_CLS"}, "has task_type TOKEN_CLS; truing reads language models"),
        ({"peft_type": "ADALORA"}, "is of the kind ADALORA; truing reads LoRA adapters"),
        ({"r": "eight"}, "cannot"),
        ({"target_modules": ["no_such_layer"]}, "cannot take this adapter: Target modules"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_options_in_a_config_that_are_refused_by_name(bases, tmp_path, changes, said) -> None:
    brought = bring(bases("llama"), tmp_path / "brought")
    rewrite(brought, **changes)
    assert said in refusal(load, str(brought)) and said in refusal(load_any, str(brought))


def test_notes_of_other_trainers_change_nothing(bases, tmp_path) -> None:
    """Options that are off, and notes that trainers leave in the config."""
    brought = bring(bases("llama"), tmp_path / "brought", lora_dropout=0.1)
    wanted = by_peft(bases("llama"), brought)
    rewrite(brought, an_option_of_tomorrow=False, lora_dtype="fp32", lorap_emb_lr=1e-6, auto_mapping={"x": True})
    assert apart(logp(load(str(brought))), wanted) <= MOST


def test_another_kind_than_lora(bases, tmp_path) -> None:
    model = AutoModelForCausalLM.from_pretrained(bases("llama"))
    config = IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])
    get_peft_model(model, config).save_pretrained(tmp_path)
    assert "is of the kind IA3; truing reads LoRA adapters" in refusal(load, str(tmp_path))


def test_an_adapter_with_a_name_of_its_own(bases, tmp_path) -> None:
    """peft puts it into a folder of that name; the folder above says which there are."""
    base = bases("llama")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=2), adapter_name="polite")
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "polite")
    assert f"it holds models, of which one is to be named: {tmp_path / 'polite'}" in refusal(load, str(tmp_path))
    policy = load(str(tmp_path / "polite"))
    heads.save(policy, tmp_path / "again")
    assert torch.equal(logp(load(str(tmp_path / "again"))), logp(policy))


def classifier(labels):
    """A maker of a classifier with so many labels over a base."""
    return lambda base, _: AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels, pad_token_id=0)


def test_a_reward_adapter_of_peft(bases, tmp_path) -> None:
    """`modules_to_save: [score]` with a task and without one; a classifier's numbers are no rewards."""
    base = bases("llama")
    brought = bring(base, tmp_path / "one", auto=classifier(1), task="SEQ_CLS")
    bare = bring(base, tmp_path / "bare", auto=classifier(1), task=None, modules_to_save=["score"])
    for folder in (brought, bare):
        torch.manual_seed(1)
        theirs = PeftModel.from_pretrained(classifier(1)(base, 0), folder).eval()
        with torch.no_grad():
            wanted = torch.stack([theirs(input_ids=torch.tensor([row])).logits[0, 0] for row in plain_rows(BATCH)])
            policy = load_any(str(folder))
            assert policy.is_reward and apart(policy.rewards(BATCH), wanted) <= MOST
    classes = bring(base, tmp_path / "three", auto=classifier(3), task="SEQ_CLS")
    assert "its head gives 3 numbers and not 1; those of a classifier are no rewards" in refusal(load_any, str(classes))


def test_an_adapter_on_an_encoder(tmp_path) -> None:
    """Its head is called `classifier` and saved whole; it is read in rows, and merged."""
    base = build_rows("bert", tmp_path / "bert")

    def classifier(base, _):
        auto = AutoModelForSequenceClassification
        return auto.from_pretrained(base, num_labels=1, ignore_mismatched_sizes=True)

    brought = bring(base, tmp_path / "brought", auto=classifier, task="SEQ_CLS", target_modules=["query", "value"])
    theirs = PeftModel.from_pretrained(classifier(base, 0), brought).eval()
    with torch.no_grad():
        wanted = torch.stack([theirs(input_ids=torch.tensor([row])).logits[0, 0] for row in plain_rows(BATCH)])
        policy = load_any(str(brought))
        assert apart(policy.rewards(BATCH), wanted) <= MOST
        policy.merge = True
        heads.save(policy, tmp_path / "whole")
        assert apart(load_any(str(tmp_path / "whole")).rewards(BATCH), wanted) <= MOST
