"""The box that a response's program runs in: the best that this machine has, and what it does not prevent.

    bubblewrap    files of its own, in memory and of one size; of the host's, Python and the system's libraries, to be
                  read; process numbers, network, users and messages of its own. An apt package, `bubblewrap`.
    unshare       the same but for the files (util-linux)
    open          neither: `isolate: false`, for a machine that has no namespaces

In each `begin.py` then gives up what is left, and `process_limits.py` holds the program to its memory and processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from truing.rewards import begin, process_limits

Kind: TypeAlias = Literal["bubblewrap", "unshare", "open"]
UNSHARE = ("unshare", "--user", "--map-root-user", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc")
HOME = Path("/program")
"""The folder of a program in bubblewrap."""
FILES = 64 << 20
"""The bytes that a program's own folder holds in bubblewrap."""
SCRATCH = 16 << 20
"""The bytes that each of /tmp and /dev/shm holds there."""
SYSTEM = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store", "/sys/devices/system/cpu")
INSTALLED = ("bin", "lib", "lib32", "lib64", "libx32", "libexec", "share", "pyvenv.cfg")
"""The parts of a place where programs are installed, such as /usr, that a program may read: no settings, nobody's
data."""
SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
PACKAGES = ("site-packages", "dist-packages")


def readable() -> list[str]:
    """The files and folders of this machine that a program may read: Python, its packages, the system's libraries."""
    prefixes = [sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)]
    roots = dict.fromkeys(["/usr", "/usr/local", *prefixes, *map(os.path.realpath, prefixes)])
    installed = [os.path.join(root, name) for root in roots for name in INSTALLED]
    packages = [path for path in sys.path if Path(path).name in PACKAGES]  # a .pth file names some elsewhere
    places = dict.fromkeys([*SYSTEM, *SETTINGS, *installed, *packages])
    return [place for place in places if Path(place).exists()]


def command(kind: Kind, folder: Path, code: int, limits: Sequence[str]) -> list[str]:
    """The command that starts a program: the one in the folder, or in bubblewrap the one that the descriptor `code`
    reads."""
    here = HOME if kind == "bubblewrap" else folder
    text = Path(begin.__file__).read_text(encoding="utf-8")
    started = [sys.executable, "-I", "-c", text, str(here / "program.py"), *limits, kind, *readable()]
    if kind == "bubblewrap":
        return [*_bubblewrap(code), *started]
    return [*UNSHARE, *started] if kind == "unshare" else started


def _bubblewrap(code: int) -> list[str]:
    """The options of bubblewrap; nothing in the box can be written but three places, each of one size. The program is
    the box's first process: one of bubblewrap's own would have neither its limits nor its filter, and be open to it."""
    options = [
        "--unshare-all",
        "--as-pid-1",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    for place, size in (("/tmp", SCRATCH), ("/dev/shm", SCRATCH), (str(HOME), FILES)):
        options += ["--size", str(size), "--tmpfs", place]
    for place in readable():
        options += ["--ro-bind", place, place]
    options += ["--file", str(code), str(HOME / "program.py"), "--chdir", str(HOME)]
    # Of /proc because root may write /proc/sys without any capability.
    return ["bwrap", *options, "--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/"]


def losses(kind: Kind) -> list[str]:
    """List what a program in a box of this kind is not kept from on this machine, in the words of SECURITY.md."""
    landlock, boxed = begin.landlock_version(), kind == "bubblewrap"
    filtered = begin.can_filter()
    prevented = {
        "filling the disk": boxed,
        "the files of this user": boxed or landlock >= 1,
        "modes, owners and times of this user's files": boxed or filtered,
        "names, sizes and times of this user's files": boxed,
        "the list of processes": kind != "open",
        "the environment of this user's processes": kind != "open" or landlock >= 1,
        "limits and priorities of this user's processes": kind != "open" or filtered,
        "signals to this user's processes": kind != "open" or landlock >= 6,
        "Unix sockets": boxed or filtered,
        "the network": kind != "open" or filtered,
        "processes left in the background": kind != "open" or filtered,
        "memory beyond 'megabytes', and more than 64 processes": process_limits.can_count(),
        "shared memory beyond 'megabytes'": filtered,
    }
    return [loss for loss, is_prevented in prevented.items() if not is_prevented]
