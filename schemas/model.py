"""Names, shapes and files of a model folder from its headers. Reads no tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.digest import INDEX
from schemas.header import HeaderError, TensorInfo, read_header

SINGLE = "model.safetensors"
CODE_KEYS = ("auto_map", "auto_mapping", "trust_remote_code")
"""Keys of a configuration that would make a library run code; refused wherever they stand."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


class ModelError(ValueError):
    """A folder is not a model that we accept; `path` is relative to it, `field` may be empty."""

    def __init__(self, path: str, why: str, field: str = "") -> None:
        """Name the file, the field and what is wrong."""
        super().__init__(f"{path}: {field + ': ' if field else ''}{why}")
        self.path = path
        self.why = why
        self.field = field


@dataclass(frozen=True, slots=True)
class Located:
    """A tensor's header entry and the file that holds it, relative to the model's folder."""

    file: str
    info: TensorInfo


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """A model without its numbers: its tensors by name, sorted, and its config.json."""

    tensors: Mapping[str, Located]
    config: Mapping[str, Any]

    @property
    def infos(self) -> dict[str, TensorInfo]:
        """Header entry of every tensor by name."""
        return {name: located.info for name, located in self.tensors.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name."""
        return {name: located.info.shape for name, located in self.tensors.items()}

    @property
    def tied(self) -> bool:
        """Whether the model reads its output matrix from its input embeddings."""
        return bool(self.config.get("tie_word_embeddings", False))


def read_model(folder: Path) -> ModelHeader:
    """Return what the headers of a model folder tell, single file or shards with an index.

    Raises ModelError or HeaderError when something is missing, refused or contradictory.
    """
    refuse_pickles(folder)
    config = read_config(folder, "config.json")
    shards = _shards(folder)
    tensors: dict[str, Located] = {}
    for shard, listed in shards.items():
        for name, info in _shard_header(folder, shard).items():
            if name in tensors:
                why = f"tensor {name} stands in {tensors[name].file} too"
                raise ModelError(shard, why)
            if listed is not None and name not in listed:
                why = f"tensor {name} is not in {INDEX}"
                raise ModelError(shard, why)
            tensors[name] = Located(shard, info)
        for name in sorted((listed or frozenset()) - tensors.keys()):
            why = f"tensor {name} is missing from {shard}"
            raise ModelError(INDEX, why)
    if not tensors:
        raise ModelError(SINGLE, "expected at least one tensor")
    return ModelHeader(dict(sorted(tensors.items())), config)


def _shard_header(folder: Path, shard: str) -> Mapping[str, TensorInfo]:
    try:
        return read_header(folder / shard)
    except OSError as error:
        raise ModelError(shard, f"cannot be read: {error.strerror}") from error


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """Return a JSON configuration as data.

    Raises ModelError when it is missing, no JSON object, or would make a library run code.
    """
    try:
        config = json.loads((folder / name).read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(name, "expected this file, found none") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(name, "expected a JSON object") from error
    if not isinstance(config, dict):
        raise ModelError(name, "expected a JSON object")
    for key in CODE_KEYS:
        if config.get(key):
            raise ModelError(name, "refused: it would run code from the model", key)
    return config


def refuse_pickles(folder: Path) -> None:
    """Raise ModelError if a pickle file lies anywhere in `folder`."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLES and path.is_file():
            where = path.relative_to(folder).as_posix()
            raise ModelError(where, "refused: a pickle file can run code; use safetensors")


def _shards(folder: Path) -> dict[str, frozenset[str] | None]:
    """Return shard file to the names that the index gives it; None for a single file."""
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            raise ModelError(SINGLE, f"expected this file or {INDEX}, found neither")
        return {SINGLE: None}
    weight_map = read_config(folder, INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(INDEX, "expected a map of tensor to file", "weight_map")
    by_shard: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or "/" in shard or not shard.endswith(".safetensors"):
            raise ModelError(INDEX, "expected the name of a safetensors file", f"weight_map.{name}")
        by_shard.setdefault(shard, set()).add(name)
    return {shard: frozenset(names) for shard, names in sorted(by_shard.items())}


__all__ = ["HeaderError", "Located", "ModelError", "ModelHeader", "read_config", "read_model"]
