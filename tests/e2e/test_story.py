"""One story from beginning to end: a weight is edited, reviewed, built, shown, taken back, brought back.

Everything is real: a bare repository, a remote, MLflow's server, the service, a browser.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Repository
from tests.e2e.browser import CHROMIUM, DRIVER, Browser
from tests.e2e.conftest import MERGE, declare
from tests.e2e.test_service import READ, SECRET, WRITE, Instance, serving, subject
from tests.servers import mlflow_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM.exists() and DRIVER.exists()), reason="needs chromium and chromium-driver"
    ),
]
MODEL = "both-skills"
ADAPTER = "catalog/adapters/brief/2/adapter.yaml"
GATED = "evaluation: {suite: texts, gates: {first: {at_most: 1000000}}}\n"


@dataclass(frozen=True)
class World:
    """The author's clone, the bare repository, the remote's folder, the service, MLflow."""

    author: Repository
    bare: Path
    remote: Path
    service: Instance
    mlflow: str

    def record(self) -> dict[str, Any] | None:
        """Return the model's record on the branch that everybody follows."""
        shown = subprocess.run(
            ["git", "-C", str(self.bare), "show", f"main:catalog/builds/{MODEL}.json"],
            capture_output=True,
            check=False,
        )
        return json.loads(shown.stdout) if shown.returncode == 0 else None

    def push(self) -> None:
        """Push what the author committed, and tell the service as a code host does."""
        self.author.git("push", "-q", "origin", "HEAD:main")
        assert self.service.push_event() == 202

    def live(self) -> str | None:
        """Return the digest of what MLflow serves as `live`, None if nothing is."""
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        client = MlflowClient(self.mlflow, self.mlflow)
        try:
            version = client.get_model_version_by_alias(MODEL, "live")
        except MlflowException:
            return None
        return str(version.tags["registry.model_digest"])


@contextmanager
def world_of(author: Repository, empty_store: Path) -> Iterator[World]:
    here = author.root.parent
    remote = here / "remote"
    author.git("rm", "-q", "catalog/merges/formal-not-brief.yaml", "catalog/merges/trimmed.yaml")
    declare(author, GATED)
    (author.root / ".dvc/config").write_text(
        f"[core]\n    remote = bytes\n['remote \"bytes\"']\n    url = {remote}\n"
    )
    author.commit("two models and a remote")
    bare = here / "bare.git"
    author.git("clone", "-q", "--bare", ".", str(bare))
    author.git("remote", "add", "origin", str(bare))
    author.git("fetch", "-q")
    author.git("branch", "-q", "-u", "origin/main")
    (here / "mlflow").mkdir()
    (here / "mlflow/mlflow.db").write_bytes(empty_store.read_bytes())
    with mlflow_server(here / "mlflow", f"sqlite:///{here / 'mlflow/mlflow.db'}") as pages:
        address = pages.url.partition("/#")[0]
        environment = {
            "REGISTRY_READ_TOKEN": READ,
            "REGISTRY_WRITE_TOKEN": WRITE,
            "REGISTRY_WEBHOOK_SECRET": SECRET,
            "MLFLOW_TRACKING_URI": address,
        }
        options = ("--repository", str(bare), "--directory", "own", "--push")
        with serving(here, 1, *options, **environment) as service:
            service.reaches("Ready", "UpToDate")
            yield World(author, bare, remote, service, address)


def test_a_weight_is_edited_reviewed_built_shown_taken_back_and_brought_back(
    asked: Repository, empty_store: Path, browser: Browser
) -> None:
    with world_of(asked, empty_store) as world:
        before = world.record()
        assert before is not None
        assert before["evaluation"]["verdicts"][0]["passed"]

        a_branch_edits_a_weight_and_its_comment_says_what_that_means(world)
        it_lands_and_the_service_builds_gates_publishes_and_logs(world, before)
        people_see_it_on_the_status_page_and_in_mlflow(world, browser)
        lived = world.live()
        the_adapter_is_revoked_and_the_model_leaves_live(world, browser)
        a_revert_brings_it_back_without_a_build(world, lived)


