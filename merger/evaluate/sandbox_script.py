"""Run one program that nobody vouches for, and its tests, shut in. A script: `sandbox` starts it.

Standard library only. It reads an order (JSON: program, test, entry_point, seconds, memory_mb) from
standard input and writes one word: passed, failed, or `refused: ` and which call the kernel denied.
Three processes, so that none which the program can reach decides anything:

    keeper   enters new user, mount, network, IPC, UTS and PID namespaces and waits
    init     number 1 in there: makes the room, keeps the time and judges; the kernel lets nobody in
             its namespace kill it, and kills everybody in there when it ends
    program  without capabilities, privileges, descriptors and environment, with limits, and with a
             filter of system calls: it starts no process and no thread and opens no socket

The room is a read-only tmpfs with the interpreter's own library (no packages) and an empty /tmp.

The verdict is a number drawn for this run, which the program's process sends after check() has
returned; an exit code says nothing. The limit of that: program and tests share an interpreter, as
HumanEval's tests need it. Code made to deceive can walk up the frames to the number, or return an
object that claims to equal everything. It deceives about its own score; it does not get out.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import re
import resource
import select
import signal
import struct
import sys
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NEW_NS, _NEW_UTS, _NEW_IPC, _NEW_USER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEW_PID, _NEW_NET = 0x20000000, 0x40000000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_REC, _PRIVATE = 1 << 14, 1 << 18
_DETACH = 2
_PDEATHSIG, _SECCOMP, _NO_NEW_PRIVS = 1, 22, 38  # of prctl
_CAPABILITIES_VERSION = 0x20080522

_NOBODY = 65534
_TEMPORARY = Path("/tmp")  # noqa: S108  of the program; a tmpfs of its own
_ROOM = _TEMPORARY  # any folder that is everywhere; it is covered, and only for us
_FILES_BYTES = 16 << 20  # of the program's /tmp, and of one file
_OPEN_FILES = 32
_WALL = 4  # times the limit of processor time: a busy machine must not decide

# Besides processes, sockets and programs: what memory limits do not cover, what reaches other
# processes, and what large attack surfaces no test of a function needs.
_DENIED = (
    "clone", "fork", "vfork", "clone3", "execve", "execveat", "socket", "ptrace",
    "process_vm_readv", "process_vm_writev", "mount", "umount2", "pivot_root", "chroot", "unshare",
    "setns", "memfd_create", "memfd_secret", "shmget", "shmat", "msgget", "semget", "mq_open",
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "add_key", "request_key", "keyctl",
)  # fmt: skip
# The number that the kernel knows a machine by, then those of the calls above; -1 where there is
# no such call.
_CALLS = {
    "x86_64": (0xC000003E, (
        56, 57, 58, 435, 59, 322, 41, 101, 310, 311, 165, 166, 155, 161, 272, 308, 319, 447, 29, 30,
        68, 64, 240, 321, 298, 323, 425, 248, 249, 250,
    )),
    "aarch64": (0xC00000B7, (
        220, -1, -1, 435, 221, 281, 198, 117, 270, 271, 40, 39, 41, 51, 97, 268, 279, 447, 194, 196,
        186, 190, 180, 280, 241, 282, 425, 217, 218, 219,
    )),
}  # fmt: skip

_GOING_ON = ("", " ", "\t", "\f", ")", "]", "}")  # first letters of lines that start no statement

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Carry out the order of standard input."""
    order = json.load(sys.stdin)
    os.environ.clear()
    try:
        _enter()
    except OSError as error:
        _tell(_refusal(error))
        return
    if os.fork() == 0:
        try:
            _tell(_init(order))
        except OSError as error:
            _tell(_refusal(error))
        os._exit(0)
    if os.wait()[1] != 0:  # a bug of ours, or the machine ran out of memory: no verdict
        sys.exit(1)


def _refusal(error: OSError) -> str:
    place = f" ({error.filename})" if error.filename else ""
    return f"refused: {error.strerror}{place}"


def _tell(word: str) -> None:
    os.write(1, word.encode())


def _call(name: str, *arguments: Any) -> None:
    """Call a function of the C library; raises OSError with its name."""
    if getattr(_libc, name)(*arguments) == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _prctl(option: int, *arguments: int) -> None:
    words = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    _call("prctl", option, *words)


def _enter() -> None:
    """Enter new namespaces; the next child is the first process of the new PID namespace."""
    if platform.machine() not in _CALLS:
        raise OSError(errno.ENOSYS, f"no list of system calls for {platform.machine()}")
    _prctl(_PDEATHSIG, signal.SIGKILL)
    user, group = os.geteuid(), os.getegid()
    _call("unshare", _NEW_USER | _NEW_NS | _NEW_NET | _NEW_IPC | _NEW_UTS | _NEW_PID)
    for file, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{_NOBODY} {user} 1"),
        ("gid_map", f"{_NOBODY} {group} 1"),
    ):
        Path(f"/proc/self/{file}").write_text(text, "ascii")


def _init(order: Mapping[str, Any]) -> str:
    """Return the verdict on a program that is run in a child process."""
    # The kernel's own signal reaches number 1 too, where the keeper is gone.
    _prctl(_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDWR)
    _furnish()
    proof = os.urandom(16).hex().encode()
    heard, said = os.pipe()
    deadline = time.monotonic() + _WALL * order["seconds"]
    if os.fork() == 0:
        try:
            _shut_in(nothing, said, order)
            _run(order, said, proof)
        finally:
            os._exit(1)
    os.close(said)
    return "passed" if _hear(heard, len(proof), deadline) == proof else "failed"


