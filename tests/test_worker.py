"""The worker's parent side, with real child processes; fakes only for faults of the protocol."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import schemas
from registry import worker_process
from registry.errors import BuildFailed, Interrupted, NotNow
from registry.worker import Progress, Worker
from registry.worker_process import environment_of

ROOT = Path(__file__).resolve().parent.parent
ORDER = {"format_version": 1, "task": "build"}

OBEDIENT = """
import json, os, sys
def say(**event):
    print(json.dumps(event), flush=True)
for line in sys.stdin:
    order = json.loads(line)
"""


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Worker]:
    def make(body: str, *, head: str = OBEDIENT, **options: Any) -> Worker:
        script = tmp_path / "fake.py"
        script.write_text(head + textwrap.indent(textwrap.dedent(body), "    " if head else ""))
        return Worker(command=(sys.executable, str(script)), **options)

    return make


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def test_no_order_starts_no_process() -> None:
    with Worker() as worker:
        assert worker.started == 0


def test_one_child_serves_many_orders(fake: Callable[..., Worker]) -> None:
    with fake("say(event='report', pid=os.getpid(), number=order['number'])") as worker:
        reports = [worker.run({"number": number}) for number in range(3)]

    assert [report["number"] for report in reports] == [0, 1, 2]
    assert len({report["pid"] for report in reports}) == 1
    assert worker.started == 1


def test_after_renewal_an_order_finds_a_process_of_its_own(fake: Callable[..., Worker]) -> None:
    with fake("say(event='report', pid=os.getpid())") as worker:
        worker.renew()  # nothing to end yet
        first = worker.run({})["pid"]

        worker.renew()

        assert not is_running(first)
        assert worker.run({})["pid"] != first
        assert worker.started == 2


def test_progress_is_handed_on_in_order(fake: Callable[..., Worker]) -> None:
    body = """
    for done in range(3):
        say(event='progress', done=done, total=3, unit='tensors')
    say(event='progress', done='many', total=None)
    say(event='report')
    """
    seen: list[Progress] = []

    with fake(body) as worker:
        worker.run(ORDER, seen.append)

    assert seen == [Progress(done, 3, "tensors") for done in range(3)]


def test_a_large_order_arrives_whole(fake: Callable[..., Worker]) -> None:
    with fake("say(event='report', size=len(line))") as worker:
        report = worker.run({"padding": "x" * 1_000_000})

    assert report["size"] > 1_000_000


def test_a_refused_request_names_term_tensor_and_field_once(fake: Callable[..., Worker]) -> None:
    body = """
    say(event='failed', kind='input', message='expected 4 rows in model.norm, found 5',
        term='adapter sql@1', tensor='model.norm', field='')
    """
    with fake(body) as worker, pytest.raises(BuildFailed) as caught:
        worker.run(ORDER)

    assert caught.value.message == "adapter sql@1: expected 4 rows in model.norm, found 5"


def test_a_worker_that_refused_a_request_serves_the_next(fake: Callable[..., Worker]) -> None:
    body = """
    if order.get('bad'):
        say(event='failed', kind='input', message='bad')
    else:
        say(event='report')
    """
    with fake(body) as worker:
        with pytest.raises(BuildFailed, match="bad"):
            worker.run({"bad": True})
        worker.run(ORDER)

        assert worker.started == 1


def test_want_of_memory_is_a_failed_build_with_a_cure(fake: Callable[..., Worker]) -> None:
    with (
        fake("say(event='failed', kind='memory', message='out of memory')") as worker,
        pytest.raises(BuildFailed, match="out of memory") as caught,
    ):
        worker.run(ORDER)

    assert "memory" in caught.value.hint


@pytest.mark.parametrize(
    ("needed", "hint"),
    [
        (1_500_000_000, "free at least 1.5 GB (1500000000 bytes) on the disk of the store"),
        (None, "free space on the disk of the store"),
    ],
)
def test_a_full_disk_is_not_now(fake: Callable[..., Worker], needed: int | None, hint: str) -> None:
    body = f"say(event='failed', kind='disk', message='disk full', bytes_needed={needed})"

    with fake(body) as worker, pytest.raises(NotNow, match="disk full") as caught:
        worker.run(ORDER)

    assert caught.value.hint == hint


def test_a_bug_shows_the_last_lines_and_names_the_log(
    fake: Callable[..., Worker], tmp_path: Path
) -> None:
    body = """
    print('Traceback: deep inside', file=sys.stderr, flush=True)
    say(event='failed', kind='bug', message='KeyError: 3')
    """
    log = tmp_path / "worker.log"

    with fake(body, log=log) as worker:
        with pytest.raises(BuildFailed) as caught:
            worker.run(ORDER)
        with pytest.raises(BuildFailed):
            worker.run(ORDER)

    assert caught.value.message == (
        "the worker has a bug: KeyError: 3; the last it wrote:\n  | Traceback: deep inside"
    )
    assert str(log) in caught.value.hint
    assert log.read_text() == "Traceback: deep inside\n" * 2
    assert worker.started == 2


def test_a_log_that_cannot_be_written_stops_nothing(
    fake: Callable[..., Worker], tmp_path: Path
) -> None:
    with fake("print('x', file=sys.stderr); say(event='report')", log=tmp_path) as worker:
        assert worker.run(ORDER) == {"event": "report"}


@pytest.mark.parametrize(
    ("death", "message"),
    [
        ("os.kill(os.getpid(), 11)", "the worker was killed by SIGSEGV"),
        ("os.kill(os.getpid(), 9)", "the worker was killed by SIGKILL"),
        ("sys.exit(137)", "the worker was killed by SIGKILL"),
        ("sys.exit(3)", "the worker ended with exit code 3 before its report"),
        ("sys.exit(0)", "the worker ended with exit code 0 before its report"),
    ],
)
def test_a_death_says_how_and_with_which_last_words(
    fake: Callable[..., Worker], death: str, message: str
) -> None:
    with (
        fake(f"print('last words', file=sys.stderr, flush=True)\n{death}") as worker,
        pytest.raises(BuildFailed) as caught,
    ):
        worker.run(ORDER)

    assert caught.value.message == f"{message}; the last it wrote:\n  | last words"
    assert ("ran out of memory" in caught.value.hint) == ("SIGKILL" in message)


def test_a_dead_worker_is_started_again(fake: Callable[..., Worker]) -> None:
    with fake("say(event='report'); sys.exit(0) if order.get('last') else None") as worker:
        worker.run({"last": True})
        time.sleep(0.3)
        worker.run(ORDER)

        assert worker.started == 2


def test_garbage_on_standard_output_is_free_text(fake: Callable[..., Worker]) -> None:
    body = r"""
    out = sys.stdout.buffer
    out.write(b'Loading\n[1]\n{"no": "event"}\n{"event": 7}\n\xff\xfe\n' + b'[' * 100000 + b'\n\n')
    out.flush()
    say(event='surprise')
    say(event='report', fine=True)
    """
    with fake(body) as worker:
        assert worker.run(ORDER)["fine"]


def test_a_flood_on_standard_error_blocks_nobody(fake: Callable[..., Worker]) -> None:
    body = "sys.stderr.write(('y' * 99 + '\\n') * 100_000); say(event='report')"

    with fake(body) as worker:
        assert worker.run(ORDER) == {"event": "report"}


def test_a_program_that_is_missing_is_a_failed_build() -> None:
    with (
        Worker(command=("/nonexistent/python",)) as worker,
        pytest.raises(BuildFailed, match="cannot be started"),
    ):
        worker.run(ORDER)

    assert worker.started == 0


def test_a_hanging_worker_is_ended_after_the_time_out(
    fake: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.2)
    body = """
    import signal, subprocess, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stray = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    say(event='progress', done=os.getpid(), total=stray.pid, unit='')
    time.sleep(60)
    """
    seen: list[Progress] = []

    with fake(body) as worker:
        start = time.monotonic()
        with pytest.raises(BuildFailed, match="gave no report within 2 s"):
            worker.run(ORDER, seen.append, timeout_seconds=2)

        assert time.monotonic() - start < 6
        for pid in (seen[0].done, seen[0].total):
            assert wait_for(lambda pid=pid: not is_running(pid), 3)  # type: ignore[misc]


def test_a_worker_that_does_not_read_holds_nobody_up(
    fake: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "GRACE_SECONDS", 0.2)

    with (
        fake("import time\ntime.sleep(60)", head="") as worker,
        pytest.raises(BuildFailed, match="no report within"),
    ):
        worker.run({"padding": "x" * 10_000_000}, timeout_seconds=0.5)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted(signal.SIGTERM)])
def test_an_interrupt_while_waiting_ends_the_child(
    fake: Callable[..., Worker], error: BaseException
) -> None:
    def interrupt(progress: Progress) -> None:
        nonlocal pid
        pid = progress.done
        raise error

    pid = 0
    body = """
    say(event='progress', done=os.getpid(), total=1, unit='')
    """

    with fake(body) as worker:
        with pytest.raises(type(error)):
            worker.run(ORDER, interrupt)

        assert pid
        assert not is_running(pid)


def test_a_signal_while_waiting_ends_the_child_in_time(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import signal
        from registry.worker import Worker
        # Ignored where the tests run in the background of a shell.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        child = "import os, sys; print('{{\\"event\\": \\"progress\\", \\"done\\": %d,"
        child += " \\"total\\": 1}}' % os.getpid(), flush=True); sys.stdin.read()"
        with Worker(command=({sys.executable!r}, "-c", child)) as worker:
            worker.run({{}}, lambda progress: print(progress.done, flush=True))
        """)
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())

        parent.send_signal(signal.SIGINT)

        try:
            assert parent.wait(timeout=10) == -signal.SIGINT
        finally:
            parent.kill()  # one that did not end would be waited for
        assert not is_running(pid)


