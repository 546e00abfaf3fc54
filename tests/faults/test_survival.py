"""Processes that die, disks that are full, checkpoints that are damaged: each ends in an exact recovery or in a message.

Single processes are children of one server that has all imports done; what they are struck with is in
`tests/parallel/driver.py`. The measure is an uninterrupted run of the same driver.
"""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from parallel import jobs
from parallel.driver import ragged
from truing import seals
from truing.errors import RunFailed, UserError
from truing.recipe.check import check
from truing.run import runner as running
from truing.settings import Training
from truing.train.record import checkpoint
from truing.train.source import DataSource

DPO = {"objective": "dpo", "checkpoint_every": 3}
STEPS = list(range(1, 9))


@pytest.fixture(scope="module")
def measure():
    """Eight steps, two epochs, without a fault."""
    return jobs.alone("whole", **DPO)


def same_bits(one, other) -> bool:
    """Whether two runs ended with the same weights, bit for bit, and wrote the same metrics."""
    a, b = one.weights(), other.weights()
    return all(torch.equal(a[name], b[name]) for name in a | b) and one.metrics() == other.metrics()


@pytest.fixture
def begun(tmp_path) -> Path:
    """A folder whose run died in step 7: with checkpoints of steps 3 and 6."""
    done = jobs.alone("begun", **DPO, out=str(tmp_path / "run"), kill="update:7")
    assert done.code == -signal.SIGKILL and checkpoints(tmp_path / "run") == ["step-00000003", "step-00000006"]
    return tmp_path / "run"


