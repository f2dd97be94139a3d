"""The one loop of a build: deltas, method, base + delta, write; one tensor at a time.

Knows neither JSON lines nor the command line. Blocks are the unit of arithmetic, tensors the unit
of work: several tensors are merged at once on threads of ours, each on one BLAS thread, and are
written in the order of the layout. Peak memory is a few times the largest tensor.
"""

from __future__ import annotations

import json
import logging
import math
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
from merger.checkpoint import DTYPES, NAMES, Checkpoint, ModelTaskVector
from merger.errors import InputError
from merger.methods.bound import METHODS, Method
from merger.request import BuildRequest, Operand
from merger.rounding import apply_delta, is_finite, round_to
from merger.statistics import TensorTally
from merger.task_vector import Delta, HeldDelta, TaskVector, TaskVectors
from merger.writer import ArtifactWriter, Entry, Layout, WrittenFile, plan_layout
from schemas.digest import INDEX, TreeError, is_carried, list_files, model_digest, tree_digest
from schemas.schedule import count_layers

_LOG = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]

_IN_FLIGHT_BYTES = 192 << 20  # of finished and unfinished tensors that wait to be written
_HELD_BYTES = 64 << 20  # of deltas that a method reads more than once, per tensor
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
            closing(Checkpoint(_folder(request.base, inputs), request.base.label))
        )
        vectors = _open_terms(stack, request, inputs, base, limits.device)
        layers = count_layers(base.tensors)
        method = METHODS[request.recipe.method](request.recipe, layers)
        method.check(vectors.touched)
        layout = plan_layout(
            base.tensors,
            vectors.touched,
            dtype=_written_dtype(request),
            max_shard_size=request.output.max_shard_size,
        )
        writer = stack.enter_context(ArtifactWriter(output))
        writer.reserve(layout.size)
        pool = stack.enter_context(_threads(limits.threads))
        _LOG.info("merging %d of %d tensors", len(vectors.touched), len(base.tensors))
        method.survey(vectors, pool.map)
        merging = _Merging(request, base, vectors, method, limits)
        tallies = _write_weights(writer, layout, merging, pool, progress)
        _write_rest(writer, layout, request, base)
        kept = method.kept()
    contents = {name: file.content for name, file in writer.files.items()}
    labels = [term.label for term in request.recipe.terms]
    figures = statistics.summarize(tallies, labels, kept=kept)
    return Built(writer.files, model_digest(contents), tree_digest(contents), figures)


def _folder(operand: Operand, inputs: Mapping[str, Path]) -> Path:
    if operand.digest not in inputs:
        raise InputError(f"no folder was given for {operand.digest}", term=operand.label)
    return inputs[operand.digest]


def _open_terms(
    stack: ExitStack,
    request: BuildRequest,
    inputs: Mapping[str, Path],
    base: Checkpoint,
    device: torch.device,
) -> TaskVectors:
    compute = torch.float64 if request.recipe.compute == "float64" else torch.float32
    vectors: list[TaskVector] = []
    for term in request.recipe.terms:
        kind = LoraTaskVector if term.operand.kind == "adapter" else ModelTaskVector
        folder = _folder(term.operand, inputs)
        vector = kind(folder, term.label, base=base, compute=compute, device=device)
        vectors.append(stack.enter_context(closing(vector)))
    return TaskVectors(vectors, {name: info.shape for name, info in base.tensors.items()})


def _written_dtype(request: BuildRequest) -> str:
    dtype = request.output.dtype
    return "" if dtype == "base" else NAMES[getattr(torch, dtype)]


def _threads(count: int) -> ThreadPoolExecutor:
    # One BLAS thread each: a product then has the same bits whatever `count` is.
    torch.set_num_threads(1)
    return ThreadPoolExecutor(count, "merger", initializer=lambda: torch.set_num_threads(1))


@dataclass(frozen=True, slots=True)
class _Merged:
    """The bytes of a tensor as written, and its figures if a term has it."""

    entry: Entry
    data: memoryview
    tally: TensorTally | None


