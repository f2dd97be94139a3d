"""The one loop of a build: deltas, method, base + delta, write; one tensor at a time.

Knows neither JSON lines nor the command line. Blocks are the unit of arithmetic, tensors the unit
of work: several tensors are merged at once on threads of ours, each on one BLAS thread, and are
written in the order of the layout. Peak memory is a few times the largest tensor.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from merger import card, statistics
from merger.adapter import LoraTaskVector
from merger.checkpoint import NAMES, Checkpoint, ModelTaskVector, StoredValues
from merger.errors import InputError
from merger.methods import bind
from merger.request import BuildRequest, Operand
from merger.statistics import TensorTally
from merger.task_vector import TaskVector, TaskVectors
from merger.tensor_merge import HELD_BYTES, Merged, Merging
from merger.writer import ArtifactWriter, Entry, Layout, WrittenFile, plan_layout
from schemas.digest import INDEX, TreeError, is_carried, list_files, model_digest, tree_digest
from schemas.schedule import count_layers

_LOG = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]

_IN_FLIGHT_BYTES = 192 << 20  # of finished and unfinished tensors that wait to be written
_COPY_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Built:
    """What a build wrote, and its figures."""

    files: Mapping[str, WrittenFile]
    model_digest: str
    artifact_digest: str
    statistics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a build may use; no limit changes a bit of the result."""

    device: torch.device
    threads: int
    memory_bytes: int | None = None