def checkpoints(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


KILLS = {
    "mid-step": ("update:5", "step-00000003"),
    "mid-accumulation": ("part:17", "step-00000003"),
    "between epochs": ("epoch:5", "step-00000003"),
    "mid-save": ("mid-save:3", "step-00000003"),
    "before the rename": ("before-rename:2", "step-00000003"),
    "after the rename": ("after-rename:2", "step-00000006"),
    "in epoch two": ("update:8", "step-00000006"),
    "before any checkpoint": ("update:2", None),
}


@pytest.mark.parametrize("where", KILLS)
def test_killed_anywhere_the_weights_are_the_same_bit_for_bit(measure, tmp_path, where) -> None:
    """Fault 1, 3: kill -9 in a step, in a part of one, between epochs, in a save before and after the rename."""
    point, last = KILLS[where]
    died = jobs.alone("killed", **DPO, out=str(tmp_path), kill=point)
    assert died.code == -signal.SIGKILL, "the point was met"
    names = [n for n in checkpoints(tmp_path) if n.startswith("step")] if (tmp_path / "checkpoints").exists() else []
    assert (names[-1] if names else None) == last
    again = jobs.alone("killed-again", **DPO, out=str(tmp_path))
    assert same_bits(measure, again)
    assert [row["step"] for row in again.metrics()] == STEPS
    assert not [n for n in checkpoints(tmp_path) if n.startswith(".")], "no litter of the save that died"


RANKS = {"rows_per_step": 6, "tokens_per_device": 1} | DPO  # a tree a part: three parts a rank and step
KILLS_OF_TWO = {
    "mid-step": ("update:5", 1, 4, "step-00000003"),
    "mid-accumulation": ("part:12", 0, 4, "step-00000003"),
    "between epochs": ("epoch:5", 1, 4, "step-00000003"),
    "mid-save": ("mid-save:3", 1, 6, "step-00000003"),
    "before the rename": ("before-rename:2", 0, 6, "step-00000003"),
    "after the rename": ("after-rename:2", 0, 6, "step-00000006"),
}


@pytest.fixture(scope="module")
def measure_of_two():
    """Eight steps by two ranks, without a fault."""
    path, codes = jobs.forked("whole-of-two", 2, dict(RANKS))
    assert codes == [0, 0]
    return jobs.read_case(path, 0)


@pytest.mark.parametrize("where", KILLS_OF_TWO)
def test_one_of_two_ranks_killed_anywhere(measure, measure_of_two, tmp_path, where) -> None:
    """Fault 2, 3: the other one ends by itself and says why; started again, both end with the same weights."""
    (point, rank, done, last), case = KILLS_OF_TWO[where], RANKS | {"out": str(tmp_path)}
    path, codes = jobs.forked("one-killed", 2, case | {"kill": f"{point}:{rank}"})
    assert codes[rank] == -signal.SIGKILL, "the point was met"
    other = jobs.read_case(path, 0, rank=1 - rank)
    assert other.code == 3 and codes[1 - rank] not in (0, -signal.SIGKILL)
    assert "another rank has ended" in other.error and "--resume" in other.error
    assert len(other.lines) == done, "steps"
    assert [name for name in checkpoints(tmp_path) if name.startswith("step")][-1] == last
    path, codes = jobs.forked("both-again", 2, case)
    assert codes == [0, 0]
    again = jobs.read_case(path, 0)
    assert jobs.off(measure, again) <= 1
    assert [row["step"] for row in again.metrics()] == STEPS
    for mine, theirs in zip(again.metrics(), measure_of_two.metrics(), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert not [name for name in checkpoints(tmp_path) if name.startswith(".")], "no litter of the save that died"


def test_killed_at_two_ranks_and_started_again_by_torchrun(tmp_path) -> None:
    """Fault 2: kill -9 of one of two ranks; torchrun starts both again, and they go on from the checkpoint."""
    case = DPO | {"out": str(tmp_path), "kill": "update:5:1"}
    path, said, code = jobs.two("restart", [case], "--max-restarts", "1")
    assert code == 0, said
    found = jobs.read_case(path, 0)
    assert [row["step"] for row in found.metrics()] == STEPS
    assert jobs.off(jobs.alone("whole", **DPO), found) <= 1
    assert found.facts()["messages"] == [], "no checkpoint was damaged"


def children(parent: int) -> list[int]:
    """The processes that this one started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == parent and words[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def soon(true, seconds: float = 90) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(true())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_orphans_die_with_the_launcher(tmp_path, monkeypatch) -> None:
    """Fault 4: while it runs no other run may write there; killed, it leaves no process that could, and can go on."""
    jobs.write_recipe(tmp_path)
    monkeypatch.chdir(tmp_path)
    long = ["warm.steps=100000", "warm.checkpoint_every=200", "--out", "two"]
    launcher = subprocess.Popen(
        [*jobs.TORCHRUN, "-m", "truing", "run", "r.yaml", *long], env=jobs.PLAIN, stdout=subprocess.DEVNULL
    )
    try:
        assert soon(lambda: list(Path("two").glob("warm/checkpoints/step-*")))
        with pytest.raises(UserError, match="another run is writing here"), running.only_writer(Path("two")):
            pass
        ranks = children(launcher.pid)
        assert len(ranks) == 2
    finally:
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
    assert soon(lambda: not any(alive(pid) for pid in ranks), 3), (
        "at once, not when they next miss the launcher's store"
    )
    assert soon(lambda: free(Path("two")), 20)
    with pytest.raises(UserError, match="stage 'warm' was interrupted and has a checkpoint"):
        running.run(check("r.yaml", long[:2]), Path("two"), quiet=True)


def free(out: Path) -> bool:
    """Whether a run may write there."""
    try:
        with running.only_writer(out):
            return True
    except UserError:
        return False


def alive(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("name", "code"), [("sigterm", 143), ("sigint", 130)])
@pytest.mark.parametrize("where", ["", "-save"])
def test_a_signal_ends_the_step_in_hand_with_a_checkpoint(measure, tmp_path, name, code, where) -> None:
    """Fault 5: SIGTERM and SIGINT, in the middle of a step and of a save."""
    stopped = jobs.alone("stopped", **DPO, out=str(tmp_path), kill=f"{name}{where}:{2 if where else 17}")
    assert stopped.code == code
    last = json.loads(stopped.lines[-1])["step"]
    assert checkpoints(tmp_path)[-1] == f"step-{last:08d}" and last == (6 if where else 5)
    assert same_bits(measure, jobs.alone("stopped-again", **DPO, out=str(tmp_path)))


def test_a_signal_to_one_rank_stops_all_at_the_same_step(tmp_path) -> None:
    """Fault 5: with two ranks too, and one process can go on from there."""
    both = jobs.double()["sigterm"]
    assert both.code == 143
    last = json.loads(both.lines[-1])["step"]
    assert 1 <= last < 5 and checkpoints(both.out) == [f"step-{last:08d}"]
    shutil.copytree(both.out / "checkpoints", tmp_path / "checkpoints")
    shutil.copyfile(both.out / "metrics.jsonl", tmp_path / "metrics.jsonl")  # a resume believes it, and asks for it
    again = jobs.alone("sigterm-again", objective="dpo", steps=5, out=str(tmp_path))
    assert jobs.off(jobs.single()["dpo"], again) <= 1


def test_a_rank_that_hangs_ends_the_job(tmp_path) -> None:
    """Fault 6: the others wait no longer than TRUING_TIMEOUT, and say so."""
    hung = jobs.double()["hang"]
    assert hung.code == 3
    assert "did not answer within 12 s (TRUING_TIMEOUT)" in hung.error and "--resume" in hung.error


def test_a_loss_that_is_no_number_on_one_rank_stops_all() -> None:
    """Fault 35: nothing was updated anywhere, and every rank says of which rows."""
    ill = jobs.double()["nan"]
    assert ill.code == 3
    step = len(ill.lines) + 1
    assert step > 1 and f"step {step}: the loss is not a number on data rows" in ill.error
    assert ill.metrics() == jobs.double()["nll"].metrics()[: step - 1]
    path = jobs.place() / "double.json"
    number = list(jobs.double()).index("nan")
    assert jobs.read_case(path, number, rank=1).error == ill.error


def unshared(ended) -> None:
    if ended.code == 77:
        pytest.skip("this machine gives no user namespaces, so there is no small disk to fill")


def test_a_full_disk_in_a_checkpoint_leaves_the_one_before() -> None:
    """Fault 7: the run says so, and what was begun is removed."""
    full = jobs.alone("full", **DPO, disk="12m", kill="full:4")
    unshared(full)
    assert full.code == 3 and "no space left on the disk" in full.error and "--resume" in full.error
    folders = {name.split("/")[1] for name in full.files if name.startswith("checkpoints/")}
    assert folders == {"step-00000003"}, "the one before is whole, and no litter"
    assert "checkpoints/step-00000003/manifest.json" in full.files
    assert [json.loads(line)["step"] for line in full.lines] == STEPS[:6]


def test_a_full_disk_in_the_metrics_leaves_whole_lines() -> None:
    """Fault 7: a line that does not fit is taken back whole."""
    full = jobs.alone("full-metrics", objective="dpo", rows_per_step=1, disk="12m", kill="full-metrics:2")
    unshared(full)
    assert full.code == 3 and "no space left on the disk" in full.error
    assert [json.loads(line)["step"] for line in full.lines] == list(range(1, len(full.lines) + 1))


def test_a_disk_that_is_too_small_is_refused_before_training() -> None:
    """Fault 7: the estimate says what is needed and what there is."""
    small = jobs.alone("small", **DPO, disk="3m")
    unshared(small)
    assert small.code == 2 and "training may write up to 0.01 GB" in small.error and "GB are free" in small.error
    assert not small.lines


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-7] ^= 1
    path.write_bytes(raw)


def without_manifest(path: Path) -> None:
    path.with_name("manifest.json").unlink()


@pytest.mark.parametrize("damage", [torn, empty, flipped, without_manifest])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(measure, begun, damage) -> None:
    """Fault 8: and says which one was damaged."""
    damage(begun / "checkpoints" / "step-00000006" / "optim-0.safetensors")
    again = jobs.alone("damaged", **DPO, out=str(begun))
    (message,) = again.facts()["messages"]
    assert message.startswith("step-00000006 ") and ("damaged" in message or "cannot be read" in message)
    assert same_bits(measure, again)


def test_no_whole_checkpoint_is_an_error(begun) -> None:
    """Fault 8: where all are damaged nothing begins anew unasked."""
    for folder in (begun / "checkpoints").iterdir():
        empty(folder / "model-0.safetensors")
    ended = jobs.alone("hopeless", **DPO, out=str(begun))
    assert ended.code == 3 and "step-00000003 is damaged (model-0.safetensors)" in ended.error
    assert "--restart" in ended.error


class Evil:
    """What a pickle can do when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("manifest", [False, True])
def test_a_pickled_checkpoint_is_refused_unread(measure, begun, tmp_path, manifest) -> None:
    """Fault 56: a stock checkpoint of torch.distributed, whose metadata and items are pickles, runs nothing here."""
    mark, evil = tmp_path / "owned", begun / "checkpoints" / "step-00000007"
    evil.mkdir()
    (evil / ".metadata").write_bytes(pickle.dumps(Evil(mark)))
    torch.save(Evil(mark), evil / "__0_0.distcp")
    if manifest:
        files = {"__0_0.distcp": [checkpoint.file_digest(evil / "__0_0.distcp"), {}]}
        facts = {"key": "k", "threads": 1, "processes": 1}
        (evil / "manifest.json").write_text(json.dumps({"step": 7, "files": files, "facts": facts}))
    again = jobs.alone("evil", **DPO, out=str(begun))
    assert again.facts()["messages"][0].startswith("step-00000007 ")
    assert same_bits(measure, again) and not mark.exists()
    with pytest.raises(FileExistsError):
        mark.mkdir()
        pickle.loads((evil / ".metadata").read_bytes())


def bytes_of(ended, folder: str) -> int:
    """How large a checkpoint of a case is, without what names its tensors."""
    return sum(size for name, size in ended.files.items() if folder in name and name.endswith(".safetensors"))


def test_a_checkpoint_holds_what_is_trained_and_no_more(tmp_path) -> None:
    """Fault 12: of an adapter that is a small part of the weights; the rest is known by its hash, and refused if it is
    another. Killed and gone on with, the weights are the same bit for bit."""
    case: dict[str, Any] = {"objective": "dpo", "checkpoint_every": 3, "steps": 5, "lora": 4}
    whole = jobs.alone("lora-whole", **case)
    trained = sum(w.numel() for name, w in whole.weights().items() if "lora_" in name)
    assert 3 * 8 * trained < bytes_of(whole, "step-00000003") < 3 * 8 * trained + 60_000
    assert bytes_of(whole, "step-00000003") < whole.facts()["whole"] * 8 / 2
    assert jobs.alone("lora", **case, out=str(tmp_path), kill="update:5").code == -signal.SIGKILL
    other = jobs.alone("lora-other", **case, out=str(tmp_path), base=jobs.model(other=True))
    assert other.code == 2 and "trained over other frozen weights" in other.error and "--restart" in other.error
    again = jobs.alone("lora-again", **case, out=str(tmp_path))
    assert same_bits(whole, again) and [row["step"] for row in again.metrics()] == [1, 2, 3, 4, 5]


def test_resumed_in_other_parts(measure, begun) -> None:
    """Fault 9: other micro-batches at the same step size give the same weights within fp64's rounding.

    Other numbers of ranks: tests/parallel/test_ranks.py.
    """
    again = jobs.alone("parts", **DPO, out=str(begun), tokens_per_device=100000)
    assert jobs.off(measure, again) <= 1
    assert [row["step"] for row in again.metrics()] == STEPS


def test_a_checkpoint_of_something_else_is_refused(begun) -> None:
    """Fault 10: a checkpoint is tied to the recipe and the data."""
    ended = jobs.alone("other", **DPO, out=str(begun), key="other")
    assert ended.code == 2 and "belongs to another recipe or other data" in ended.error


@pytest.mark.parametrize("done", [0, 3, 4, 5, 8])
def test_what_is_seen_after_a_resume_is_what_was_left(done) -> None:
    """Fault 11: in the middle of an epoch, at its end, in the second one, and when all is done."""
    source = DataSource(ragged(20), Training(epochs=2, rows_per_step=6))
    steps = [(n, [tree.index for tree in batch.trees]) for n, batch in source.since(0)]
    assert list(dict(steps)) == STEPS
    assert [(n, [tree.index for tree in batch.trees]) for n, batch in source.since(done)] == steps[done:]


@pytest.mark.parametrize("part", ["model", "optim", "step"])
def test_all_of_the_state_is_restored(measure, begun, part) -> None:
    """Fault 12: a weight, a moment or the counter (of the schedule and of the data) perturbed leaves other weights."""
    folder = begun / "checkpoints" / "step-00000006"
    manifest = json.loads((folder / "manifest.json").read_text())
    if part == "step":
        manifest["step"] = 5
    else:
        path = folder / f"{part}-0.safetensors"
        tensors = load_file(path)
        name = next(n for n in sorted(tensors) if tensors[n].ndim == 2)
        tensors[name] = tensors[name] * 1.01
        save_file(tensors, path)
        manifest["files"][path.name][0] = checkpoint.file_digest(path)
    (folder / "manifest.json").write_text(json.dumps(seals.sealed(manifest)))
    folder.rename(folder.with_name(f"step-{manifest['step']:08d}"))
    assert not same_bits(measure, jobs.alone("perturbed", **DPO, out=str(begun)))


def test_a_save_is_done_when_it_returns(tmp_path) -> None:
    """Fault 13: there is no saving in the background; the folder is whole, and a failure is raised here and now."""
    tensors = {"model": {"w": torch.ones(3)}, "optim": {}}
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, tensors, {})
        found, damaged = checkpoint.latest(tmp_path)
        assert found is not None and (found.step, damaged) == (step, [])
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000002", "step-00000003"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot be written"):
        checkpoint.save(tmp_path / "file", 1, tensors, {})


