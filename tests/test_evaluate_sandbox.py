"""Programs that attack the sandbox for real; each must fail, or see that its attack did."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from merger.evaluate import sandbox
from merger.evaluate.sandbox import Limits, Program

LIMITS = Limits(seconds=2, memory_mb=256)


def _refusal() -> str:
    try:
        sandbox.check(LIMITS)
    except sandbox.NoSandbox as error:
        return str(error)
    return ""


REFUSAL = _refusal()

pytestmark = pytest.mark.skipif(REFUSAL != "", reason=f"no sandbox here: {REFUSAL}")


def passes(program: str, test: str = "assert True", limits: Limits = LIMITS) -> bool:
    """Return whether a program passes; `test` is the body of check(candidate)."""
    body = textwrap.indent(textwrap.dedent(test).strip(), "    ")
    check = f"def check(candidate):\n{body}\n"
    return sandbox.passes(Program(textwrap.dedent(program), check, "f"), limits)


def finds(program: str, found: object, limits: Limits = LIMITS) -> bool:
    """Return whether f() gives `found`: so it did run, and saw what we say it sees."""
    return passes(program, f"assert candidate() == {found!r}, candidate()", limits)


def tries(statement: str) -> str:
    """Return a program whose f() gives the name of the error of a statement, or None."""
    return f"""
import ctypes, os, pathlib, resource, signal, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def f():
    try:
        {statement}
    except BaseException as error:
        return type(error).__name__
"""


def test_a_right_program_passes_and_a_wrong_one_fails() -> None:
    test = "assert candidate(2, 3) == 5"

    assert passes("def f(a, b): return a + b", test)
    assert not passes("def f(a, b): return a - b", test)
    assert not passes("def g(a, b): return a + b", test)
    assert not passes("def f(a, b) return", test)
    assert not passes("def f(a, b): raise ValueError", test)
    assert not passes("", test)


@pytest.mark.parametrize(
    ("rest", "passed"),
    [
        ("print(f())\nprint(f(", True),
        ("```\n\nThis function gives 1.", True),
        ('def g():\n    """Give', True),
        ("def g():", True),
        ("\n\n    \n", True),
        ("x = [\n    1,\n\n", True),
        ("x = '''a\fb\u2028c\rd'''\nprint(", True),
        ("    return 2 2\n", False),
        ("raise ValueError", False),
    ],
)
def test_a_program_ends_where_its_syntax_does(rest: str, passed: bool) -> None:
    assert passes(f"def f():\n    return 1\n{rest}", "assert candidate() == 1") == passed


def test_the_standard_library_is_there() -> None:
    program = """
        from __future__ import annotations
        import collections, dataclasses, decimal, functools, hashlib, heapq, itertools, json, math
        import random, re, statistics, string, tempfile, typing

        @dataclasses.dataclass
        class Point:
            x: int

        def f():
            with tempfile.TemporaryFile() as file:
                file.write(b"7")
                file.seek(0)
                return Point(int(file.read())).x, math.comb(4, 2), hashlib.md5(b"").hexdigest()[:2]
    """

    assert finds(program, (7, 6, "d4"))


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("socket.socket()", "PermissionError"),
        ("socket.create_connection(('127.0.0.1', 22), 1)", "PermissionError"),
        ("open('/etc/shadow')", "FileNotFoundError"),
        ("open('/proc/self/environ')", "FileNotFoundError"),
        ("os.listdir('/proc')", "FileNotFoundError"),
        ("os.listdir('/sys')", "FileNotFoundError"),
        ("os.listdir('/dev')", "FileNotFoundError"),
        ("os.listdir(os.path.expanduser('~'))", "FileNotFoundError"),
        ("open('/new', 'w')", "OSError"),
        ("open(os.__file__, 'w')", "OSError"),
        ("os.chmod(os.__file__, 0o777)", "OSError"),
        ("os.remove(os.__file__)", "OSError"),
        ("os.fork()", "PermissionError"),
        ("subprocess.run(['/bin/sh'])", "PermissionError"),
        ("os.execv(sys.executable, ['python'])", "PermissionError"),
        ("threading.Thread(target=print).start()", "RuntimeError"),
        ("os.memfd_create('x')", "PermissionError"),
        ("open('/tmp/x', 'wb').write(bytes(64 << 20))", "OSError"),
        ("[open(f'/tmp/{n}', 'wb').write(bytes(1 << 20)) for n in range(64)]", "OSError"),
        ("[open('/tmp/x', 'w') for n in range(10)]; [os.dup(0) for n in range(64)]", "OSError"),
        ("bytearray(10 << 30)", "MemoryError"),
        ("resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))", "ValueError"),
        ("resource.setrlimit(resource.RLIMIT_CPU, (100, 100))", "ValueError"),
        ("os.setuid(0)", "OSError"),
        ("os.chroot('/')", "PermissionError"),
        ("os.mknod('/tmp/sda', 0o60600, 0x800)", "PermissionError"),
        ("os.kill(os.getppid(), 0) or os.kill(12345, 9)", "ProcessLookupError"),
        ("import pytest", "ModuleNotFoundError"),
        ("import merger", "ModuleNotFoundError"),
    ],
)
def test_what_a_program_may_not_do_fails(statement: str, found: str) -> None:
    assert finds(tries(statement), found)


