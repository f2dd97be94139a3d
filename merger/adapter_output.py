"""A merge written as a LoRA adapter in PEFT's layout instead of a model.

Where the method is linear and every term that has a tensor is a product of factors, the factors are
concatenated and nothing is lost but a rounding; everywhere else the merged delta is cut to
`output.rank` by a full SVD. All tensors get one rank, filled up with zeros, and lora_alpha equals
it. PEFT would read patterns of ranks, but others would not: vLLM takes one scale for all tensors
from `r` and `lora_alpha`, SGLang copies `r` rows of each, llama.cpp divides alpha by a tensor's own
rank. With one rank and scale 1 all of them agree.

`docs/adapter-output.md` tells how to ask for it and how to serve it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from merger import adapter_report, card, factorise
from merger.adapter_plan import Plan, Slot, plan_slots
from merger.adapter_report import Residual, Written
from merger.checkpoint import NAMES, Checkpoint
from merger.errors import InputError
from merger.layout import Entry, single_file
from merger.pools import Lane
from merger.request import BuildRequest
from merger.rounding import is_finite, round_to
from merger.statistics import TensorTally, summarize
from merger.task_vector import Factors
from merger.tensor_merge import Merging
from merger.writer import ArtifactWriter, read_chunks
from schemas.digest import TreeError, is_legal, list_files
from schemas.header import ITEM_BYTES
from schemas.lora import CONFIG, WEIGHTS
from schemas.lora_header import PREFIX

_TASKS = (
    ("ForCausalLM", "CAUSAL_LM"),
    ("LMHeadModel", "CAUSAL_LM"),
    ("ForSequenceClassification", "SEQ_CLS"),
    ("ForTokenClassification", "TOKEN_CLS"),
    ("ForQuestionAnswering", "QUESTION_ANS"),
)
# Models whose linear modules are transformers' Conv1D, which stores a matrix as (in, out).
_CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")


@dataclass(frozen=True, slots=True)
class _Made:
    """The bytes of one module's factors and what is reported of it."""

    a: memoryview
    b: memoryview
    tally: TensorTally
    written: Written


@dataclass(frozen=True, slots=True)
class _Making:
    """What is needed to make the factors of any tensor."""

    merging: Merging
    base: Checkpoint
    plan: Plan
    dtype: torch.dtype
    transposed: bool

    def make(self, slot: Slot) -> _Made:
        """Return the factors of a tensor, rounded, as stored."""
        if slot.coefficients is None:
            found, matrix, tally = self._cut(slot)
            left, right = self._rounded(slot, found.left, found.right)
            residual = Residual(left, right)
            for block in self.merging.vectors.blocks(slot.name):
                residual.add(block, matrix[block.start : block.stop])
        else:
            found = self._joined(slot, slot.coefficients)
            left, right = self._rounded(slot, found.left, found.right)
            residual = Residual(left, right)
            tally = self.merging.each_block(slot.name, residual.add)
        a, b = (left.T, right.T) if self.transposed else (right, left)
        written = residual.written(slot, found.energy)
        return _Made(_bytes(a), _bytes(b), tally, written)

    def _joined(self, slot: Slot, coefficients: Mapping[int, float]) -> factorise.Factorised:
        deltas = self.merging.vectors.deltas(slot.name)
        pairs = [_factors(deltas[term]) for term in coefficients]
        if not pairs:  # all weights are 0 here: factors of no columns, on the right device
            left, right = _factors(next(iter(deltas.values())))
            return factorise.Factorised(left[:, :0], right[:0], 1.0)
        left, right = factorise.concatenate(pairs, tuple(coefficients.values()))
        if slot.rank < left.shape[1]:
            return factorise.compress(left, right, slot.rank)
        return factorise.Factorised(left, right, 1.0)

    def _cut(self, slot: Slot) -> tuple[factorise.Factorised, torch.Tensor, TensorTally]:
        """Return factors of the merged delta, the delta itself, flat, and its figures."""
        held: list[torch.Tensor] = []
        tally = self.merging.each_block(slot.name, lambda _block, delta: held.append(delta))
        matrix = torch.cat(held)
        if not is_finite(matrix):
            why = "the merged delta has a value beyond the range of the compute dtype"
            raise InputError(why, tensor=slot.name, field="recipe.compute")
        shape = self.merging.vectors.shapes[slot.name]
        return factorise.truncate(matrix.reshape(shape), slot.rank), matrix, tally

    def _rounded(self, slot: Slot, left: torch.Tensor, right: torch.Tensor) -> Factors:
        padded = factorise.pad(left, right, self.plan.rank)
        rounded = [round_to(factor, self.dtype) for factor in padded]
        if not all(is_finite(factor.reshape(-1)) for factor in rounded):
            why = f"a factor has a value beyond the range of {NAMES[self.dtype]}"
            raise InputError(why, tensor=slot.name, field="output.dtype")
        return rounded[0], rounded[1]


