"""The reference is an artefact: a table that training does not reach, refused when anything it depends on changes."""

import os

import pytest
import torch
from safetensors.torch import save_file

from small_models import build
from small_pairs import TEXT, ragged, updated
from truing.errors import UserError
from truing.objectives import dpo
from truing.policy import reference as references
from truing.policy.load import load
from truing.policy.reference import cached, compute


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build("llama", TEXT, tmp_path_factory.mktemp("model"), vocab=300)


@pytest.fixture(scope="module")
def trees():
    return ragged()


def storages(policy) -> set[int]:
    model = policy.model
    return {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}


def test_training_does_not_reach_it(folder, trees, tmp_path, monkeypatch) -> None:
    """After some steps the table is bit for bit what it was, and what the original weights give when read again."""
    policy = load(str(folder))
    before = []
    monkeypatch.setattr("small_pairs.compute", lambda *given: before.append(compute(*given)) or before[0])
    wanted = compute(policy, trees, 8192).logp.clone()
    reference = updated(policy, trees, tmp_path, dpo, steps=6)
    assert reference is before[0] and torch.equal(reference.logp, wanted)
    assert torch.equal(compute(load(str(folder)), trees, 8192).logp, wanted)
    assert (compute(policy, trees, 8192).logp - wanted).abs().max() > 1e-2, "the policy itself has moved"
    assert not reference.logp.requires_grad
    assert reference.logp.untyped_storage().data_ptr() not in storages(policy)


def kept(policy, trees, path):
    return cached(policy, trees, path, 8192)


def test_it_is_computed_once(folder, trees, tmp_path, monkeypatch) -> None:
    path = tmp_path / "reference.safetensors"
    wanted = kept(load(str(folder)), trees, path)
    monkeypatch.setattr(type(load(str(folder))), "logp", None)  # a second reading would fail
    assert torch.equal(kept(load(str(folder)), trees, path).logp, wanted.logp)


@pytest.mark.parametrize(
    ("changed", "said"),
    [("one weight", "weights"), ("precision", "precision"), ("reading", "reading"), ("one token", "data")],
)
def test_it_is_refused_when_what_it_depends_on_changes(folder, trees, tmp_path, monkeypatch, changed, said) -> None:
    path = tmp_path / "reference.safetensors"
    kept(load(str(folder)), trees, path)
    policy = load(str(folder))
    if changed == "one weight":
        with torch.no_grad():
            policy.model.model.norm.weight[3] += 1e-6
    if changed == "precision":
        policy.compute_in("bf16")
    if changed == "reading":
        monkeypatch.setattr(references, "READING", references.READING + 1)
    if changed == "one token":
        trees = ragged(vocabulary=280)
    with pytest.raises(UserError, match=rf"come from other {said} \({said}: ") as caught:
        kept(policy, trees, path)
    assert "Delete the file to have them computed again" in str(caught.value)


def test_a_policy_in_other_weights_is_found_out_before_the_first_update(folder, trees, tmp_path) -> None:
    """A table that slipped past its key still stops the run: at step 1 every log-ratio must be 0."""
    from truing.errors import RunFailed

    other = build("llama", TEXT, tmp_path / "other", vocab=300, seed=4)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(RunFailed, match="step 1: the policy's log-probabilities"),
    ):
        patch.setattr("small_pairs.compute", lambda policy, *given: compute(load(str(other)), *given))
        updated(load(str(folder)), trees, tmp_path / "run", dpo)


def test_a_table_that_is_damaged_is_said_so(folder, trees, tmp_path) -> None:
    """Whatever stands in it: a pipe, a key that is no object, numbers that are none under a hash that fits."""
    path = tmp_path / "reference.safetensors"
    key = {"weights": "w"}
    wrong = references.Reference(torch.tensor([0.5, float("nan")]), torch.tensor([0, 2]))
    for facts, words in [
        ({"key": "[1]", "content": wrong.digest()}, "cannot be read"),
        ({"key": "{", "content": wrong.digest()}, "cannot be read"),
        ({"key": '{"weights": "w"}', "content": wrong.digest()}, "are NaN or infinite"),
    ]:
        save_file({"logp": wrong.logp, "offsets": wrong.offsets}, path, metadata=facts)
        with pytest.raises(UserError, match=words):
            references.read(path, key)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is no file but a pipe"):
        references.read(path, key)