@pytest.mark.parametrize(
    "call",
    [
        "unshare(0x10000000)",  # a user namespace of its own, with all capabilities in it
        "setns(0, 0)",
        "mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)",
        "umount2(b'/tmp', 2)",
        "ptrace(16, 1, 0, 0)",
        "shmget(0, 1 << 30, 0o1600)",
        "syscall(57 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0)",
        "syscall(0x40000000 + 57)",
    ],
)
def test_the_kernel_refuses_what_only_ctypes_can_ask(call: str) -> None:
    program = tries(f"return libc.{call}, ctypes.get_errno()")

    assert finds(program, (-1, 1))


def test_a_program_has_no_privilege_and_can_get_none() -> None:
    program = """
        import ctypes, os
        libc = ctypes.CDLL(None)
        def f():
            header = (ctypes.c_uint32 * 2)(0x20080522, 0)
            data = (ctypes.c_uint32 * 6)()
            libc.capget(header, data)
            return list(data), libc.prctl(39, 0, 0, 0, 0), os.getuid(), os.getpid()
    """

    assert finds(program, ([0] * 6, 1, 65534, 2))


def test_a_secret_of_this_machine_is_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("swordfish")
    secret.chmod(0o644)
    monkeypatch.setenv("SECRET_OF_TEST", "swordfish")
    program = f"""
        import os
        def f():
            return os.path.exists({str(secret)!r}), os.path.exists({str(tmp_path)!r}), dict(os.environ)
    """

    assert finds(program, (False, False, {}))


def test_only_the_library_of_python_can_be_seen() -> None:
    program = """
        import os
        def f():
            top, *_ = os.path.dirname(os.__file__).split("/")[1:]
            packages = os.path.dirname(os.__file__) + "/site-packages"
            seen = os.listdir(packages) if os.path.isdir(packages) else []
            return sorted(set(os.listdir("/")) - {top, "tmp"}), os.listdir("/tmp"), seen
    """

    assert finds(program, ([], [], []))


def test_writing_outside_leaves_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "written"
    program = f"""
        import os
        def f():
            os.makedirs({str(tmp_path)!r})
            open({str(target)!r}, "w").write("x")
    """

    passed = passes(program, "candidate()")

    assert not target.exists()
    # Where temporary folders lie in /tmp, the program wrote: into its own.
    assert passed == str(tmp_path).startswith("/tmp/")


@pytest.mark.parametrize(
    "end",
    [
        "os._exit(0)",
        "sys.exit(0)",
        "sys.exit()",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "os.closerange(0, 256)\n    os._exit(0)",
        "[os.write(n, b'passed') for n in open_ones()]\n    os._exit(0)",
        "[os.write(n, bytes(1 << 16)) for n in open_ones() for _ in range(99)]\n    os._exit(0)",
        "raise KeyboardInterrupt",
        "raise SystemExit(0)",
    ],
)
@pytest.mark.parametrize("place", ["def f():\n    ", "if True:\n    "])
def test_an_end_that_looks_like_success_is_none(place: str, end: str) -> None:
    program = f"""
import os, signal, sys
def open_ones():
    for number in range(256):
        try:
            os.fstat(number)
        except OSError:
            continue
        if number > 2:
            yield number
def f(): pass
{place}{end}
"""

    assert not passes(program, "candidate()\nassert False")


