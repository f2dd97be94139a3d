"""Candidates: many merges of one base and the same operands, in memory and in place.

A sweep or a search opens once and then pays for arithmetic alone: no file is read or written, no
byte hashed, no figure of a report summed. What a candidate's tensors hold is what `engine.build`
writes for the same request, bit for bit, so whichever is chosen is built by the ordinary way.
Knows no suite and proposes no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from merger import pools, resident
from merger.engine import Limits
from merger.errors import InputError
from merger.in_place import InPlace, Into, check_into, rows_of
from merger.methods import bind
from merger.request import BuildRequest
from merger.resident import Answers, Deltas, Holding, ResidentCheckpoint, ResidentVectors
from merger.target import Target, open_target
from merger.tensor_merge import Merging
from schemas.schedule import count_layers


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
        answers: Answers,
    ) -> None:
        """Take what `open_candidates` opened; `held` tells what is in memory by operand."""
        self.held = held
        self._request = request
        self._target = target
        self._limits = limits
        self._deltas = deltas
        self._answers = answers
        self._checked: set[tuple[str, str]] = set()

    @property
    def held_bytes(self) -> int:
        """Bytes of base, operands and, once DARE was asked for, its masks that are in memory."""
        return sum(holding.held for holding in self.held.values()) + self._answers.nbytes

    @property
    def touched(self) -> tuple[str, ...]:
        """The tensors that candidates write: those that some operand has, in byte order."""
        return self._target.vectors.touched

    @property
    def tensors(self) -> list[tuple[str, ...]]:
        """The tensors that each term of the request that was opened has, in byte order."""
        vectors = self._target.vectors
        return [vectors.names(term) for term in range(len(vectors))]

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
        work = InPlace(self._merging(request), into, dtype, self._checked)
        check_into(into, {name: work.dtype(name) for name in self.touched}, self._target.base)
        merging = work.merging
        merging.method.check(merging.vectors.touched)
        with _pool(self._limits) as pool:
            merging.method.survey(merging.vectors, pool.map)
            for _ in pool.map(work.write, self._by_size()):
                pass

    def restore(self, into: Into) -> None:
        """Write the base's values back; a narrower `into` has them rounded to nearest even."""
        base = self._target.base
        check_into(into, dict.fromkeys(self.touched), base)
        for name in self.touched:
            rows = rows_of(into[name])
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
        limits = self._limits
        return Merging(base, vectors, method, _compute(request), limits.held_bytes, limits.device)


def open_candidates(
    stack: ExitStack, request: BuildRequest, inputs: Mapping[str, Path], limits: Limits
) -> Candidates:
    """Open the inputs of a request, which `stack` closes, and keep in memory what fits.

    Kept are, of the tensors that some operand has, the base's and every model's as stored, and an
    adapter's factors in the compute dtype: up to half of `limits.memory_bytes`, or all. The rest
    is read from its files for every candidate, with the same bits. Raises InputError for an input
    that does not fit the request.
    """
    if request.output.form != "model":
        why = f"expected model, found {request.output.form}"
        raise InputError(why, field="output.form")
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
    return Candidates(request, target, limits, deltas=deltas, held=held, answers=Answers(left))


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


@contextmanager
def _pool(limits: Limits) -> Iterator[ThreadPoolExecutor]:
    """Give the threads of a merge; whoever evaluates between merges keeps torch's own."""
    before = torch.get_num_threads()
    try:
        with pools.threads(limits.threads, limits.device) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
