"""Nothing is written, emptied or removed through a link, and files have the mode that the user's umask asks for."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import save_file

from truing import caches, disk, seals
from truing.errors import UserError
from truing.recipe.check import check
from truing.run import plan, runner
from truing.train.record.metrics import Record

ROWS = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "d", "chosen": "e", "rejected": "f"}\n'
RECIPE = "stages:\n  data: {do: split, data: rows.jsonl, eval: 0.5}\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file of the user's own that links lead to."""
    path = tmp_path / "outside" / "mine.txt"
    path.parent.mkdir()
    path.write_text("mine")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe of one stage that was run once into `out`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert runner.run(check("r.yaml", []), tmp_path / "out", quiet=True) == 0
    return tmp_path


def again(folder: Path, *overrides: str, restart: bool = False) -> int:
    """The run once more."""
    return runner.run(check(str(folder / "r.yaml"), list(overrides)), folder / "out", quiet=True, restart=restart)


def test_a_lock_that_is_a_link_empties_nothing(folder: Path, outside: Path) -> None:
    lock = folder / "out" / ".lock"
    lock.unlink()
    lock.symlink_to(outside)
    with pytest.raises(UserError, match=r"\.lock: is a link to .*mine\.txt"):
        again(folder)
    assert outside.read_text() == "mine" and lock.is_symlink()


def test_a_lock_that_is_a_file_of_the_users_is_not_emptied(folder: Path) -> None:
    (folder / "out" / ".lock").write_text("mine")
    assert again(folder) == 0 and (folder / "out" / ".lock").read_text() == "mine"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file_is_refused_at_once(folder: Path, make) -> None:
    (folder / "out" / ".lock").unlink()
    make(folder / "out" / ".lock")
    with pytest.raises(UserError, match=r"\.lock: is no file"):
        again(folder)


def test_a_lock_through_a_link_that_leads_nowhere_makes_nothing(folder: Path) -> None:
    (folder / "out" / ".lock").unlink()
    (folder / "out" / ".lock").symlink_to(folder / "new")
    with pytest.raises(UserError, match=r"is a link to"):
        again(folder)
    assert not (folder / "new").exists()


@pytest.mark.parametrize("name", ["manifest.json", "decision.json", "looks.json", "report.html"])
def test_a_file_of_the_run_that_is_a_link_is_refused(folder: Path, outside: Path, name: str) -> None:
    path = folder / "out" / name
    outside.write_text(path.read_text() if path.exists() else "mine")
    before = outside.read_text()
    path.unlink(missing_ok=True)
    path.symlink_to(outside)
    with pytest.raises(UserError, match=f"{name}: is a link to"):
        again(folder)
    assert outside.read_text() == before and path.is_symlink()


def moved(folder: Path, name: str = "elsewhere") -> Path:
    """The stage's folder moved, with a link where it was."""
    place = (folder / "out" / "data").rename(folder / name)
    (folder / "out" / "data").symlink_to(place)
    return place


def test_a_finished_stage_that_was_moved_and_linked_is_used(folder: Path) -> None:
    place = moved(folder)
    before = seals.outputs_of(place, without="")
    assert again(folder) == 0
    assert seals.outputs_of(place, without="") == before and (folder / "out" / "data").is_symlink()
    assert seals.check_stage(folder / "out" / "data")["name"] == "data"


def test_a_linked_stage_that_is_to_be_made_anew_is_refused(folder: Path) -> None:
    place = moved(folder)
    before = seals.outputs_of(place, without="")
    with pytest.raises(UserError, match=r"out/data: is a link to .*elsewhere"):
        again(folder, "data.eval=0.4")
    assert seals.outputs_of(place, without="") == before and (folder / "out" / "data").is_symlink()
    place.rename(folder / "gone")
    with pytest.raises(UserError, match=r"out/data: is a link to"):
        again(folder)


def test_a_link_to_another_stage_is_not_that_stage(folder: Path) -> None:
    (folder / "out" / "other").symlink_to("data")
    with pytest.raises(UserError, match="is that of another stage, 'data'"):
        seals.check_stage(folder / "out" / "other")


@pytest.mark.parametrize("name", ["checkpoints", "rollouts", "metrics.jsonl", "deep/er/file"])
def test_an_interrupted_stage_with_a_link_in_it_is_not_gone_on_with(tmp_path: Path, outside: Path, name: str) -> None:
    (tmp_path / "stage" / name).parent.mkdir(parents=True)
    (tmp_path / "stage" / name).symlink_to(outside.parent if "." not in name else outside)
    with pytest.raises(UserError, match=f"stage/{name}: is a link to"):
        disk.refuse_links(tmp_path / "stage")


