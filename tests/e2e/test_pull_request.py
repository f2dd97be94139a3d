"""The workflows that `registry init` writes, their steps run on clones of a bare repository.

The code host is an HTTP server that keeps comments as GitHub's and GitLab's interfaces document it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from tests.conftest import Repository

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "jq"))), reason="needs bash, curl and jq"
)

SPEC = "catalog/merges/both-skills.yaml"
HEAD = "weight: 0.8"
# What a stranger's branch may try: modules that shadow what a command imports, and hooks.
TRAPS = ("yaml.py", "click.py", "sitecustomize.py", "jsonschema.py", "registry.py", "conftest.py")
TRAP = "open('sprung', 'w').close()\n"


@dataclass
class Host:
    """A code host that keeps one comment's thread; `asked` are method and path of each call."""

    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def keep(self, body: str, number: int | None) -> None:
        if number is None:
            user = {"type": "Bot"}
            self.comments.append({"id": 100 + len(self.comments), "body": body, "user": user})
        else:
            next(one for one in self.comments if one["id"] == number)["body"] = body


@pytest.fixture
def host() -> Iterator[Host]:
    kept = Host(comments=[{"id": 7, "body": "<!-- registry plan --> ha", "user": {"type": "User"}}])

    class Answer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            kept.asked.append(f"{self.command} {urlsplit(self.path).path}")
            tokens = (self.headers["Authorization"], self.headers["PRIVATE-TOKEN"])
            if "Bearer secret" not in tokens and "secret" not in tokens:
                self.send_error(401)
                return
            if self.command != "GET":
                sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
                is_form = "/notes" in self.path
                body = parse_qs(sent)["body"][0] if is_form else json.loads(sent)["body"]
                last = self.path.rpartition("/")[2]
                kept.keep(body, int(last) if last.isdigit() else None)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(kept.comments).encode())

        do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield kept
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Pushed:
    """An author's clone, the bare repository it pushes to, and what a runner works in."""

    author: Repository
    runner: Path
    home: Path

    def push(self, old: str, new: str) -> None:
        """Push an edit of the spec on a branch, as an author does."""
        self.author.edit(SPEC, old, new)
        self.author.commit("edit")
        self.author.git("push", "-q", "--force", "origin", "HEAD:edit")
        shutil.rmtree(self.runner, ignore_errors=True)
        url = self.author.git("remote", "get-url", "origin").strip()
        subprocess.run(
            ["git", "clone", "-q", "--branch", "edit", url, str(self.runner)], check=True
        )

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a step as a runner does: its script in a bash of its own, no credentials around."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=self.runner,
            env={
                "PATH": path,
                "HOME": str(self.home),
                "RUNNER_TEMP": str(self.home),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def pushed(repository: Repository, tmp_path: Path) -> Pushed:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(repository.root), str(bare)], check=True)
    repository.git("remote", "add", "origin", str(bare))
    repository.git("switch", "-qc", "edit")
    for trap in TRAPS:
        (repository.root / trap).write_text(TRAP)
    (tmp_path / "home").mkdir()
    return Pushed(repository, tmp_path / "runner", tmp_path / "home")


def steps_of(root: Path) -> dict[str, str]:
    """Return the scripts of GitHub's workflow by the name of their step."""
    told = yaml.safe_load((root / ".github/workflows/merge-registry.yml").read_text())
    return {one["name"]: one["run"] for one in told["jobs"]["check"]["steps"] if "run" in one}


