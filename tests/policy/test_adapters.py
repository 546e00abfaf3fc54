"""Low-rank adapters: nothing changes until they are trained, off they are the base, and saved they are peft's own."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import bounds
from small_models import build
from small_pairs import TEXT, ragged, updated
from truing.data.batch import Batch
from truing.errors import UserError
from truing.objectives import bradley_terry, dpo
from truing.policy import adapters, heads
from truing.policy.files import adapter_files
from truing.policy.load import load, load_any
from truing.policy.probes import plain_rows
from truing.policy.reference import compute
from truing.settings import Lora

LORA = Lora(lora_rank=4)


@pytest.fixture(scope="module")
def trees():
    return ragged()


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2"])
def folder(request, tmp_path_factory):
    return build(request.param, TEXT, tmp_path_factory.mktemp(request.param), vocab=300)


@pytest.fixture()
def llama(tmp_path):
    return build("llama", TEXT, tmp_path / "llama", vocab=300)


def adapted(folder, seed: int = 0, lora: Lora = LORA):
    policy = load(str(folder))
    adapters.put_on(policy, lora, seed=seed)
    return policy


def adapted_reward(folder):
    policy = heads.fresh_reward(str(folder), seed=1, whole=False)
    adapters.put_on(policy, LORA, seed=0)
    return policy


def logp(policy, trees):
    with torch.no_grad():
        return policy.logp(Batch(trees))


def test_the_reference_is_the_adapter_switched_off(folder, trees, tmp_path) -> None:
    """Before training, and after it with the adapter off: bit for bit a second model that was never touched."""
    second, policy = load(str(folder)), adapted(folder)
    assert torch.equal(logp(policy, trees), logp(second, trees))
    reference = updated(policy, trees, tmp_path, dpo)
    now = logp(policy, trees)
    assert (now - logp(second, trees)).abs().max() > 1e-2, "four updates must show"
    with policy.adapter.disable_adapter():
        assert torch.equal(logp(policy, trees), logp(second, trees))
        assert torch.equal(compute(policy, trees, 8192).logp, reference.logp)
    assert {n.split(".")[-3] for n, p in policy.model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def test_saved_and_read_again_by_truing_and_by_peft(folder, trees, tmp_path) -> None:
    policy = adapted(folder)
    updated(policy, trees, tmp_path / "run", dpo)
    wanted = logp(policy, trees)
    saved = tmp_path / "model"
    heads.save(policy, saved)
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "base.json"} <= {
        p.name for p in saved.iterdir()
    }
    assert not (saved / "model.safetensors").exists()
    assert torch.equal(logp(load(str(saved)), trees), wanted)
    assert torch.equal(logp(load_any(str(saved)), trees), wanted)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), saved).eval()
    one = AutoPeftModelForCausalLM.from_pretrained(saved).eval()
    rows, branches = plain_rows(Batch(trees)), Batch(trees).branches
    for model in (theirs, one):
        got = []
        for row, branch in zip(rows, branches, strict=True):
            with torch.no_grad():
                z = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)[-len(branch.ids) - 1 : -1]
            got.append(z.gather(1, torch.tensor(branch.ids)[:, None]).squeeze(1))
        assert (torch.cat(got) - wanted).abs().max() <= bounds.LOGP


def test_a_reward_head_is_trained_and_saved_with_its_adapter(folder, trees, tmp_path) -> None:
    policy = adapted_reward(folder)
    before = policy.model.score.weight.detach().clone()
    updated(policy, trees, tmp_path / "run", bradley_terry)
    assert not torch.equal(policy.model.score.weight, before)
    with torch.no_grad():
        wanted = policy.rewards(Batch(trees))
    heads.save(policy, tmp_path / "model")
    again = load_any(str(tmp_path / "model"))
    assert again.is_reward
    with torch.no_grad():
        assert torch.equal(again.rewards(Batch(trees)), wanted)
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    base.config.pad_token_id = again.tokenizer.pad_token_id
    theirs = PeftModel.from_pretrained(base, tmp_path / "model").eval()
    with torch.no_grad():
        got = [theirs(input_ids=torch.tensor([row])).logits.item() for row in plain_rows(Batch(trees))]
    assert (torch.tensor(got) - wanted).abs().max() <= bounds.LOGP
    assert wanted.std() > 0.01


@pytest.mark.parametrize("kind", ["causal", "reward"])
def test_a_merged_export_gives_the_same_numbers(folder, trees, tmp_path, kind) -> None:
    policy = adapted(folder) if kind == "causal" else adapted_reward(folder)
    updated(policy, trees, tmp_path / "run", dpo if kind == "causal" else bradley_terry)
    read = policy.logp if kind == "causal" else policy.rewards
    with torch.no_grad():
        wanted = read(Batch(trees))
    policy.merge = True
    heads.save(policy, tmp_path / "whole")
    assert not adapter_files.is_adapter(tmp_path / "whole")
    whole = load(str(tmp_path / "whole"), kind)
    assert whole.adapter is None and not any("lora" in n for n, _ in whole.model.named_parameters())
    with torch.no_grad():
        got = (whole.logp if kind == "causal" else whole.rewards)(Batch(trees))
    assert (got - wanted).abs().max() <= bounds.LOGP


def test_resumed_is_uninterrupted_bitwise(llama, trees, tmp_path) -> None:
    options = dict(steps=6, checkpoint_every=2)
    whole = adapted(llama)
    updated(whole, trees, tmp_path / "a", dpo, **options)
    real = torch.optim.AdamW.step

    def dying(self, *given):
        dying.count += 1
        if dying.count > 5:
            raise KeyboardInterrupt
        return real(self, *given)

    dying.count = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", dying)
        with pytest.raises(KeyboardInterrupt):
            updated(adapted(llama), trees, tmp_path / "b", dpo, **options)
    again = adapted(llama)
    updated(again, trees, tmp_path / "b", dpo, **options)
    for (name, one), two in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_an_adapter_is_trained_on(llama, trees, tmp_path) -> None:
    """An adapter as `model`: its own weights learn, the reference is the policy with them, and a head can join them."""
    first = adapted(llama)
    updated(first, trees, tmp_path / "a", dpo)
    heads.save(first, tmp_path / "model")
    second = load(str(tmp_path / "model"))
    reference = updated(second, trees, tmp_path / "b", dpo)
    assert torch.equal(reference.logp, logp(first, trees))
    assert not torch.equal(logp(second, trees), logp(first, trees))
    heads.save(second, tmp_path / "next")
    assert torch.equal(logp(load(str(tmp_path / "next")), trees), logp(second, trees))
    reward = heads.fresh_reward(str(tmp_path / "model"), seed=3)
    updated(reward, trees, tmp_path / "c", bradley_terry)
    with torch.no_grad():
        wanted = reward.rewards(Batch(trees))
    heads.save(reward, tmp_path / "reward")
    with torch.no_grad():
        assert torch.equal(load(str(tmp_path / "reward"), "reward").rewards(Batch(trees)), wanted)
    with pytest.raises(UserError, match="is an adapter already"):
        adapters.put_on(second, LORA, seed=0)


def test_rank_scale_and_targets_are_as_asked(llama) -> None:
    policy = adapted(llama, lora=Lora(lora_rank=2, lora_alpha=6.0, lora_targets=["q_proj", "v_proj"]))
    layers = {n: m for n, m in policy.model.named_modules() if isinstance(m, adapters.BaseTunerLayer)}
    assert {n.rpartition(".")[2] for n in layers} == {"q_proj", "v_proj"} and len(layers) == 6
    assert {m.scaling["default"] for m in layers.values()} == {3.0}
    assert {m.lora_A["default"].weight.shape[0] for m in layers.values()} == {2}
    every = adapted(llama)
    names = {n.rpartition(".")[2] for n, m in every.model.named_modules() if isinstance(m, adapters.BaseTunerLayer)}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    drawn = [adapted(llama, seed=s).model.state_dict() for s in (1, 1, 2)]
    name = next(n for n in drawn[0] if "lora_A" in n)
    assert torch.equal(drawn[0][name], drawn[1][name]) and not torch.equal(drawn[0][name], drawn[2][name])


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_prjo"], "cannot take this adapter: Target modules .*q_prjo.* not found"),
        (["lm_head", "q_proj"], "the adapter changes lm_head; leave it out of lora_targets"),
        (["embed_tokens"], "the adapter changes model.embed_tokens; leave it out"),
    ],
)
def test_targets_that_cannot_be(llama, targets, said) -> None:
    with pytest.raises(UserError, match=said):
        adapted(llama, lora=Lora(lora_rank=2, lora_targets=targets))


@pytest.fixture()
def saved(llama, tmp_path):
    """A folder of an adapter, beside its base in `llama`."""
    heads.save(adapted(llama), tmp_path / "adapter")
    return tmp_path / "adapter"


def told(folder, kind="causal") -> str:
    with pytest.raises(UserError) as caught:
        load(str(folder), kind)
    return str(caught.value)


def rename_base(saved, name) -> None:
    config = json.loads((saved / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = name
    (saved / "adapter_config.json").write_text(json.dumps(config))


def test_the_base_is_found_beside_the_adapter(saved, trees) -> None:
    wanted = logp(load(str(saved)), trees)
    rename_base(saved, "../llama")
    assert torch.equal(logp(load(str(saved)), trees), wanted)


@pytest.mark.parametrize("name", ["../nowhere", "/gone/away", "nobody/no-such-model", "llama"])
def test_a_base_that_is_not_there(saved, name) -> None:
    rename_base(saved, name)
    (saved / "base.json").unlink()  # an adapter of others brings none
    message = told(saved)
    assert message.startswith(f"adapter '{saved}'") and name in message and "base" in message


def test_a_base_that_has_changed(saved, llama) -> None:
    """Weights of another base give other numbers under the same adapter; the hash beside it tells."""
    build("llama", TEXT, llama, vocab=300, seed=7)
    message = told(saved)
    assert "was trained on other weights than those of" in message and "base_model_name_or_path" in message


def test_an_adapter_of_another_kind(saved) -> None:
    config = json.loads((saved / "adapter_config.json").read_text()) | {"peft_type": "IA3"}
    (saved / "adapter_config.json").write_text(json.dumps(config))
    assert "is of the kind IA3; truing reads LoRA adapters" in told(saved)


def test_pickled_adapter_weights_are_not_read(saved) -> None:
    (saved / "adapter_model.safetensors").unlink()
    torch.save({}, saved / "adapter_model.bin")
    assert "there is no adapter_model.safetensors in it (pickled weights are not read)" in told(saved)


def test_damaged_adapters(saved) -> None:
    path = saved / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    assert "adapter_model.safetensors cannot be read" in told(saved)
    from safetensors.torch import load_file, save_file

    path.write_bytes(whole)
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path)
    assert "do not belong together" in told(saved)
    (saved / "adapter_config.json").write_text("{")
    assert "its adapter_config.json: is not JSON that can be read" in told(saved)


def test_an_adapter_has_one_use(saved, llama, tmp_path) -> None:
    assert "is no reward model's: it has no scalar head" in told(saved, "reward")
    heads.save(adapted_reward(llama), tmp_path / "reward")
    assert "is one of a reward model; a language model is needed" in told(tmp_path / "reward")
    rename_base(saved, str(tmp_path / "reward"))
    assert "is an adapter too; merge that one first" in told(saved)


def test_an_adapter_brings_no_padding_token(llama, tmp_path) -> None:
    config = json.loads((llama / "tokenizer_config.json").read_text())
    config["pad_token"] = config["eos_token"]
    (llama / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="has no padding token of its own, and an adapter cannot add one"):
        heads.fresh_reward(str(llama), seed=0, whole=False)
    assert heads.fresh_reward(str(llama), seed=0).tokenizer.pad_token == "<|pad|>"
