"""Where an adapter's base is: named so that other programs find it from any working folder, and found again by truing
after a move. Kind: a path that is true from one working folder alone, or as long as nothing is moved."""

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from small_models import build
from small_pairs import TEXT, ragged
from truing.data.batch import Batch
from truing.errors import UserError
from truing.policy import adapters, heads
from truing.policy.files import adapter_files
from truing.policy.load import load
from truing.policy.probes import plain_rows
from truing.settings import Lora

BATCH = Batch(ragged())


def logp(policy):
    with torch.no_grad():
        return policy.logp(BATCH)


def by(auto, folder):
    """The batch by another program's way of opening the adapter's folder."""
    model, parts = auto.from_pretrained(folder).eval(), []
    for row, branch in zip(plain_rows(BATCH), BATCH.branches, strict=True):
        with torch.no_grad():
            z = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)[-len(branch.ids) - 1 : -1]
        parts.append(z.gather(1, torch.tensor(branch.ids)[:, None]).squeeze(1))
    return torch.cat(parts)


def opens(folder, wanted) -> bool:
    """Whether peft, transformers and truing read the same from a folder."""
    assert torch.equal(logp(load(str(folder))), wanted)
    return all((by(a, folder) - wanted).abs().max() <= 3e-5 for a in (AutoPeftModelForCausalLM, AutoModelForCausalLM))


@pytest.fixture()
def run(tmp_path, monkeypatch):
    """A run made with relative names: a base and an adapter that says something. One works in another folder then."""
    monkeypatch.chdir(tmp_path)
    build("llama", TEXT, Path("run/base"), vocab=300)
    policy = load("run/base")
    adapters.put_on(policy, Lora(lora_rank=2, lora_targets=["v_proj", "q_proj", "o_proj"]), seed=0)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    heads.save(policy, Path("run/stage/model"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "run"


def config_of(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def name_base(folder, name) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(config_of(folder) | {"base_model_name_or_path": name}))


def test_it_opens_from_another_working_folder_and_a_moved_folder(run) -> None:
    wanted = logp(load(str(run / "stage" / "model")))
    assert config_of(run / "stage" / "model")["base_model_name_or_path"] == str(run / "base")
    assert opens("../run/stage/model", wanted)
    moved = run.parent / "far" / "away" / "model"
    shutil.move(run / "stage" / "model", moved)
    assert opens(moved, wanted)
    assert load(str(moved)).notes == []


def test_a_run_moved_as_a_whole_is_found_and_the_user_told_how_others_find_it(run) -> None:
    wanted = logp(load(str(run / "stage" / "model")))
    moved = run.parent / "moved" / "run"
    shutil.move(run, moved)
    policy = load(str(moved / "stage" / "model"))
    assert torch.equal(logp(policy), wanted)
    (note,) = policy.notes
    assert f'says "{run / "base"}", where peft, transformers and vLLM will not find it' in note
    with pytest.raises(OSError):
        AutoModelForCausalLM.from_pretrained(moved / "stage" / "model")
    mend = json.loads("{" + note[note.index('"base_model_name_or_path"') : -len(" there")] + "}")
    name_base(moved / "stage" / "model", mend["base_model_name_or_path"])
    assert opens(moved / "stage" / "model", wanted)
    heads.save(policy, moved / "next")  # what is saved anew is named by where the base is now
    assert opens(moved / "next", wanted)


def test_another_model_at_the_old_place_is_not_taken_for_the_base(run) -> None:
    """The run was moved, and a new one made in its place: the hash beside the adapter tells which base is its own."""
    wanted = logp(load(str(run / "stage" / "model")))
    moved = run.parent / "moved"
    shutil.copytree(run, moved)
    build("llama", TEXT, run / "base", vocab=300, seed=7)
    assert torch.equal(logp(load(str(moved / "stage" / "model"))), wanted)
    with pytest.raises(UserError, match="was trained on other weights than those of"):
        load(str(run / "stage" / "model"))


def test_a_relative_name_of_others(run, monkeypatch) -> None:
    """peft writes the name that its user gave: seen from where one is, or from the adapter, as long as it is one."""
    brought = run / "brought"
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(run / "base"), LoraConfig(r=2))
    model.save_pretrained(brought)
    AutoTokenizer.from_pretrained(run / "base").save_pretrained(brought)
    wanted = logp(load(str(brought)))
    name_base(brought, "base")
    monkeypatch.chdir(run)
    assert opens(brought, wanted) and load("brought").notes == []
    shutil.copytree(run / "base", brought / "base")
    with pytest.raises(UserError, match=r"its base 'base' may be .*run/base or .*run/brought/base"):
        load(str(brought))
    monkeypatch.chdir(run.parent)
    policy = load(str(brought))
    assert torch.equal(logp(policy), wanted) and "will not find it" in policy.notes[0]
    heads.save(policy, run / "again")
    assert opens(run / "again", wanted)


def hub(cache, name, models) -> None:
    """A cache of the Hub that holds these folders as revisions of one model."""
    place = cache / f"models--{name.replace('/', '--')}"
    for number, (revision, folder) in enumerate(models.items()):
        commit = f"{number + 1:040x}"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / revision).write_text(commit)


def test_a_base_on_the_hub_is_read_at_its_revision(run, tmp_path, monkeypatch) -> None:
    """A Hub name stays a Hub name, and `revision` says which of its weights."""
    build("llama", TEXT, tmp_path / "other", vocab=300, seed=7)
    hub(tmp_path / "cache", "somebody/small", {"main": tmp_path / "other", "v1": run / "base"})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = run / "stage" / "model"
    wanted = logp(load(str(folder)))
    config = config_of(folder) | {"base_model_name_or_path": "somebody/small", "revision": "v1"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "base.json").unlink()
    policy = load(str(folder))
    assert torch.equal(logp(policy), wanted)
    heads.save(policy, run / "again")
    again = config_of(run / "again")
    assert (again["base_model_name_or_path"], again["revision"]) == ("somebody/small", "v1")
    assert torch.equal(logp(load(str(run / "again"))), wanted)
    name_base(folder, "somebody/unknown")
    with pytest.raises(UserError, match=r"its base cannot be loaded: .*the Hugging Face Hub could not give it"):
        load(str(folder))


def test_two_processes_write_the_same_config(run) -> None:
    """peft keeps the targets as a set, whose order is another one in every process."""
    assert config_of(run / "stage" / "model")["target_modules"] == ["o_proj", "q_proj", "v_proj"]


def test_a_name_cannot_write_to_the_terminal(run) -> None:
    """The config is a stranger's text."""
    name_base(run / "stage" / "model", "\x1b[2J/gone")
    (note,) = load(str(run / "stage" / "model")).notes
    assert "\x1b" not in note and "\\u001b[2J/gone" in note


def test_the_files_are_read_without_loading_anything(run) -> None:
    folder = run / "stage" / "model"
    assert adapter_files.bases(folder, adapter_files.read_config(folder)) == [str(run / "base")]
    assert adapter_files.unmergeable(folder) == ""
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(b"\xff" * 40)
    with pytest.raises(UserError, match=r"adapter_model\.safetensors cannot be read"):
        adapter_files.has_head(folder)
