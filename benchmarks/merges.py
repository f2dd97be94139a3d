"""What is merged, and how one merge is run and measured: the worker's whole process.

A worker reads its request and its inputs from files, as `python -m merger build` does by hand; the
processor does the work, as in the peers.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import schemas
from benchmarks import measure
from benchmarks.measure import Sample
from benchmarks.models import DIGESTS
from benchmarks.session import ROOT

SPECTRAL = ("tsv_m", "iso_c", "iso_cts", "knots")
"""Methods that factorise matrices: their terms are adapters, as their users' are."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Folders and digests of the base and of what is merged, by name."""

    folders: Mapping[str, Path]
    digests: Mapping[str, str]

    def paths(self, names: Sequence[str]) -> list[Path]:
        """Return the folders of the base and of some operands."""
        return [self.folders[name] for name in ("base", *names)]


@dataclass(frozen=True, slots=True)
class Case:
    """One merge: its method, its operands by name, parameters other than the defaults."""

    key: str
    title: str
    method: str
    terms: tuple[str, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)


CASES = (
    Case("linear", "linear of two fine-tunes", "linear", ("ft1", "ft2")),
    Case(
        "task_arithmetic",
        "task arithmetic of three fine-tunes",
        "task_arithmetic",
        ("ft1", "ft2", "ft3"),
    ),
    Case("ties", "TIES of three fine-tunes", "ties", ("ft1", "ft2", "ft3")),
    Case("dare_ties", "DARE+TIES of three fine-tunes", "dare_ties", ("ft1", "ft2", "ft3")),
    Case("ties-adapters", "TIES of three adapters", "ties", ("ad1", "ad2", "ad3")),
)
DENSE = Case("tsv_m-dense", "tsv_m of three fine-tunes", "tsv_m", ("ft1", "ft2", "ft3"))
REAL = Case("ties-real", "TIES of three adapters", "ties", ("sql", "json", "notes-loud"))
_REAL_VERSIONS = {"sql": 1, "json": 2, "notes-loud": 1}


def every_method() -> tuple[Case, ...]:
    """Return a case for every method of the merge schema, and TIES of the whole model."""
    found = []
    for name, facts in schemas.methods().items():
        kind = "ad" if name in SPECTRAL else "ft"
        count = facts.get("x-terms-max", 3)
        terms = tuple(f"{kind}{number}" for number in range(1, count + 1))
        found.append(Case(name, name, name, terms))
    ties = CASES[2]
    return (*found, replace(ties, key="ties-model", parameters={"scope": "model"}))


def made_inputs(folder: Path) -> Inputs:
    """Return what `benchmarks.models` made in a folder."""
    digests = json.loads((folder / DIGESTS).read_text("utf-8"))
    return Inputs({name: folder / name for name in digests}, digests)


def real_inputs() -> Inputs:
    """Return the base and the adapters of the repository's own catalog."""
    catalog = ROOT / "catalog"
    base = next(catalog.glob("bases/*/base.yaml"))
    files = {"base": base} | {
        name: catalog / f"adapters/{name}/{version}/adapter.yaml"
        for name, version in _REAL_VERSIONS.items()
    }
    digests = {}
    for name, file in files.items():
        match = re.search(r"sha256:[0-9a-f]{64}", file.read_text("utf-8"))
        assert match is not None, file
        digests[name] = match[0]
    return Inputs({name: file.parent / "weights" for name, file in files.items()}, digests)


def request_of(inputs: Inputs, case: Case) -> dict[str, Any]:
    """Return the build request of a case, every parameter written out."""
    facts = schemas.methods()[case.method]
    defaults = {name: schema["default"] for name, schema in facts["properties"].items()}
    recipe: dict[str, Any] = {
        "method": case.method,
        "parameters": {**defaults, **case.parameters},
        "terms": [_term(inputs, name) for name in case.terms],
        "compute": "float32",
        **({"seed": 0} if facts["x-seed"] else {}),
    }
    if case.method == "passthrough":
        config = json.loads((inputs.folders["base"] / "config.json").read_text("utf-8"))
        recipe["slices"] = _stacked(config["num_hidden_layers"], len(case.terms))
    return {
        "format_version": 1,
        "numerics": schemas.numerics(),
        "base": {"kind": "base", "name": "base", "digest": inputs.digests["base"]},
        "recipe": recipe,
        "output": {"form": "model", "dtype": "base", "max_shard_size": 5_000_000_000},
    }


def _stacked(layers: int, terms: int) -> list[dict[str, Any]]:
    """Return slices that take the same share of layers from every term, at least one."""
    found = []
    for place in range(terms):
        first = place * layers // terms
        found.append(
            {"term": place, "layers": [first, max(first + 1, (place + 1) * layers // terms)]}
        )
    return found


def _term(inputs: Inputs, name: str) -> dict[str, Any]:
    is_adapter = (inputs.folders[name] / "adapter_config.json").exists()
    kind = "adapter" if is_adapter else "checkpoint"
    operand = {"kind": kind, "name": name, "digest": inputs.digests[name], "version": 1}
    return {"input": operand, "weight": 1.0, "parameters": {}}


def build(inputs: Inputs, case: Case, folder: Path) -> Sample:
    """Merge into an empty folder with a worker of its own; the artifact is removed again."""
    request, output = folder / "request.json", folder / "artifact"
    request.write_text(json.dumps(request_of(inputs, case)), "utf-8")
    given = [
        f"--input={inputs.digests[name]}={inputs.folders[name]}" for name in ("base", *case.terms)
    ]
    command = [sys.executable, "-m", "merger", "build", f"--request={request}", *given]
    sample, told = measure.run([*command, f"--output={output}", "--device=cpu"], cwd=ROOT)
    report = json.loads(told.splitlines()[-1])
    size = float(sum(path.stat().st_size for path in output.iterdir()))
    shutil.rmtree(output)
    read = sum(
        path.stat().st_size
        for one in inputs.paths(case.terms)
        for path in one.glob("*.safetensors")
    )
    figures = {"seconds": report["seconds"], "artifact_bytes": size, "input_bytes": float(read)}
    return replace(sample, told=figures)


def import_torch() -> Sample:
    """Start Python and import torch: what no merge can do without."""
    return measure.run([sys.executable, "-c", "import torch"], cwd=ROOT)[0]