def test_closing_from_another_thread_ends_a_waiting_run(fake: Callable[..., Worker]) -> None:
    worker = fake("pass")  # never answers, ends with its input
    threading.Timer(0.5, worker.close).start()

    with pytest.raises(BuildFailed, match="closed before its report"):
        worker.run(ORDER)
    with pytest.raises(BuildFailed, match="the worker is closed"):
        worker.run(ORDER)


def test_secrets_stay_here_and_the_rest_goes_along() -> None:
    given = {
        "AWS_ACCESS_KEY_ID": "x", "HF_TOKEN": "x", "MLFLOW_TRACKING_URI": "x", "MY_SECRET_1": "x",
        "DB_PASSWORD": "x", "HTTPS_PROXY": "x", "PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1",
        "OMP_NUM_THREADS": "3", "PYTHONPATH": ":relative:/absolute", "HF_HUB_OFFLINE": "0",
    }  # fmt: skip

    found = environment_of(given)

    assert found.keys() & given.keys() == {
        "PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONPATH", "HF_HUB_OFFLINE",
    }  # fmt: skip
    assert found["HF_HUB_OFFLINE"] == "1"
    assert found["TOKENIZERS_PARALLELISM"] == "false"
    assert found["PYTHONPATH"].split(os.pathsep)[-1] == "/absolute"
    assert "relative" not in found["PYTHONPATH"].split(os.pathsep)


