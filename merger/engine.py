"""The one loop of a build: deltas, method, base + delta, write; one tensor at a time.

Knows neither JSON lines nor the command line. Blocks are the unit of arithmetic, tensors the unit
of work: several tensors are merged at once on threads of ours, each on one BLAS thread, and are
written in the order of the layout. Peak memory is a few times the largest tensor.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from merger import adapter_output, card, pools, statistics, untouched
from merger.checkpoint import NAMES
from merger.errors import InputError
from merger.layout import Entry, Layout, Shard, plan_layout
from merger.methods import bind
from merger.pieces import in_pieces
from merger.request import BuildRequest
from merger.statistics import TensorTally
from merger.target import Target, open_target
from merger.tensor_merge import HELD_BYTES, Merged, Merging
from merger.writer import ArtifactWriter, KnownFile, WrittenFile, read_chunks
from schemas.digest import INDEX, TreeError, is_carried, list_files, model_digest, tree_digest
from schemas.schedule import count_layers

_LOG = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]

_WAITING_BYTES = 16 << 20  # of finished and unfinished pieces, per thread


@dataclass(frozen=True, slots=True)
class Built:
    """What a build wrote, its figures, and the keys of the shards that no term touches."""

    files: Mapping[str, WrittenFile]
    model_digest: str
    artifact_digest: str
    statistics: Mapping[str, Any]
    shards: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a build may use; no limit changes a bit of the result."""

    device: torch.device
    threads: int
    memory_bytes: int | None = None

    @property
    def merging_threads(self) -> int:
        """Threads that merge while a file is written: hashing and writing take one processor.

        On two processors a second thread would save a quarter of the time of TIES, none of a cheap
        merge's, and cost a third more: two threads that each call torch every 15 µs spend as much
        on handing Python's lock to each other.
        """
        return max(1, self.threads - 1)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of results that may wait to be written."""
        wanted = _WAITING_BYTES * (self.threads + 2)
        return wanted if self.memory_bytes is None else min(wanted, self.memory_bytes // 2)

    @property
    def held_bytes(self) -> int:
        """Bytes of deltas that may be kept of one tensor, where its method reads them again."""
        most = HELD_BYTES if self.memory_bytes is None else min(HELD_BYTES, self.memory_bytes // 2)
        return most // (2 * self.threads + 1)  # so many tensors are prepared and not yet merged


def build(
    request: BuildRequest,
    inputs: Mapping[str, Path],
    output: Path,
    limits: Limits,
    progress: Progress,
    known: Mapping[str, KnownFile] | None = None,
) -> Built:
    """Merge into the empty folder `output`, or leave nothing there.

    `known` are untouched shards by key that need not be written again: they are linked.
    Raises InputError for an input that does not fit the request, DiskError, OSError, MemoryError.
    """
    with ExitStack() as stack:
        target, merging = open_merging(stack, request, inputs, limits)
        base, vectors, method = merging.base, merging.vectors, merging.method
        if request.output.form == "adapter":
            return _build_adapter(
                request, target, merging, output, limits=limits, progress=progress
            )
        layout = plan_layout(
            base.tensors,
            vectors.touched,
            dtype=_written_dtype(request),
            max_shard_size=request.output.max_shard_size,
        )
        writer = stack.enter_context(ArtifactWriter(output))
        keys = untouched.shard_keys(layout, request, target)
        writer.reserve(layout.size - untouched.take(writer, keys, known or {}))
        rest = Layout(tuple(shard for shard in layout.shards if shard.file not in writer.files))
        threads = limits.merging_threads
        pool = stack.enter_context(pools.threads(threads, limits.device))
        _LOG.info("merging %d of %d tensors", len(vectors.touched), len(base.tensors))
        method.survey(vectors, pool.map)
        entries = [entry for shard in rest.shards for entry in shard.entries]
        work = in_pieces(merging, entries, ahead=threads)
        lane = pools.Lane(pool, threads, limits.in_flight_bytes)
        merged = lane.in_order(lambda one: one.make(), work)
        tallies = _write_weights(writer, rest, merged, progress)
        _write_rest(writer, layout, request, target)
        kept = method.kept()
    labels = [term.label for term in request.recipe.terms]
    figures = statistics.summarize(tallies, labels, kept=kept)
    return replace(_built(writer, figures), shards=keys)


def open_merging(
    stack: ExitStack, request: BuildRequest, inputs: Mapping[str, Path], limits: Limits
) -> tuple[Target, Merging]:
    """Open all inputs, which `stack` closes, and bind the method to the numbers of the request.

    Raises InputError for an input or a number that does not fit.
    """
    compute = torch.float64 if request.recipe.compute == "float64" else torch.float32
    target = open_target(stack, request, inputs, compute, limits.device)
    method = bind(request.recipe, count_layers(target.base.tensors))
    method.check(target.vectors.touched)
    held, device = limits.held_bytes, limits.device
    return target, Merging(target.base, target.vectors, method, compute, held, device)


def _build_adapter(
    request: BuildRequest,
    target: Target,
    merging: Merging,
    output: Path,
    limits: Limits,
    progress: Progress,
) -> Built:
    with ArtifactWriter(output) as writer, pools.threads(limits.threads, limits.device) as pool:
        merging.method.survey(merging.vectors, pool.map)
        lane = pools.Lane(pool, limits.threads, limits.in_flight_bytes)
        figures = adapter_output.write(request, merging, target.source, writer, lane, progress)
    return _built(writer, figures)


def _built(writer: ArtifactWriter, figures: Mapping[str, Any]) -> Built:
    contents = {name: file.content for name, file in writer.files.items()}
    return Built(writer.files, model_digest(contents), tree_digest(contents), figures)


def _written_dtype(request: BuildRequest) -> str:
    dtype = request.output.dtype
    return "" if dtype == "base" else NAMES[getattr(torch, dtype)]


def _write_weights(
    writer: ArtifactWriter, layout: Layout, merged: Iterator[Merged | None], progress: Progress
) -> dict[str, TensorTally]:
    total = sum(len(shard.entries) for shard in layout.shards)
    tallies: dict[str, TensorTally] = {}
    done = 0

    def chunks(shard: Shard) -> Iterator[memoryview | bytes]:
        nonlocal done
        yield shard.header
        for entry in shard.entries:
            for made in _pieces_of(entry, merged):
                if made.tally is not None:
                    _join(tallies, entry.name, made.tally)
                yield made.data
            done += 1
            progress(done, total, "tensors")

    for shard in layout.shards:
        writer.write(shard.file, chunks(shard), shard.size)
    return tallies


def _pieces_of(entry: Entry, merged: Iterator[Merged | None]) -> Iterator[Merged]:
    """Yield the pieces of one tensor: as many as its bytes take, one at least."""
    left = entry.size
    while True:
        made = next(merged)
        if made is not None:  # a preparation gives nothing
            yield made
            left -= len(made.data)
            if left <= 0:
                return


def _join(tallies: dict[str, TensorTally], name: str, tally: TensorTally) -> None:
    if name in tallies:
        tallies[name].join(tally)
    else:
        tallies[name] = tally


def _write_rest(
    writer: ArtifactWriter, layout: Layout, request: BuildRequest, target: Target
) -> None:
    if layout.index is not None:
        writer.write(INDEX, [layout.index])
    try:
        carried = [path for path in list_files(target.source.folder) if is_carried(path)]
    except TreeError as error:
        raise InputError(str(error), term=request.base.label) from error
    for path in carried:
        if path != "config.json":
            own = target.files.get(path)
            writer.write(path, read_chunks(target.source.folder / path) if own is None else [own])
    writer.write("recipe.json", [card.recipe_json(request)])
    writer.write("README.md", [card.model_card(request)])
    # Last: a folder without config.json is no model to anybody.
    config = (target.source.folder / "config.json").read_bytes()
    writer.write("config.json", [_changed_config(config, target.config, request.output.dtype)])


def _changed_config(config: bytes, changes: Mapping[str, Any], dtype: str) -> bytes:
    """Return config.json with these fields and this dtype; its own bytes where it has them."""
    data = json.loads(config)
    keys = [key for key in ("dtype", "torch_dtype") if key in data] or ["torch_dtype"]
    wanted = dict(changes) | ({} if dtype == "base" else dict.fromkeys(keys, dtype))
    if all(data.get(key) == value for key, value in wanted.items()):
        return config
    data |= wanted
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def default_threads() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))
