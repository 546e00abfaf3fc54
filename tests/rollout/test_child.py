"""Code that nobody has read: whatever it does, it ends in time, leaves nothing behind, and earns only what it computed."""

import os
import time
from pathlib import Path

import pytest

from truing.errors import RunFailed, UserError
from truing.records import Message
from truing.rewards import box, sandbox
from truing.rewards.builtin_program import program
from truing.rewards.call import Call, Response
from truing.rewards.combine import Rewards, Term

apart = pytest.mark.skipif(
    not (sandbox.works("bubblewrap") or sandbox.works("unshare")),
    reason="this machine has no user namespaces: nothing is run",
)
ASKED = (Message("user", "print twice the number"),)
GOOD = "print(2 * int(input()))"

BAD = {
    "hangs": "while True: pass",
    "sleeps": "import time; time.sleep(60)",
    "eats memory": "x = bytearray(4 << 30)",
    "writes without end": "while True: print('6' * 1000)",
    "forks": "import os\nwhile True: os.fork()",
    "leaves at once": "import os; os._exit(0)",
    "prints the mark": "print('PASSED'); print('1.0')",
    "crashes": "import ctypes; ctypes.string_at(0)",
    "kills": "import os, signal\nfor p in range(1, 5): os.kill(p, signal.SIGKILL)\nos.kill(os.getppid(), 9)",
    "no program": "the number is 6",
    "two lines": "print(6); print(6)",
}


def scored(code, tests=(("3", "6\n"),), **options):
    call = Call(program, {"seconds": 1.0, **options})
    rows = Rewards((Term("program", call),), on_error="drop")(
        [Response(ASKED, code, row={"tests": list(map(list, tests))})]
    )
    return rows[0]


def children() -> set[str]:
    """The processes that this one has started and that are still there, zombies too."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


@apart
@pytest.mark.parametrize("case", BAD)
def test_a_bad_program_is_wrong_in_time(case) -> None:
    """Fault 62: whatever it does it is the lowest value, and no process of it stays."""
    before, others = time.monotonic(), children()
    found = scored(BAD[case])
    assert not found.failed and found.value == 0.0
    assert time.monotonic() - before < 30
    assert children() <= others, "a process of it stays, or a zombie"


@apart
def test_a_good_program_is_right_by_every_test() -> None:
    fenced = f"So:\n```python\nprint(1)\n```\nno:\n```python\n{GOOD}\n```\nwell."
    assert scored(GOOD).value == scored(fenced).value == 1.0
    assert scored(GOOD, [("3", "6"), ("4", "8 \n\n")], seconds=20).value == 1.0
    assert scored(GOOD, [("3", "6"), ("4", "9")], seconds=20, wrong=-1).value == -1.0


@apart
def test_it_sees_no_keys_no_network_no_others_and_no_tests(monkeypatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hush")
    code = """
import os, socket
print(os.environ.get("SECRET_KEY"), sorted(os.listdir(".")), os.path.expanduser("~") == os.getcwd())
print(len([p for p in os.listdir("/proc") if p.isdigit()]) < 5, open("/proc/net/dev").read().count(":") == 1)
try:
    socket.create_connection(("1.1.1.1", 53), 1)
except OSError:
    print("no way out")
"""
    ended = sandbox.run(code, seconds=20)
    assert ended.well and ended.output.splitlines() == [
        "None ['program.py'] True",
        "True True",
        "no way out",
    ]


@apart
def test_nothing_it_started_is_left() -> None:
    """A grandchild in a session of its own ends with it."""
    word = f"left-behind-{os.getpid()}"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)', '{word}'], start_new_session=True)"
    assert sandbox.run(code, seconds=20).well
    deadline = time.monotonic() + 10
    while alive(word) and time.monotonic() < deadline:
        os.sched_yield()
    assert not alive(word)


def alive(word):
    found = [p / "cmdline" for p in Path("/proc").iterdir() if p.name.isdigit()]
    return [p for p in found if p.exists() and word.encode() in _read(p)]


def _read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_machine_that_cannot_run_it_is_no_fault_of_the_answer(monkeypatch) -> None:
    """Missing and counted, or refused: never the lowest value."""
    monkeypatch.setattr(sandbox, "works", lambda kind: False)
    with pytest.raises(UserError, match=r"this machine cannot keep a program apart .* set isolate: false"):
        scored(GOOD)
    monkeypatch.setattr(box.sys, "executable", "/nowhere/python")
    with pytest.raises(RunFailed, match="a program could not be started"):
        scored(GOOD, isolate=False)
    with pytest.raises(UserError, match=r"'tests' is a list of \[input, output\], two texts each; got \['3'\]"):
        scored(GOOD, [("3",)])
