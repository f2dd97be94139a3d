"""Looking at a catalog while other programs replace its files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry import sweep
from registry.tree import WorkingTree

GOING = (
    "catalog/builds/.mild.json.0123456789ab",  # as a sync writes a record
    "catalog/builds/mild.json",
    "catalog/merges/mild.yaml",
    "catalog/merges/notes",
    "catalog/suites/office/data.jsonl",
)
STAYING = ("catalog/merges/strong.yaml", "catalog/builds/strong.json", "catalog/registry.yaml")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a tree of which some files go between the listing of their folder and their stat."""
    for name in (*GOING, *STAYING):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", "utf-8")
    real = os.scandir

    def listed(place: Any) -> Iterator[os.DirEntry[str]]:
        found = list(real(place))
        for entry in found:
            for name in GOING:
                if entry.name == Path(name).name:
                    (tmp_path / name).unlink()
        return iter(found)

    monkeypatch.setattr(os, "scandir", listed)
    return tmp_path


def test_a_sweep_leaves_out_what_goes_while_it_looks(root: Path) -> None:
    found = sweep.look(root)

    assert (list(found.specs), list(found.records)) == (["strong"], ["strong"])
    assert [entry.path for entry in found.others] == ["catalog/registry.yaml"]


def test_the_working_tree_leaves_out_what_goes_while_it_looks(root: Path) -> None:
    paths = [entry.path for entry in WorkingTree(root).entries()]

    assert paths == sorted(STAYING)
