"""Edits of a spec's text: the value changes, all else stays."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from registry import documents, spec_edit

FLOW = """\
# yaml-language-server: $schema=../../schemas/merge.schema.json
kind: merge
name: both  # a name
base: base
recipe:
  method: task_arithmetic
  terms:
    - {adapter: sql, version: 1, weight: 1.0}   # the first
    - {adapter: "json", version: 2}
evaluation: {suite: office}
description: Zwei Fähigkeiten – ünverändert.
"""
BLOCK = """\
kind: merge
recipe:
  method: ties
  parameters:
    density: 0.2   # a fifth
    election: total

  # two of them
  terms:
    - adapter: sql
      version: 1
      weight:  # by layer
        layers: [0.1, 0.2]
        head: 0.3
    - adapter: json
      version: 2

description: >-
  Two
  lines.
"""


def data(text: str) -> Any:
    document, problems = documents.parse(text.encode(), "x.yaml")
    assert not problems
    assert document is not None
    return document.data


@pytest.mark.parametrize(
    ("text", "path", "value", "line"),
    [
        (
            FLOW,
            ("recipe", "terms", 0, "weight"),
            0.3,
            "    - {adapter: sql, version: 1, weight: 0.3}   # the first",
        ),
        (
            FLOW,
            ("recipe", "terms", 1, "weight"),
            {"layers": [0.1, 1.0], "embeddings": 0.5, "head": 0.25},
            '    - {adapter: "json", version: 2, '
            "weight: {layers: [0.1, 1.0], embeddings: 0.5, head: 0.25}}",
        ),
        (FLOW, ("recipe", "parameters", "lambda"), 0.7, "  parameters: {lambda: 0.7}"),
        (BLOCK, ("recipe", "parameters", "density"), 0.4, "    density: 0.4   # a fifth"),
        (BLOCK, ("recipe", "parameters", "lambda"), 0.7, "    lambda: 0.7"),
        (BLOCK, ("recipe", "terms", 1, "weight"), 0.5, "      weight: 0.5"),
        (BLOCK, ("recipe", "terms", 0, "weight"), 0.5, "      weight: 0.5"),
    ],
)
def test_one_value_changes_and_nothing_else(
    text: str, path: tuple[str | int, ...], value: Any, line: str
) -> None:
    changed = spec_edit.edited(text, {path: value})

    expected = data(text)
    place = expected
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    place[path[-1]] = value
    assert data(changed) == expected
    assert line in changed.splitlines()
    kept = [one for one in text.splitlines() if "#" in one]
    touched = ("first", "fifth", "by layer")
    assert all(one in changed for one in kept if not any(word in one for word in touched))


def test_the_diff_is_one_that_git_applies(tmp_path: Path) -> None:
    file = tmp_path / "catalog" / "merges" / "both.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(FLOW, "utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    after = spec_edit.edited(
        FLOW, {("recipe", "terms", 0, "weight"): 0.3, ("recipe", "parameters", "lambda"): 0.7}
    )

    text = spec_edit.diff(FLOW, after, "catalog/merges/both.yaml")
    (tmp_path / "proposal.diff").write_text(text, "utf-8")
    subprocess.run(["git", "apply", "proposal.diff"], cwd=tmp_path, check=True)

    assert file.read_text("utf-8") == after


def test_a_text_without_a_last_line_end_has_a_diff_that_git_applies(tmp_path: Path) -> None:
    before = FLOW.rstrip("\n")
    (tmp_path / "both.yaml").write_text(before, "utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    after = spec_edit.edited(before, {("description",): "Other"})

    (tmp_path / "p.diff").write_text(spec_edit.diff(before, after, "both.yaml"), "utf-8")
    subprocess.run(["git", "apply", "p.diff"], cwd=tmp_path, check=True)

    assert (tmp_path / "both.yaml").read_text("utf-8") == after


def test_no_change_is_no_diff() -> None:
    assert spec_edit.diff(FLOW, FLOW, "both.yaml") == ""


TUNED = """\
recipe:
  terms: [{adapter: sql, version: 1}, {adapter: json, version: 2}, {merge: c}]  # three
tune:
  weights:
    sql: {from: 0, to: 1}   # of sql
    # of json
    json@2:
      from: 0
      to: 1
    c: {from: 0, to: 1}
"""


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (FLOW, ("recipe", "terms", 0)),
        (FLOW, ("recipe", "terms", 1)),
        (FLOW, ("description",)),
        (FLOW, ("evaluation", "suite")),
        (BLOCK, ("recipe", "terms", 0)),
        (BLOCK, ("recipe", "terms", 1)),
        (BLOCK, ("recipe", "terms", 0, "weight")),
        (BLOCK, ("recipe", "parameters", "density")),
        (TUNED, ("recipe", "terms", 0)),
        (TUNED, ("recipe", "terms", 1)),
        (TUNED, ("recipe", "terms", 2)),
        (TUNED, ("tune", "weights", "sql")),
        (TUNED, ("tune", "weights", "json@2")),
        (TUNED, ("tune", "weights", "c")),
        (TUNED, ("tune", "weights", "c", "from")),
    ],
)
def test_an_entry_is_taken_out_and_nothing_else(text: str, path: tuple[str | int, ...]) -> None:
    expected = data(text)
    place = expected
    for key in path[:-1]:
        place = place[key]
    del place[path[-1]]

    after = spec_edit.without(text, path)

    assert data(after) == expected
    # One piece of the text is gone; all around it stays as it is, comments too.
    kept = next(
        (n for n, (a, b) in enumerate(zip(text, after, strict=False)) if a != b), len(after)
    )
    assert text.endswith(after[kept:])


def test_the_line_of_an_entry_goes_with_its_comment() -> None:
    assert spec_edit.without(FLOW, ("recipe", "terms", 0)) == FLOW.replace(
        "    - {adapter: sql, version: 1, weight: 1.0}   # the first\n", ""
    )
    assert spec_edit.without(TUNED, ("recipe", "terms", 0)) == TUNED.replace(
        "{adapter: sql, version: 1}, ", ""
    )
