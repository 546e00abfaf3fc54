"""A reward function that does not come back: it is ended, and the answer is worth the least; a broken one is missing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from pathlib import Path

import pytest

from truing import registry
from truing.errors import RunFailed, UserError
from truing.records import Message
from truing.rewards import isolated
from truing.rewards.call import Call, Response
from truing.rewards.combine import Rewards, Term, count_notes, round_metrics

OWN = '''
import os
import re
import signal
import subprocess
import sys
from truing.errors import UserError
from truing.registry import reward

calls = 0

@reward(scope="response")
def tidy(response, *, right: float = 1.0):
    """A regular expression that backtracks without end where the last letter is no `a`, and holds the interpreter."""
    return right if re.fullmatch("(a+)+", response) else 0.0

@reward(scope="response")
def counted(response):
    """How often this process was asked."""
    global calls
    calls += 1
    print("a line on standard output is no answer")
    return calls

@reward(scope="response")
def odd(response, row):
    """What goes wrong, by the answer."""
    if response == "user":
        raise UserError("the row has no truth")
    if response.startswith("alarm"):
        os.kill(os.getpid(), signal.SIGALRM)
    if response == "ends":
        os._exit(7)
    if response == "raises":
        raise ValueError("no")
    return len(row["words"])

@reward(scope="response")
def starts(response):
    """Starts what outlives it, unless it is ended with it, and hangs or ends; the group is of its own."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=response == "own")
    with open(response, "w") as file:
        file.write(str(child.pid))
    if response == "forked":
        if os.fork() == 0:
            signal.pause()
        os._exit(9)
    while True:
        pass

@reward(scope="response")
def stops(response):
    """What is no `Exception`."""
    raise KeyboardInterrupt

@reward(scope="response", deterministic=True)
def once(response, row):
    """Hangs where its file is not there, once."""
    if not os.path.exists(row["file"]):
        open(row["file"], "w").close()
        while True:
            pass
    return 1.0

@reward(scope="response")
def beside(response):
    """What a file says that stands where the asker looks for modules."""
    import only_here
    print("a line on standard output", flush=True)
    return only_here.WORTH

@reward(scope="response")
def blind(prompt):
    """Of the prompt alone."""
    return 0.0

@reward(scope="group")
def ranked(responses):
    """Of all answers to one prompt."""
    return [0.0 for _ in responses]

@reward(scope="response")
async def slow(response):
    """A coroutine."""
    return float(len(response))
