"""What a build makes: every tensor of the result, what is merged onto it, which files differ.

Three shapes of result, one value: the base's own tensors; the base with the rows of a union of
vocabularies; a stack of layers. The loop of `engine` does not know which of them it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from merger import vocabulary
from merger.adapter import LoraTaskVector
from merger.checkpoint import Checkpoint, Model, ModelTaskVector, StoredValues, Values
from merger.errors import InputError
from merger.request import BuildRequest, Operand, Recipe, Term
from merger.stack import Stack, StackedTaskVector, refuse_other_layers
from merger.task_vector import TaskVector, TaskVectors
from merger.vocabulary_views import ExtendedBase, Replaced, WidenedTaskVector
from schemas.lora import CONFIG
from schemas.stack import StackError, layers_of, stacked, stacked_config
from schemas.vocabulary import with_rows


@dataclass(frozen=True, slots=True)
class Target:
    """The result before a method runs: `base` names its tensors and what each starts from.

    `source` is the base as it lies in its folder; `config` are the fields of config.json that are
    not the base's, `files` whole files by name.
    """

    base: Model
    vectors: TaskVectors
    source: Checkpoint
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Opened:
    """All operands, open: the base, models and adapters by the index of their term."""

    base: Checkpoint
    models: Mapping[int, Checkpoint]
    adapters: Mapping[int, LoraTaskVector]
    values: Values

    def target(
        self,
        base: Values,
        vectors: list[TaskVector],
        config: Mapping[str, Any],
        files: Mapping[str, bytes],
    ) -> Target:
        shapes = {name: info.shape for name, info in base.model.tensors.items()}
        task_vectors = TaskVectors(vectors, shapes, lambda name: StoredValues(base, name))
        return Target(base.model, task_vectors, self.base, config, files)


def open_target(
    stack: ExitStack,
    request: BuildRequest,
    inputs: Mapping[str, Path],
    compute: torch.dtype,
    device: torch.device,
    open_model: Callable[[Path, str], Checkpoint] | None = None,
) -> Target:
    """Open all inputs of a request and hold them against each other; `stack` closes them.

    `open_model` opens the folder of the base and of every model, named in errors by its text; a
    checkpoint reads them from their files. Raises InputError for an input that does not fit the
    request.
    """
    if open_model is None:
        open_model = partial(Checkpoint, is_pinned=device.type == "cuda")
    opened = _open(stack, request, inputs, compute, device, open_model)
    if request.recipe.slices:
        return _stacked(opened, request.recipe)
    return _merged(opened, request.recipe)


def _folder(operand: Operand, inputs: Mapping[str, Path]) -> Path:
    if operand.digest not in inputs:
        raise InputError(f"no folder was given for {operand.digest}", term=operand.label)
    return inputs[operand.digest]


def _open(
    stack: ExitStack,
    request: BuildRequest,
    inputs: Mapping[str, Path],
    compute: torch.dtype,
    device: torch.device,
    open_model: Callable[[Path, str], Checkpoint],
) -> _Opened:
    base = open_model(_folder(request.base, inputs), request.base.label)
    stack.enter_context(closing(base))
    values = Values(base, compute, device)
    models: dict[int, Checkpoint] = {}
    adapters: dict[int, LoraTaskVector] = {}
    for index, term in enumerate(request.recipe.terms):
        operand, folder = term.operand, _folder(term.operand, inputs)
        # A published merge may be an adapter too: `output.form` was its own choice.
        if operand.kind == "adapter" or (folder / CONFIG).is_file():
            vector = LoraTaskVector(folder, operand, base=base, values=values)
            adapters[index] = stack.enter_context(closing(vector))
        else:
            model = open_model(folder, operand.label)
            models[index] = stack.enter_context(closing(model))
    return _Opened(base, models, adapters, values)


def _merged(opened: _Opened, recipe: Recipe) -> Target:
    """Return the base's tensors, or those of the base with the rows of a union."""
    agree = vocabulary.unite if recipe.tokenizer == "union" else vocabulary.agree
    agreed = agree(opened.base, opened.models)
    base = opened.values
    if agreed.added:
        wide = ExtendedBase(opened.base, agreed, opened.models, base.compute)
        base = Values(wide, base.compute, base.device)

    def vector(index: int, term: Term) -> TaskVector:
        if index in opened.adapters:
            inner = opened.adapters[index]
            return WidenedTaskVector(inner, agreed) if agreed.added else inner
        model: Model = opened.models[index]
        if index in agreed.places:
            model = Replaced(opened.models[index], base.model, agreed, agreed.places[index])
        return ModelTaskVector(model, term.operand, base)

    vectors = [vector(index, term) for index, term in enumerate(recipe.terms)]
    config = with_rows(opened.base.config, agreed.rows) if agreed.rows > agreed.base_rows else {}
    return opened.target(base, vectors, config, agreed.files)


def _stacked(opened: _Opened, recipe: Recipe) -> Target:
    """Return the tensors of a stack of layers."""
    for term in vocabulary.agree(opened.base, opened.models).places:
        why = "passthrough copies rows: expected as many rows of padding as in the base"
        raise InputError(why, term=recipe.terms[term].label)
    for model in opened.models.values():
        refuse_other_layers(model, opened.base)
    owners: dict[int | None, Checkpoint] = {None: opened.base}
    for index in range(len(recipe.terms)):  # an adapter is folded into the base
        owners[index] = opened.models.get(index, opened.base)
    names = {term: sorted(model.tensors) for term, model in owners.items()}
    try:
        origins = stacked(names, recipe.slices)
        configs = {term: model.config for term, model in owners.items()}
        config = stacked_config(configs, layers_of(names[None]), recipe.slices)
    except StackError as error:
        raise InputError(error.why, field="recipe.slices") from error

    def vector(index: int, term: Term) -> TaskVector:
        taken = {name: o.name for name, o in origins.items() if o.term == index}
        inner = opened.adapters.get(index)
        return StackedTaskVector(inner, term.label, term.operand.digest, taken)

    vectors = [vector(index, term) for index, term in enumerate(recipe.terms)]
    stacked_model = Stack(owners, origins, opened.base.label)
    base = Values(stacked_model, opened.values.compute, opened.values.device)
    return opened.target(base, vectors, config, {})
