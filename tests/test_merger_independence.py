"""What must not matter to a tensor's bits: other tensors, shards, terms' order and names, threads.

For every method with its defaults, on a base with adapters and a checkpoint. Only `scope: model`
and what a tensor is called (in the key of a random mask) may reach from one tensor to another.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import schemas
from tests import merging, tiny
from tests.merging import TermOf

METHODS = [name for name in schemas.methods() if name != "passthrough"]
REMOVED = "model.layers.1.self_attn.q_proj.weight"
PREFIX = "base_model.model."


class World:
    """A base and its operands, and the same once more with a tensor left out or renamed."""

    def __init__(
        self,
        folder: Path,
        keep: Callable[[str], str | None] = lambda name: name,
        *,
        backwards: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        whole = folder / "whole"
        base = tiny.tiny_base(whole / "base", dtype="float32")
        adapters = [
            tiny.tiny_adapter(whole / f"adapter{seed}", base=base, seed=seed, rank=seed + 1)
            for seed in (1, 2)
        ]
        checkpoint = tiny.tiny_checkpoint(whole / "full", base=base, seed=3, dtype="float32")
        self.base, *operands = (
            _rewritten(source, folder / source.name, keep, backwards=backwards)
            for source in (base, *adapters, checkpoint)
        )
        kinds = ("adapter", "adapter", "checkpoint")
        self.operands = list(zip(operands, kinds, strict=True))

    def terms(self, method: str) -> list[TermOf]:
        facts = schemas.methods()[method]
        weights = (1.0, 0.5, 0.25) if facts["x-weights"] else (1.0, 1.0, 1.0)
        chosen = self.operands[-facts.get("x-terms-max", len(self.operands)) :]
        pairs = zip(chosen, weights[: len(chosen)], strict=True)
        return [TermOf(folder, weight, kind) for (folder, kind), weight in pairs]


def _rewritten(
    source: Path, target: Path, keep: Callable[[str], str | None], *, backwards: bool
) -> Path:
    """Copy a folder, its tensors left out (None) or renamed by `keep`."""
    shutil.copytree(source, target)
    for path in target.glob("*.safetensors"):
        tensors = {}
        for name, value in tiny.read_safetensors(path).items():
            module = name.removeprefix(PREFIX)
            stem, dot, rest = module.partition(".lora_")
            new = keep(f"{stem}.weight" if dot else module)
            if new is not None:
                prefix = PREFIX if name.startswith(PREFIX) else ""
                tensors[f"{prefix}{new.removesuffix('.weight')}{dot}{rest}" if dot else new] = value
        tiny.write_raw(path, tensors, backwards=backwards)
    return target


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("independence"))


def bits(output: Path, world: World, terms: list[TermOf], method: str, **options: Any) -> Any:
    merging.build(output, world.base, terms, method=method, **options)
    return merging.raw_tensors(output)


@pytest.fixture(scope="module")
def expected(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    found: dict[str, Any] = {}

    def of(method: str) -> Any:
        if method not in found:
            folder = tmp_path_factory.mktemp("expected")
            found[method] = bits(folder / "out", world, world.terms(method), method)
        return found[method]

    return of


@pytest.mark.parametrize("method", METHODS)
def test_threads_shards_and_memory_change_no_bit(
    method: str, world: World, expected: Callable[[str], Any], tmp_path: Path
) -> None:
    sharded = World(tmp_path / "sharded")
    tensors = tiny.read_tensors(sharded.base)
    (sharded.base / "model.safetensors").unlink()
    tiny.write_shards(sharded.base, tensors, dtype="float32")

    one = bits(tmp_path / "one", world, world.terms(method), method, threads=1)
    four = bits(tmp_path / "four", world, world.terms(method), method, threads=4)
    # So little that no delta is held: each is computed again for every pass.
    little = bits(tmp_path / "little", world, world.terms(method), method, memory_bytes=4096)
    options: dict[str, Any] = {"max_shard_size": 4000}
    shards = bits(tmp_path / "shards", sharded, _pinned(sharded, world, method), method, **options)

    assert one == four == little == shards == expected(method)


def _pinned(other: World, world: World, method: str) -> list[TermOf]:
    """Return the terms of another world, whose operands have the same bytes as this one's."""
    terms = other.terms(method)
    digests = [merging.digest_of(term.folder) for term in world.terms(method)]
    assert [merging.digest_of(term.folder) for term in terms] == digests
    return terms


@pytest.mark.parametrize("method", [m for m in METHODS if schemas.methods()[m]["x-symmetric"]])
def test_order_and_names_of_terms_change_no_bit(
    method: str, world: World, expected: Callable[[str], Any], tmp_path: Path
) -> None:
    turned = list(reversed(world.terms(method)))
    renamed = [
        TermOf(term.folder, term.weight, term.kind, name=f"other-{number}")
        for number, term in enumerate(turned)
    ]

    assert bits(tmp_path / "turned", world, turned, method) == expected(method)
    assert bits(tmp_path / "renamed", world, renamed, method) == expected(method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", ["removed", "renamed"])
def test_another_tensor_removed_or_renamed_changes_no_bit(
    method: str, change: str, expected: Callable[[str], Any], world: World, tmp_path: Path
) -> None:
    new = None if change == "removed" else REMOVED.replace("layers.1", "layers.1.inner")
    other = World(tmp_path / "other", lambda name: new if name == REMOVED else name)

    found = _same_digests(tmp_path / "out", other, world, method)

    before = dict(expected(method))
    before.pop(REMOVED)
    found.pop(new, None)
    assert found == before


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_tensors_in_the_files_changes_no_bit(
    method: str, expected: Callable[[str], Any], world: World, tmp_path: Path
) -> None:
    other = World(tmp_path / "other", backwards=True)
    files = (other.base / "model.safetensors", world.base / "model.safetensors")
    assert files[0].read_bytes() != files[1].read_bytes()

    assert _same_digests(tmp_path / "out", other, world, method) == expected(method)


def _same_digests(output: Path, other: World, world: World, method: str) -> Any:
    """Build the other world under the first one's digests: they are in the keys of masks."""
    pairs = list(zip(other.terms(method), world.terms(method), strict=True))
    data = merging.request_of(world.base, [term for _, term in pairs], method)
    inputs = {merging.digest_of(term.folder): here.folder for here, term in pairs}
    inputs[merging.digest_of(world.base)] = other.base
    merging.build_request(output, data, inputs)
    return merging.raw_tensors(output)