'''
HANGS = "a" * 40 + "b"


@pytest.fixture
def own(tmp_path):
    """The file of the functions above."""
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


def asked(own: Path, name: str, seconds: float = 30.0, worth: float = -1.0, **options: object) -> isolated.Watched:
    """One of them, in a process of its own."""
    whole = f"{own}:{name}"
    return isolated.isolated(whole, Call(registry.load(whole, "reward"), options, seconds), worth)


def answers(*texts: str, **row: object) -> list[Response]:
    """Answers to one prompt."""
    return [Response((Message("user", "ask"),), text, row=row) for text in texts]


def test_an_answer_it_does_not_come_back_from_is_worth_the_least_and_is_counted(own) -> None:
    call = asked(own, "tidy", seconds=1.0, right=2.0)
    assert call(answers("aaa"))[0].value == 2.0  # the process is there: what follows is the function's own time
    first = call.worker.process
    found = Rewards((Term("tidy", call),))(answers("b", HANGS, "aa"))
    assert [score.value for score in found] == [0.0, -1.0, 2.0]
    assert not any(score.failed for score in found)
    assert [score.timed_out for score in call(answers("b", HANGS))] == [False, True]
    assert dict(found[1].parts) == {"tidy": -1.0, "timed_out:tidy": 1.0}
    assert count_notes([score.parts for score in found]) == [
        "reward 'tidy' timed out on 1 responses, which got its score for a timeout"
    ]
    assert round_metrics([(score.parts, score.why) for score in found]) == {
        "reward_tidy": pytest.approx(1 / 3),
        "timed_out_tidy": 1.0,
        "failed": 0.0,
    }
    assert first is not None and first.returncode == -9
    assert call.worker.process is not None and call.worker.process.pid != first.pid


def test_one_process_is_asked_again_and_again_and_ends_with_its_asker(own) -> None:
    call = asked(own, "counted")
    assert [score.value for score in call(answers("x", "y"))] == [1.0, 2.0]
    assert call(answers("z"))[0].value == 3.0
    process = call.worker.process
    assert process is not None and process.poll() is None
    del call
    assert process.poll() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_what_goes_wrong_is_said_as_without_a_process(own) -> None:
    call = asked(own, "odd")
    good, ended, raised, after = call(answers("fine", "ends", "raises", "fine", words=["a", "b"]))
    assert (good.value, after.value) == (2.0, 2.0)
    assert ended.failed and ended.why == "its process ended with 7"
    assert raised.failed and raised.why == "ValueError: no"
    with pytest.raises(UserError, match="the row has no truth"):
        call(answers("user", words=[]))
    assert asked(own, "slow")(answers("four"))[0].value == 4.0


def test_a_function_that_never_comes_back_is_broken(own, monkeypatch) -> None:
    monkeypatch.setattr(isolated, "IN_A_ROW", 2)
    call = asked(own, "tidy", seconds=0.5)
    assert [score.value for score in call(answers(HANGS, HANGS, "a", HANGS))] == [-1.0, -1.0, 1.0, -1.0]
    with pytest.raises(RunFailed, match=r"after 0\.5 s on 2 different responses one after .* was: 'a+c'"):
        call(answers(HANGS[:-1] + "c"))


def test_a_file_that_cannot_be_loaded_there_fails_the_run(own) -> None:
    call = asked(own, "tidy")
    own.write_text("raise OSError('no licence')")
    with pytest.raises((RunFailed, UserError), match=r"no licence|tidy"):
        call(answers("a"))
    assert call.worker.line is None


@pytest.mark.parametrize("how", ["group", "own"])
def test_what_it_has_started_is_ended_with_it(how, own, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert asked(own, "starts", seconds=2.0)(answers(how))[0].timed_out
    assert not lives(int((tmp_path / how).read_text()))


def test_one_that_ended_by_itself_has_failed_whatever_still_holds_the_channel(own, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    [score] = asked(own, "starts", seconds=20.0)(answers("forked"))
    assert score.failed and score.why == "its process ended with 9" and not score.timed_out
    assert not lives(int((tmp_path / "forked").read_text()))


def test_what_is_no_exception_has_failed_and_is_not_late(own) -> None:
    for call in (asked(own, "stops"), Call(registry.load(f"{own}:stops", "reward"), {}, 30.0)):
        [score] = call(answers("a"))
        assert score.failed and score.why == "KeyboardInterrupt: " and not score.timed_out


def test_what_was_late_once_is_asked_again(own, tmp_path) -> None:
    term = Term("once", asked(own, "once", seconds=1.0))
    given = answers("same", file=str(tmp_path / "there"))
    assert [term.scores(given)[0].value for _ in range(2)] == [-1.0, 1.0]


def test_a_large_answer_and_a_folder_that_shadows_the_library(own, tmp_path, monkeypatch) -> None:
    """More than a channel holds; and the folder truing is called in is no place of modules."""
    (tmp_path / "random.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(tmp_path)
    assert asked(own, "slow")(answers("x" * 3_000_000))[0].value == 3e6


def lives(pid: int) -> bool:
    """Whether a process goes on; one that was killed is given the time to end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    ended, _, _ = select.select([handle], [], [], 10.0)
    os.close(handle)
    return not ended


def test_late_is_for_functions_of_one_answer(own) -> None:
    with pytest.raises(UserError, match="reads one response at a time"):
        asked(own, "ranked")


def test_a_program_that_had_to_be_ended_is_counted(tmp_path) -> None:
    program = registry.load("program", "reward")
    options = {"seconds": 1.0, "isolate": False, "wrong": -0.5}
    call = Call(program, options)
    tests = {"tests": [["", "ok"]]}
    found = call(answers("print('ok')", "while True: pass", "raise SystemExit(3)", **tests))
    assert [score.value for score in found] == [1.0, -0.5, -0.5]
    assert [score.timed_out for score in found] == [False, True, False]


def test_late_answers_between_others_are_their_own_fault(own, monkeypatch) -> None:
    """Only one after the other are they the function's; and a process that its own alarm has ended was late."""
    monkeypatch.setattr(isolated, "IN_A_ROW", 2)
    found = asked(own, "odd")(answers("alarm", "fine", "alarm too", words=["a"]))
    assert [score.value for score in found] == [-1.0, 1.0, -1.0] and not any(score.failed for score in found)


def test_what_it_prints_is_no_answer_and_its_path_is_the_askers(own, tmp_path, monkeypatch, capfd) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "only_here.py").write_text("WORTH = 5.0\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    assert asked(own, "beside")(answers("x"))[0].value == 5.0
    said = capfd.readouterr()
    assert "a line on standard output" in said.err and said.out == ""


def test_a_process_whose_asker_is_gone_ends_itself_within_an_answer_and_not_between(own) -> None:
    worker = isolated.RewardProcess(f"{own}:tidy", {}, 0.0)
    worker._start()  # which tells the process its time: a second
    worker.seconds, line, process = 30.0, worker.line, worker.process
    assert line is not None and process is not None
    good = worker.ask(*answers("a"))
    assert good is not None and good.value == 1.0
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.2)
    line.send(*answers(HANGS))
    assert process.wait(20) == -signal.SIGALRM


def test_late_is_for_functions_that_read_the_answer(own) -> None:
    with pytest.raises(UserError, match="reads one response at a time"):
        asked(own, "blind")