def _hear(pipe: int, most: int, deadline: float) -> bytes:
    """Return what comes through a pipe until it ends, at most one byte more than `most`.

    Nothing, if it has not ended by the deadline.
    """
    heard = b""
    while len(heard) <= most:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([pipe], [], [], left)[0]:
            return b""
        more = os.read(pipe, most + 1 - len(heard))
        if not more:
            break
        heard += more
    return heard


def _furnish() -> None:
    """Make the room the root folder, with nothing else of the machine in it."""
    _call("sethostname", b"sandbox", 7)
    _mount(None, Path("/"), None, _REC | _PRIVATE)
    # Opened before the room covers one of them.
    folders = [Path(path) for path in sys.path if Path(path).is_dir()]
    libraries = [(path, os.open(path, os.O_PATH)) for path in folders]
    plain = _NOSUID | _NODEV | _NOEXEC
    _mount("tmpfs", _ROOM, "tmpfs", plain, "size=1m,mode=755")
    temporary = _inside(_TEMPORARY)
    temporary.mkdir()
    size = f"size={_FILES_BYTES},nr_inodes=1024,mode=700"
    _mount("tmpfs", temporary, "tmpfs", plain, size)
    for path, descriptor in libraries:
        _show(descriptor, _inside(path))
        os.close(descriptor)
    os.chdir(_ROOM)
    _mount(None, _ROOM, None, _REMOUNT | _BIND | _RDONLY | plain)
    _call("syscall", _PIVOT_ROOT[platform.machine()], b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir(_TEMPORARY)


def _inside(path: Path) -> Path:
    return _ROOM / path.relative_to("/")


_PIVOT_ROOT = {
    machine: numbers[_DENIED.index("pivot_root")] for machine, (_, numbers) in _CALLS.items()
}


def _show(source: int, target: Path) -> None:
    """Show a folder of the machine for reading, without the packages in it."""
    target.mkdir(parents=True, exist_ok=True)
    if os.path.samestat(os.fstat(source), target.stat()):
        return  # it lies in one that is shown already
    _mount(f"/proc/self/fd/{source}", target, None, _BIND)
    # Of what the machine's own mount forbids, nothing may be allowed.
    kept = os.statvfs(target).f_flag & ~_RDONLY
    _mount(None, target, None, _REMOUNT | _BIND | _RDONLY | _NOSUID | _NODEV | kept)
    for packages in (target / "site-packages", target / "dist-packages"):
        if packages.is_dir():
            _mount("tmpfs", packages, "tmpfs", _RDONLY, "size=4k")


def _mount(
    source: str | None, target: Path, kind: str | None, flags: int, data: str | None = None
) -> None:
    texts = [None if text is None else text.encode() for text in (source, str(target), kind, data)]
    try:
        _call("mount", *texts[:3], ctypes.c_ulong(flags), texts[3])
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error


def _shut_in(nothing: int, said: int, order: Mapping[str, Any]) -> None:
    """Give up, for ever, whatever this process could do besides computing."""
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    os.closerange(3, said)
    os.closerange(said + 1, 256)
    os.setsid()
    memory = order["memory_mb"] << 20
    for kind, most in (
        (resource.RLIMIT_CPU, order["seconds"]),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, _FILES_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_NPROC, 1),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    _call("capset", ctypes.create_string_buffer(header), ctypes.create_string_buffer(24))
    _prctl(_NO_NEW_PRIVS, 1)
    machine, numbers = _CALLS[platform.machine()]
    _filter(machine, [number for number in numbers if number >= 0])


def _filter(machine: int, denied: Sequence[int]) -> None:
    """Let the kernel refuse system calls: EPERM for these, death for calls of another machine."""
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    refuse = (give, 0, 0, 0x00050000 | errno.EPERM)
    steps = [
        (load, 0, 0, 4),  # the machine
        (equal, 1, 0, machine),
        (give, 0, 0, 0x80000000),
        (load, 0, 0, 0),  # the number
        (at_least, 0, 1, 0x40000000),  # x32: the same calls under other numbers
        refuse,
    ]
    for number in denied:
        steps += [(equal, 0, 1, number), refuse]
    steps.append((give, 0, 0, 0x7FFF0000))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    _prctl(_SECCOMP, 2, ctypes.addressof(program))


def _run(order: Mapping[str, Any], said: int, proof: bytes) -> None:
    """Run program and tests; what the program puts in the place of our functions has no effect."""
    write, leave, run = os.write, os._exit, exec
    module = types.ModuleType("program")
    sys.modules["program"] = module  # dataclasses look their module up
    scope = module.__dict__
    program = _compiled(order["program"])
    test = compile(order["test"], "<test>", "exec", dont_inherit=True)
    run(program, scope)
    run(test, scope)
    scope["check"](scope[order["entry_point"]])
    write(said, proof)
    leave(0)


def _compiled(text: str) -> types.CodeType:
    """Compile a program up to the first statement of the module with a fault in its syntax.

    Models go on with prose, and their last line is cut off where their tokens end. A function with
    a fault in it is left out as a whole.
    """
    lines = re.split(r"\r\n?|\n", text)  # as Python counts them; str.splitlines knows more ends
    while True:
        try:
            return compile("\n".join(lines), "<program>", "exec", dont_inherit=True)
        except SyntaxError as error:
            if not lines:
                raise
            last = min(max(error.lineno or 1, 1), len(lines)) - 1
            while last > 0 and lines[last][:1] in _GOING_ON:
                last -= 1
            del lines[last:]


if __name__ == "__main__":
    main()
