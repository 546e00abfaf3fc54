"""What a resumed stage believes is what was written: rounds, looks, metrics, weights set aside, counters, moments."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file, save_file

from small_fit import apart
from small_online import folder_of, rewards_of, trained
from truing import seals
from truing.errors import RunFailed, UserError
from truing.online.monitor import MonitorLog
from truing.online.source import Prompt
from truing.policy.reference import Reference, read
from truing.records import Message
from truing.settings import KLControl, Monitoring
from truing.train.record import believed, checkpoint

OPTIONS: dict[str, Any] = {
    "steps": 8,
    "minibatches": 2,
    "epochs_per_round": 2,
    "rows_per_step": 2,
    "checkpoint_every": 3,
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder_of(tmp_path_factory)


def watched(out: Path) -> MonitorLog:
    """Looks at two prompts after every second update; the best weights are kept."""

    def low(responses: list[str]) -> list[float]:
        ids = [json.loads(answer) for answer in responses]
        return [sum(i < 150 for i in row) / len(row) for row in ids]

    asked = [Prompt(i + 1, (Message("user", text),), tuple(range(30 + i, 36 + i))) for i, text in enumerate(("a", "b"))]
    return MonitorLog(out / "monitor.jsonl", asked, rewards_of(low), Monitoring(monitor_every=2, patience=9))


def lived(folder: str, out: Path, stop_after: int | None = None) -> Any:
    """A run with looks, a best and a reference that is renewed; it may die after an update."""
    more = {"monitor_log": watched(out), "kl_control": KLControl(refresh_reference=1)}
    return trained(folder, out, "grpo", stop_after=stop_after, **OPTIONS, **more)


@pytest.fixture
def begun(folder: str, tmp_path: Path) -> Path:
    """A stage that died after its sixth update, in its second round, with checkpoints of the third and the sixth."""
    lived(folder, tmp_path, stop_after=6)
    return tmp_path


def scores(path: Path, change: Callable[[list[float]], list[float]]) -> None:
    """Other scores in a round's file, everything else as it was."""
    table = parquet.read_table(path)
    place = table.schema.get_field_index("score")
    new = pa.array(change(table["score"].to_pylist()), pa.float64())
    parquet.write_table(table.set_column(place, table.schema.field(place), new), path)


def reverse(path: Path) -> None:
    """The lines of a file in another order."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(reversed(lines)))


def scaled(path: Path) -> None:
    """Weights that are a little larger."""
    save_file({name: tensor * 1.01 for name, tensor in load_file(path).items()}, path)


def newest(out: Path, name: str) -> Path:
    return sorted((out / name).iterdir())[-1]


SPOILS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "scores": (lambda out: out / "rollouts/round-00001.parquet", lambda p: scores(p, lambda s: [-x for x in s])),
    "scores of the round at hand": (
        lambda out: out / "rollouts/round-00002.parquet",
        lambda p: scores(p, lambda s: [x + i for i, x in enumerate(s)]),
    ),
    "a round of another": (
        lambda out: out / "rollouts/round-00002.parquet",
        lambda p: p.write_bytes((p.parent / "round-00001.parquet").read_bytes()),
    ),
    "no round": (lambda out: out / "rollouts/round-00001.parquet", lambda p: p.unlink()),
    "a cut round": (lambda out: out / "rollouts/round-00001.parquet", lambda p: os.truncate(p, 100)),
    "a look": (
        lambda out: out / "monitor.jsonl",
        lambda p: p.write_text(p.read_text().replace('"kl": ', '"kl": 1', 1)),
    ),
    "looks in another order": (lambda out: out / "monitor.jsonl", reverse),
    "no looks": (lambda out: out / "monitor.jsonl", lambda p: p.unlink()),
    "metrics": (
        lambda out: out / "metrics.jsonl",
        lambda p: p.write_text(p.read_text().replace('"loss": ', '"loss": 1', 1)),
    ),
    "fewer metrics": (lambda out: out / "metrics.jsonl", lambda p: os.truncate(p, 50)),
    "the best weights": (lambda out: newest(out, "best"), scaled),
    "no best weights": (lambda out: newest(out, "best"), lambda p: p.unlink()),
    "the renewed reference": (lambda out: newest(out, "references"), scaled),
}


@pytest.mark.parametrize("name", SPOILS)
def test_what_was_changed_under_an_interrupted_stage_is_refused(folder: str, begun: Path, name: str) -> None:
    """With the file's name and the way out; nothing is trained."""
    place, spoil = SPOILS[name]
    path = place(begun)
    spoil(path)
    with pytest.raises(RunFailed, match=r"was changed, or removed, after the checkpoint of update 6") as refused:
        lived(folder, begun)
    assert str(path) in str(refused.value) and "--restart" in str(refused.value)