def test_github_gets_one_comment_that_follows_the_branch(pushed: Pushed, host: Host) -> None:
    steps = steps_of(pushed.author.root)
    assert list(steps) == ["Install", "Validate", "Plan", "Comment"]
    summary = pushed.home / "summary.md"
    facts = {
        "BASE": "origin/main",
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_API_URL": host.url,
        "GITHUB_REPOSITORY": "team/models",
        "NUMBER": "12",
    }

    for old, new in ((HEAD, "weight: 0.75"), ("weight: 0.75", "weight: 0.25")):
        pushed.push(old, new)
        for name in ("Validate", "Plan"):
            done = pushed.run(steps[name], **facts)
            assert done.returncode == 0, done.stderr
        done = pushed.run(steps["Comment"], **facts, TOKEN="secret")
        assert done.returncode == 0, done.stderr

    assert host.asked == [
        "GET /repos/team/models/issues/12/comments",
        "POST /repos/team/models/issues/12/comments",
        "GET /repos/team/models/issues/12/comments",
        "PATCH /repos/team/models/issues/comments/101",
    ]
    assert len(host.comments) == 2
    body = host.comments[1]["body"]
    assert body.startswith("<!-- registry plan -->\n\n### Merge plan: 1 to build")
    assert "0\\.8 \\-&gt; 0\\.25" in body
    assert summary.read_text().endswith(body)
    assert host.comments[0]["body"] == "<!-- registry plan --> ha"
    assert not (pushed.runner / "sprung").exists()


def test_github_shows_a_problem_on_its_line(pushed: Pushed) -> None:
    steps = steps_of(pushed.author.root)
    pushed.push(HEAD, 'weight: "much"')

    done = pushed.run(steps["Validate"], BASE="origin/main")

    line = (
        (pushed.runner / SPEC)
        .read_text()
        .splitlines()
        .index(next(x for x in (pushed.runner / SPEC).read_text().splitlines() if "much" in x))
    )
    assert done.returncode == 1
    assert done.stdout.startswith(f"::error file={SPEC},title=recipe.terms[")
    assert f",line={line + 1},col=" in done.stdout
    assert pushed.run(steps["Plan"], BASE="origin/main").returncode == 1


def test_gitlab_gets_a_report_an_artifact_and_one_note(pushed: Pushed, host: Host) -> None:
    job = yaml.safe_load((pushed.author.root / ".gitlab-ci.yml").read_text())["check"]
    install, *script = job["script"]
    assert install.startswith("pip install")
    base = pushed.author.git("rev-parse", "main").strip()
    facts = {
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": base,
        "CI_API_V4_URL": host.url,
        "CI_PROJECT_ID": "3",
        "CI_MERGE_REQUEST_IID": "9",
    }
    host.comments.clear()

    pushed.push(HEAD, "weight: 0.75")
    done = pushed.run("\n".join(script), **facts)
    assert done.returncode == 0, done.stderr
    plan = (pushed.runner / "plan.md").read_text()
    assert plan.startswith("<!-- registry plan -->")
    assert plan in done.stdout
    assert json.loads((pushed.runner / "gl-code-quality-report.json").read_text()) == []
    assert host.asked == []  # nobody gave a token

    for old, new in (("weight: 0.75", "weight: 0.25"), ("weight: 0.25", "weight: 0.125")):
        pushed.push(old, new)
        done = pushed.run("\n".join(script), **facts, REGISTRY_COMMENT_TOKEN="secret")
        assert done.returncode == 0, done.stderr
    notes = "/projects/3/merge_requests/9/notes"
    assert host.asked == [f"GET {notes}", f"POST {notes}", f"GET {notes}", f"PUT {notes}/100"]
    assert "0\\.8 \\-&gt; 0\\.125" in host.comments[0]["body"]

    pushed.push("weight: 0.125", 'weight: "much"')
    done = pushed.run("\n".join(script), **facts)
    assert done.returncode == 1
    (issue,) = json.loads((pushed.runner / "gl-code-quality-report.json").read_text())
    assert issue["location"]["path"] == SPEC
    assert "much" in done.stderr
    assert not (pushed.runner / "sprung").exists()


def test_a_commit_that_would_break_the_catalog_is_refused_by_the_hook(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tools = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "hooks"))
    subprocess.run(
        [str(tools / "pre-commit"), "install"], cwd=repository.root, check=True, capture_output=True
    )
    repository.edit(SPEC, HEAD, "weight: heavy")
    repository.git("add", "-A")

    done = subprocess.run(
        ["git", "commit", "-m", "broken"],
        cwd=repository.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "expected a number" in done.stdout + done.stderr

    repository.edit(SPEC, "weight: heavy", "weight: 0.75")
    repository.commit("mended")
    assert repository.git("log", "-1", "--format=%s").strip() == "mended"
