"""`registry sync` as people run it: real Git, real DVC, a real worker, MLflow in a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Repository
from tests.e2e.conftest import client_of, digests, log_of_workers

pytestmark = pytest.mark.slow
MERGE = "catalog/merges/both-skills.yaml"


def test_a_second_sync_has_nothing_to_do_and_starts_no_worker(synced: Repository) -> None:
    before = log_of_workers(synced)

    ran = synced.run("sync")

    assert ran.code == 0
    assert "nothing to do: 4 up to date" in ran.out
    assert log_of_workers(synced) == before
    assert synced.git("status", "--porcelain") == ""


def test_a_sync_tells_scripts_in_json_what_it_did(synced: Repository) -> None:
    idle = synced.run("sync", "--commit", "--format", "json")
    synced.edit(MERGE, "weight: 0.8", "weight: -0.8")
    dry = synced.run("sync", "--dry-run", "--format", "json")

    assert json.loads(idle.out) == {"format_version": 1, "results": []}
    assert idle.err == "nothing to commit\n"
    assert json.loads(dry.out) == json.loads(synced.run("plan", "--format", "json").out)


def test_every_run_has_the_pictures_of_its_terms(synced: Repository) -> None:
    records = [json.loads(path.read_text()) for path in synced.root.glob("catalog/builds/*.json")]
    stored = synced.root / ".registry/mlartifacts"
    runs = [stored / record["mlflow"]["run"] / "artifacts" for record in records]

    assert len(runs) == 4
    for run in runs:
        names = {path.name for path in (run / "analysis").iterdir()}
        charts = ("cosines", "norms", "sign-conflict")
        assert names == {
            "figures.json",
            *(f"{c}.{form}" for c in charts for form in ("png", "svg")),
        }
        assert "brief@" in (run / "analysis/norms.svg").read_text()
        beside = {path.name for path in (run / "lineage").iterdir()}
        assert beside == {"lineage.html", "provenance.json", "recipe.json", "record.json"}


def test_one_weight_stales_one_model_and_revert_restores_it_without_a_worker(
    synced: Repository,
) -> None:
    old = digests(synced)
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")

    planned = synced.run("plan", "--detailed-exitcode")
    assert planned.code == 2
    assert (
        "both-skills  build  recipe-changed: recipe.terms[adapter brief@2].weight 0.8 -> 0.6\n"
        in planned.out
    )
    assert "1 to build, 3 up to date" in planned.out

    assert synced.run("sync").code == 0
    new = digests(synced)
    assert new.pop("both-skills") != old["both-skills"]
    assert new.items() <= old.items()
    synced.commit("weight 0.6")

    synced.git("revert", "--no-edit", "HEAD")
    before = log_of_workers(synced)
    assert "nothing to do" in synced.run("sync").out
    assert digests(synced) == old
    assert log_of_workers(synced) == before


def test_a_renamed_model_keeps_artifact_and_history_and_the_old_name_goes_by_prune(
    synced: Repository,
) -> None:
    old = digests(synced)
    spec = synced.root / MERGE
    spec.rename(spec.with_name("renamed.yaml"))
    synced.edit("catalog/merges/renamed.yaml", "name: both-skills", "name: renamed")
    before = log_of_workers(synced)

    planned = synced.run("plan").out
    assert "renamed      restore  renamed: model both-skills -> renamed\n" in planned
    ran = synced.run("sync", "--prune")

    assert ran.code == 0
    assert log_of_workers(synced) == before
    new = digests(synced)
    assert new["renamed"] == old["both-skills"]
    assert "both-skills" not in new
    told = synced.run("history", "renamed").out.splitlines()
    assert [line.split()[1:4] for line in told[:-1]] == [
        ["both-skills", "build", "live"],
        ["renamed", "restore", "live"],
    ]


def test_an_edited_back_weight_is_taken_from_the_store(synced: Repository) -> None:
    old = digests(synced)
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    synced.run("sync")
    synced.edit(MERGE, "weight: 0.6", "weight: 0.8")
    before = log_of_workers(synced)

    assert "both-skills  restore" in synced.run("plan").out
    ran = synced.run("sync")

    assert "both-skills  restored" in ran.out
    assert digests(synced) == old
    assert log_of_workers(synced) == before


def test_comments_labels_and_key_order_stale_nothing(synced: Repository) -> None:
    path = synced.root / MERGE
    path.write_text(
        "# another comment\nrecipe:\n  terms:\n"
        "    - {weight: 0.8, version: 2, adapter: brief}\n"
        "    - {adapter: formal, version: 1}\n"
        "  method: task_arithmetic\nlabels: {team: search}\ndescription: words\n"
        "base: tiny-llama\nname: both-skills\nkind: merge\n"
    )

    ran = synced.run("plan", "--detailed-exitcode")

    assert ran.code == 0
    assert "nothing to do: 4 up to date" in ran.out


def test_a_merge_of_a_merge_follows_it_and_early_cutoff_stops_there(synced: Repository) -> None:
    (synced.root / "catalog/merges/outer.yaml").write_text(
        "kind: merge\nname: outer\nbase: tiny-llama\nrecipe:\n  method: task_arithmetic\n"
        "  terms: [{merge: both-skills, weight: 0.5}, {adapter: brief, version: 1, weight: -1}]\n"
    )
    twin = (synced.root / "catalog/merges/outer.yaml").read_text().replace("outer", "twin")
    (synced.root / "catalog/merges/twin.yaml").write_text(twin)
    ran = synced.run("sync", "--jobs", "2")
    assert ran.code == 0, ran.err
    assert "outer  built" in ran.out
    assert "twin   restored" in ran.out  # the same recipe under another name is built once
    first = digests(synced)["outer"]
    synced.edit(MERGE, "weight: 0.8", "weight: 0.7")

    planned = synced.run("plan").out
    assert "outer        maybe  input-changed: merge both-skills" in planned
    assert synced.run("sync").code == 0
    assert digests(synced)["outer"] != first

    # The base's own type, written out: another key, the same bytes, so nothing above moves.
    old = digests(synced)
    synced.edit(MERGE, "recipe:", "output: {dtype: bfloat16}\nrecipe:")
    ran = synced.run("sync")
    assert "both-skills  built" in ran.out
    assert "outer" not in ran.out
    assert digests(synced) == old
    lineage = synced.run("lineage", "outer").out
    assert "-1 adapter brief@1  (subtracted)" in lineage
    assert "+0.5 merge both-skills  sha256:" in lineage
    assert "─ +1 adapter formal@1" in lineage


def test_a_live_model_contains_the_earlier_build_that_it_was_made_of(synced: Repository) -> None:
    outer = synced.root / "catalog/merges/outer.yaml"
    outer.write_text(
        "kind: merge\nname: outer\nbase: tiny-llama\nrecipe:\n  method: task_arithmetic\n"
        "  terms: [{merge: both-skills, weight: -0.5}, {adapter: brief, version: 1}]\n"
    )
    assert synced.run("sync", "outer").code == 0
    outer.write_text(outer.read_text() + "suspend: {reason: looked at}\n")
    synced.edit(MERGE, "adapter: brief, version: 2", "adapter: brief, version: 1")

    def rows() -> list[list[str]]:
        lines = synced.run("impact", "adapter", "brief@2").out.splitlines()
        return [line.split(maxsplit=4) for line in lines if line.split()[0] in names]

    names = ("both-skills", "outer")
    as_before = rows()
    assert synced.run("sync").code == 0

    assert as_before == [
        ["both-skills", "live", "+", "+0.8", "+0.8 brief@2"],
        ["outer", "live", "-", "-0.4", "-0.5 both-skills > +0.8 brief@2"],
    ]
    # Known from the store alone: no record tells of that build any more.
    assert rows() == [
        ["outer", "live", "-", "-0.4", "-0.5 both-skills (an earlier build) > +0.8 brief@2"]
    ]
    lineage = synced.run("lineage", "outer").out
    assert "-0.5 merge both-skills  (subtracted)  (an earlier build)" in lineage
    run = json.loads((synced.root / "catalog/builds/outer.json").read_text())["mlflow"]["run"]
    page = client_of(synced).download_artifacts(run, "lineage/lineage.html")
    html = Path(page).read_text("utf-8")
    assert html.count("<svg ") == 1
    assert "<span>−0.5 both-skills</span> &gt; <span>+0.8 brief@2</span>" in html
    shutil.rmtree(synced.root / ".dvc/cache/registry/keys")
    told = synced.run("impact", "adapter", "brief@2").out
    assert "not known: outer holds an earlier build of merge both-skills sha256:" in told


def test_an_invalid_catalog_is_refused_as_a_whole(synced: Repository) -> None:
    before = digests(synced)
    synced.edit(MERGE, "weight: 0.8", 'weight: "-0,8"')

    for command in ("plan", "sync", "status", "validate"):
        ran = synced.run(command)
        assert ran.code == 1
        assert f"{MERGE}:9:44: recipe.terms[1].weight: expected" in ran.err
        assert "hint: write -0.8" in ran.err
    assert digests(synced) == before


def test_a_revoked_adapter_takes_its_models_out(synced: Repository) -> None:
    path = synced.root / "catalog/adapters/brief/1/adapter.yaml"
    path.write_text(path.read_text() + 'revoked: {reason: "leaked data"}\n')

    planned = synced.run("plan").out
    assert "formal-not-brief  unpublish  revoked: adapter brief@1: leaked data" in planned
    assert synced.run("validate").code == 0
    cut_off = synced.run("sync", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert cut_off.code == 0
    assert not (synced.root / "catalog/builds/formal-not-brief.dvc").exists()
    # The alias in MLflow is still to be taken away, so the next sync tries that again.
    assert "formal-not-brief  unpublish" in synced.run("plan").out
    assert "formal-not-brief  unpublished" in synced.run("sync").out
    assert "formal-not-brief" not in digests(synced)
    assert not (synced.root / "catalog/builds/formal-not-brief.dvc").exists()
    assert "nothing to do" in synced.run("sync").out


def test_undeclared_models_are_kept_until_pruned(synced: Repository) -> None:
    (synced.root / "catalog/merges/average.yaml").unlink()

    assert "kept; pass --prune to remove" in synced.run("plan").out
    assert "average" in digests(synced)
    assert "average  pruned" in synced.run("sync", "--prune").out
    assert "average" not in digests(synced)


def test_a_saved_plan_is_refused_when_the_catalog_moved(synced: Repository) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    assert synced.run("plan", "-o", "saved.json").code == 0
    synced.edit(MERGE, "weight: 0.6", "weight: 0.5")

    refused = synced.run("sync", "--plan", "saved.json")
    assert refused.code == 1
    assert "the plan moved" in refused.err
    synced.edit(MERGE, "weight: 0.5", "weight: 0.6")
    assert synced.run("sync", "--plan", "saved.json").code == 0
    synced.edit(MERGE, "weight: 0.6", "weight: 0.4")
    assert synced.run("plan", "both-skills", "-o", "one.json").code == 0
    assert "1 done, 0 failed" in synced.run("sync", "--plan", "one.json").out
