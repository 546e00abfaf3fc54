"""The folder of an answer's program: nobody else opens it."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from truing.rollout import child

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
    folder = Path(tempfile.mkdtemp(prefix="shared-", dir="/tmp"))
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
        outputs = [child.run("print('own')", seconds=20, apart=False).output for _ in range(TRIES)]
    finally:
        thief.kill()
        thief.wait()
    assert outputs == ["own\n"] * TRIES


def test_a_folder_is_its_owners_alone_while_the_program_runs() -> None:
    code = "import os; print(oct(os.stat('.').st_mode & 0o777), os.listdir('.'))"
    assert child.run(code, seconds=20, apart=False).output.split(maxsplit=1)[0] == "0o700"