def write(
    request: BuildRequest,
    merging: Merging,
    base: Checkpoint,
    writer: ArtifactWriter,
    lane: Lane,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Write the adapter's files and return the figures of the report.

    Raises InputError for a recipe whose result no adapter holds, DiskError.
    """
    plan = plan_slots(request, merging, lane)
    dtype = getattr(torch, request.output.dtype)
    transposed = base.config.get("model_type") in _CONV1D
    making = _Making(merging, base, plan, dtype, transposed)
    file = single_file(WEIGHTS, _entries(making))
    writer.reserve(file.size)
    tallies = dict(plan.zero)
    written: list[Written] = []

    def chunks() -> Iterator[memoryview | bytes]:
        yield file.header
        for made in lane.in_order(making.make, plan.slots):
            tallies[made.written.name] = made.tally
            written.append(made.written)
            yield made.a
            yield made.b
            progress(len(written), len(plan.slots), "tensors")

    writer.write(WEIGHTS, chunks())
    _write_rest(writer, request, making)
    labels = [term.label for term in request.recipe.terms]
    figures = summarize(tallies, labels, kept=merging.method.kept())
    return {**figures, "adapter": adapter_report.summarize(plan.rank, written)}


def _entries(making: _Making) -> list[Entry]:
    dtype, rank = NAMES[making.dtype], making.plan.rank
    entries = []
    for slot in making.plan.slots:
        rows, columns = making.merging.vectors.shapes[slot.name]
        if making.transposed:
            rows, columns = columns, rows
        for side, shape in (("A", (rank, columns)), ("B", (rows, rank))):
            name = f"{PREFIX}{slot.module}.lora_{side}.weight"
            size = shape[0] * shape[1] * ITEM_BYTES[dtype]
            entries.append(Entry(name, dtype, shape, size, is_touched=True))
    return entries


def _write_rest(writer: ArtifactWriter, request: BuildRequest, making: _Making) -> None:
    base = making.base
    try:
        legal = [path for path in list_files(base.folder) if is_legal(path)]
    except TreeError as error:
        raise InputError(str(error), term=base.label) from error
    for path in legal:
        writer.write(path, read_chunks(base.folder / path))
    writer.write("recipe.json", [card.recipe_json(request)])
    writer.write("README.md", [card.model_card(request)])
    # Last: a folder without its configuration is no adapter to anybody.
    config = _config(request, base, making)
    writer.write(CONFIG, [(json.dumps(config, indent=2, sort_keys=True) + "\n").encode()])


def _config(request: BuildRequest, base: Checkpoint, making: _Making) -> dict[str, Any]:
    """Return adapter_config.json; what it leaves out is PEFT's default, and PEFT changes no bit."""
    rank = making.plan.rank
    return {
        "base_model_name_or_path": request.base.name,
        "bias": "none",
        "fan_in_fan_out": making.transposed,
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        # Whole names: a name's end would also take in modules that the merge does not touch.
        "target_modules": [slot.module for slot in making.plan.slots],
        "task_type": _task(base.config),
    }


def _task(config: Mapping[str, Any]) -> str | None:
    named = config.get("architectures") or [""]
    if config.get("is_encoder_decoder"):
        return "SEQ_2_SEQ_LM"
    return next((task for end, task in _TASKS if str(named[0]).endswith(end)), None)


def _factors(delta: Any) -> Factors:
    found: Factors | None = delta.factors()
    assert found is not None, "the plan takes only deltas with factors"
    return found


def _bytes(values: torch.Tensor) -> memoryview:
    # Flat: a memoryview counts and cuts along its first dimension only. Before the bytes are looked
    # at, since a matrix of one column counts as contiguous whatever its strides.
    return values.contiguous().reshape(-1).view(torch.uint8).cpu().numpy().data