def test_two_runs_in_one_folder(tmp_path) -> None:
    """Fault 14: the second one is refused."""
    with (
        running.only_writer(tmp_path / "out"),
        pytest.raises(UserError, match="another run is writing here"),
        running.only_writer(tmp_path / "out"),
    ):
        pass


def test_a_place_that_cannot_be_written() -> None:
    """Fault 15: a read-only output is the user's to mend."""
    with pytest.raises(UserError, match="cannot be the run's folder"), running.only_writer(Path("/proc/run")):
        pass


def test_ranks_without_rows_and_uneven_batches() -> None:
    """Fault 16, 17: a rank with only neutral rows, and last batches that do not divide: no hang, nothing twice."""
    for name in ("lonely", "dpo"):
        assert jobs.off(jobs.single()[name], jobs.double()[name]) <= 1


def test_resumed_twice_and_when_done(measure, begun) -> None:
    """Fault 20: no step is taken twice, and none more."""
    out, stop = str(begun), {"kill": "sigterm:1"}
    assert jobs.alone("once", **DPO, out=out, **stop).code == 143
    assert jobs.alone("twice", **DPO, out=out).code == 0
    third = jobs.alone("when-done", **DPO, out=out)
    assert same_bits(measure, third) and [row["step"] for row in third.metrics()] == STEPS


def test_stopped_in_the_last_step_there_is_no_step_more(measure, tmp_path) -> None:
    """Fault 20: a run that was stopped after its last step only has to be written."""
    stopped = jobs.alone("last", **DPO, out=str(tmp_path), kill="sigterm-update:8")
    assert (stopped.code, checkpoints(tmp_path)[-1]) == (143, "step-00000008")
    again = jobs.alone("last-again", **DPO, out=str(tmp_path), kill="update:1")
    assert again.code == 0, "no update was made, or it would have died in it"
    assert same_bits(measure, again)
