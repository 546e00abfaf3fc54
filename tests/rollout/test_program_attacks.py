"""What an answer's program tries on its host: in every box it fails, or the run says so and SECURITY.md has it."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from truing.recipe.check import check
from truing.rewards import begin, box, process_limits, sandbox
from truing.run.console import Show
from truing.run.stage_run import StageRun
from truing.stages.loaded_rewards import term_of

SECURITY = Path(__file__).parents[2] / "SECURITY.md"
KINDS = ("bubblewrap", "unshare", "open")


@pytest.fixture(params=KINDS)
def kind(request):
    """Each box that this machine has."""
    if not sandbox.works(request.param):
        pytest.skip(f"this machine has no box of the kind '{request.param}'")
    return request.param


@pytest.fixture
def bystander():
    """Another process of this user, with a secret in its environment."""
    process = subprocess.Popen(["sleep", "600"], env={"SECRET": "hush-hush"})
    yield process
    process.kill()
    process.wait()


def is_stated(kind, loss) -> bool:
    """Whether a box does not keep a program from this; then SECURITY.md says so."""
    if loss not in box.losses(kind):
        return False
    assert loss in SECURITY.read_text(encoding="utf-8")
    return True


def attack(kind, code, stdin="", seconds=20, **limits):
    return sandbox.run_in(kind, code, stdin, seconds=seconds, **limits)


def alive(word):
    """Whether a process has this word on its command line, once those that are being killed have had time to go."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not any(word.encode() in _command_line(place) for place in Path("/proc").glob("[0-9]*")):
            return False
        os.sched_yield()
    return True


def _command_line(place):
    try:
        return (place / "cmdline").read_bytes()
    except OSError:
        return b""


def test_it_has_python_with_its_packages_processes_and_pipes(kind) -> None:
    """A box that is closed too far would make right answers wrong."""
    code = """
import asyncio, numpy, subprocess, tempfile, threading
asyncio.run(asyncio.sleep(0))
with tempfile.NamedTemporaryFile("w+") as file:
    print(file.write("text"), int(numpy.ones(3).sum()))
worker = threading.Thread(target=print, args=("thread",))
worker.start()
worker.join()
print(subprocess.run(["echo", "process"], capture_output=True, text=True).stdout.strip())
"""
    ended = attack(kind, code, megabytes=4096)
    assert ended.well and ended.output.split() == ["4", "3", "thread", "process"]


READS_ENVIRONMENTS = """
import glob, os
for name in [f"/proc/{os.getppid()}/environ", *glob.glob("/proc/*/environ")]:
    try:
        print("hush-hush" in open(name).read())
    except OSError:
        print("closed")
"""


def test_it_reads_no_other_process_s_environment(kind, bystander) -> None:
    if not is_stated(kind, "the environment of this user's processes"):
        ended = attack(kind, READS_ENVIRONMENTS)
        assert ended.well and "True" not in ended.output


REACHES_UNIX = """
import socket, sys
for name in input().split():
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try:
            socket.socket(socket.AF_UNIX, kind).connect(name.replace("@", chr(0)))
            print("reached")
        except OSError:
            print("closed")
    try:
        socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto(b"x", name.replace("@", chr(0)))
        print("reached")
    except OSError:
        print("closed")
"""


