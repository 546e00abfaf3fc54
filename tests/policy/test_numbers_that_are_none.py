"""A model's numbers that are NaN or infinite after all: nothing writes them, and whoever asked is told. The boundary around
the libraries turns nothing of ours into an error of the user's."""

from __future__ import annotations

import os

import pytest
import torch

from small_models import build
from truing.commands import model_commands
from truing.data.batch import Batch, Branch, Tree
from truing.data.foreign import foreign
from truing.errors import RunFailed, UserError
from truing.policy import gguf, heads
from truing.policy.load import load

TEXT = ["the desk grants a refund within thirty days", "no refund is due, the rule says so"] * 5
BATCH = Batch((Tree((5, 6, 7), (Branch("response", (8, 9), (True, True)),), 0, 0),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build("llama", TEXT, tmp_path_factory.mktemp("model"), vocab=300)


def spoil(policy) -> None:
    with torch.no_grad():
        policy.model.model.embed_tokens.weight[8:10] = float("nan")


@pytest.mark.parametrize("kind", ["logp", "rewards"])
def test_a_reading_that_is_none_stops(folder, kind) -> None:
    policy = heads.fresh_reward(str(folder), seed=0) if kind == "rewards" else load(str(folder))
    with torch.no_grad():
        getattr(policy, kind)(BATCH)
        spoil(policy)
        with pytest.raises(RunFailed, match=r"numbers that the model gives of this data are NaN or infinite"):
            getattr(policy, kind)(BATCH)


def test_score_writes_none(folder, tmp_path, monkeypatch) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a refund", "response": "no refund is due"}\n')

    def spoilt(name):
        policy = load(name)
        with torch.no_grad():
            policy.model.model.embed_tokens.weight[20:] = float("nan")
        return policy

    monkeypatch.setattr(model_commands, "load_any", spoilt)
    with pytest.raises(RunFailed, match=r"NaN or infinite|not finite"):
        model_commands.score(str(folder), str(rows), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(RunFailed, match="row 1: logp is nan, and no JSON holds that"):
        model_commands.write_lines(tmp_path / "out.jsonl", [{"logp": float("nan")}])


@pytest.mark.parametrize(
    "error", [TypeError("a"), AttributeError(), ZeroDivisionError("b"), MemoryError(), OSError("c")]
)
def test_what_a_library_raises_is_an_error_of_the_folder(error) -> None:
    with pytest.raises(UserError, match=r"^model 'm': "), foreign(lambda text: UserError(f"model 'm': {text}")):
        raise error


def test_what_is_nobodys_fault_passes() -> None:
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind), foreign(lambda text: UserError(text)):
            raise kind
    with pytest.raises(RunFailed, match="ours"), foreign(lambda text: UserError(text)):
        raise RunFailed("ours")


def test_a_library_that_takes_too_long_is_stopped() -> None:
    with (
        pytest.raises(UserError, match=r"it took more than 0\.2 s to read"),
        foreign(lambda text: UserError(text), 0.2),
    ):
        while True:
            pass


HEAD = b"GGUF" + (3).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (HEAD + (10**18).to_bytes(8, "little") + bytes(8), "is cut off or damaged: it has 24 bytes"),
        (HEAD + bytes(8) + (10**18).to_bytes(8, "little"), "is cut off or damaged"),
        (HEAD, "is cut off or damaged"),
        (HEAD + bytes(16), "transformers cannot read it"),
        (b"GGML" + bytes(60), "is no GGUF file"),
    ],
)
def test_a_gguf_file_that_is_none(tmp_path, content, words) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    with pytest.raises(UserError, match=words):
        gguf.dequantised(file, tmp_path / "cache")


def test_a_gguf_file_that_is_a_pipe(tmp_path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(UserError, match="is no file but a pipe"):
        gguf.dequantised(tmp_path / "m.gguf", tmp_path / "cache")
