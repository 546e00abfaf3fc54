"""The process of an answer's program before the program: it gives up, for good, what the program has no use for.

It is run by its text (`python -I -c`), inside the box that `box.py` makes, with the standard library alone:

    limits      memory, seconds, bytes of a file, open files, processes
    rights      none of root's, and none to be gained (no_new_privs)
    Landlock    where the box has the host's files: it reads Python and the system's libraries, writes its own folder,
                signals and looks into no process outside (https://docs.kernel.org/userspace-api/landlock.html)
    seccomp     no socket, no namespace, mount or trace, and no memory that no process's size shows
                (https://docs.kernel.org/userspace-api/seccomp_filter.html)
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys

PROCESSES = 64
FILE = 1 << 20
"""The bytes that it may write to any one file, its output among them."""
FILTERED = {
    # audit architecture, clone, socketpair, (setsid, setpgid), refused
    "x86_64": (
        0xC000003E,
        56,
        53,
        (112, 109),
        # socket; shmget semget msgget mq_open memfd_create: memory of no process; ptrace process_vm_readv and _writev;
        # unshare setns mount; add_key request_key keyctl bpf perf_event_open userfaultfd
        (41, 29, 64, 68, 240, 319, 101, 310, 311, 272, 308, 165, 248, 249, 250, 321, 298, 323),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        199,
        (157, 154),
        (198, 194, 190, 186, 180, 279, 117, 270, 271, 97, 268, 40, 217, 218, 219, 280, 241, 282),
    ),
}
EVERYWHERE = (425, 438, 447, 428, 429, 430)
"""io_uring_setup pidfd_getfd memfd_secret open_tree move_mount fsopen: their numbers are the same on all machines."""
CLONE3 = 435
NEW_NAMESPACE = 0x7E020000
"""The flags of `clone` that ask for namespaces."""
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
    """Whether the system calls of this machine's kind are known here."""
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


def close_files(readable: list[str], folder: str) -> None:
    """Close all files but those below `readable`, to be read, and below `folder`, to be written (Landlock)."""
    version = landlock_version()
    if not version:
        return
    libc = _libc()
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    # What the kernel of an earlier version does not know is not in its structure: files, network (unused), scopes.
    attributes = struct.pack("QQQ", files, 0, 0b11)[: 24 if version >= 6 else 8]
    rules = libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0)
    _ensure(rules, "landlock_create_ruleset")
    devices = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
    allowed = [(path, READ if os.path.isdir(path) else READ_FILE) for path in (*readable, "/proc")]
    for path, access in (*allowed, *((device, ALL_OF_A_FILE) for device in devices), (folder, files)):
        if not os.path.exists(path):
            continue
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _ensure(libc.syscall(445, rules, 1, struct.pack("=Qi", access, handle), 0), f"landlock_add_rule {path}")
        os.close(handle)
    _ensure(libc.syscall(446, rules, 0), "landlock_restrict_self")
    os.close(rules)


def filter_calls(one_group: bool) -> None:
    """Refuse the system calls by which a program reaches out of its box, or past its limits (seccomp); with
    `one_group` those by which a process leaves its group too, so that one signal ends all at once."""
    if not can_filter():
        return
    machine, clone, socketpair, leaving, refused = FILTERED[platform.machine()]
    load, equal, from_, has, and_, end = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
    allow, refuse, absent = 0x7FFF0000, 0x50001, 0x50026  # the last two: errno 1 and 38
    code = [(load, 0, 0, 4), (equal, 1, 0, machine), (end, 0, 0, 0x80000000)]
    code += [(load, 0, 0, 0), (from_, 0, 1, X32), (end, 0, 0, refuse)]
    for number in (*refused, *EVERYWHERE, *(leaving if one_group else ())):
        code += [(equal, 0, 1, number), (end, 0, 0, refuse)]
    code += [(equal, 0, 1, CLONE3), (end, 0, 0, absent)]  # its flags cannot be read here: libc then takes `clone`
    code += [(equal, 0, 4, clone), (load, 0, 0, 16), (has, 0, 1, NEW_NAMESPACE), (end, 0, 0, refuse)]
    code += [(end, 0, 0, allow)]
    # A pair of streams is connected for good; one of datagrams could be sent to any socket.
    code += [(equal, 0, 5, socketpair), (load, 0, 0, 24), (and_, 0, 0, 0xF), (equal, 0, 1, 1)]
    code += [(end, 0, 0, allow), (end, 0, 0, refuse), (end, 0, 0, allow)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(packed))
    _ensure(_libc().prctl(22, 2, program, 0, 0), "seccomp")


def adopt(told: int) -> None:
    """Go on in a child, to whose descendants this process becomes the parent where theirs is gone, so that what runs in
    the background is still counted. This process itself ends as the child does."""
    _ensure(_libc().prctl(36, 1, 0, 0, 0), "child_subreaper")
    program = os.fork()
    if program:
        os.close(told)
        status = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        os._exit(status if status >= 0 else 128 - status)


def main(program: str, seconds: str, megabytes: str, told: str, kind: str, *readable: str) -> None:
    """Give up what is not needed, say that the program begins, and become it."""
    linux = sys.platform == "linux"
    if linux and kind == "open":
        adopt(int(told))
    limit(int(seconds), int(megabytes))
    if linux:
        give_up_rights()
    if kind != "bubblewrap":
        close_files(list(readable), os.path.dirname(program))
    filter_calls(one_group=kind == "open")
    os.write(int(told), b".")
    os.close(int(told))
    os.execv(sys.executable, [sys.executable, "-I", program])


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _ensure(result: int, call: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
