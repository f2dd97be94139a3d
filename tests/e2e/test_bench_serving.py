"""`registry bench-serving` for real on the example: report, files, MLflow run, ways to be refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.conftest import Repository
from tests.merging import digest_of

pytestmark = pytest.mark.slow
QUICK = ("--batch", "2", "--batch", "1", "--tokens", "3", "--repeats", "2")
MODES = ["merged", "brief@2", "formal@1", "adapters off"]


def rows_of(repository: Repository, query: str) -> list[Any]:
    """Return what a query on the tracking store finds."""
    (store,) = repository.root.joinpath(".registry").rglob("*.db")
    with closing(sqlite3.connect(store)) as database:
        return database.execute(query).fetchall()


def write_merge(repository: Repository, name: str, term: str) -> None:
    path = repository.root / f"catalog/merges/{name}.yaml"
    path.write_text(
        f"kind: merge\nname: {name}\nbase: tiny-llama\nrecipe:\n"
        f"  method: task_arithmetic\n  terms: [{term}]\n",
        "utf-8",
    )


def add_checkpoint(repository: Repository) -> None:
    folder = repository.root / "catalog/checkpoints/whole/1"
    base = repository.root / "catalog/bases/tiny-llama/weights"
    tiny.tiny_checkpoint(folder / "weights", base=base, seed=5)
    digest = digest_of(folder / "weights")
    (folder / "checkpoint.yaml").write_text(
        "kind: checkpoint\nname: whole\nversion: 1\nbase: tiny-llama\n"
        f'weights: {{digest: "{digest}"}}\n',
        "utf-8",
    )


def test_a_merge_is_measured_against_its_adapters_and_told_everywhere(
    synced: Repository, tmp_path: Path
) -> None:
    add_checkpoint(synced)
    write_merge(synced, "outer", "{merge: average}, {checkpoint: whole, version: 1, weight: 0.2}")
    assert synced.run("sync", "outer").code == 0

    ran = synced.run("bench-serving", "outer", *QUICK, "-o", str(tmp_path / "out"))

    assert ran.code == 0, ran.err
    # What takes long says every few seconds how far it is: `… 3 of 24 requests`.
    stages = [line for line in ran.err.splitlines() if line.startswith("outer  ")]
    assert [line for line in stages if not line.endswith(" requests")] == [
        "outer  open the merged model alone",
        "outer  open the base with its adapters alone",
        "outer  measure both in turn",
    ]
    told = json.loads((tmp_path / "out/report.json").read_text("utf-8"))
    check_figures(told)
    for mode in MODES:
        assert f"\n{mode} " in ran.out
    assert "\nnot switched  checkpoint whole@1: no adapter\n" in ran.out
    assert f"\nverdict  {told['verdict']}\nreport   {tmp_path}/out/report.html" in ran.out
    page = (tmp_path / "out/report.md").read_text("utf-8")
    assert (tmp_path / "out/report.html").read_text("utf-8").count("<img") == 2
    assert page.startswith(f"# outer, merged or switched\n\n**{told['verdict']}**")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "latency.png", "latency.svg", "report.html", "report.json", "report.md", "throughput.png",
        "throughput.svg",
    ]  # fmt: skip
    ((run,),) = rows_of(
        synced, "SELECT run_uuid FROM tags WHERE key = 'registry.kind' AND value = 'serving'"
    )
    logged = rows_of(synced, f"SELECT key, step, value FROM metrics WHERE run_uuid = '{run}'")
    speeds = {(key, step): value for key, step, value in logged}
    for row in told["rows"]:
        mode = row["mode"].replace("@", "_")
        assert speeds[f"{mode}.tokens_per_second", row["batch"]] == row["tokens_per_second"]


def check_figures(told: dict[str, Any]) -> None:
    """Assert that every way to answer was measured, and what is known of the figures."""
    assert [(row["mode"], row["batch"]) for row in told["rows"]] == [
        (mode, batch) for batch in (2, 1) for mode in MODES
    ]
    assert all(min(row["speeds"]) > 0 and len(row["speeds"]) == 2 for row in told["rows"])
    assert told["switch"]["count"] == 2 * 2 * 2
    assert told["not_switched"] == ["checkpoint whole@1"]
    for side in told["sides"].values():
        steps = ("before", "opened", "peak")
        sizes = [side[f"resident_{step}_bytes"] for step in steps]
        assert sizes == sorted(sizes)
        assert side["load_seconds"] > 0
    merged, switched = told["sides"]["merged"], told["sides"]["switched"]
    assert merged["adapters"] == []
    assert [one["label"] for one in switched["adapters"]] == ["brief@2", "formal@1"]
    ratio = merged["weight_bytes"] / switched["adapters"][0]["weight_bytes"]
    assert told["ratios"]["bytes_of_one_more_skill"] == pytest.approx(ratio, abs=0.01)


def test_what_cannot_be_compared_is_refused_with_the_cure(synced: Repository) -> None:
    add_checkpoint(synced)
    write_merge(synced, "fine-tuned", "{checkpoint: whole, version: 1}")
    write_merge(synced, "absent", "{adapter: brief, version: 1}")
    assert synced.run("sync", "fine-tuned").code == 0

    def told(model: str) -> tuple[int, str]:
        ran = synced.run("bench-serving", model, *QUICK)
        assert ran.out == ""
        return ran.code, ran.err

    assert told("both-skill")[0] == 64
    code, text = told("absent")
    assert (code, "absent is not built\n  hint: run `registry sync absent`" in text) == (1, True)
    code, text = told("fine-tuned")
    assert code == 1
    assert "fine-tuned: there is nothing to switch, it is made of checkpoint whole@1" in text
    shutil.rmtree(synced.root / ".dvc/cache")
    code, text = told("both-skills")
    assert code == 1
    assert "both-skills: its bytes are not in the store" in text
    assert "hint: run `registry sync both-skills`" in text
