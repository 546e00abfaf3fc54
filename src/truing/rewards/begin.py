"""The process of a response's program before the program: it gives up, for good, what the program has no use for.

It is run by its text (`python -I -c`), inside the box that `box.py` makes, with the standard library alone:

    limits      memory, seconds, bytes of a file, open files, processes
    rights      none of root's, and none to be gained (no_new_privs)
    Landlock    it reads Python and the system's libraries, writes its own folder, signals and looks into no process
                outside (https://docs.kernel.org/userspace-api/landlock.html)
    seccomp     no socket, no namespace, mount or trace, no memory that no process's size shows, no change of a file's
                mode or owner (https://docs.kernel.org/userspace-api/seccomp_filter.html)
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from typing import NamedTuple

PROCESSES = 64
FILE = 1 << 20
"""The bytes that it may write to any one file, its output among them."""


class Calls(NamedTuple):
    """The numbers of the system calls that are filtered, on one kind of machine."""

    audit: int
    clone: int
    socketpair: int
    mmap: int
    madvise: int
    prlimit: int
    refused: tuple[int, ...]
    """socket; shmget semget msgget mq_open memfd_create: memory of no process; ptrace process_vm_readv and _writev;
    unshare setns mount; add_key request_key keyctl bpf perf_event_open userfaultfd; setxattr and removexattr, six."""
    idle: tuple[int, ...]
    """Calls that report success and do nothing: chmod chown utime, of which some libraries need the success alone."""
    leaving: tuple[int, ...]
    """setsid setpgid."""
    others: tuple[int, ...]
    """Calls that change another process: sched_setparam, _setscheduler, _setaffinity, _setattr; setpriority ioprio_set
    migrate_pages move_pages."""


FILTERED = {
    "x86_64": Calls(
        0xC000003E, 56, 53, 9, 28, 302,
        refused=(41, 29, 64, 68, 240, 319, 101, 310, 311, 272, 308, 165, 248, 249, 250, 321, 298, 323,
                 188, 189, 190, 197, 198, 199),
        idle=(90, 91, 92, 93, 94, 132, 235, 260, 261, 268, 280),
        leaving=(112, 109),
        others=(142, 144, 203, 314, 141, 251, 256, 279),
    ),
    "aarch64": Calls(
        0xC00000B7, 220, 199, 222, 233, 261,
        refused=(198, 194, 190, 186, 180, 279, 117, 270, 271, 97, 268, 40, 217, 218, 219, 280, 241, 282,
                 5, 6, 7, 14, 15, 16),
        idle=(52, 53, 54, 55, 88),
        leaving=(157, 154),
        others=(118, 119, 122, 274, 140, 30, 238, 239),
    ),
}  # fmt: skip
EVERYWHERE = (425, 438, 447, 428, 429, 430, 440, 463, 466, 469)
"""io_uring_setup pidfd_getfd memfd_secret open_tree move_mount fsopen process_madvise setxattrat removexattrat
file_setattr: their numbers are the same on all machines."""
FCHMODAT2 = 452
CLONE3 = 435
NEW_NAMESPACE = 0x7E020000
"""The flags of `clone` that ask for namespaces."""
SHARED_MEMORY = 0x21
"""The flags of `mmap` by which memory belongs to no file and to several processes: a process that lets go of its pages
does not show them any more, and they stay."""
PUT_AWAY = (20, 21)
"""The advice by which pages leave a process's size: MADV_COLD MADV_PAGEOUT."""
X32 = 0x40000000
"""Numbers of system calls from here on are those of another x86 convention, which no list above is about."""
READ_FILE, READ, ALL_OF_A_FILE = 0b100, 0b1101, 0b110
"""Landlock: read a file; run and read files and folders; read and write a file."""


