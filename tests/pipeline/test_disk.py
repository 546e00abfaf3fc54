"""Files are written whole, and what a kill leaves of one does not make a folder a stranger's."""

import os

import pytest

from truing import disk
from truing.errors import UserError
from truing.run.plan import made_by_truing


def test_a_kill_in_a_stages_first_write_leaves_a_folder_of_truings(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "warm"
    monkeypatch.setattr(disk.os, "replace", lambda *_: os._exit(9))
    child = os.fork()
    if not child:
        disk.write_text(folder / "stage.json", "{}")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [disk.is_part(path, "stage.json") for path in folder.iterdir()] == [True]
    assert made_by_truing(folder) == {}
    (folder / "my.txt").write_text("mine")
    with pytest.raises(UserError, match="truing did not make this folder"):
        made_by_truing(folder)


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch) -> None:
    def full(*_):
        raise OSError("no space left")

    path = disk.write_text(tmp_path / "own" / "a.json", "old")
    monkeypatch.setattr(disk.os, "replace", full)
    with pytest.raises(OSError, match="no space left"):
        disk.write_text(path, "new")
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["a.json"]