def build(
    request: BuildRequest,
    inputs: Mapping[str, Path],
    output: Path,
    *,
    limits: Limits,
    progress: Progress,
) -> Built:
    """Merge into the empty folder `output`, or leave nothing there.

    Raises InputError for an input that does not fit the request, DiskError, OSError, MemoryError.
    """
    with ExitStack() as stack:
        base = stack.enter_context(
            closing(Checkpoint(folder_of(request.base, inputs), request.base.label))
        )
        compute = torch.float64 if request.recipe.compute == "float64" else torch.float32
        vectors = open_terms(stack, request, inputs, base, compute, limits.device)
        layers = count_layers(base.tensors)
        method = bind(request.recipe, layers)
        method.check(vectors.touched)
        layout = plan_layout(
            base.tensors,
            vectors.touched,
            dtype=_written_dtype(request),
            max_shard_size=request.output.max_shard_size,
        )
        writer = stack.enter_context(ArtifactWriter(output))
        writer.reserve(layout.size)
        pool = stack.enter_context(own_threads(limits.threads))
        _LOG.info("merging %d of %d tensors", len(vectors.touched), len(base.tensors))
        method.survey(vectors, pool.map)
        held = min(HELD_BYTES, (limits.memory_bytes or HELD_BYTES) // 4)
        merging = Merging(base, vectors, method, compute, held)
        ahead = min(_IN_FLIGHT_BYTES, (limits.memory_bytes or _IN_FLIGHT_BYTES) // 2)
        entries = [entry for shard in layout.shards for entry in shard.entries]
        merged = _in_order(pool, merging.make, entries, ahead, limits.threads)
        tallies = _write_weights(writer, layout, merged, progress)
        _write_rest(writer, layout, request, base)
        kept = method.kept()
    contents = {name: file.content for name, file in writer.files.items()}
    labels = [term.label for term in request.recipe.terms]
    figures = statistics.summarize(tallies, labels, kept=kept)
    return Built(writer.files, model_digest(contents), tree_digest(contents), figures)


def folder_of(operand: Operand, inputs: Mapping[str, Path]) -> Path:
    """Return the folder of an operand; InputError if none was given."""
    if operand.digest not in inputs:
        raise InputError(f"no folder was given for {operand.digest}", term=operand.label)
    return inputs[operand.digest]


def open_terms(
    stack: ExitStack,
    request: BuildRequest,
    inputs: Mapping[str, Path],
    base: Checkpoint,
    compute: torch.dtype,
    device: torch.device,
) -> TaskVectors:
    """Return the task vectors of the request's terms; their files are closed with `stack`.

    Raises InputError for an operand that does not fit the base.
    """
    vectors: list[TaskVector] = []
    for term in request.recipe.terms:
        kind = LoraTaskVector if term.operand.kind == "adapter" else ModelTaskVector
        folder = folder_of(term.operand, inputs)
        vector = kind(folder, term.operand, base=base, compute=compute, device=device)
        vectors.append(stack.enter_context(closing(vector)))
    shapes = {name: info.shape for name, info in base.tensors.items()}
    return TaskVectors(vectors, shapes, lambda name: StoredValues(base, name, compute, device))


def _written_dtype(request: BuildRequest) -> str:
    dtype = request.output.dtype
    return "" if dtype == "base" else NAMES[getattr(torch, dtype)]


def own_threads(count: int) -> ThreadPoolExecutor:
    """Return a pool of threads, each on one BLAS thread."""
    # One BLAS thread each: a product then has the same bits whatever `count` is.
    torch.set_num_threads(1)
    return ThreadPoolExecutor(count, "merger", initializer=lambda: torch.set_num_threads(1))


def _write_weights(
    writer: ArtifactWriter, layout: Layout, merged: Iterator[Merged], progress: Progress
) -> dict[str, TensorTally]:
    total = sum(len(shard.entries) for shard in layout.shards)
    tallies: dict[str, TensorTally] = {}
    done = 0

    def chunks(header: bytes, count: int) -> Iterator[memoryview | bytes]:
        nonlocal done
        yield header
        for _ in range(count):
            made = next(merged)
            if made.tally is not None:
                tallies[made.entry.name] = made.tally
            yield made.data
            done += 1
            progress(done, total, "tensors")

    for shard in layout.shards:
        writer.write(shard.file, chunks(shard.header, len(shard.entries)))
    return tallies


def _in_order(
    pool: ThreadPoolExecutor,
    make: Callable[[Entry], Merged],
    entries: Iterable[Entry],
    budget: int,
    threads: int,
) -> Iterator[Merged]:
    """Yield the tensors in order; some are made ahead, as far as the budget of bytes allows."""
    waiting: deque[tuple[int, Future[Merged]]] = deque()
    used = 0
    try:
        for entry in entries:
            while waiting and (used + entry.size > budget or len(waiting) > 2 * threads):
                size, future = waiting.popleft()
                yield future.result()
                used -= size
            waiting.append((entry.size, pool.submit(make, entry)))
            used += entry.size
        while waiting:
            yield waiting.popleft()[1].result()
    finally:
        for _, future in waiting:
            future.cancel()


def _write_rest(
    writer: ArtifactWriter, layout: Layout, request: BuildRequest, base: Checkpoint
) -> None:
    if layout.index is not None:
        writer.write(INDEX, [layout.index])
    try:
        carried = [path for path in list_files(base.folder) if is_carried(path)]
    except TreeError as error:
        raise InputError(str(error), term=base.label) from error
    for path in carried:
        if path != "config.json":
            writer.write(path, _read_chunks(base.folder / path))
    writer.write("recipe.json", [card.recipe_json(request)])
    writer.write("README.md", [card.model_card(request)])
    # Last: a folder without config.json is no model to anybody.
    config = (base.folder / "config.json").read_bytes()
    writer.write("config.json", [_with_dtype(config, request.output.dtype)])


def _read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_COPY_BYTES):
            yield chunk


def _with_dtype(config: bytes, dtype: str) -> bytes:
    """Return config.json that names `dtype`; byte for byte as it was where it does already."""
    data = json.loads(config)
    keys = [key for key in ("dtype", "torch_dtype") if key in data] or ["torch_dtype"]
    if dtype == "base" or all(data.get(key) == dtype for key in keys):
        return config
    data |= dict.fromkeys(keys, dtype)
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def default_threads() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0))