def test_what_a_program_puts_in_the_harness_place_proves_nothing() -> None:
    program = """
        import builtins, os, sys
        seen = []
        os.write = lambda *arguments: seen.append(arguments)
        os._exit = lambda code: seen.append(code)
        def check(candidate): pass
        builtins.compile = builtins.exec = lambda *arguments, **options: None
        def f(): return 1
    """

    assert not passes(program, "assert candidate() == 2")


def test_the_verdict_of_a_right_program_needs_no_help_of_what_it_replaced() -> None:
    program = """
        import os
        os.write = os._exit = lambda *arguments: None
        def f(): return 1
    """

    assert passes(program, "assert candidate() == 1")


@pytest.mark.parametrize("parent", ["os.getppid()", "1", "-1", "0"])
def test_killing_the_parent_proves_nothing_and_harms_nobody(parent: str) -> None:
    program = f"""
        import os, signal
        def f():
            os.kill({parent}, signal.SIGSTOP if {parent} > 0 else signal.SIGTERM)
            os.kill({parent}, signal.SIGKILL)
    """

    assert not passes(program, "candidate()\nassert False")
    assert passes("def f(): return 1", "assert candidate() == 1")


def test_an_endless_program_is_ended() -> None:
    started = time.monotonic()

    assert not passes("def f():\n    while True: pass", "candidate()", Limits(1, 256))
    assert not passes("import time\ndef f(): time.sleep(1000)", "candidate()", Limits(1, 256))

    assert time.monotonic() - started < 60


def test_what_needs_no_thread_and_no_process_works() -> None:
    program = """
        import asyncio

        async def g():
            await asyncio.sleep(0)
            return 7

        def f(): return asyncio.run(g())
    """

    assert finds(program, 7)


def test_signals_do_not_save_an_endless_program() -> None:
    program = """
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True: pass
    """

    assert not passes(program, limits=Limits(1, 256))


def test_a_fork_bomb_and_a_child_that_outlives_its_parent_come_to_nothing() -> None:
    before = processes()
    bomb = """
        import os
        def f():
            while True:
                try:
                    os.fork()
                except OSError:
                    pass
    """
    orphan = """
        import os, time
        def f():
            if os.fork() == 0:
                os.setsid()
                time.sleep(1000)
    """

    assert not passes(bomb, "candidate()", Limits(1, 256))
    assert not passes(orphan, "candidate()")

    assert processes() <= before


def test_huge_output_goes_nowhere() -> None:
    program = """
        import sys
        def f():
            for _ in range(200):
                print("x" * (1 << 20))
                print("x" * (1 << 20), file=sys.stderr)
            return 1
    """

    assert passes(program, "assert candidate() == 1", Limits(10, 256))


def test_ten_gigabytes_in_pieces_are_not_had() -> None:
    program = """
        def f():
            kept = []
            while True:
                kept.append(bytearray(64 << 20))
    """

    assert not passes(program, "candidate()")


def test_recursion_without_end_fails() -> None:
    program = """
        import sys
        sys.setrecursionlimit(1 << 30)
        def f(): return f() + 1
    """

    assert not passes(program, "candidate()")
    assert not passes("def f(): return " + "(" * 100_000, "candidate()")


def test_sets_have_the_same_order_in_every_run() -> None:
    program = "def f(): return list(set('a quick brown fox jumps over'))"
    order = subprocess.run(
        [sys.executable, "-c", f"{program}\nprint(f())"],
        env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip

    assert passes(program, f"assert str(candidate()) == {order.strip()!r}")


def test_the_death_of_who_asked_ends_the_program(tmp_path: Path) -> None:
    before = processes()
    script = """
import sys
from merger.evaluate import sandbox
print("asked", flush=True)
sandbox.passes(
    sandbox.Program("import time\\ntime.sleep(1000)", "", "f"), sandbox.Limits(600, 256)
)
"""
    asking = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    asking.stdout.readline()
    deadline = time.monotonic() + 30
    while len(processes() - before) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes() - before) == 3

    asking.kill()
    asking.wait()

    while processes() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes() - before


def processes() -> set[int]:
    """Return the processes of this machine that run the sandbox's script."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if b"sandbox_script.py" in line and int(folder.name) != os.getpid():
                found.add(int(folder.name))
    return found
