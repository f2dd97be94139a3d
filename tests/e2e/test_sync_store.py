"""Bytes: swapped, flipped, exported, pushed, pulled by stock DVC, built again in a clone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from registry import chain, keys
from tests.conftest import Repository
from tests.e2e.conftest import digests, log_of_workers

pytestmark = pytest.mark.slow
MERGE = "catalog/merges/both-skills.yaml"


def test_swapped_adapter_bytes_stop_only_what_needs_them(synced: Repository) -> None:
    weights = synced.root / "catalog/adapters/formal/1/weights/adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    synced.edit("catalog/merges/trimmed.yaml", "method: ties", "method: linear")
    before = digests(synced)

    assert "weights.digest: expected sha256:" in synced.run("validate").err
    ran = synced.run("sync")

    assert ran.code == 1
    assert "0 done, 2 failed" in ran.out
    assert "adapter formal@1: expected sha256:" in ran.err
    assert digests(synced) == before


def test_a_flipped_bit_in_the_store_is_found_and_mended(synced: Repository) -> None:
    record = json.loads((synced.root / "catalog/builds/average.json").read_text())
    artifact = keys.read(synced.root / ".dvc/cache", record["key"])
    assert artifact is not None
    name = next(path for path in artifact.files if path.endswith(".safetensors"))
    target = keys.object_path(synced.root / ".dvc/cache", artifact.files[name].md5)
    content = bytearray(target.read_bytes())
    content[-1] ^= 1
    target.chmod(0o644)
    target.write_bytes(content)
    target.chmod(0o444)

    assert synced.run("verify", "average").code == 0
    found = synced.run("verify", "--deep")
    assert found.code == 1
    assert f"average: missing or altered: {name}" in found.out
    assert synced.run("export", "average", "out").code == 1
    assert not (synced.root / "out").exists()
    assert "artifact-altered" in synced.run("plan").out

    ran = synced.run("sync")
    assert ran.code == 0, ran.err
    assert "the recorded digest again" in ran.out
    assert synced.run("verify", "--deep").code == 0


def test_verify_rebuild_says_that_the_bytes_come_out_again(synced: Repository) -> None:
    ran = synced.run("verify", "trimmed", "--rebuild")

    assert ran.code == 0
    assert "trimmed: rebuilt bit for bit on cpu:" in ran.out


def test_export_writes_a_model_that_transformers_opens(synced: Repository) -> None:
    assert synced.run("export", "both-skills", "out/model").code == 0
    again = synced.run("export", "both-skills", "out/model")
    assert again.code == 1
    assert "is not empty" in again.err

    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = synced.root / "out/model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokens = AutoTokenizer.from_pretrained(folder)("Hello", return_tensors="pt")
    made = model.generate(**tokens, max_new_tokens=4, do_sample=False)
    assert made.shape[1] == tokens["input_ids"].shape[1] + 4


def test_a_clone_rebuilds_to_the_recorded_digests(synced: Repository, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(synced.root), str(tmp_path / "clone")], check=True)
    clone = Repository(tmp_path / "clone")

    ran = clone.run("sync")

    assert ran.code == 0, ran.err
    assert ran.out.count("the recorded digest again") == 4
    assert digests(clone) == digests(synced)


def test_push_and_stock_dvc_pull_restore_the_same_bytes(synced: Repository, tmp_path: Path) -> None:
    dvc = [str(Path(sys.executable).with_name("dvc"))]
    remote = tmp_path / "remote"
    subprocess.run([*dvc, "remote", "add", "-q", "store", str(remote)], cwd=synced.root, check=True)
    registry_yaml = synced.root / "catalog/registry.yaml"
    registry_yaml.write_text(registry_yaml.read_text() + "remotes: {builds: store}\n")

    ran = synced.run("sync", "--push", "--commit")
    assert ran.code == 0, ran.err
    assert "average           pushed" in ran.out
    synced.run("sync", "--rebuild", "--commit")
    synced.commit("remote")
    assert "nothing to do" in synced.run("sync", "--push").out

    subprocess.run(["git", "clone", "-q", str(synced.root), str(tmp_path / "clone")], check=True)
    pointer = "catalog/builds/average.dvc"
    subprocess.run([*dvc, "pull", "-q", pointer], cwd=tmp_path / "clone", check=True)
    synced.run("export", "average", "out")
    pulled = tmp_path / "clone/catalog/builds/average"
    exported = synced.root / "out"
    assert {path.name: path.read_bytes() for path in pulled.iterdir()} == {
        path.name: path.read_bytes() for path in exported.iterdir()
    }

    # A clone whose store is empty takes the artifact from the remote instead of building it.
    subprocess.run(["git", "clone", "-q", str(synced.root), str(tmp_path / "other")], check=True)
    other = Repository(tmp_path / "other")
    ran = other.run("sync", "both-skills")
    assert "both-skills  restored" in ran.out, ran.out + ran.err
    assert log_of_workers(other) == ""
    (statement,) = (other.root / ".dvc/cache/registry/provenance").glob("*/*.json")
    digest = "sha256:" + hashlib.sha256(statement.read_bytes()).hexdigest()
    entries = [one for one in chain.read(other.root).entries if one.model == "both-skills"]
    assert digest in {one.provenance for one in entries if one.action == "build"}
    assert [one.action for one in entries] == ["build", "push", "build", "restore"]


def test_without_a_remote_push_says_so(synced: Repository) -> None:
    ran = synced.run("sync", "--push")

    assert ran.code == 1
    assert "remote" in ran.err


def test_commit_records_and_pointers_only(synced: Repository) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    (synced.root / "notes.txt").write_text("mine")

    ran = synced.run("sync", "--commit")

    assert ran.code == 0, ran.err
    changed = synced.git("show", "--name-only", "--format=", "HEAD").split()
    assert changed == ["catalog/builds/both-skills.dvc", "catalog/builds/both-skills.json"]
    assert "notes.txt" in synced.git("status", "--porcelain")

    # What an earlier sync left without --commit is caught up.
    synced.edit(MERGE, "weight: 0.6", "weight: 0.5")
    synced.run("sync")
    assert "committed" in synced.run("sync", "--commit").out


def test_a_commit_is_pushed_and_never_over_what_others_pushed(
    synced: Repository, tmp_path: Path
) -> None:
    origin = tmp_path / "origin.git"
    synced.git("init", "-q", "--bare", str(origin))
    synced.git("remote", "add", "origin", str(origin))
    synced.git("push", "-q", "-u", "origin", "main")
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")

    assert synced.run("sync", "--commit").code == 0
    ours = synced.git("rev-parse", "HEAD").strip()
    assert ours in synced.git("ls-remote", "origin", "main")

    synced.git("clone", "-q", str(origin), str(tmp_path / "other"))
    other = Repository(tmp_path / "other")
    (other.root / "note").write_text("theirs")
    other.commit("theirs")
    other.git("push", "-q")
    synced.edit(MERGE, "weight: 0.6", "weight: 0.5")
    refused = synced.run("sync", "--commit")
    assert refused.code == 75
    assert "the branch moved meanwhile" in refused.err
    synced.git("add", "-A")
    synced.git("commit", "-qm", "weight 0.5")
    synced.git("pull", "-q", "--rebase")
    assert synced.run("sync", "--commit").code == 0
    assert synced.git("rev-parse", "HEAD").strip() in synced.git("ls-remote", "origin", "main")
