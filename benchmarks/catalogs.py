"""Catalogs of any size in which everything is built, so that a sync finds nothing to do.

    python -m benchmarks.catalogs DIR --models 10000

The catalog is a repository as `registry init` makes it, with a tiny base, some dozens of adapters,
varied merges, and for each merge the record, pointer, index entry and objects that a sync leaves,
all committed. Nothing is merged: artifacts share the weights of the base, and recipe and card are
their own. They are written by the registry's own code, but not durably, at some 0.6 ms each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import example, founding, keys, local_store, record, tracking_place
from registry.keys import Artifact, StoredFile
from registry.record import BuildRecord, Built, Logged
from registry.request import Declaration, declare, key_of
from registry.spec import Catalog, Ingredient, MergeSpec, Settings, Term
from schemas.digest import FileHash, hash_folder, model_digest, tree_digest
from schemas.expression import expression

ADAPTERS = 36
_STORE = "benchmark-store"
_FACTS = {"versions": {}, "device_class": "cpu:none", "seconds": 0.0, "peak_bytes": 0}
_TEAMS = ("search", "support", "legal", "coding", "sales")
_CARRIED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_METHODS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("task_arithmetic", {}),
    ("ties", {"density": 0.3, "election": "frequency"}),
    ("linear", {}),
    ("dare_ties", {"density": 0.4, "trim_density": 0.5}),
    ("task_arithmetic", {"lambda": 0.7}),
    ("ties", {}),
    ("dare_linear", {"density": 0.5, "normalize": False}),
)


def make_catalog(folder: Path, models: int) -> None:
    """Make `folder`, which must be absent or empty, a catalog of so many built and logged merges.

    The index trusts no file that is younger than 2 s: wait so long before anything is measured.
    """
    founding.found(folder)
    example.write(folder)
    shutil.rmtree(folder / "catalog" / "merges")
    (folder / "catalog" / "merges").mkdir()
    for number in range(ADAPTERS):
        example.write_adapter(folder, f"skill-{number:02}", 1, seed=100 + number)
    catalog = _catalog(folder, models)
    for spec in catalog.merges.values():
        path = folder / "catalog" / "merges" / f"{spec.name}.yaml"
        path.write_text(_text(spec), "utf-8")
    _Builds(folder).write(declare(catalog))
    _remember_tracking(folder)
    _commit(folder)


def _catalog(folder: Path, models: int) -> Catalog:
    """Return the values of what is declared: reading 100,000 specs would take three minutes."""
    base = _ingredient(folder, "base", example.BASE, None)
    adapters = [_ingredient(folder, "adapter", f"skill-{n:02}", 1) for n in range(ADAPTERS)]
    merges = [_merge(number) for number in range(models)]
    ingredients = {one.id: one for one in (base, *adapters)}
    return Catalog(Settings("benchmark"), ingredients, {one.name: one for one in merges}, {})


def _ingredient(folder: Path, kind: str, name: str, version: int | None) -> Ingredient:
    place = f"catalog/{'bases' if kind == 'base' else 'adapters'}/{name}"
    place += "/weights" if version is None else f"/{version}/weights"
    base = None if kind == "base" else example.BASE
    return Ingredient(kind, name, version, base, tree_digest(hash_folder(folder / place)), place)


def _merge(number: int) -> MergeSpec:
    """Return the merge of a number; every tenth is made of another one too, no two are equal."""
    method, parameters = _METHODS[number % len(_METHODS)]
    first = round(0.2 + number % 1000 / 1000, 3)
    weights: list[Any] = [first, round(0.3 + number // 1000 / 1000, 3), 0.5, 0.25]
    if number % 9 == 4:
        weights[0] = {"layers": [first, 0.5], "embeddings": 0.4, "head": 0.8}
    if number % 4 == 0 and method != "linear":
        weights[2] = -0.5
    count = 2 + number % 3
    terms = [
        Term("adapter", f"skill-{(number + 7 * place) % ADAPTERS:02}", 1, weights[place], {})
        for place in range(count)
    ]
    if number % 10 == 9:
        terms.append(Term("merge", _name(number - 4), None, 0.5, {}))
    return MergeSpec(
        name=_name(number),
        base=example.BASE,
        method=method,
        parameters=parameters,
        terms=tuple(terms),
        seed=0,
        compute="float32",
        output={"dtype": "float16"} if number % 6 == 0 else {},
        description=f"Model {number}: {count} skills of the {_TEAMS[number % 5]} team.",
        owner=f"{_TEAMS[number % 5]}-platform",
        labels={"team": _TEAMS[number % 5], "tier": str(number % 3)},
    )


def _name(number: int) -> str:
    return f"{_TEAMS[number % 5]}-{number:06}"


def _text(spec: MergeSpec) -> str:
    """Return the file of a merge as a person would write it."""
    lines = [
        "# yaml-language-server: $schema=../../schemas/merge.schema.json",
        "kind: merge",
        f"name: {spec.name}",
        f"base: {spec.base}",
        "recipe:",
        f"  method: {spec.method}",
        *([f"  parameters: {json.dumps(spec.parameters)}"] if spec.parameters else []),
        "  terms:",
        *map(_term_text, spec.terms),
        *([f"output: {json.dumps(spec.output)}"] if spec.output else []),
        f'description: "{spec.description}"',
        f"owner: {spec.owner}",
        f"labels: {json.dumps(spec.labels)}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _term_text(term: Term) -> str:
    version = "" if term.version is None else f", version: {term.version}"
    return f"    - {{{term.kind}: {term.name}{version}, weight: {json.dumps(term.weight)}}}"


@dataclass(slots=True)
class _Builds:
    """What syncs have left of every merge."""

    folder: Path

    def write(self, declared: Mapping[str, Declaration]) -> None:
        """Write records, pointers, index entries and objects of all that is declared."""
        cache = keys.cache_folder(self.folder)
        (self.folder / "catalog" / "builds").mkdir()
        for first in range(256):
            for place in ("files/md5", "registry/keys"):
                (cache / place / f"{first:02x}").mkdir(parents=True, exist_ok=True)
        shared = dict(self._shared(cache))
        model = model_digest(_hashes(shared))
        for one in declared.values():
            self._write(cache, one, one.pin(dict.fromkeys(one.upstream, model)), shared)

    def _shared(self, cache: Path) -> Iterator[tuple[str, StoredFile]]:
        """Put what all artifacts have in common into the cache: the base, as if nothing changed."""
        weights = self.folder / "catalog" / "bases" / example.BASE / "weights"
        for name in ("model.safetensors", *_CARRIED):
            yield name, _store(cache, (weights / name).read_bytes())

    def _write(
        self,
        cache: Path,
        one: Declaration,
        request: Mapping[str, Any],
        shared: Mapping[str, StoredFile],
    ) -> None:
        title = expression(request["base"]["name"], request["recipe"])
        recipe = json.dumps(request, indent=2, sort_keys=True).encode()
        files = {
            **shared,
            "README.md": _store(cache, f"# {title}\n{one.model}\n".encode()),
            "recipe.json": _store(cache, recipe),
        }
        listing = keys.listing(files)
        artifact = Artifact(
            key=key_of(request),
            model_digest=model_digest(_hashes(files)),
            artifact_digest=tree_digest(_hashes(files)),
            oid=keys.listing_oid(files),
            files=files,
            facts=_FACTS,
        )
        _write_new(keys.object_path(cache, artifact.oid), listing)
        _write_new(cache / keys.relative_path(artifact.key), keys.encode(artifact))
        builds = record.folder(self.folder)
        pointer = local_store.pointer(one.model, artifact)
        _write_new(builds / f"{one.model}.dvc", pointer)
        _write_new(builds / f"{one.model}.json", record.encode(_record(one, request, artifact)))


def _record(one: Declaration, request: Mapping[str, Any], artifact: Artifact) -> BuildRecord:
    hashes = {path: file.as_data() for path, file in _hashes(artifact.files).items()}
    stored = {"digest": artifact.artifact_digest, "files": hashes}
    built = Built(artifact.key, request, artifact.model_digest, stored, **artifact.facts)
    run = hashlib.md5(artifact.key.encode()).hexdigest()
    return BuildRecord(one.model, built, mlflow=Logged(_STORE, run, "1"))


def _hashes(files: Mapping[str, StoredFile]) -> dict[str, FileHash]:
    return {path: FileHash(file.sha256, file.size) for path, file in files.items()}


def _store(cache: Path, content: bytes) -> StoredFile:
    """Put bytes into the cache under the name that DVC gives them."""
    md5 = hashlib.md5(content).hexdigest()
    path = keys.object_path(cache, md5)
    if not path.exists():
        _write_new(path, content)
    return StoredFile(hashlib.sha256(content).hexdigest(), md5, len(content))


def _write_new(path: Path, content: bytes) -> None:
    # 0444 is how DVC tells a finished object; for the other files it does no harm here.
    mode = 0o444 if "md5" in path.parts else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        os.write(descriptor, content)
    finally:
        os.close(descriptor)


def _remember_tracking(folder: Path) -> None:
    """Let the runs in the records be those of this repository's tracking store, never opened."""
    uri = f"{tracking_place.SQLITE}{folder.absolute() / '.registry' / 'mlflow.db'}"
    (folder / ".registry").mkdir(exist_ok=True)
    (folder / ".registry" / "mlflow.db").touch()
    tracking_place.remember_store(folder, uri, _STORE)


def _commit(folder: Path) -> None:
    # Blobs go into one pack, uncompressed: as many loose objects would take minutes.
    fast = ("-c", "core.bigFileThreshold=1", "-c", "core.compression=0", "-c", "gc.auto=0")
    who = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")
    for arguments in (("add", "--all"), ("commit", "--quiet", "--message=Everything is built")):
        subprocess.run(["git", *fast, *who, *arguments], cwd=folder, check=True)


def main() -> None:
    """Make a catalog in a folder."""
    parser = argparse.ArgumentParser(description="Make a catalog in which everything is built.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=int, default=1000)
    given = parser.parse_args()
    make_catalog(given.folder, given.models)
    print(f"{given.folder}: {given.models} models")


if __name__ == "__main__":
    main()
