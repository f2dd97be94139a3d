"""`registry serve` as people run it: a bare repository, a real process, real pushes and webhooks."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.conftest import REGISTRY, Repository
from tests.e2e.conftest import MERGE

READ, WRITE, SECRET = "the-token-to-read", "the-token-to-write", "the-secret-of-the-hook"
SECONDS = 240


@dataclass(frozen=True)
class Instance:
    """A running `registry serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def ask(
        self, path: str, data: Any = None, *, token: str = READ, **headers: str
    ) -> tuple[int, Any]:
        """Return status and body of a GET, or of a POST if there is data; JSON is parsed."""
        body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given |= {"Authorization": f"Bearer {token}"} if token else {}
        given |= {"Content-Type": "application/json"} if body is not None else {}
        try:
            with urlopen(Request(self.url + path, body, given), timeout=30) as answer:
                return answer.status, _parsed(answer)
        except HTTPError as error:
            with error:
                return error.code, _parsed(error)

    def push_event(self, secret: str = SECRET, ref: str = "refs/heads/main") -> int:
        """Send what GitHub sends after a push."""
        body = json.dumps({"ref": ref}).encode()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        status, _ = self.ask(
            "/webhook",
            body,
            token="",
            X_GitHub_Event="push",
            X_Hub_Signature_256=f"sha256={signature}",
        )
        return status

    def announces(self, header: str, value: str) -> int:
        """Send the head of a webhook, without its body, and return the status."""
        connection = HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        with closing(connection):
            connection.putrequest("POST", "/webhook")
            connection.putheader(header, value)
            connection.endheaders()
            return connection.getresponse().status

    def condition(self, kind: str, token: str = READ) -> dict[str, Any]:
        """Return a condition."""
        conditions = self.ask("/api/v1/status", token=token)[1]["conditions"]
        return next(one for one in conditions if one["type"] == kind)

    def reaches(self, kind: str, reason: str, token: str = READ) -> dict[str, Any]:
        """Wait until a condition has a reason, and return it."""

        def found() -> dict[str, Any] | None:
            one = self.condition(kind, token)
            return one if one["reason"] == reason else None

        reached: dict[str, Any] = self.waits_for(found, f"{kind} {reason}")
        return reached

    def waits_for(self, question: Callable[[], Any], what: str) -> Any:
        """Wait until the answer is true, and return it."""
        end = time.monotonic() + SECONDS
        while not (found := question()):
            told = self.log.read_text()
            assert self.process.poll() is None, told
            assert time.monotonic() < end, f"no {what}: {self.ask('/api/v1/status')}\n{told}"
            time.sleep(0.1)
        return found


def _parsed(answer: Any) -> Any:
    text = answer.read().decode()
    return json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text


@contextmanager
def serving(folder: Path, number: int, *options: str, **environment: str) -> Iterator[Instance]:
    """Start a service on a free port; kill it if it still runs at the end."""
    log = folder / f"serve-{number}.log"
    command = [*REGISTRY, "serve", "--port", "0", "--interval", "3600", *options]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=out,
        )
    try:
        end = time.monotonic() + 60
        while "serving on http" not in (told := log.read_text()):
            assert process.poll() is None, told
            assert time.monotonic() < end, told
            time.sleep(0.05)
        url = told.partition("serving on ")[2].split()[0]
        yield Instance(process, url, log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def followed(repository: Repository, empty_store: Path) -> Iterator[tuple[Repository, Path]]:
    """Return a small catalog, and the bare repository that it is pushed to and others follow."""
    for name in ("formal-not-brief", "trimmed"):
        (repository.root / f"catalog/merges/{name}.yaml").unlink()
    repository.commit("two merges")
    bare = repository.root.parent / "bare.git"
    repository.git("clone", "-q", "--bare", ".", str(bare))
    repository.git("remote", "add", "origin", str(bare))
    repository.git("fetch", "-q")
    repository.git("branch", "-q", "-u", "origin/main")
    shutil.copyfile(empty_store, bare.parent / "mlflow.db")
    return repository, bare


def subject(bare: Path, pretty: str = "%s") -> str:
    command = ["git", "-C", str(bare), "log", "-1", f"--pretty={pretty}", "main"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def change(repository: Repository, old: str, new: str) -> None:
    """Push a change of the merge on top of what the service pushed."""
    repository.git("pull", "-q", "--rebase")
    repository.edit(MERGE, old, new)
    repository.commit(f"{old} to {new}")
    repository.git("push", "-q")


@pytest.mark.slow
def test_the_service_builds_what_is_pushed_and_survives_what_goes_wrong(
    followed: tuple[Repository, Path],
) -> None:
    repository, bare = followed
    here = bare.parent
    options = ("--repository", str(bare), "--directory", "own")
    environment = {
        "REGISTRY_READ_TOKEN": READ,
        "REGISTRY_WRITE_TOKEN": WRITE,
        "REGISTRY_WEBHOOK_SECRET": SECRET,
        "MLFLOW_TRACKING_URI": f"sqlite:///{here}/mlflow.db",
    }
    with ExitStack() as stack:
        first = stack.enter_context(serving(here, 1, *options, **environment))
        it_builds_what_is_declared_and_pushes_the_records(first, bare)
        it_answers(first)
        it_refuses(first)
        it_answers_as_its_openapi_document_says(first)
        second = stack.enter_context(serving(here, 2, *options, **environment))
        it_waits_for_another(second)
        it_stalls_on_an_invalid_catalog(first, repository, bare)
        it_serves_what_it_knows_while_the_repository_is_away(first, bare)
        it_looks_but_does_not_sync_while_suspended(first, repository, bare)
        it_syncs_what_waited(first, bare)
        it_does_not_follow_a_rewritten_branch_unasked(first, repository, bare)
        it_stops_its_sync_in_order_and_the_other_goes_on(first, second, bare)


def it_builds_what_is_declared_and_pushes_the_records(service: Instance, bare: Path) -> None:
    service.reaches("Ready", "UpToDate")

    assert subject(bare) == "Registry: 2 models synced"
    everything = service.ask("/api/v1/models")[1]
    assert everything["commit"] == subject(bare, "%H")
    assert {one["model"]: one["state"] for one in everything["models"]} == {
        "average": "up-to-date",
        "both-skills": "up-to-date",
    }


def it_answers_as_its_openapi_document_says(service: Instance) -> None:
    # With the token to read: what may write answers 403, and nothing is suspended.
    tool = str(Path(sys.executable).parent / "schemathesis")
    address = f"{service.url}/api/v1/openapi.json"
    token = f"Authorization: Bearer {READ}"
    options = ["--max-examples", "3", "--seed", "1", "--no-color"]
    paths = service.ask("/api/v1/openapi.json", token="")[1]["paths"]

    done = subprocess.run(
        [tool, "run", address, "-H", token, *options],
        cwd=service.log.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-5000:]
    assert f"Tested: {sum(map(len, paths.values()))}\n" in done.stdout


def it_waits_for_another(service: Instance) -> None:
    assert service.ask("/healthz", token="")[0] == 200
    assert service.ask("/readyz", token="") == (503, {"status": "standby"})
    assert service.ask("/api/v1/models")[0] == 503
    assert service.ask("/api/v1/sync", {}, token=WRITE)[0] == 503


def it_stalls_on_an_invalid_catalog(service: Instance, repository: Repository, bare: Path) -> None:
    followed = subject(bare, "%H")
    change(repository, "weight: 0.8", "weight: many")

    assert service.push_event() == 202
    stalled = service.reaches("Stalled", "InvalidCatalog")

    assert f"{MERGE}:" in stalled["message"]
    told = service.ask("/api/v1/status")[1]
    assert (told["observed_commit"], told["seen_commit"]) == (followed, subject(bare, "%H"))
    assert service.ask("/api/v1/models")[1]["commit"] == followed


def it_serves_what_it_knows_while_the_repository_is_away(service: Instance, bare: Path) -> None:
    before = service.ask("/api/v1/models")
    away = bare.rename(bare.parent / "away.git")

    assert service.push_event() == 202
    told = service.waits_for(lambda: service.ask("/api/v1/status")[1]["unreachable"], "absence")

    assert told["reason"] == "Unreachable"
    assert "git fetch" in told["message"]
    assert service.ask("/api/v1/models") == before
    assert service.ask("/readyz", token="")[0] == 200
    assert "registry_fetch_failures_total 0.0" not in service.ask("/metrics")[1]
    away.rename(bare)


def it_looks_but_does_not_sync_while_suspended(
    service: Instance, repository: Repository, bare: Path
) -> None:
    assert service.ask("/api/v1/suspend", {"reason": "night"}, token=WRITE)[0] == 200
    change(repository, "weight: many", "weight: 0.6")

    assert service.push_event() == 202
    service.reaches("Ready", "Suspended")

    assert service.ask("/api/v1/status")[1]["models"] == {"due": 1, "up-to-date": 1}
    assert service.ask("/api/v1/sync", {}, token=WRITE)[0] == 409
    assert subject(bare) == "weight: many to weight: 0.6"


def it_syncs_what_waited(service: Instance, bare: Path) -> None:
    assert service.ask("/api/v1/resume", {}, token=WRITE)[0] == 200
    service.reaches("Ready", "UpToDate")

    assert subject(bare) == "Registry: both-skills synced"
    attempts = service.ask("/api/v1/models/both-skills")[1]["attempts"]
    assert [(one["job"], one["outcome"]) for one in attempts] == [(2, "done"), (1, "done")]


def it_does_not_follow_a_rewritten_branch_unasked(
    service: Instance, repository: Repository, bare: Path
) -> None:
    repository.git("pull", "-q", "--rebase")
    repository.git("reset", "-q", "--hard", "HEAD~1")
    repository.edit(MERGE, "weight: 0.6", "weight: 0.5")
    repository.commit("rewritten")
    repository.git("push", "-qf")

    assert service.push_event() == 202
    service.reaches("Stalled", "BranchRewritten")

    told = service.ask("/api/v1/status")[1]
    assert told["seen_commit"] == subject(bare, "%H") != told["observed_commit"]
    assert told["job"] is None


def it_stops_its_sync_in_order_and_the_other_goes_on(
    service: Instance, other: Instance, bare: Path
) -> None:
    assert service.ask("/api/v1/resume", {}, token=WRITE)[0] == 200
    service.reaches("Reconciling", "Syncing")
    children = service.waits_for(lambda: children_of(service.process.pid), "child")

    service.process.send_signal(signal.SIGTERM)

    assert service.process.wait(60) == 143
    assert "registry: interrupted" in service.log.read_text()
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    other.reaches("Ready", "UpToDate")
    assert subject(bare) == "Registry: both-skills synced"
    outcomes = [one["outcome"] for one in other.ask("/api/v1/jobs")[1]["jobs"]]
    assert outcomes[:2] == ["done", "interrupted"]
    other.process.send_signal(signal.SIGINT)
    assert other.process.wait(60) == 130


def children_of(pid: int) -> list[str]:
    """Return the processes that any thread of a process started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


def it_answers(service: Instance) -> None:
    (_, job) = service.ask("/api/v1/jobs/1")
    assert (job["outcome"], job["exit_code"], job["trigger"]) == ("done", 0, "start")
    assert {one["model"] for one in job["results"]} == {"average", "both-skills"}
    assert "both-skills  build" in service.ask("/api/v1/jobs/1/log")[1]
    (_, lineage) = service.ask("/api/v1/lineage/both-skills")
    assert "+ 0.8·brief@2" in lineage["model"]["expression"]
    (_, impact) = service.ask("/api/v1/impact/adapter/brief?version=2")
    (brief,) = impact["ingredients"]
    uses = {one["model"]: (one["where"], one["sign"]["live"]) for one in brief["models"]}
    assert uses == {"average": ("both", "+"), "both-skills": ("both", "+")}
    assert service.ask("/api/v1/impact/adapter/absent")[0] == 404
    (_, told) = service.ask("/api/v1/ingredients")
    held = {(one["name"], one["version"]): one["models"] for one in told["ingredients"]}
    assert held["brief", 2] == {"live": 2, "declared": 2}
    assert held["brief", 1] == {"live": 0, "declared": 0}
    assert service.ask("/api/v1/plan")[1]["summary"]["none"] == 2
    told = service.ask("/metrics")[1].splitlines()
    assert 'registry_models{state="up-to-date"} 2.0' in told
    assert 'registry_jobs_total{outcome="done"} 1.0' in told
    assert 'registry_condition{type="Ready",reason="UpToDate"} 1.0' in told
    page = service.ask("/")[1]
    assert '<a href="/models/both-skills">both-skills</a>' in page
    assert page.count("up-to-date</span></td>") == 2
    document = json.dumps(service.ask("/api/v1/openapi.json", token="")[1])
    assert SECRET not in document
    assert WRITE not in document


def it_refuses(service: Instance) -> None:
    assert service.push_event("another secret") == 401
    assert service.ask("/webhook", b"{}", token=WRITE)[0] == 401
    assert service.push_event(ref="refs/heads/other") == 204
    assert service.announces("Content-Length", str(6 << 20)) == 413
    assert service.announces("Content-Length", "-1") in (400, 413)
    assert service.announces("Transfer-Encoding", "chunked") == 411
    (status, told) = service.ask("/api/v1/models", token="wrong")
    assert status == 401
    assert told.keys() == {"error", "hint"}
    assert service.ask("/metrics", token="")[0] == 401
    assert service.ask("/api/v1/sync", {}, token=READ) == (
        403,
        {"error": "this token may only read", "hint": "use the write token"},
    )
    assert service.ask("/api/v1/suspend", {"model": "absent", "reason": "x"}, token=WRITE)[0] == 404
    assert service.ask("/api/v1/suspend", {"model": "<b>", "reason": "x"}, token=WRITE)[0] == 422
    assert service.ask("/api/v1/models/..%2f..%2fetc")[0] == 404
    assert service.ask("/api/v1/jobs/99/log")[0] == 404
    for page in ("/", "/live", "/models/both-skills", "/static/live.js"):
        assert service.ask(page, token="")[0] == 401
    assert service.ask("/models/both-skills/plots/..%2f..%2fmemory.json")[0] == 404
    assert service.ask("/models/both-skills/plots/absent.svg")[0] == 404
    assert service.ask(f"/models/both-skills/diff?from={'0' * 40}&to={'0' * 40}")[0] == 404
    assert service.ask("/models/both-skills/diff?from=--help&to=HEAD")[0] == 422
    assert service.ask("/adapters/brief/9")[0] == 404
    assert "<h1>No model absent</h1>" in service.ask("/models/absent", Accept="text/html")[1]


def test_an_unsigned_commit_is_not_even_checked_out_and_a_sync_that_cannot_begin_stalls(
    followed: tuple[Repository, Path],
) -> None:
    repository, bare = followed
    here = bare.parent
    key = here / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (here / "allowed").write_text(f"me@example.org {key.with_suffix('.pub').read_text()}")
    settings = {"gpg.format": "ssh", "gpg.ssh.allowedSignersFile": str(here / "allowed")}
    environment = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (name, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    # Nothing to push to is configured in this catalog.
    options = ("--repository", "bare.git", "--directory", "own", "--require-signed", "--push")
    environment["REGISTRY_WRITE_TOKEN"] = WRITE

    with serving(here, 1, *options, "--interval", "1", **environment) as service:
        stalled = service.reaches("Stalled", "Unsigned", token=WRITE)
        assert stalled["message"].endswith("has no good signature: it has no signature")
        assert [path.name for path in (here / "own/clone").iterdir()] == [".git"]
        assert service.ask("/api/v1/models", token=WRITE)[0] == 503

        signing = ("-c", "gpg.format=ssh", "-c", f"user.signingKey={key}")
        repository.git(*signing, "commit", "-q", "--allow-empty", "-S", "-m", "signed")
        repository.git("push", "-q")
        stalled = service.reaches("Stalled", "SyncRefused", token=WRITE)
        assert "no remote to push to is configured" in stalled["message"]
        jobs = service.ask("/api/v1/jobs", token=WRITE)[1]["jobs"]
        assert [(one["outcome"], one["exit_code"]) for one in jobs] == [("refused", 1)]
        # It is not tried again by the interval, but when somebody asks.
        looked_at = service.ask("/api/v1/status", token=WRITE)[1]["looked_at"]
        service.waits_for(
            lambda: service.ask("/api/v1/status", token=WRITE)[1]["looked_at"] > looked_at + 2,
            "other look",
        )
        assert len(service.ask("/api/v1/jobs", token=WRITE)[1]["jobs"]) == 1
        assert service.ask("/api/v1/sync", b"", token=WRITE)[0] == 202
        service.waits_for(
            lambda: len(service.ask("/api/v1/jobs", token=WRITE)[1]["jobs"]) == 2, "second job"
        )
        assert subject(bare) == "signed"
        memory = Path(f"/proc/{service.process.pid}/status").read_text()
        assert int(memory.partition("VmRSS:")[2].split()[0]) < 200_000  # kB


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("--host", "0.0.0.0"), 1, "expected tokens for a service that others reach at 0.0.0.0"),
        (("--directory", "theirs"), 64, "theirs is not empty, and no service made it"),
        ((), 64, "pass --repository URL at the first start"),
        (("--interval", "0"), 64, "--interval"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(
    tmp_path: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/work").write_text("mine")

    ran = Repository(tmp_path).run("serve", "--port", "0", *arguments)

    assert ran.code == code, ran.err
    assert told in ran.err
    assert "Traceback" not in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        ran = Repository(tmp_path).run("serve", "--repository", ".", "--port", str(port))

    assert ran.code == 1
    assert f"cannot listen on 127.0.0.1, port {port}" in ran.err
