"""A second merge with the same targets, by `registry sync`: what it writes and what it takes.

The repository's own base and adapters in a clone of their own; merges without evaluation. All of
them touch the same tensors, so the rest of the model is in the store already.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import Sample
from benchmarks.session import ROOT, Session, say

KEY = "second-merge"
_REGISTRY = str(Path(sys.executable).parent / "registry")
_SPEC = """\
kind: merge
name: {name}
base: {base}
recipe:
  method: {method}
  terms:
    - {{adapter: sql, version: 1, weight: {weight}}}
    - {{adapter: json, version: 2, weight: 1.0}}
"""


def measure_all(session: Session) -> None:
    """Sync one merge, then others with the same targets, one at a time."""
    if len(session.results.of(KEY)) >= session.runs:
        return
    folder = session.scratch("clone")
    say("cloning the catalog")
    _clone(folder, session.runs)
    touched, whole = touched_bytes(folder)
    measure.run([_REGISTRY, "sync", "first"], cwd=folder)
    done = iter(range(1, session.runs + 1))

    def once() -> Sample:
        sample, _ = measure.run([_REGISTRY, "sync", f"second-{next(done)}"], cwd=folder)
        return replace(sample, told={"touched_bytes": touched, "whole_bytes": whole})

    session.measure(KEY, once)
    shutil.rmtree(folder)


def _clone(folder: Path, count: int) -> None:
    quiet = ["-c", "advice.detachedHead=false", "clone", "--quiet"]
    subprocess.run(["git", *quiet, ROOT, folder], check=True)
    base = next((ROOT / "catalog" / "bases").iterdir())
    shutil.copytree(
        base / "weights", folder / base.relative_to(ROOT) / "weights", dirs_exist_ok=True
    )
    merges = folder / "catalog" / "merges"
    for file in merges.iterdir():
        file.unlink()
    specs = {"first": ("task_arithmetic", 1.0)}
    specs |= {f"second-{n}": ("ties", 1.0 + n / 10) for n in range(1, count + 1)}
    for name, (method, weight) in specs.items():
        text = _SPEC.format(name=name, base=base.name, method=method, weight=weight)
        (merges / f"{name}.yaml").write_text(text, "utf-8")


def touched_bytes(folder: Path) -> tuple[float, float]:
    """Return the bytes of the base's tensors that the adapters touch, and of all its tensors."""
    base = next((folder / "catalog" / "bases").glob("*/weights/model.safetensors"))
    tensors = _header(base)
    touched = set()
    for adapter in ("sql/1", "json/2"):
        file = folder / "catalog" / "adapters" / adapter / "weights" / "adapter_model.safetensors"
        touched |= {
            name.removeprefix("base_model.model.").rsplit(".", 2)[0] for name in _header(file)
        }
    sizes = {name: end - start for name, (start, end) in tensors.items()}
    part = sum(size for name, size in sizes.items() if name.removesuffix(".weight") in touched)
    return float(part), float(sum(sizes.values()))


def _header(path: Path) -> dict[str, tuple[int, int]]:
    """Return first and last offset of every tensor of a safetensors file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: tuple(one["data_offsets"]) for name, one in header.items() if name[:2] != "__"}
