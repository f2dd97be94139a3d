"""Candidates: many merges of one base and the same operands, in memory and in place.

A sweep or a search opens once and then pays for arithmetic alone: no file is read or written, no
byte hashed, no figure of a report summed. What a candidate's tensors hold is what `engine.build`
writes for the same request, bit for bit, so whichever is chosen is built by the ordinary way.
Knows no suite and proposes no numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from merger import pools, resident
from merger.checkpoint import DTYPES, NAMES, Model
from merger.engine import Limits
from merger.errors import InputError
from merger.methods import bind
from merger.request import BuildRequest
from merger.resident import (
    Answers,
    Deltas,
    Holding,
    ReadOnce,
    ResidentCheckpoint,
    ResidentVectors,
)
from merger.rounding import apply_delta, is_finite, round_to
from merger.target import Target, open_target
from merger.task_vector import Delta
from merger.tensor_merge import HELD_BYTES, Merging
from schemas.schedule import count_layers

Into = Mapping[str, torch.Tensor]
"""Tensors to write by the base's names, such as the `named_parameters()` of a loaded base."""


class Candidates:
    """One base and its operands, open and in memory, merged with other numbers again and again.

    Not to be called by several threads at once; it uses `limits.threads` itself.
    """

    __slots__ = ("_answers", "_checked", "_deltas", "_limits", "_request", "_target", "held")

    def __init__(
        self,
        request: BuildRequest,
        target: Target,
        limits: Limits,
        *,
        deltas: Deltas,
        held: Mapping[str, Holding],
    ) -> None:
        """Take what `open_candidates` opened; `held` tells what is in memory by operand."""
        self.held = held
        self._request = request
        self._target = target
        self._limits = limits
        self._deltas = deltas
        self._answers: Answers = {}
        self._checked: set[tuple[str, str]] = set()

    @property
    def held_bytes(self) -> int:
        """Bytes of base and operands that are in memory, on the device that merges."""
        return sum(holding.held for holding in self.held.values())

    @property
    def touched(self) -> tuple[str, ...]:
        """The tensors that candidates write: those that some operand has, in byte order."""
        return self._target.vectors.touched

    def apply(self, request: BuildRequest, into: Into) -> None:
        """Write the tensors of a candidate into `into`, as a build of `request` has them.

        The request has the base, the precision and the vocabulary that were opened, some or all of
        the operands, and any method and numbers. Values are rounded once to the dtype of its
        output, then widened exactly where `into` is wider. What `into` held before does not
        matter; only `touched` is written. Raises InputError for another request, for tensors of
        `into` that cannot hold the values, and where a build would; what was written until then
        is whole again after the next `apply` or `restore`.
        """
        dtype = None if request.output.dtype == "base" else getattr(torch, request.output.dtype)
        work = _Work(self._merging(request), into, dtype, self._checked)
        _check_into(into, {name: work.dtype(name) for name in self.touched}, self._target.base)
        merging = work.merging
        merging.method.check(merging.vectors.touched)
        with _pool(self._limits.threads) as pool:
            merging.method.survey(merging.vectors, pool.map)
            for _ in pool.map(work.write, self._by_size()):
                pass

    def restore(self, into: Into) -> None:
        """Write the base's values back; a narrower `into` has them rounded to nearest even."""
        base = self._target.base
        _check_into(into, dict.fromkeys(self.touched), base)
        for name in self.touched:
            rows = _rows(into[name])
            for block in self._target.vectors.blocks(name):
                values = base.read_block(name, block)
                rows[block.first : block.last].copy_(values.view(-1, *rows.shape[1:]))

    def _by_size(self) -> list[str]:
        # The largest first, so that no thread is left alone with it at the end.
        return sorted(self.touched, key=self._target.vectors.elements, reverse=True)

    def _merging(self, request: BuildRequest) -> Merging:
        opened = self._target.vectors
        vectors = ResidentVectors(
            [opened[term] for term in _order(request, self._request)],
            opened.shapes,
            opened.base,
            held=self._deltas,
            answers=self._answers,
        )
        base = self._target.base
        method = bind(request.recipe, count_layers(base.tensors))
        memory = self._limits.memory_bytes
        again = HELD_BYTES if memory is None else min(HELD_BYTES, memory // 4)
        return Merging(base, vectors, method, _compute(request), again)


def open_candidates(
    stack: ExitStack, request: BuildRequest, inputs: Mapping[str, Path], limits: Limits
) -> Candidates:
    """Open the inputs of a request, which `stack` closes, and keep in memory what fits.

    Kept are, of the tensors that some operand has, the base's and every model's as stored, and an
    adapter's factors in the compute dtype: up to half of `limits.memory_bytes`, or all. The rest
    is read from its files for every candidate, with the same bits. Raises InputError for an input
    that does not fit the request.
    """
    if request.recipe.slices:
        why = "passthrough has no numbers: expected a method that computes"
        raise InputError(why, field="recipe.method")
    models: list[ResidentCheckpoint] = []

    def open_model(folder: Path, label: str) -> ResidentCheckpoint:
        models.append(ResidentCheckpoint(folder, label))
        return models[-1]

    compute = _compute(request)
    target = open_target(stack, request, inputs, compute, limits.device, open_model)
    vectors = target.vectors
    left = None if limits.memory_bytes is None else limits.memory_bytes // 2
    held: dict[str, Holding] = {}
    for model in models:
        held[model.label] = model.hold(vectors.touched, limits.device, left)
        left = _less(left, held[model.label])
    deltas: Deltas = {}
    for term in range(len(vectors)):
        if not resident.is_of_model(vectors, term):
            found = resident.hold_deltas(deltas, vectors, term, compute, left)
            held[vectors.label(term)] = found
            left = _less(left, found)
    return Candidates(request, target, limits, deltas=deltas, held=held)


def _less(left: int | None, holding: Holding) -> int | None:
    return None if left is None else left - holding.held


def _compute(request: BuildRequest) -> torch.dtype:
    return torch.float64 if request.recipe.compute == "float64" else torch.float32


def _order(request: BuildRequest, opened: BuildRequest) -> list[int]:
    """Return which of the opened operands each term of a request is.

    Raises InputError unless the request differs from the opened one in numbers, method and output
    alone, or leaves out terms.
    """
    for field, expected, found in (
        ("base", opened.base.digest, request.base.digest),
        ("output.form", "model", request.output.form),
        ("recipe.compute", opened.recipe.compute, request.recipe.compute),
        ("recipe.tokenizer", opened.recipe.tokenizer, request.recipe.tokenizer),
        ("recipe.slices", opened.recipe.slices, request.recipe.slices),
    ):
        if found != expected:
            raise InputError(f"expected {expected}, as it was opened, found {found}", field=field)
    operands = [term.operand for term in opened.recipe.terms]
    for term in request.recipe.terms:
        if term.operand not in operands:
            why = f"expected an operand that was opened, found {term.operand.digest}"
            raise InputError(why, field=term.field)
    order = [operands.index(term.operand) for term in request.recipe.terms]
    if opened.recipe.tokenizer == "union" and order != list(range(len(operands))):
        # Which tokens are new, and whose rows they start from, follows from all terms in order.
        why = "a union of vocabularies needs all terms that were opened, in their order"
        raise InputError(why, field="recipe.terms")
    return order


@dataclass(frozen=True, slots=True)
class _Work:
    """One candidate on its way into its tensors.

    `checked` are operands, by label, and tensors whose deltas are known to be finite.
    """

    merging: Merging
    into: Into
    output: torch.dtype | None
    checked: set[tuple[str, str]]

    def dtype(self, name: str) -> torch.dtype:
        """Return the dtype in which a build writes a tensor."""
        return self.output or DTYPES[self.merging.base.tensors[name].dtype]

    def write(self, name: str) -> None:
        """Write one tensor, block by block."""
        deltas = self._deltas(name)
        rows, dtype = _rows(self.into[name]), self.dtype(name)
        base, vectors = self.merging.base, self.merging.vectors
        step = self.merging.method.step(name, vectors, deltas) if deltas else None
        for block in vectors.blocks(name):
            before = base.read_block(name, block)
            if step is None:  # only operands that are left out have it
                result = round_to(before.to(torch.float32), dtype)
            else:
                taus = [delta.block(block) for delta in deltas.values()]
                self._check(name, zip(deltas, taus, strict=True))
                delta = step.combine(step.values(taus, block), block)
                result = apply_delta(before.to(delta.device), delta, dtype)
            if not is_finite(result):
                raise _non_finite(base, name, before, dtype)
            rows[block.first : block.last].copy_(result.view(-1, *rows.shape[1:]))
        self.checked.update((vectors.label(term), name) for term in deltas)

    def _deltas(self, name: str) -> dict[int, Delta]:
        """Return the deltas of a tensor; its blocks are kept where the method reads them again."""
        vectors, merging = self.merging.vectors, self.merging
        deltas = vectors.deltas(name)
        size = vectors.elements(name) * len(deltas) * merging.compute.itemsize
        if merging.method.passes == 1 or size > merging.held_bytes:
            return deltas
        return {term: ReadOnce(delta) for term, delta in deltas.items()}

    def _check(self, name: str, taus: Iterable[tuple[int, torch.Tensor]]) -> None:
        for term, tau in taus:
            # The operands do not change, so one look at each of their values is enough.
            label = self.merging.vectors.label(term)
            if (label, name) not in self.checked and not is_finite(tau):
                raise InputError("non-finite value", tensor=name, term=label)


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor to be written by rows; autograd does not see it."""
    rows = tensor.detach()
    return rows if rows.dim() else rows.view(1)


def _check_into(into: Into, dtypes: Mapping[str, torch.dtype | None], base: Model) -> None:
    """Raise InputError unless every tensor is there, in its shape, and holds its dtype exactly.

    None stands for a dtype that need not be held exactly.
    """
    seen: dict[int, str] = {}
    for name, dtype in dtypes.items():
        if name not in into:
            raise InputError("expected this tensor to write into, found none", tensor=name)
        found, shape = into[name], base.tensors[name].shape
        if tuple(found.shape) != shape:
            why = f"expected shape {list(shape)} to write into, found {list(found.shape)}"
            raise InputError(why, tensor=name)
        if dtype is not None and torch.promote_types(found.dtype, dtype) != found.dtype:
            why = f"expected a dtype to write into that holds {dtype}, found {found.dtype}"
            raise InputError(why, tensor=name)
        if found.numel() and seen.setdefault(found.data_ptr(), name) != name:
            why = (
                f"expected memory of its own to write into, found that of {seen[found.data_ptr()]}"
            )
            raise InputError(why, tensor=name)


def _non_finite(base: Model, name: str, before: torch.Tensor, dtype: torch.dtype) -> InputError:
    if not is_finite(before):
        return InputError("non-finite value", tensor=name, term=base.owner(name))
    why = f"the result has a value beyond the range of {NAMES[dtype]}"
    return InputError(why, tensor=name, field="output.dtype")


@contextmanager
def _pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Give the threads of a merge; whoever evaluates between merges keeps torch's own."""
    before = torch.get_num_threads()
    try:
        with pools.threads(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
