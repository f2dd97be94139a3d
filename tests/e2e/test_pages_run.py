"""The commands of the documentation's pages, run as they stand there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests import consoles
from tests.conftest import Repository
from tests.servers import mlflow_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash"),
]
DOCS = Path(__file__).parents[2] / "docs"


def check(page: str, folder: Path, **environment: str) -> None:
    ran = consoles.run((DOCS / page).read_text("utf-8"), folder, environment)
    assert ran
    for command, printed, pattern in ran:
        assert re.fullmatch(pattern, printed), f"{command.text}\n{printed}"


def test_the_tutorial_prints_what_it_says(tmp_path: Path) -> None:
    check("tutorial.md", tmp_path)


def test_a_remote_of_a_team_is_named_pushed_to_and_pulled_from(
    repository: Repository, tmp_path: Path
) -> None:
    # A folder where the page has a bucket: DVC treats both alike.
    check("how-to/s3.md", repository.root, BUCKET=str(tmp_path / "bucket"))

    assert any((tmp_path / "bucket").rglob("*.dir"))


def test_a_server_gets_what_was_logged_elsewhere(
    synced: Repository, empty_store: Path, tmp_path: Path
) -> None:
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}") as pages:
        address = pages.url.partition("/#")[0]

        check("how-to/mlflow-server.md", synced.root, MLFLOW_TRACKING_URI=address)
