"""What commands share that try recipes of a merge: its request, and where files go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import observation
from registry.cli.session import Session
from registry.errors import RegistryError
from registry.record import BuildRecord
from registry.spec import MergeSpec
from schemas.utility import MEASURED


def ready(session: Session, model: str) -> tuple[MergeSpec, dict[str, Any]]:
    """Return a declared merge and its build request; RegistryError if it cannot be tried."""
    session.require([model])
    spec = session.loaded.catalog.merges[model]
    name = (spec.tune and spec.tune.suite) or spec.suite
    if name is None:
        msg = f"{model}: expected a suite to measure candidates on, found none"
        raise RegistryError(msg, "add `evaluation: {suite: …}` to the merge, or `tune:` with one")
    suite = session.loaded.catalog.suites[name]
    if all(task["metric"] in MEASURED for task in suite.tasks):
        msg = f"{model}: expected a suite with a task that a model's numbers decide, found {name}"
        raise RegistryError(msg, "latency and throughput say how fast a machine is")
    if spec.slices or spec.tokenizer != "base":
        what = "stacks layers" if spec.slices else "has a vocabulary of its own"
        msg = f"{model} {what}: it cannot be tried in the memory of its base"
        raise RegistryError(msg)
    return spec, session.declared[model].pin(_digests(session, spec))


def _digests(session: Session, spec: MergeSpec) -> dict[str, str]:
    recorded = session.observed().recorded
    digests = {}
    for name in spec.upstream:
        one = recorded.get(name)
        if not isinstance(one, BuildRecord) or one.built is None:
            msg = f"{spec.name}: merge {name} is not built"
            raise RegistryError(msg, f"run `registry sync {name}`")
        digests[name] = one.built.model_digest
    return digests


def folder(session: Session, kind: str, model: str) -> Path:
    """Return where the files of a command about a model go by default."""
    return observation.state_folder(session.root) / kind / model


def told(form: str, files: Mapping[str, bytes], text: str) -> str:
    """Return what a command prints: its text, or the report that was written in that form."""
    names = {"json": "report.json", "markdown": "report.md"}
    return files[names[form]].decode().rstrip("\n") if form in names else text
