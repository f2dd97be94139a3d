"""`registry sync` as people run it: real Git, real DVC, a real worker, MLflow in a file."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from registry import keys
from tests.conftest import REGISTRY, Repository

pytestmark = pytest.mark.slow
MERGE = "catalog/merges/both-skills.yaml"


def digests(repository: Repository) -> dict[str, str]:
    """Return the live model digest of every recorded model."""
    folder = repository.root / "catalog/builds"
    return {
        path.stem: json.loads(path.read_text())["model_digest"] for path in folder.glob("*.json")
    }


def log_of_workers(repository: Repository) -> str:
    path = repository.root / ".registry/worker.log"
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def synced_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the example and sync it once; tests work on copies."""
    from registry import example, founding

    root = tmp_path_factory.mktemp("synced") / "models"
    founding.found(root)
    example.write(root)
    repository = Repository(root)
    repository.commit("start")
    ran = repository.run("sync")
    assert ran.code == 0, ran.err
    repository.commit("built")
    return root


@pytest.fixture
def synced(synced_once: Path, tmp_path: Path) -> Repository:
    """Return a copy of the synced example; its tracking store moves along."""
    subprocess.run(["cp", "-a", str(synced_once), str(tmp_path / "models")], check=True)
    return Repository(tmp_path / "models")


def test_a_second_sync_has_nothing_to_do_and_starts_no_worker(synced: Repository) -> None:
    before = log_of_workers(synced)

    ran = synced.run("sync")

    assert ran.code == 0
    assert "nothing to do: 4 up to date" in ran.out
    assert log_of_workers(synced) == before
    assert synced.git("status", "--porcelain") == ""


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
    assert synced.run("sync").code == 0
    first = digests(synced)["outer"]
    synced.edit(MERGE, "weight: 0.8", "weight: 0.7")

    planned = synced.run("plan").out
    assert "outer        maybe  input-changed: merge both-skills" in planned
    assert synced.run("sync").code == 0
    assert digests(synced)["outer"] != first

    # Another way to write the same numbers: rebuilt to the same digest, so nothing above moves.
    old = digests(synced)
    synced.edit(MERGE, "method: task_arithmetic", "method: task_arithmetic\n  compute: float64")
    assert synced.run("sync", "--jobs", "2").code == 0
    same = digests(synced)["both-skills"] == old["both-skills"]
    assert (digests(synced)["outer"] == old["outer"]) or not same
    lineage = synced.run("lineage", "outer").out
    assert "-1 adapter brief@1  (subtracted)" in lineage
    assert "│  ├─ " in lineage or "   ├─ " in lineage


def test_an_invalid_catalog_is_refused_as_a_whole(synced: Repository) -> None:
    before = digests(synced)
    synced.edit(MERGE, "weight: 0.8", 'weight: "-0,8"')

    for command in ("plan", "sync", "status", "validate"):
        ran = synced.run(command)
        assert ran.code == 1
        assert f"{MERGE}:9:44: recipe.terms[1].weight: expected" in ran.err
        assert "hint: write -0.8" in ran.err
    assert digests(synced) == before


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


def test_without_a_remote_push_says_so(synced: Repository) -> None:
    ran = synced.run("sync", "--push")

    assert ran.code == 1
    assert "remote" in ran.err


def test_a_tracking_server_that_is_down_fails_nothing_and_is_caught_up(
    synced: Repository,
) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    start = time.monotonic()

    ran = synced.run("sync", MLFLOW_TRACKING_URI="http://127.0.0.1:9")

    assert ran.code == 0, ran.err
    assert time.monotonic() - start < 90
    assert ran.err.count("warning: MLflow") == 1
    planned = synced.run("plan", "--detailed-exitcode")
    assert "both-skills  log" in planned.out
    assert planned.code == 0
    assert "both-skills  logged" in synced.run("sync").out
    assert "nothing to do" in synced.run("sync").out


def test_a_revoked_adapter_takes_its_models_out(synced: Repository) -> None:
    path = synced.root / "catalog/adapters/brief/1/adapter.yaml"
    path.write_text(path.read_text() + 'revoked: {reason: "leaked data"}\n')

    planned = synced.run("plan").out
    assert "formal-not-brief  unpublish  revoked: adapter brief@1: leaked data" in planned
    assert synced.run("validate").code == 0
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


def test_a_second_sync_waits_for_the_lock_and_gives_up_with_75(synced: Repository) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    import fcntl

    with (synced.root / ".registry/lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ran = synced.run("sync", "--lock-timeout", "0.3")

    assert ran.code == 75
    assert "another sync holds" in ran.err


def test_commit_records_and_pointers_only(synced: Repository) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    (synced.root / "notes.txt").write_text("mine")

    ran = synced.run("sync", "--commit")

    assert ran.code == 0, ran.err
    changed = synced.git("show", "--name-only", "--format=", "HEAD").split()
    assert changed == ["catalog/builds/both-skills.dvc", "catalog/builds/both-skills.json"]
    assert "notes.txt" in synced.git("status", "--porcelain")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_stops_in_order(synced: Repository, number: int, code: int) -> None:
    synced.edit(MERGE, "weight: 0.8", "weight: 0.6")
    before = digests(synced)
    process = subprocess.Popen(
        [*REGISTRY, "sync"], cwd=synced.root, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr is not None
    process.stderr.readline()  # `both-skills  build`

    process.send_signal(number)

    process.communicate(timeout=30)
    assert process.returncode == code
    assert digests(synced) == before
    assert synced.run("sync").code == 0


def test_killed_at_random_moments_the_next_sync_converges(
    make_repository: Callable[[str], Repository],
) -> None:
    repository = make_repository("killed")
    chance = random.Random(os.environ.get("KILL_SEED", "7"))
    for _ in range(12):
        process = subprocess.Popen(
            [*REGISTRY, "sync"],
            cwd=repository.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=chance.uniform(0.2, 9.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for path in (repository.root / "catalog/builds").glob("*.json"):
            assert json.loads(path.read_text())["model_digest"].startswith("sha256:")
        assert repository.run("validate").code == 0

    ran = repository.run("sync")

    assert ran.code == 0, ran.err
    assert repository.run("verify", "--deep").code == 0
    assert "nothing to do: 4 up to date" in repository.run("sync").out
    leftovers = {path.name for path in (repository.root / ".dvc/cache/registry/tmp").iterdir()}
    assert leftovers <= {"lock"}
    builds = repository.root / "catalog/builds"
    assert sorted(path.suffix for path in builds.iterdir()) == [".dvc"] * 4 + [".json"] * 4
