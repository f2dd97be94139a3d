"""What starts in a fraction of a second must not import what takes seconds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.catalogs import make_catalog
from tests.conftest import Repository

HEAVY = (
    "torch",
    "safetensors",
    "peft",
    "transformers",
    "numpy",
    "mlflow",
    "matplotlib",
    "dvc",
    "merger",
)


def printed_last(repository: Repository, code: str) -> str:
    """Return the last line that Python code prints in the repository."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [
        "plan",
        "validate",
        "status",
        "sync --dry-run",
        "lineage both-skills --format html",
        "impact adapter brief",
        "--help",
    ],
)
def test_light_commands_import_nothing_heavy(repository: Repository, command: str) -> None:
    code = (
        "import sys\nfrom registry.__main__ import run\n"
        f"code = run({command.split()!r})\n"
        f"heavy = sorted(name for name in {HEAVY!r} if name in sys.modules)\n"
        "print('heavy', heavy, 'code', code)\n"
    )

    assert printed_last(repository, code) == "heavy [] code 0"


def test_the_service_itself_holds_no_catalog_and_nothing_heavy(repository: Repository) -> None:
    code = (
        "import sys\nimport registry.service.server, registry.service.reconciler\n"
        f"print(sorted({{*{HEAVY!r}, 'yaml', 'jsonschema'}} & sys.modules.keys()))\n"
    )

    assert printed_last(repository, code) == "[]"


@pytest.mark.parametrize("command", ["plan", "status", "validate", "sync"])
def test_where_no_file_changed_no_document_can_even_be_read(tmp_path: Path, command: str) -> None:
    built = Repository(tmp_path / "catalog")
    make_catalog(built.root, 3)
    time.sleep(2.1)  # nothing that is younger is relied on
    built.run("plan")
    built.run("validate")
    code = (
        f"import sys\nfrom registry.__main__ import run\nrun([{command!r}])\n"
        "print(sorted({'yaml', 'jsonschema', 'importlib.metadata'} & sys.modules.keys()))\n"
    )

    assert printed_last(built, code) == "[]"
