"""The folder of an answer's program: nobody else opens it."""

import os
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from truing.rewards import sandbox

TRIES = 50
NOBODY = 65534
THIEF = """
while :; do
  for folder in "$1"/truing-*; do
    echo 'print("stolen")' 2>/dev/null > "$folder/program.py" || rm -rf "$folder/program.py" 2>/dev/null
  done
done
"""


@pytest.fixture
def shared(monkeypatch):
    """A temporary folder that every user writes in, as /tmp is."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="shared-", dir=memory if memory.is_dir() else "/tmp"))
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a thief as another user")
def test_another_user_never_replaces_a_program(shared) -> None:
    """Fault 16: `program.py` in a folder that everybody opens was replaced in 25 of 25 tries."""
    control = shared / "truing-open"
    control.mkdir()
    control.chmod(0o777)
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "sh", "-c", THIEF, "sh", shared]
    thief = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not (control / "program.py").exists():
            os.sched_yield()
        outputs = [sandbox.run("print('own')", seconds=20, apart=False).output for _ in range(TRIES)]
    finally:
        thief.kill()
        thief.wait()
    assert outputs == ["own\n"] * TRIES


def test_a_folder_is_its_owners_alone_while_the_program_runs() -> None:
    code = "import os; print(oct(os.stat('.').st_mode & 0o777), os.listdir('.'))"
    assert sandbox.run(code, seconds=20, apart=False).output.split(maxsplit=1)[0] == "0o700"


LEAVES = {
    "3,000 nested folders": "import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')",
    "1,500 folders side by side": "import os\nfor i in range(1500): os.mkdir(str(i))",
    "closed folders": "import os\nos.makedirs('a/b/c'); os.chmod('a/b/c', 0); os.chmod('a/b', 0); os.chmod('a', 0)",
    "a closed folder of its own": "import os\nos.mkdir('a'); os.chmod('.', 0)",
    "a link": "import os\nos.symlink('/etc', 'a'); os.symlink('nowhere', 'b'); os.mkfifo('c')",
    "no folder": "import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)",
}


@pytest.mark.parametrize("case", LEAVES)
def test_whatever_a_program_leaves_is_removed(shared, case) -> None:
    """Fault 27: 3,000 nested folders ended the run with a RecursionError."""
    ended = sandbox.run(LEAVES[case] + "\nprint('done')", seconds=30, apart=False)
    assert ended.output == "done\n", ended
    assert list(shared.iterdir()) == []
    assert os.path.exists("/etc/passwd")


def test_a_folder_that_cannot_be_removed_is_said_and_ends_nothing(monkeypatch) -> None:
    def refuses(folder):
        shutil.rmtree(folder)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(sandbox, "remove_folder", refuses)
    with pytest.warns(UserWarning, match="left by a response's program, cannot be removed"):
        assert sandbox.run("print(1)", seconds=20, apart=False).well


def test_many_open_files_fail_no_program() -> None:
    """Fault 27: from the 1,024th open file on every program was "could not be started"."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("this machine lets nobody open 1,200 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert sandbox.run("print(1)", seconds=20, apart=False).output == "1\n"
    finally:
        for handle in held:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
