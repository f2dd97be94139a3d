"""A merge as an adapter from declaration to export: built, measured on its base, shown, verified."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest

from tests.conftest import Repository
from tests.e2e.conftest import digests

pytestmark = pytest.mark.slow
MERGE = "catalog/merges/both-skills.yaml"


def logged(repository: Repository) -> dict[str, float]:
    """Return the last value of every metric that MLflow has."""
    (store,) = repository.root.joinpath(".registry").rglob("*.db")
    with closing(sqlite3.connect(store)) as database:
        return dict(database.execute("SELECT key, value FROM latest_metrics").fetchall())


def test_an_adapter_is_built_gated_shown_and_exported(synced: Repository) -> None:
    suite = synced.root / "catalog/suites/office"
    suite.mkdir(parents=True)
    (suite / "data.jsonl").write_text('{"id": "a", "prompt": "", "expected": "the end"}\n')
    (suite / "suite.yaml").write_text(
        "kind: suite\nname: office\ntasks:\n"
        "  - {name: text, metric: perplexity, data: data.jsonl}\n"
    )
    gate = "evaluation: {suite: office, gates: {text: {at_most: 1e9}}}\n"
    old = synced.root.joinpath(MERGE).read_text("utf-8")
    synced.root.joinpath(MERGE).write_text(old + f"output: {{form: adapter}}\n{gate}", "utf-8")
    model = old.replace("both-skills", "same-as-model") + f"output: {{dtype: float32}}\n{gate}"
    synced.root.joinpath("catalog/merges/same-as-model.yaml").write_text(model, "utf-8")

    assert synced.run("validate").code == 0
    ran = synced.run("sync")

    assert ran.code == 0, ran.err
    record = json.loads(synced.root.joinpath("catalog/builds/both-skills.json").read_text())
    twin = json.loads(synced.root.joinpath("catalog/builds/same-as-model.json").read_text())
    assert record["request"]["output"] == {"form": "adapter", "dtype": "float32", "rank": None}
    assert record["evaluation"]["request"]["base"] == record["request"]["base"]["digest"]
    assert record["evaluation"]["metrics"]["text"] == pytest.approx(
        twin["evaluation"]["metrics"]["text"], rel=1e-5
    )
    assert logged(synced)["adapter.rank"] == 4
    assert logged(synced)["adapter.relative_error"] < 1e-6
    shown = synced.run("show", "both-skills").out
    assert "rank 4, nothing cut off, 100 % of the energy" in shown
    assert "of the merged delta; most in layer " in shown
    ran = synced.run("export", "both-skills", "out")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in synced.root.joinpath("out").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors", "recipe.json",
    ]  # fmt: skip
    ran = synced.run("verify", "both-skills", "--rebuild")
    assert "rebuilt bit for bit" in ran.out
    assert synced.run("plan", "--detailed-exitcode").code == 0


def test_an_adapter_may_be_a_term_of_a_model_and_of_an_exact_adapter(synced: Repository) -> None:
    path = synced.root / MERGE
    path.write_text(path.read_text("utf-8") + "output: {form: adapter}\n", "utf-8")
    for name, output in (("outer", "{form: adapter}"), ("whole", "{form: model}")):
        synced.root.joinpath(f"catalog/merges/{name}.yaml").write_text(
            f"kind: merge\nname: {name}\nbase: tiny-llama\nrecipe:\n  method: task_arithmetic\n"
            "  terms: [{merge: both-skills, weight: 0.5}, {adapter: brief, version: 1}]\n"
            f"output: {output}\n",
            "utf-8",
        )

    ran = synced.run("sync")

    assert ran.code == 0, ran.err
    assert digests(synced).keys() >= {"both-skills", "outer", "whole"}
    assert "rank 6, nothing cut off" in synced.run("show", "outer").out