def test_untouched_it_goes_on_bitwise_and_what_a_kill_leaves_is_no_tampering(folder: str, tmp_path: Path) -> None:
    """Half a line, a line too many, half a file and a round that were written after the checkpoint are done again."""
    whole, _ = lived(folder, tmp_path / "a")
    lived(folder, tmp_path / "b", stop_after=7)
    out = tmp_path / "b"
    for name in ("metrics.jsonl", "monitor.jsonl"):
        with (out / name).open("a") as file:
            file.write('{"step": 7, "los')
    (out / "rollouts" / ".round-00003.parquet").write_bytes(b"PAR1")
    (out / "rollouts" / "round-00003.parquet").write_bytes(b"PAR1")
    (out / "best" / ".step-00000007").write_bytes(b"")
    again, _ = lived(folder, out)
    assert apart(whole, again) == 0.0


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "step": lambda m: m.update(step=3),
    "key": lambda m: m["facts"].update(key="other"),
    "statistics": lambda m: m["facts"].update(statistics={"bco": {"shift_B": 1.0}}),
    "frozen weights": lambda m: m["facts"].update(frozen="0" * 16),
    "what it believes": lambda m: m["facts"]["believed"].clear(),
    "a file's hash": lambda m: m["files"].clear(),
    "no seal": lambda m: m.pop("seal"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_edited_manifest_of_a_checkpoint_is_damage(begun: Path, name: str) -> None:
    """Another number in it is seen like another bit of a tensor: the checkpoint before is gone on from, and it is said."""
    path = begun / "checkpoints" / "step-00000006" / "manifest.json"
    body = json.loads(path.read_text())
    CHANGES[name](body)
    path.write_text(json.dumps(body))
    stored, damaged = checkpoint.latest(begun / "checkpoints")
    assert stored is not None and stored.step == 3
    assert damaged == ["step-00000006 is damaged (manifest.json is not what was written there)"]


def test_a_checkpoint_under_another_number_is_damage(begun: Path) -> None:
    folder = begun / "checkpoints" / "step-00000006"
    folder.rename(folder.with_name("step-00000007"))
    stored, damaged = checkpoint.latest(begun / "checkpoints")
    assert stored is not None and stored.step == 3 and "step-00000007 is damaged" in damaged[0]


def test_the_checkpoint_before_still_holds_when_the_newest_is_damaged(folder: str, tmp_path: Path) -> None:
    """What it believes was written before it, and what has come since is done again: to the same weights."""
    whole, _ = lived(folder, tmp_path / "a")
    lived(folder, tmp_path / "b", stop_after=7)
    path = tmp_path / "b" / "checkpoints" / "step-00000006" / "manifest.json"
    path.write_text(path.read_text().replace('"step": 6', '"step": 5'))
    again, rows = lived(folder, tmp_path / "b")
    assert apart(whole, again) == 0.0 and [row["step"] for row in rows] == list(range(1, 9))


def test_what_is_believed_is_listed(begun: Path) -> None:
    manifest = json.loads((begun / "checkpoints" / "step-00000006" / "manifest.json").read_text())
    names = set(manifest["facts"]["believed"])
    assert {"metrics.jsonl", "monitor.jsonl", "rollouts/round-00001.parquet", "rollouts/round-00002.parquet"} < names
    assert {name.partition("/")[0] for name in names} == {
        "metrics.jsonl",
        "monitor.jsonl",
        "rollouts",
        "best",
        "references",
    }
    assert seals.fits(manifest)
    believed.check(begun, manifest["facts"]["believed"], 6)


def test_stored_log_probabilities_that_were_changed_are_refused(tmp_path: Path) -> None:
    """Under the right key too: their own hash stands beside it."""
    path, key = tmp_path / "reference.safetensors", {"weights": "w"}
    reference = Reference(torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([0, 1, 3]))
    tensors = {"logp": reference.logp, "offsets": reference.offsets}
    facts = {"key": json.dumps(key), "content": reference.digest()}
    save_file(tensors, path, metadata=facts)
    assert read(path, key).logp.tolist() == [-1.0, -2.0, -3.0]
    for name, value in (("logp", torch.tensor([-1.0, -2.0, -3.5])), ("offsets", torch.tensor([0, 2, 3]))):
        save_file(tensors | {name: value}, path, metadata=facts)
        with pytest.raises(UserError, match=r"reference.safetensors: .*changed after they were written"):
            read(path, key)
    save_file(tensors, path, metadata={"key": json.dumps(key)})
    with pytest.raises(UserError, match="Delete the file to have them computed again"):
        read(path, key)
