"""Build requests and builds for tests of the merger: in this process, on two threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import schemas
from merger import engine, request
from merger.writer import KnownFile
from schemas.digest import hash_folder, tree_digest
from tests import tiny


@dataclass(frozen=True)
class TermOf:
    """One term of a request to be: where its operand lies, its weight and overrides."""

    folder: Path
    weight: Any = 1.0
    kind: str = "adapter"
    name: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)


def adapter(rank: int | None = None, dtype: str = "float32") -> dict[str, Any]:
    """Return the output options of an adapter."""
    return {"form": "adapter", "dtype": dtype, "rank": rank}


def digest_of(folder: Path) -> str:
    return tree_digest(hash_folder(folder))


def parameters_of(method: str, **given: Any) -> dict[str, Any]:
    """Return all parameters of a method, the given ones instead of the defaults."""
    defaults = {
        name: schema["default"] for name, schema in schemas.methods()[method]["properties"].items()
    }
    named = {name.rstrip("_"): value for name, value in given.items()}
    assert set(named) <= set(defaults)
    return defaults | named


def request_of(
    base: Path,
    terms: Sequence[TermOf],
    method: str = "task_arithmetic",
    *,
    compute: str = "float32",
    dtype: str = "base",
    max_shard_size: int = 5_000_000_000,
    seed: int = 0,
    artifact: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """Return a build request with every default written out."""
    chance = {"seed": seed} if schemas.methods()[method]["x-seed"] else {}
    return {
        "format_version": 1,
        "numerics": schemas.numerics(),
        "base": {"kind": "base", "name": "tiny", "digest": digest_of(base)},
        "recipe": {
            "method": method,
            "parameters": parameters_of(method, **parameters),
            "terms": [_term(term) for term in terms],
            "compute": compute,
            **chance,
        },
        "output": artifact or {"form": "model", "dtype": dtype, "max_shard_size": max_shard_size},
    }


def _term(term: TermOf) -> dict[str, Any]:
    operand: dict[str, Any] = {
        "kind": term.kind,
        "name": term.name or term.folder.name,
        "digest": digest_of(term.folder),
    }
    if term.kind != "merge":
        operand["version"] = 1
    return {"input": operand, "weight": term.weight, "parameters": dict(term.parameters)}


def inputs_of(base: Path, terms: Sequence[TermOf]) -> dict[str, Path]:
    return {digest_of(folder): folder for folder in (base, *(term.folder for term in terms))}


def build(
    output: Path,
    base: Path,
    terms: Sequence[TermOf],
    *,
    threads: int = 2,
    memory_bytes: int | None = None,
    known: Mapping[str, KnownFile] | None = None,
    **options: Any,
) -> engine.Built:
    """Build in this process; options as for `request_of`."""
    data = request_of(base, terms, **options)
    inputs = inputs_of(base, terms)
    limits = {"threads": threads, "memory_bytes": memory_bytes}
    return build_request(output, data, inputs, known=known, **limits)


def build_request(
    output: Path,
    data: Mapping[str, Any],
    inputs: Mapping[str, Path],
    *,
    threads: int = 2,
    memory_bytes: int | None = None,
    known: Mapping[str, KnownFile] | None = None,
) -> engine.Built:
    return engine.build(
        request.parse(data),
        inputs,
        output,
        limits=engine.Limits(torch.device("cpu"), threads, memory_bytes),
        progress=lambda _done, _total, _unit: None,
        known=known,
    )


def raw_tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return dtype, shape and bytes of every tensor of a model folder, over all shards."""
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= tiny.read_safetensors(path)
    return dict(sorted(found.items()))