def a_branch_edits_a_weight_and_its_comment_says_what_that_means(world: World) -> None:
    author = world.author
    author.git("pull", "-q", "--rebase")
    author.git("switch", "-qc", "less")
    author.edit(MERGE, "weight: 0.8", "weight: 0.6")
    author.commit("Less brief")

    ran = author.run("plan", "--against", "origin/main", "--format", "markdown")

    assert ran.code == 0
    (row,) = [line for line in ran.out.splitlines() if line.startswith("| both")]
    model, action, why, terms, moved, takes, gates = row.strip("| ").split(" | ")
    assert (model, action) == ("both\\-skills", "build")
    assert "weight 0\\.8 \\-&gt; 0\\.6" in why
    assert terms == "`tiny-llama + 0.6·brief@2 + 1·formal@1`"
    assert "–" not in moved + takes  # there are records to go by
    assert gates == "first ≤ 1e\\+06"
    assert ran.out.startswith(
        "<!-- registry plan -->\n\n### Merge plan: 1 to build, 1 up to date\n"
    )


def it_lands_and_the_service_builds_gates_publishes_and_logs(
    world: World, before: dict[str, Any]
) -> None:
    author = world.author
    author.git("switch", "-q", "main")
    author.git("merge", "-q", "--no-ff", "--no-edit", "less")
    world.push()

    def is_built() -> bool:
        now = world.record()
        return now is not None and now["key"] != before["key"]

    world.service.waits_for(is_built, "record of the new weight")
    world.service.reaches("Ready", "UpToDate")

    now = world.record()
    assert now is not None
    assert now["evaluation"]["verdicts"][0]["passed"]
    assert world.live() == now["model_digest"] != before["model_digest"]
    assert subject(world.bare) == f"Registry: {MODEL} synced"
    key = now["key"].removeprefix("sha256:")
    assert any(world.remote.rglob(f"{key}.json"))  # beside the bytes, for whoever builds next


def people_see_it_on_the_status_page_and_in_mlflow(world: World, browser: Browser) -> None:
    address = world.service.url.replace("http://", f"http://reader:{READ}@")
    browser.driver.get(f"{address}/models/{MODEL}")
    browser.sees("tiny-llama + 0.6·brief@2 + 1·formal@1", "up-to-date")
    browser.shoot("story-1-status-page")

    browser.driver.get(f"{world.mlflow}/#/models/{MODEL}?workflowType=machine_learning")
    browser.sees("tiny-llama + 0.6·brief@2 + 1·formal@1", "@ live", "@ previous")
    browser.shoot("story-2-mlflow")


def the_adapter_is_revoked_and_the_model_leaves_live(world: World, browser: Browser) -> None:
    author = world.author
    author.git("pull", "-q", "--rebase")
    path = author.root / ADAPTER
    path.write_text(path.read_text("utf-8") + "revoked: {reason: consent withdrawn}\n")

    author.commit("Revoke brief@2")
    world.push()

    world.service.waits_for(lambda: world.record() is None, "end of the record")
    world.service.reaches("Ready", "UpToDate")
    assert world.live() is None
    states = world.service.ask("/api/v1/models")[1]["models"]
    assert {one["model"]: one["state"] for one in states} == {
        MODEL: "revoked",
        "average": "revoked",
    }
    address = world.service.url.replace("http://", f"http://reader:{READ}@")
    browser.driver.get(f"{address}/models/{MODEL}")
    browser.sees("revoked", "consent withdrawn")
    browser.driver.get(f"{world.mlflow}/#/models/{MODEL}?workflowType=machine_learning")
    assert "@ live" not in browser.sees("Not published.")
    browser.shoot("story-3-revoked")


def a_revert_brings_it_back_without_a_build(world: World, lived: str | None) -> None:
    author = world.author
    author.git("pull", "-q", "--rebase")
    author.git("revert", "--no-edit", ":/Revoke brief@2")
    world.push()

    world.service.waits_for(lambda: world.record() is not None, "record after the revert")
    world.service.reaches("Ready", "UpToDate")

    assert world.live() == lived
    jobs = world.service.ask("/api/v1/jobs")[1]["jobs"]
    results = world.service.ask(f"/api/v1/jobs/{jobs[0]['id']}")[1]["results"]
    assert {one["model"]: one["action"] for one in results} == {
        MODEL: "restore",
        "average": "restore",
    }
    author.git("pull", "-q", "--rebase")
    told = author.run("history", MODEL).out.splitlines()
    did = [line.split()[2:4] for line in told[:-1]]
    assert [one for one in did if one != ["push", "pushed"]] == [
        ["build", "live"],
        ["build", "live"],
        ["unpublish", "unpublished"],
        ["restore", "live"],
    ]
