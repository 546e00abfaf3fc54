"""A key that is printed in pieces, by another thread, at the end or as bytes reaches no terminal; nor does an escape."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading

import pytest

from truing import terminal
from truing.terminal import Redacting

OPAQUE = "opaque0123456789abcdef"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabcdefghijklm\n-----END RSA PRIVATE KEY-----"


@pytest.fixture
def stream():
    """A guarded stream; `stream.shown()` is what came through."""
    below = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="")

    def shown() -> str:
        below.flush()
        return below.buffer.getvalue().decode()

    guarded = Redacting(below)
    guarded.shown = shown
    return guarded


@pytest.mark.parametrize(
    "pieces",
    [
        ("Authorization: Bearer", " ", OPAQUE, "\n"),
        ("api_key:", " ", OPAQUE, "\n"),
        ("sk-ant-", f"api03-{OPAQUE}\n"),
        (*f"password={OPAQUE}", "\n"),
        ("correct", " ", "horse", " ", "battery", "\n"),
        (f"sk-ant\x1b[1m-api03-{OPAQUE}\n",),
        (f"\rtoken={OPAQUE}",),
    ],
)
def test_a_key_in_pieces(stream, monkeypatch, pieces) -> None:
    monkeypatch.setenv("MY_PASSWORD", "correct horse battery")
    for piece in pieces:
        assert stream.write(piece) == len(piece)
    stream.flush()
    assert OPAQUE not in stream.shown() and "battery" not in stream.shown() and "⟨" in stream.shown()


@pytest.mark.parametrize("indent", ["", "    "])
def test_a_private_key_line_by_line(stream, indent) -> None:
    for line in [
        "before",
        *PEM.splitlines(),
        "after",
        "-----BEGIN PRIVATE KEY-----",
        "MIIEpAIBAAKCAQEA7",
        "all is well",
    ]:
        print(indent + line, file=stream)
    text = stream.shown()
    assert "MIIE" not in text and "abcdefghijklm" not in text
    assert "before\n" in text and "after\n" in text and "all is well\n" in text, "other lines are not lost"
    for line in PEM.replace("\n", "\nINFO: ").splitlines():
        print(line, file=stream)
    assert "MIIE" not in stream.shown()


def test_a_beginning_without_an_end_silences_nothing_for_ever(stream) -> None:
    print("-----BEGIN PRIVATE KEY-----", file=stream)
    for _ in range(terminal._PEM_LINES):
        print("a line of words", file=stream)
    print("words0123456789abcdef", file=stream)
    assert stream.shown().count("a line of words\n") == terminal._PEM_LINES
    assert stream.shown().endswith("words0123456789abcdef\n")


def test_a_value_of_several_lines_by_lines(stream, monkeypatch) -> None:
    monkeypatch.setenv("APP_PRIVATE_KEY", "line-one-secret\nline-two-secret\nline-three-secret")
    for line in os.environ["APP_PRIVATE_KEY"].splitlines():
        print("  ", line, file=stream)
    assert stream.shown() == "   ⟨APP_PRIVATE_KEY⟩\n" * 3


def test_what_is_written_as_bytes(stream) -> None:
    stream.buffer.write(f"é sk-ant-api03-{OPAQUE}".encode()[:1])
    stream.buffer.write(f"é sk-ant-api03-{OPAQUE}".encode()[1:] + b"\xff\n")
    stream.buffer.writelines([b"token=", OPAQUE.encode()])
    stream.buffer.flush()
    assert stream.shown() == "é ⟨key⟩\\xff\ntoken=⟨key⟩"


def test_progress_is_shown_at_once_and_nothing_is_lost(stream) -> None:
    stream.write("\r\x1b[K 12 %")
    assert stream.shown() == "\r\x1b[K 12 %"
    stream.write("\r 13 %")
    assert stream.shown().endswith("\r 13 %")
    stream.write("done\r\nhalf")
    assert stream.shown().endswith("done\r\n")
    stream.flush()
    assert stream.shown().endswith("half")
    stream.write("x" * 100_000)
    assert stream.shown().endswith("x" * 100_000), "a line without an end is not kept for ever"


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "\x1b[2J", "a\u202eb", "\x1b[A", "\x1b[8mhidden\x1b]8;;x\x1b\\"])
def test_what_a_terminal_would_act_on(stream, text) -> None:
    print(text, file=stream)
    assert "⟨U+" in stream.shown() and not set(stream.shown()) & set("\x1b\x07\u202e")


def test_a_stream_is_still_one(stream) -> None:
    with pytest.raises(TypeError):
        stream.write(b"")
    assert not stream.isatty() and stream.encoding == "utf-8" and terminal.redacting(stream) is stream
    threads = [threading.Thread(target=lambda: [stream.write(f"{i} ok\n") for i in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.shown().splitlines()
    assert len(lines) == 800 and set(lines) == {f"{i} ok" for i in range(200)}


ENDS = {
    "a text": "raise SystemExit(f'bad sk-ant-api03-{key}')",
    "cancelled": "import asyncio; raise asyncio.CancelledError(f'bad sk-ant-api03-{key}')",
    "a generator's end": "raise GeneratorExit(f'bad token={key}')",
    "at exit": "import atexit; atexit.register(lambda: print('closing, token:', key)); sys.exit(3)",
    "without an end": "print('api_key:', key, end=''); sys.exit(3)",
    "taken down": "globals()['kept'] = type('A', (), {'__del__': lambda self, print=print, key=key: print('token:', key)})(); sys.exit(3)",
    "a thread": "import threading; threading.Thread(target=lambda: 1 / int('token=' + key)).start(); sys.exit(3)",
    "a fork": "print('api_key:', end=''); p = os.fork(); print(key); p and os.wait(); sys.exit(3)",
}


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_the_process(end) -> None:
    """Until it is over, whoever prints; and no end is the word for a model that may not ship."""
    program = f"""
import os, sys
from truing import cli
key = {OPAQUE!r}
def broken(**_):
    {ENDS[end]}
cli.typer.main.get_command = lambda _: broken
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    shown = done.stdout + done.stderr
    assert OPAQUE not in shown.replace(f"key = {OPAQUE!r}", "") and "⟨key⟩" in shown, shown
