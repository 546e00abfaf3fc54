"""The launcher's exit code is the run's, which torchrun's is not."""

import json
import signal
import socket
import subprocess
import sys

from parallel import jobs
from truing import launch

RANK = """\
import os, signal, sys
told, rank = sys.argv[1], int(os.environ["RANK"])
if told.isdigit():      # a digit for each rank
    sys.exit(int(told[rank]))
if rank == 1:
    os.kill(os.getpid() if told == "killed" else os.getppid(), signal.SIGKILL if told == "killed" else signal.SIGTERM)
signal.pause()          # until the launcher ends this rank
"""
EVERY = """\
import json, sys
from truing import launch
flags = ["--standalone", "--nproc-per-node", "2"]
print(json.dumps([launch.main([*flags, *sys.argv[1:2], told]) for told in sys.argv[2:]]))
"""
QUIET = """\
import os, pathlib, signal, sys
if os.environ["RANK"] == "0":
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(os.getppid(), number)
        os.kill(os.getpid(), number)
    pathlib.Path(sys.argv[1]).touch()
"""
ENDS = {"00": 0, "10": 1, "20": 2, "30": 3, "40": 4, "02": 2, "killed": 3, "stopped": 143}


def test_the_launcher_ends_with_the_code_of_the_run(tmp_path) -> None:
    """Every code of truing's own, of either rank, a rank that is killed (the other one is then ended by torchrun), and
    SIGTERM to the launcher."""
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    command = [sys.executable, "-c", EVERY, str(script), *ENDS]
    done = subprocess.run(command, capture_output=True, text=True, env=jobs.PLAIN, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert dict(zip(ENDS, json.loads(done.stdout), strict=True)) == ENDS
    assert "truing: process 1 was ended by SIGKILL; a run goes on with --resume" in done.stderr


def test_a_launch_leaves_nothing_in_the_temporary_folder(tmp_path) -> None:
    """One that ends by itself, that fails, and that is stopped by SIGTERM."""
    (tmp_path / "rank.py").write_text(RANK)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = jobs.PLAIN | {"TMPDIR": str(temporary)}
    command = [sys.executable, "-c", EVERY, str(tmp_path / "rank.py"), "00", "02", "stopped"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert json.loads(done.stdout) == [0, 2, 143], done.stderr
    assert list(temporary.iterdir()) == []


def test_a_launch_under_nohup_outlives_its_terminal(tmp_path) -> None:
    """Signals that the launcher was told to ignore end neither it nor a rank."""
    (tmp_path / "rank.py").write_text(QUIET)
    flags = ["--standalone", "--nproc-per-node", "1"]
    command = [sys.executable, "-m", "truing.launch", *flags, str(tmp_path / "rank.py"), str(tmp_path / "reached")]

    def ignore() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    done = subprocess.run(command, env=jobs.PLAIN, timeout=120, check=False, preexec_fn=ignore)
    assert done.returncode == 0 and (tmp_path / "reached").exists()


def test_a_port_that_is_taken_is_no_hold(capsys) -> None:
    """1 is the word for a model that may not ship."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ["--nnodes", "1", "--nproc-per-node", "2", "--master-port", port, "--master-addr", "127.0.0.1"]
        assert launch.main([*arguments, "-m", "truing", "list"]) == 3
    assert "could not be started" in capsys.readouterr().err
