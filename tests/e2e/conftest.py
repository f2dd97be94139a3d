"""The synced example, made once per session and copied for each test; what is recorded in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Repository
from tests.e2e.browser import CHROMIUM, DRIVER, Browser

MERGE = "catalog/merges/both-skills.yaml"
TEXTS = (
    "the cat sat",
    "a dog ran far",
    "birds sing at dawn",
    "rain fell",
    "we walk",
    "no one came",
)
TUNE = """\
evaluation: {suite: texts}
tune:
  parameters: {lambda: [0.5, 1.0]}
  weights:
    brief: {from: -1, to: 1, steps: 3}
  compare: [linear]
  seed: 1
"""


def client_of(repository: Repository) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{repository.root}/.registry/mlflow.db")


def runs_of(repository: Repository, kind: str) -> list[Any]:
    client = client_of(repository)
    experiments = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`registry.kind` = '{kind}'"))


def digests(repository: Repository) -> dict[str, str]:
    """Return the live model digest of every recorded model."""
    folder = repository.root / "catalog/builds"
    records = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    return {name: one["model_digest"] for name, one in records.items() if "key" in one}


def log_of_workers(repository: Repository) -> str:
    path = repository.root / ".registry/worker.log"
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="session")
def synced_once(tmp_path_factory: pytest.TempPathFactory, _own_world: None) -> Path:
    """Make the example and sync it once; tests work on copies."""
    from registry import example, founding

    root = tmp_path_factory.mktemp("synced") / "models"
    founding.found(root)
    example.write(root)
    repository = Repository(root)
    repository.commit("start")
    ran = repository.run("sync")
    assert ran.code == 0, ran.err
    repository.commit("built")
    return root


@pytest.fixture
def synced(synced_once: Path, tmp_path: Path) -> Repository:
    """Return a copy of the synced example; its tracking store moves along."""
    subprocess.run(["cp", "-a", str(synced_once), str(tmp_path / "models")], check=True)
    return Repository(tmp_path / "models")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory, _own_world: None) -> Path:
    """Make the tables of MLflow once: dozens of migrations take seconds."""
    from registry import tracking, tracking_place

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracking.create_store(f"{tracking_place.SQLITE}{file}")
    return file


@pytest.fixture
def make_repository(
    make_repository: Callable[[str], Repository], empty_store: Path
) -> Callable[[str], Repository]:
    """Return a maker of example catalogs whose tracking store has its tables already."""

    def make(name: str) -> Repository:
        made = make_repository(name)
        (made.root / ".registry").mkdir(exist_ok=True)
        shutil.copyfile(empty_store, made.root / ".registry/mlflow.db")
        return made

    return make


@pytest.fixture
def asked(repository: Repository) -> Repository:
    """Return the example with a suite of two tasks, and one merge that is to be tuned on it."""
    suite = repository.root / "catalog/suites/texts"
    suite.mkdir(parents=True)
    for task in ("first", "second"):
        rows = [
            {"id": str(number), "prompt": f"{task} {number}", "expected": text}
            for number, text in enumerate(TEXTS)
        ]
        (suite / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = "".join(
        f"  - {{name: {task}, metric: perplexity, data: {task}.jsonl, max_new_tokens: 1}}\n"
        for task in ("first", "second")
    )
    (suite / "suite.yaml").write_text(f"kind: suite\nname: texts\ntasks:\n{tasks}")
    declare(repository, TUNE)
    repository.commit("a suite")
    return repository


def declare(repository: Repository, more: str) -> None:
    path = repository.root / MERGE
    path.write_text(path.read_text("utf-8").split("evaluation:")[0] + more, "utf-8")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-quic",
        "--no-first-run",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1500,1700",
        f"--user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(flag)
    shots = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    driver = webdriver.Chrome(service=Service(str(DRIVER)), options=options)
    try:
        yield Browser(driver, shots)
    finally:
        driver.quit()
        shutil.rmtree(tmp_path / "profile", ignore_errors=True)