def test_a_users_own_old_folder_stays(folder: Path) -> None:
    for name in (".data.old", ".data.old.mine", ".data.old.0123abcd"):
        (folder / "out" / name).mkdir()
        (folder / "out" / name / "notes.txt").write_text("mine")
    (folder / "out" / ".data.old.99999999").symlink_to(folder / "out" / ".data.old")
    assert again(folder, "data.eval=0.4") == 0
    names = {path.name for path in (folder / "out").iterdir() if path.name.startswith(".data")}
    assert names == {".data.old", ".data.old.mine", ".data.old.0123abcd", ".data.old.99999999"}
    assert all((folder / "out" / name / "notes.txt").read_text() == "mine" for name in names)


def test_what_a_kill_left_of_a_removed_stage_is_removed(folder: Path) -> None:
    litter = folder / "out" / ".data.old.0123abcd" / "data"
    litter.mkdir(parents=True)
    (litter / "summary.json").write_text("{}")
    assert again(folder, "data.eval=0.4") == 0
    assert not list((folder / "out").glob(".data.old*"))


def test_links_in_a_removed_stage_go_and_what_they_lead_to_stays(folder: Path, outside: Path) -> None:
    (folder / "out" / "data" / "link").symlink_to(outside.parent)
    assert again(folder, "data.eval=0.4", restart=True) == 0
    assert outside.read_text() == "mine" and not (folder / "out" / "data" / "link").exists()


def test_a_target_that_is_no_file_is_refused(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "nowhere").symlink_to(tmp_path / "new")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "nowhere", "pipe", "outside"):
        with pytest.raises(UserError, match=f"{name}: is "):
            disk.write_text(tmp_path / name, "x")
        with pytest.raises(UserError, match=f"{name}: is "):
            disk.appending(tmp_path / name)
    assert outside.read_text() == "mine" and not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="/dev/null: is no file"):
        disk.write_text(Path("/dev/null"), "x")


def test_a_cache_that_is_a_link_is_not_emptied(tmp_path: Path, outside: Path) -> None:
    cache = tmp_path / "cache" / "desk"
    cache.parent.mkdir()
    cache.symlink_to(outside.parent)
    with pytest.raises(UserError, match="desk: is a link to"):
        caches.cached(cache, lambda folder: None, lambda _: None)
    cache.unlink()
    (cache.parent / ".desk.lock").unlink()
    (cache.parent / ".desk.lock").symlink_to(outside)
    with pytest.raises(UserError, match=r"\.desk\.lock: is a link to"):
        caches.cached(cache, lambda folder: None, lambda _: None)
    assert outside.read_text() == "mine"


def test_metrics_are_not_added_to_through_a_link(tmp_path: Path, outside: Path) -> None:
    record = Record(tmp_path / "stage")
    record.metrics_path.symlink_to(outside)
    with pytest.raises(UserError, match=r"metrics\.jsonl: is a link to"):
        record._cut_metrics()
    with pytest.raises(UserError, match=r"metrics\.jsonl: is a link to"):
        record._append({"step": 1})
    assert outside.read_text() == "mine"


def save_weights(path: Path) -> None:
    """Weights as checkpoints and references are written."""
    save_file({"a": torch.zeros(2)}, path)


def save_table(path: Path) -> None:
    """A table as rounds are written."""
    parquet.write_table(pa.table({"a": [1]}), path)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_users_umask_holds(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        paths = [disk.write_text(tmp_path / "a.json", "{}")]
        disk.appending(tmp_path / "b.jsonl").close()
        for name, write in (("c.safetensors", save_weights), ("d.parquet", save_table)):
            with disk.replacing(tmp_path / name) as part:
                write(part)
            paths.append(tmp_path / name)
        with disk.locked(tmp_path / ".lock", wait=False), disk.made_beside(tmp_path / "model") as part:
            disk.write_text(part / "config.json", "{}")
        caches.made(tmp_path / "cache", lambda folder: None)
        paths += [tmp_path / name for name in ("b.jsonl", ".lock", "model/config.json", ".cache.lock")]
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o666 & ~mask}
        assert {stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("model", "cache")} == {0o777 & ~mask}
    finally:
        os.umask(before)


def test_a_stage_of_the_plan_says_what_it_would_do_behind_a_link(folder: Path) -> None:
    moved(folder)
    (step,) = plan.plan(check("r.yaml", []), folder / "out")
    assert step.action == "reuse"


def test_a_forked_process_does_not_hold_the_lock(tmp_path) -> None:
    """It may outlive a run that is killed, and the next run would wait for it for ever."""
    ready, begun = os.pipe()
    with disk.locked(tmp_path / ".lock", wait=False):
        child = os.fork()
        if child == 0:
            try:
                os.write(begun, b".")
                signal.pause()
            finally:
                os._exit(0)
        assert os.read(ready, 1) == b"."
    try:
        with disk.locked(tmp_path / ".lock", wait=False):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
