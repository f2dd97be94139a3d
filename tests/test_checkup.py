"""`registry doctor` tells what a sync would miss, and what to do."""

from __future__ import annotations

import json
import shutil

from tests.conftest import Repository


def test_a_healthy_catalog_has_no_problem(repository: Repository) -> None:
    ran = repository.run("doctor", "--format", "json")

    checks = {one["subject"]: one for one in json.loads(ran.out)["checks"]}
    assert ran.code == 0, ran.out
    assert all(one["ok"] for one in checks.values())
    assert checks["ingredients"]["found"] == "4 of 4 at hand or behind a pointer"
    assert checks["remote"]["found"] == "none set: artifacts stay in the cache of this machine"
    assert {"python", "packages", "git", "device", "disk", "mlflow"} < checks.keys()


def test_what_is_missing_is_named_with_its_cure(repository: Repository) -> None:
    shutil.rmtree(repository.root / "catalog/bases/tiny-llama/weights")
    text = (repository.root / "catalog/bases/tiny-llama/base.yaml").read_text()
    recover = text + "origin: {recover: make base}\n"
    (repository.root / "catalog/bases/tiny-llama/base.yaml").write_text(recover)

    ran = repository.run("doctor", MLFLOW_TRACKING_URI="http://127.0.0.1:9")

    assert ran.code == 1
    assert "base tiny-llama  its bytes are not at hand; make base" in ran.out
    assert "PROBLEM  mlflow" in ran.out
    assert ran.out.endswith("2 problems\n")