def test_a_folder_called_merger_where_the_user_stands_means_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "merger").mkdir()
    (tmp_path / "merger" / "__main__.py").write_text('print(\'{"event": "report"}\')')
    monkeypatch.chdir(tmp_path)

    with Worker() as worker, pytest.raises(BuildFailed, match="format_version"):
        worker.run({})


class TestRealWorker:
    """`python -m merger` itself, on tiny models."""

    @pytest.fixture
    def orders(self, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        from tests import tiny

        base = tiny.tiny_base(tmp_path / "base")
        adapter = tiny.tiny_adapter(tmp_path / "adapter", base=base, seed=1)
        suite = tmp_path / "suite"
        suite.mkdir()
        line = {"id": "one", "prompt": "Hello", "expected": "e"}
        (suite / "facts.jsonl").write_text(json.dumps(line) + "\n")
        digests = [f"sha256:{letter * 64}" for letter in "abcd"]
        output = tmp_path / "output"
        output.mkdir()
        operand = {"kind": "adapter", "name": "sql", "version": 1, "digest": digests[1]}
        build = {
            "format_version": 1,
            "numerics": schemas.numerics(),
            "base": {"kind": "base", "name": "tiny", "digest": digests[0]},
            "recipe": {
                "method": "task_arithmetic",
                "parameters": {"lambda": 1.0, "normalize": False},
                "terms": [{"input": operand, "weight": 1.0, "parameters": {}}],
                "compute": "float32",
            },
            "output": {"form": "model", "dtype": "base", "max_shard_size": 5_000_000_000},
        }
        task = {
            "name": "facts", "metric": "contains", "data": "facts.jsonl", "max_new_tokens": 8,
            "system": None, "options": {},
        }  # fmt: skip
        evaluation = {
            "format_version": 1,
            "evaluator": 1,
            "model": digests[2],
            "suite": {"name": "office", "digest": digests[3], "tasks": [task]},
        }
        limits = {"device": "cpu", "threads": 1, "memory_bytes": None}
        return (
            {
                "format_version": 1, "task": "build", "request": build, "output": str(output),
                "inputs": {digests[0]: str(base), digests[1]: str(adapter)}, **limits,
            },
            {
                "format_version": 1, "task": "evaluate", "request": evaluation,
                "inputs": {digests[2]: str(output), digests[3]: str(suite)}, **limits,
            },
        )  # fmt: skip

    def test_it_builds_and_evaluates_what_it_built(
        self, orders: tuple[dict[str, Any], dict[str, Any]]
    ) -> None:
        build, evaluation = orders
        seen: list[Progress] = []

        with Worker() as worker:
            built = worker.run(build, seen.append)
            evaluated = worker.run(evaluation, seen.append)

            assert worker.started == 1
        assert built["files"].keys() >= {"config.json", "recipe.json"}
        assert evaluated["metrics"].keys() == {"facts"}
        assert evaluated["prompts"]["facts"][0]["id"] == "one"
        assert {progress.unit for progress in seen} >= {"prompts"}

    def test_a_request_it_refuses_is_a_failed_build(
        self, orders: tuple[dict[str, Any], dict[str, Any]]
    ) -> None:
        build, evaluation = orders
        build["request"]["numerics"] = 999
        evaluation["request"]["evaluator"] = 999

        with Worker() as worker:
            with pytest.raises(BuildFailed, match="numerics"):
                worker.run(build)
            with pytest.raises(BuildFailed, match="evaluator: this evaluator is 1, found 999"):
                worker.run(evaluation)

            assert worker.started == 1

    def test_it_does_not_outlive_a_parent_that_is_killed(
        self, tmp_path: Path, orders: tuple[dict[str, Any], dict[str, Any]]
    ) -> None:
        order = tmp_path / "order.json"
        order.write_text(json.dumps(orders[0]))
        script = tmp_path / "parent.py"
        script.write_text(
            "import json, sys, time\n"
            "from pathlib import Path\n"
            "from registry.worker import Worker\n"
            "worker = Worker()\n"
            "worker.run(json.loads(Path(sys.argv[1]).read_text()))\n"
            "print(worker._child._process.pid, flush=True)\n"
            "time.sleep(60)\n"
        )
        parent = subprocess.Popen(
            [sys.executable, str(script), str(order)], stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        with parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            assert is_running(pid)

            parent.kill()

            assert wait_for(lambda: not is_running(pid), 10)