def test_it_reaches_no_unix_socket_by_name_or_by_path(kind, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    abstract = f"truing-test-{os.getpid()}"
    with (
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as unnamed,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams,
    ):
        named.bind(str(tmp_path / "stream"))
        unnamed.bind("\0" + abstract)
        datagrams.bind(str(tmp_path / "datagrams"))
        for listener in (named, unnamed):
            listener.listen()
        targets = f"{tmp_path / 'stream'} @{abstract} {tmp_path / 'datagrams'}"
        ended = attack(kind, REACHES_UNIX, targets)
    if not is_stated(kind, "Unix sockets"):
        assert ended.well and set(ended.output.split()) == {"closed"}


REACHES_TCP = """
import socket
for host in ("127.0.0.1", "localhost", "0.0.0.0"):
    try:
        socket.create_connection((host, int(PORT)), 2)
        print("reached")
    except OSError:
        print("closed")
"""


def test_it_reaches_no_listener_of_its_host(kind) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = attack(kind, f"PORT = {listener.getsockname()[1]}\n{REACHES_TCP}")
    if not is_stated(kind, "the network"):
        assert ended.well and set(ended.output.split()) == {"closed"}


def test_a_fork_bomb_is_ended(kind) -> None:
    word = f"bomb-{os.getpid()}-{kind}"
    code = f"""
import os, sys
if "{word}" not in sys.argv:
    os.execv(sys.executable, [sys.executable, __file__, "{word}"])
import time
while True:
    try:
        if os.fork() == 0:
            time.sleep(60)
    except OSError:
        pass
"""
    before = time.monotonic()
    ended = attack(kind, code, seconds=3)
    assert not ended.well and ended.timed_out, ended
    assert time.monotonic() - before < 30
    assert not alive(word)


SHARES = "import os\nfor _ in range(6):\n    if os.fork() == 0: break\n"
MEMORY = {
    "six processes": SHARES + "x = bytearray(60 << 20)\nimport time; time.sleep(60)",
    "threads": "import threading, time\nfor _ in range(5000):\n"
    "    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()",
    "one that others read": "import mmap, os\nx = mmap.mmap(-1, 150 << 20)\nx.write(bytes(150 << 20))\ny = bytes(100 << 20)",
}


@pytest.mark.parametrize("case", MEMORY)
def test_all_its_processes_together_take_no_more_memory(kind, case) -> None:
    ended = attack(kind, MEMORY[case], megabytes=200)  # threads end by the room for their stacks, or by their number
    assert not ended.well
    assert ended.why == "took more than 200 MB" or case != "six processes"


def test_what_processes_share_counts_once(kind) -> None:
    """Six that share 100 MB take 100 MB and not 600."""
    code = "x = b'1' * (100 << 20)\n" + SHARES + "import time; time.sleep(1); print('done')"
    ended = attack(kind, code, megabytes=300)
    assert ended.well and ended.output.split() == ["done"] * ended.output.count("done")


HIDES_MEMORY = """
import ctypes, os
libc = ctypes.CDLL(None)
print(libc.shmget(0, 1 << 20, 0o1600), libc.semget(0, 1, 0o1600), libc.msgget(0, 0o1600))
print(libc.unshare(0x10000000), libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
try:
    os.memfd_create("hidden")
except OSError:
    print(-1)
"""


def test_it_has_no_memory_that_its_processes_do_not_show(kind) -> None:
    if not is_stated(kind, "shared memory beyond 'megabytes'"):
        assert set(attack(kind, HIDES_MEMORY).output.split()) == {"-1"}


PUTS_MEMORY_AWAY = """
import ctypes, mmap, os
for make in (lambda: mmap.mmap(-1, 1 << 20), lambda: mmap.mmap(os.open("/dev/zero", os.O_RDWR), 1 << 20)):
    try:
        make()
        print("shared")
    except OSError:
        print("closed")
own = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
own[:] = b"x" * len(own)
for advice in (20, 21):
    try:
        own.madvise(advice)
        print("put away")
    except OSError:
        print("closed")
own.madvise(mmap.MADV_DONTNEED)
"""


def test_it_puts_no_memory_where_its_size_does_not_show(kind) -> None:
    """Pages of shared memory stay when a process lets go of them; those of /dev/zero are such, too."""
    if not is_stated(kind, "shared memory beyond 'megabytes'"):
        assert attack(kind, PUTS_MEMORY_AWAY).output.split() == ["closed"] * 4


REACHES_THE_KERNEL = """
import glob, os
for name in [*glob.glob("/proc/sys/kernel/*"), *glob.glob("/proc/sys/vm/*"), "/proc/sysrq-trigger", "/proc/1/mem"]:
    if name == "/proc/1/mem" and os.getpid() == 1:
        continue
    try:
        os.close(os.open(name, os.O_WRONLY))
        print("open", name)
    except OSError:
        pass
print("done")
"""


def test_it_writes_no_setting_of_the_kernel_and_no_memory_of_its_box(kind) -> None:
    """Root writes /proc/sys without any capability; and a process of the box's own has no filter and no limits."""
    if not is_stated(kind, "the files of this user"):
        ended = attack(kind, REACHES_THE_KERNEL)
        assert ended.well and ended.output == "done\n"


CHANGES_MODES = """
import os
place = input()
for act in (lambda: os.chmod(place + "/old", 0o777), lambda: os.chmod(place, 0o777), lambda: os.chown(place, 1, 1),
            lambda: os.utime(place + "/old", (1, 1)), lambda: os.setxattr(place + "/old", "user.x", b"1")):
    try:
        act()
    except OSError:
        pass
print("done")
"""


def test_it_changes_no_mode_owner_or_time_of_a_file(kind, tmp_path) -> None:
    (tmp_path / "old").write_text("as it was")
    places = [tmp_path, tmp_path / "old"]
    before = [place.stat() for place in places]
    if not is_stated(kind, "modes, owners and times of this user's files"):
        ended = attack(kind, CHANGES_MODES, str(tmp_path))
        assert ended.well and ended.output == "done\n"
        assert [place.stat() for place in places] == before and os.listxattr(places[1]) == []


LIMITS_OTHERS = """
import os, resource
process = int(input())
for act in (lambda: resource.prlimit(process, resource.RLIMIT_NOFILE, (5, 5)),
            lambda: os.sched_setaffinity(process, {0}), lambda: os.setpriority(os.PRIO_PROCESS, process, 19),
            lambda: os.sched_setscheduler(process, os.SCHED_IDLE, os.sched_param(0))):
    try:
        act()
        print("changed")
    except OSError:
        print("closed")
resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))
"""


def test_it_changes_no_limit_of_another_process(kind, bystander) -> None:
    if not is_stated(kind, "limits and priorities of this user's processes"):
        ended = attack(kind, LIMITS_OTHERS, str(bystander.pid))
        assert ended.well and ended.output.split() == ["closed"] * 4


def test_it_reads_no_settings_of_the_machine(kind) -> None:
    """Of where programs are installed it reads these, and nothing that somebody keeps beside them."""
    read = box.readable()
    assert not any(place in ("/usr", "/usr/local", "/etc", "/") or "etc" in place.split("/")[2:] for place in read)
    if not is_stated(kind, "the files of this user"):
        code = "import os\nfor name in ('/usr/local/etc', '/etc/passwd', '/root', '/home'):\n    try:\n"
        code += "        print(os.listdir(name) if os.path.isdir(name) else open(name).read())\n"
        code += "    except OSError:\n        pass\n"
        assert attack(kind, code).output == ""


WRITES = """
import os, sys
place = input()
for act in (lambda: open(place + "/new", "w"), lambda: open(place + "/old", "a"), lambda: os.remove(place + "/old"),
            lambda: os.rename(place + "/old", place + "/moved"), lambda: os.symlink("/etc", place + "/link"),
            lambda: os.truncate(place + "/old", 0), lambda: os.link(place + "/old", "stolen"),
            lambda: open(os.path.dirname(sys.prefix) + "/truing-was-here", "w"), lambda: open(sys.prefix + "/x", "w")):
    try:
        act()
        print("written")
    except OSError:
        print("closed")
"""


def test_it_writes_nothing_outside_its_folder(kind, tmp_path) -> None:
    (tmp_path / "old").write_text("as it was")
    if not is_stated(kind, "the files of this user"):
        ended = attack(kind, WRITES, str(tmp_path))
        assert ended.well and set(ended.output.split()) == {"closed"}
        assert [p.name for p in tmp_path.iterdir()] == ["old"]
        assert (tmp_path / "old").read_text() == "as it was"


READS = """
import glob
place, word = input().split()
for name in [place + "/program.py", *glob.glob(place + "/../truing-*/*"), *glob.glob("/proc/[0-9]*/cwd/program.py")]:
    try:
        print(word[::-1] in open(name).read())
    except OSError:
        print("closed")
"""


def test_it_reads_no_other_program_s_folder(kind) -> None:
    if not is_stated(kind, "the files of this user"):
        with sandbox.own_folder() as folder:
            (folder / "program.py").write_text("# the solution of another")
            ended = attack(kind, READS, f"{folder} {'solution'[::-1]}")
        assert ended.well and "True" not in ended.output and "closed" in ended.output


def test_it_kills_no_process_of_its_host(kind, bystander) -> None:
    if is_stated(kind, "signals to this user's processes"):
        return
    code = f"""
import os
for process in {os.getpid(), bystander.pid}:
    try:
        os.kill(process, 0 if process == {os.getpid()} else 9)
        print("reached")
    except OSError:
        print("closed")
"""
    ended = attack(kind, code)
    assert ended.well and ended.output.split() == ["closed", "closed"]
    assert bystander.poll() is None


def test_it_leaves_nothing_in_the_background(kind) -> None:
    if is_stated(kind, "processes left in the background"):
        return
    word = f"daemon-{os.getpid()}-{kind}"
    code = f"""
import os, sys
if os.fork() == 0:
    for leave in (os.setsid, lambda: os.setpgid(0, 0)):
        try:
            leave()
        except OSError:
            pass
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(100)", "{word}"])
    os._exit(0)
print("done")
"""
    ended = attack(kind, code)
    assert ended.well and ended.output == "done\n"
    assert not alive(word)


FILLS = """
import tempfile
written = 0
for place in (".", "/tmp", "/dev/shm", "/dev", "/", "/var/tmp", "/run"):
    for i in range(200):
        try:
            with open(f"{place}/{i}", "wb") as file:
                written += file.write(bytes(1 << 20))
        except OSError:
            break
print(written >> 20)
"""


def test_it_does_not_fill_the_disk(kind) -> None:
    if not is_stated(kind, "filling the disk"):
        ended = attack(kind, FILLS)
        assert ended.well and 60 <= int(ended.output) <= (box.FILES + 2 * box.SCRATCH) >> 20


def test_bubblewrap_keeps_all() -> None:
    if not sandbox.works("bubblewrap") or not begin.can_filter():
        pytest.skip("this machine has no bubblewrap, or a processor whose calls are not filtered")
    assert box.losses("bubblewrap") == [] and sandbox.unkept(True) == ""
    assert "filling the disk" in sandbox.unkept(False)


@pytest.mark.parametrize("kind", KINDS)
def test_what_an_older_kernel_does_not_keep_is_said_and_stands_in_security(kind, monkeypatch) -> None:
    monkeypatch.setattr(sandbox, "works", lambda other: other == kind)
    monkeypatch.setattr(begin, "landlock_version", lambda: 0)
    monkeypatch.setattr(begin, "can_filter", lambda: False)
    monkeypatch.setattr(process_limits, "can_count", lambda: False)
    line = sandbox.unkept(isolate=kind != "open")
    assert len(line.splitlines()) == 1 and all(loss in line for loss in box.losses(kind))
    assert len(box.losses(kind)) == {"bubblewrap": 2, "unshare": 7, "open": 13}[kind]
    assert all(f"- **{loss}**" in SECURITY.read_text(encoding="utf-8") for loss in box.losses(kind))


RECIPE = """\
base: world:desk/tiny
stages:
  warm: {do: sft, model: $base, data: "world:demonstrations?n=7"}
"""


@pytest.mark.parametrize("isolate", [True, False])
def test_a_run_says_what_its_programs_are_not_kept_from(isolate, tmp_path, monkeypatch) -> None:
    """Once, for its summary too; nothing where all is kept."""
    monkeypatch.setattr(sandbox, "works", lambda kind: kind == "bubblewrap")
    run = StageRun(check(RECIPE), "policy", "reinforce", tmp_path, "", Show(quiet=True))
    for _ in range(2):
        term_of(run, {"program": {"isolate": isolate}}, lambda: ([], []), 60.0, [])
    line = sandbox.unkept(isolate)
    assert run.accounts == ([line] if line else [])
    assert isolate or "(isolate: false) are not kept from: filling the disk" in line
