"""Catalogs for measuring: the loader reads what the maker means, and there is nothing to do."""

from __future__ import annotations

from pathlib import Path

from benchmarks.catalogs import make_catalog
from tests.conftest import Repository


def test_a_made_catalog_is_valid_committed_and_built(tmp_path: Path) -> None:
    made = Repository(tmp_path / "catalog")
    make_catalog(made.root, 80)

    assert made.git("status", "--short") == ""
    assert made.run("validate").out.endswith("121 files, no problems\n")
    assert made.run("plan", "--detailed-exitcode").code == 0
    assert made.run("sync").out.endswith("nothing to do: 80 up to date\n")
