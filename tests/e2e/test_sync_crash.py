"""A sync that is stopped, killed, locked out or cut off: the next one goes on."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.conftest import REGISTRY, Repository
from tests.e2e.conftest import digests

pytestmark = pytest.mark.slow
MERGE = "catalog/merges/both-skills.yaml"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_stops_in_order(synced: Repository, number: int, code: int) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    before = digests(synced)
    process = subprocess.Popen(
        [*REGISTRY, "sync"], cwd=synced.root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr is not None
    process.stderr.readline()  # `both-skills  build`

    process.send_signal(number)

    process.communicate(timeout=30)
    assert process.returncode == code
    assert digests(synced) == before
    assert synced.run("sync").code == 0


INTERRUPTED_BY_AN_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == imported and risen == "line":
            os.kill(os.getpid(), signal.SIGTERM)
        if name == imported and risen == "finaliser":
            Last()

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

imported, risen = sys.argv.pop(1), sys.argv.pop(1)
sys.meta_path.insert(0, Finder())
from registry.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("command", "imported", "risen"),
    [
        ("status", "registry.cli", "line"),
        # Where Python only prints what is raised.
        ("status", "registry.cli", "finaliser"),
        # While the tracking session makes one sentence of whatever an MLflow call raises.
        ("doctor", "mlflow.store.tracking.sqlalchemy_store", "line"),
    ],
)
def test_a_signal_stops_in_order_from_any_line(
    repository: Repository, command: str, imported: str, risen: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_BY_AN_IMPORT, imported, risen, command],
        cwd=repository.root,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (143, "registry: interrupted\n")


def test_killed_at_random_moments_the_next_sync_converges(
    make_repository: Callable[[str], Repository],
) -> None:
    repository = make_repository("killed")
    chance = random.Random(os.environ.get("KILL_SEED", "7"))
    for _ in range(12):
        process = subprocess.Popen(
            [*REGISTRY, "sync"],
            cwd=repository.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=chance.uniform(0.2, 9.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for path in (repository.root / "catalog/builds").glob("*.json"):
            assert json.loads(path.read_text())["model_digest"].startswith("sha256:")
        assert repository.run("validate").code == 0

    ran = repository.run("sync")

    assert ran.code == 0, ran.err
    assert repository.run("verify", "--deep").code == 0
    assert "nothing to do: 4 up to date" in repository.run("sync").out
    audit = repository.run("audit")
    assert audit.code == 0, audit.out
    leftovers = {path.name for path in (repository.root / ".dvc/cache/registry/tmp").iterdir()}
    assert leftovers <= {"lock"}
    builds = repository.root / "catalog/builds"
    assert sorted(path.suffix for path in builds.iterdir()) == [".dvc"] * 4 + [".json"] * 4


def test_a_signal_after_the_last_word_changes_no_exit_code(synced: Repository) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    process = subprocess.Popen(
        [*REGISTRY, "sync"], cwd=synced.root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert any(b" done" in line for line in process.stdout)
    time.sleep(0.03)  # Python takes itself apart, which takes ten times as long

    process.send_signal(signal.SIGINT)

    assert process.wait(30) == 0


def test_a_second_sync_waits_for_the_lock_and_gives_up_with_75(synced: Repository) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    with (synced.root / ".registry/lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ran = synced.run("sync", "--lock-timeout", "0.3")

    assert ran.code == 75
    assert "another sync holds" in ran.err


def test_a_state_folder_that_cannot_be_is_a_problem_of_the_user(repository: Repository) -> None:
    shutil.rmtree(repository.root / ".registry")
    (repository.root / ".registry").write_text("in the way")

    assert repository.run("plan").code == 0
    ran = repository.run("sync")

    assert ran.code == 1
    assert "/.registry" in ran.err
    assert "hint: check the folder" in ran.err


def test_a_tracking_server_that_is_down_fails_nothing_and_is_caught_up(
    synced: Repository,
) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    start = time.monotonic()

    ran = synced.run("sync", MLFLOW_TRACKING_URI="http://127.0.0.1:9")

    assert ran.code == 0, ran.err
    assert time.monotonic() - start < 90
    assert ran.err.count("warning: MLflow") == 1
    planned = synced.run("plan", "--detailed-exitcode")
    assert "both-skills  log" in planned.out
    assert planned.code == 0
    assert "both-skills  logged" in synced.run("sync").out
    assert "nothing to do" in synced.run("sync").out