@dataclass(frozen=True, slots=True)
class _Merging:
    """What is needed to make any tensor of the result."""

    request: BuildRequest
    base: Checkpoint
    vectors: TaskVectors
    method: Method
    limits: Limits

    def make(self, entry: Entry) -> _Merged:
        """Return a tensor of the result."""
        return self._merge(entry) if entry.is_touched else self._copy(entry)

    def _copy(self, entry: Entry) -> _Merged:
        raw = self.base.read_raw(entry.name)
        stored = self.base.tensors[entry.name].dtype
        if not self.base.is_float(entry.name):
            return _Merged(entry, _bytes(raw), None)
        values = raw.view(DTYPES[stored])
        if not is_finite(values):
            raise InputError("non-finite value", tensor=entry.name, term=self.base.label)
        if stored != entry.dtype:
            values = round_to(values.to(torch.float32), DTYPES[entry.dtype])
            if not is_finite(values):
                raise _overflow(entry)
        return _Merged(entry, _bytes(values), None)

    def _merge(self, entry: Entry) -> _Merged:
        blocks = self.vectors.blocks(entry.name)
        dtype = DTYPES[entry.dtype]
        written = torch.empty(self.vectors.elements(entry.name), dtype=dtype)
        deltas = self._hold(self.vectors.deltas(entry.name), entry.name)
        step = self.method.step(entry.name, self.vectors, deltas)
        tally = self._tally(entry.name, deltas, step.kept)
        for block in blocks:
            taus = [delta.block(block) for delta in deltas.values()]
            values = step.values(taus, block)
            delta = step.combine(values)
            tally.add(taus, values, delta)
            base = self.base.read_block(entry.name, block).to(delta.device)
            result = apply_delta(base, delta, dtype)
            if not is_finite(result):
                raise self._non_finite(entry, base)
            written[block.start : block.stop] = result
        self._refuse_non_finite_terms(entry, deltas, tally)
        return _Merged(entry, _bytes(written), tally)

    def _hold(self, deltas: dict[int, Delta], name: str) -> dict[int, Delta]:
        size = self.vectors.elements(name) * len(deltas)
        size *= 8 if self.request.recipe.compute == "float64" else 4
        budget = min(_HELD_BYTES, (self.limits.memory_bytes or _HELD_BYTES) // 4)
        if self.method.passes == 1 or size > budget or size == 0:
            return deltas
        blocks = self.vectors.blocks(name)
        return {term: HeldDelta(delta, blocks) for term, delta in deltas.items()}

    def _tally(
        self, name: str, deltas: Mapping[int, Delta], kept: tuple[int, ...] | None
    ) -> TensorTally:
        terms = tuple(deltas)
        weights = self.method.weights(name)
        elements = self.vectors.elements(name)
        return TensorTally(terms, tuple(weights[term] for term in terms), elements, kept)

    def _non_finite(self, entry: Entry, base: torch.Tensor) -> InputError:
        if not is_finite(base):
            return InputError("non-finite value", tensor=entry.name, term=self.base.label)
        for term, delta in self.vectors.deltas(entry.name).items():
            for block in self.vectors.blocks(entry.name):
                if not is_finite(delta.block(block)):
                    label = self.vectors.label(term)
                    return InputError("non-finite value", tensor=entry.name, term=label)
        return _overflow(entry)

    def _refuse_non_finite_terms(
        self, entry: Entry, deltas: Mapping[int, Delta], tally: TensorTally
    ) -> None:
        # ‖τ‖² was needed anyway, and no non-finite value leaves it finite.
        for term, norm in zip(deltas, tally.norms(), strict=True):
            if not math.isfinite(norm):
                label = self.vectors.label(term)
                raise InputError("non-finite value", tensor=entry.name, term=label)


def _bytes(values: torch.Tensor) -> memoryview:
    return values.contiguous().view(torch.uint8).numpy().data


def _overflow(entry: Entry) -> InputError:
    why = f"the result has a value beyond the range of {entry.dtype}"
    return InputError(why, tensor=entry.name, field="output.dtype")


def _write_weights(
    writer: ArtifactWriter,
    layout: Layout,
    merging: _Merging,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> dict[str, TensorTally]:
    entries = [entry for shard in layout.shards for entry in shard.entries]
    budget = min(_IN_FLIGHT_BYTES, (merging.limits.memory_bytes or _IN_FLIGHT_BYTES) // 2)
    merged = _in_order(pool, merging.make, entries, budget, merging.limits.threads)
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
            progress(done, len(entries), "tensors")

    for shard in layout.shards:
        writer.write(shard.file, chunks(shard.header, len(shard.entries)))
    return tallies


def _in_order(
    pool: ThreadPoolExecutor,
    make: Callable[[Entry], _Merged],
    entries: Iterable[Entry],
    budget: int,
    threads: int,
) -> Iterator[_Merged]:
    """Yield the tensors in order; some are made ahead, as far as the budget of bytes allows."""
    waiting: deque[tuple[int, Future[_Merged]]] = deque()
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
