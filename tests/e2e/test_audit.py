"""What an audit finds of what was done behind the registry's back, and what it sets right."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from registry.cli import registry as command
from tests.conftest import Repository
from tests.e2e.conftest import client_of, runs_of

Found = set[tuple[str, str, str]]


@pytest.fixture(autouse=True)
def _environment_as_before() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def audit(repository: Repository, *options: str) -> dict[str, Any]:
    """Audit within this process, since importing MLflow takes seconds; return what it tells."""
    arguments = ["-C", str(repository.root), "audit", "--format", "json", *options]
    done = CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False)
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.return_value == (1 if told["differences"] else 0)
    return told


def found(told: dict[str, Any], kind: str = "differences") -> Found:
    """Return model, kind of place and field of what an audit told."""
    rows = told[kind]
    return {(one["model"], " ".join(one["where"].split()[:2]), one["field"]) for one in rows}


def everything(repository: Repository) -> dict[str, Any]:
    """Return every tag, alias and description of MLflow, read by a client of its own."""
    client = client_of(repository)
    models = {
        one.name: (dict(client.get_registered_model(one.name).aliases), one.description)
        for one in client.search_registered_models()
    }
    versions = {
        (one.name, one.version): (dict(one.tags), one.description, one.source, one.run_id)
        for one in client.search_model_versions()
    }
    runs = {one.info.run_id: dict(one.data.tags) for one in runs_of(repository, "merge")}
    return {"models": models, "versions": versions, "runs": runs}


def test_after_a_sync_nothing_differs(synced: Repository) -> None:
    ran = synced.run("audit")

    assert (ran.code, ran.out) == (0, "0 differences, 4 journal entries read\n")


def test_every_edit_in_mlflow_is_named_and_undone(synced: Repository) -> None:
    client = client_of(synced)
    before = everything(synced)
    run = client.get_model_version("both-skills", "1").run_id
    client.set_tag(run, "uses.formal:v1", "9")
    client.set_tag(run, "negates.formal:v1", "-9")
    client.delete_tag(run, "registry.commit")
    client.set_tag(run, "mlflow.note.content", "all is well")
    client.set_model_version_tag("formal-not-brief", "1", "registry.negates", "false")
    client.delete_model_version_tag("formal-not-brief", "1", "negates.brief:v1")
    client.set_model_version_tag("formal-not-brief", "1", "registry.key", "sha256:" + "0" * 64)
    client.update_model_version("average", "1", "nothing to see here")
    client.update_registered_model("average", "<script>alert(1)</script>")
    client.set_registered_model_alias("average", "previous", "1")
    client.delete_registered_model_alias("trimmed", "live")
    client.set_registered_model_tag("trimmed", "registry.kind", "toy")
    client.set_model_version_tag("adapter.brief", "1", "registry.digest", "sha256:" + "1" * 64)
    client.delete_run(client.get_model_version("trimmed", "1").run_id)

    told = audit(synced)
    fixed = audit(synced, "--fix")

    assert found(told) == {
        ("both-skills", "MLflow run", "uses.formal:v1"),
        ("both-skills", "MLflow run", "negates.formal:v1"),
        ("both-skills", "MLflow run", "registry.commit"),
        ("both-skills", "MLflow run", "description"),
        ("formal-not-brief", "MLflow version", "registry.negates"),
        ("formal-not-brief", "MLflow version", "negates.brief:v1"),
        ("formal-not-brief", "MLflow version", "registry.key"),
        ("average", "MLflow version", "description"),
        ("average", "MLflow model", "description"),
        ("average", "MLflow model", "alias previous"),
        ("trimmed", "MLflow model", "alias live"),
        ("trimmed", "MLflow model", "registry.kind"),
        ("trimmed", "MLflow run", "stage"),
        ("adapter.brief", "MLflow version", "registry.digest"),
    }
    assert fixed["differences"] == []
    assert everything(synced) == before
    assert audit(synced)["differences"] == []


def test_what_is_gone_from_mlflow_is_logged_again(synced: Repository) -> None:
    client = client_of(synced)
    client.delete_model_version("average", "1")
    client.delete_registered_model("trimmed")
    client.delete_registered_model("adapter.formal")

    told = audit(synced)
    fixed = audit(synced, "--fix")

    assert {
        ("average", "MLflow model", "version"),
        ("trimmed", "MLflow", "registered model"),
        ("adapter.formal", "MLflow model", "version"),
    } <= found(told)
    assert fixed["differences"] == []
    assert audit(synced)["differences"] == []
    for model in ("average", "trimmed"):
        recorded = json.loads((synced.root / f"catalog/builds/{model}.json").read_text())["mlflow"]
        live = client.get_model_version_by_alias(model, "live")
        assert (recorded["version"], recorded["run"]) == (str(live.version), live.run_id)
    assert client.search_model_versions("name = 'adapter.formal'")
    assert len(runs_of(synced, "merge")) == 4
    ran = synced.run("plan")
    assert "nothing to do" in ran.out


def test_what_no_sync_made_is_named_and_left_alone(synced: Repository) -> None:
    client = client_of(synced)
    ours = client.get_model_version("average", "1")
    client.create_model_version("average", "dvc://elsewhere", run_id=ours.run_id, tags=ours.tags)
    client.create_model_version("trimmed", "dvc://elsewhere")
    client.set_registered_model_alias("trimmed", "live", "2")
    experiment = client.get_run(ours.run_id).info.experiment_id
    tags = {"registry.kind": "merge", "registry.model": "smuggled"}
    client.create_run(experiment, tags=tags)
    client.create_run(experiment, tags={**tags, "registry.model": "x' OR name LIKE '%"})
    client.create_registered_model("smuggled")

    fixed = audit(synced, "--fix")
    ran = synced.run("audit")

    assert found(fixed, "repaired") == {("trimmed", "MLflow model", "alias live")}
    assert found(fixed) == {
        ("average", "MLflow version", "origin"),
        ("trimmed", "MLflow version", "origin"),
        ("smuggled", "MLflow model", "origin"),
    }
    assert (ran.code, ran.out.splitlines()[-1]) == (
        1,
        "3 differences (0 of them audit --fix can repair), 5 journal entries read",
    )
    assert len(client.search_model_versions("name = 'average'")) == 2


def test_a_version_put_in_place_of_ours_is_told_by_what_it_names(synced: Repository) -> None:
    client = client_of(synced)
    ours = client.get_model_version("average", "1")
    client.delete_model_version("average", "1")
    client.create_model_version(
        "average", "dvc://elsewhere", ours.run_id, tags=ours.tags, description=ours.description
    )
    client.set_registered_model_alias("average", "live", "2")

    told = audit(synced, "--fix")

    (one,) = told["differences"]
    assert (one["where"], one["field"], one["found"], one["repairable"]) == (
        "MLflow version 2",
        "source",
        "dvc://elsewhere",
        False,
    )
    assert one["expected"] == ours.source


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('"weight": 1.0', '"weight": 1.5', "key"),
        ('"size": ', '"size": 1', "artifact.digest"),
        ('"sha256": "', '"sha256": "0', "file"),
        ('"model": "trimmed"', '"model": "average"', "model"),
        ('"model_digest": "sha256:', '"model_digest": "sha256:0', "file"),
        ('"files":', '"file":', "file"),
        ('"format_version": 1', '"format_version": 7', "file"),
        ("{\n", "garbage\n", "file"),
    ],
)
def test_by_a_record_that_was_edited_nothing_is_repaired(
    synced: Repository, old: str, new: str, field: str
) -> None:
    before = everything(synced)
    path = synced.root / "catalog/builds/trimmed.json"
    path.write_text(path.read_text("utf-8").replace(old, new, 1), "utf-8")

    fixed = audit(synced, "--fix")

    assert ("trimmed", "record", field) in found(fixed)
    assert {one["where"] for one in fixed["differences"]} == {"record"}
    assert fixed["repaired"] == []
    assert everything(synced) == before


def test_a_record_that_was_edited_is_believed_by_no_command(synced: Repository) -> None:
    path = synced.root / "catalog/builds/both-skills.json"
    before = path.read_text("utf-8")
    path.write_text(before.replace('"weight": 0.8', '"weight": 0.9'), "utf-8")

    (change,) = json.loads(synced.run("plan", "--format", "json", "both-skills").out)["changes"]
    lineage = synced.run("lineage", "both-skills")

    assert [one["kind"] for one in change["reasons"]] == ["record-unreadable"]
    said = f"{path.relative_to(synced.root)}: key: expected that of the request, sha256:"
    assert change["reasons"][0]["new"].startswith(said)
    assert "both-skills: its record cannot be read" in lineage.out + lineage.err
    assert "0.9" not in lineage.out
    synced.run("sync", "both-skills")
    assert json.loads(path.read_text("utf-8"))["request"] == json.loads(before)["request"]
    assert synced.run("plan", "both-skills", "--detailed-exitcode").code == 0


def test_altered_files_pointers_and_provenance_are_named(synced: Repository) -> None:
    folder = synced.root / "catalog/builds"
    record = json.loads((folder / "average.json").read_text())
    pointer = (folder / "average.dvc").read_bytes()
    shard = next(path for path in record["artifact"]["files"] if path.endswith(".safetensors"))
    entry = synced.root / f".dvc/cache/registry/keys/{record['key'][7:9]}/{record['key'][7:]}.json"
    md5 = json.loads(entry.read_text())["files"][shard]["md5"]
    data = synced.root / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.chmod(0o644)
    data.write_bytes(content)
    (folder / "average.dvc").unlink()
    provenance = synced.root / ".dvc/cache/registry/provenance"
    key = json.loads((folder / "both-skills.json").read_text())["key"][7:]
    statement = provenance / key[:2] / f"{key}.json"
    statement.write_text(statement.read_text().replace("startedOn", "startedon"))

    quick, deep = audit(synced), audit(synced, "--deep")
    fixed = audit(synced, "--fix", "--deep")

    named = found(quick)
    assert {("average", "pointer", "md5"), ("both-skills", "store", "provenance.json")} <= named
    assert ("average", "store", shard) in found(deep) - named
    assert (folder / "average.dvc").read_bytes() == pointer
    assert ("average", "store", shard) in found(fixed)
    assert "average  build  artifact-altered" in synced.run("plan").out