def landlock_version() -> int:
    """The version of Landlock that this kernel has, 0 where it has none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(444, None, ctypes.c_size_t(0), 1)))


def can_filter() -> bool:
    """Return True if the system calls of this kind of machine are listed here."""
    return sys.platform == "linux" and platform.machine() in FILTERED and sys.maxsize > 1 << 32


def limit(seconds: int, megabytes: int) -> None:
    """Set the limits of one process."""
    for kind, most in (
        (resource.RLIMIT_AS, megabytes << 20),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, FILE),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, PROCESSES),
    ):
        resource.setrlimit(kind, (most, most))


def give_up_rights() -> None:
    """Drop the capabilities of root, and all ways to gain any."""
    libc = _libc()
    _ensure(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    _ensure(libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24)), "capset")


def close_files(readable: list[str], writable: list[str]) -> None:
    """Close all files but those below `readable`, to be read, and below `writable`, to be written (Landlock)."""
    version = landlock_version()
    if not version:
        return
    libc = _libc()
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    # What the kernel of an earlier version does not know is not in its structure: files, network (unused), scopes.
    attributes = struct.pack("QQQ", files, 0, 0b11)[: 24 if version >= 6 else 8]
    rules = libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0)
    _ensure(rules, "landlock_create_ruleset")
    devices = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")  # /dev/zero would be shared memory
    allowed = [(path, READ if os.path.isdir(path) else READ_FILE) for path in (*readable, "/proc")]
    allowed += [(device, ALL_OF_A_FILE) for device in devices] + [(folder, files) for folder in writable]
    for path, access in allowed:
        if not os.path.exists(path):
            continue
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _ensure(libc.syscall(445, rules, 1, struct.pack("=Qi", access, handle), 0), f"landlock_add_rule {path}")
        os.close(handle)
    _ensure(libc.syscall(446, rules, 0), "landlock_restrict_self")
    os.close(rules)


def filter_calls(one_group: bool, files: bool) -> None:
    """Refuse the system calls by which a program reaches out of its box, or past its limits (seccomp); with
    `one_group` those too by which a process leaves its group, so that one signal ends all at once, or changes another
    process; and with `files` those that change the mode, owner or times of a file, which Landlock lets pass."""
    if not can_filter():
        return
    calls = FILTERED[platform.machine()]
    load, equal, from_, has, and_, end = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
    allow, done, refuse, absent = 0x7FFF0000, 0x50000, 0x50001, 0x50026  # the last three: errno 0, 1 and 38
    code = [(load, 0, 0, 4), (equal, 1, 0, calls.audit), (end, 0, 0, 0x80000000)]
    code += [(load, 0, 0, 0), (from_, 0, 1, X32), (end, 0, 0, refuse)]
    grouped = (*calls.leaving, *calls.others) if one_group else ()
    for number in (*calls.refused, *EVERYWHERE, *grouped):
        code += [(equal, 0, 1, number), (end, 0, 0, refuse)]
    for number in (*calls.idle, FCHMODAT2) if files else ():
        code += [(equal, 0, 1, number), (end, 0, 0, done)]
    code += [(equal, 0, 1, CLONE3), (end, 0, 0, absent)]  # its flags cannot be read here: libc then takes `clone`
    # The arguments are at 16, 24, 32, ...: each test reads its own and ends, so that the call's number is still there.
    code += [(equal, 0, 4, calls.clone), (load, 0, 0, 16), (has, 0, 1, NEW_NAMESPACE), (end, 0, 0, refuse)]
    code += [(end, 0, 0, allow)]
    code += [(equal, 0, 5, calls.mmap), (load, 0, 0, 40), (and_, 0, 0, SHARED_MEMORY), (equal, 0, 1, SHARED_MEMORY)]
    code += [(end, 0, 0, refuse), (end, 0, 0, allow)]
    code += [(equal, 0, 5, calls.madvise), (load, 0, 0, 32), (equal, 1, 0, PUT_AWAY[0]), (equal, 0, 1, PUT_AWAY[1])]
    code += [(end, 0, 0, refuse), (end, 0, 0, allow)]
    if one_group:  # the limits of another process, also to be read: 0 is the process itself
        code += [(equal, 0, 4, calls.prlimit), (load, 0, 0, 16), (equal, 1, 0, 0), (end, 0, 0, refuse)]
        code += [(end, 0, 0, allow)]
    # A pair of streams is connected for good; one of datagrams could be sent to any socket.
    code += [(equal, 0, 5, calls.socketpair), (load, 0, 0, 24), (and_, 0, 0, 0xF), (equal, 0, 1, 1)]
    code += [(end, 0, 0, allow), (end, 0, 0, refuse), (end, 0, 0, allow)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(packed))
    _ensure(_libc().prctl(22, 2, program, 0, 0), "seccomp")


def adopt(ready: int) -> None:
    """Go on in a child, to whose descendants this process becomes the parent where theirs is gone, so that what runs in
    the background is still counted. This process itself ends as the child does."""
    _ensure(_libc().prctl(36, 1, 0, 0, 0), "child_subreaper")
    program = os.fork()
    if program:
        os.close(ready)
        status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        os._exit(status if status >= 0 else 128 - status)


def main(program: str, seconds: str, megabytes: str, ready: str, kind: str, *readable: str) -> None:
    """Give up what is not needed, signal on the descriptor `ready` that the program begins, and become it."""
    linux = sys.platform == "linux"
    if linux and kind == "open":
        adopt(int(ready))
    limit(int(seconds), int(megabytes))
    if linux:
        give_up_rights()
    scratch = ["/tmp", "/dev/shm"] if kind == "bubblewrap" else []
    close_files(list(readable), [os.path.dirname(program), *scratch])
    filter_calls(one_group=kind == "open", files=kind != "bubblewrap")
    os.write(int(ready), b".")
    os.close(int(ready))
    os.execv(sys.executable, [sys.executable, "-I", program])


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _ensure(result: int, call: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
