"""A method that an installed package brings, bound to the numbers of one recipe.

The package's function is pure: `function(values, weights, parameters) -> delta`. `values` are the
weighted deltas wᵢτᵢ of the terms that have the tensor, in the order of the request, in the compute
dtype: flat (n,) for `x-unit: block`, any run of elements; in the shape of the tensor for `x-unit:
tensor`. `weights` are those of the same terms, `parameters` every parameter with its number at
this tensor. It returns the merged delta in the same shape and dtype, and may not write to what it
is given. With `x-unit: tensor` the deltas of one tensor are held at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch

import schemas
from merger.blocks import Block
from merger.errors import InputError
from merger.methods import task_arithmetic
from merger.methods.bound import Numbers, Run
from merger.request import Recipe
from merger.task_vector import Delta, TaskVectors
from schemas import plugins

Function = Callable[[Sequence[torch.Tensor], Sequence[float], Mapping[str, Any]], torch.Tensor]


@dataclass(frozen=True, slots=True)
class PluginStep:
    """The package's function at one tensor; `merged` is its result where it takes whole tensors."""

    call: Callable[[Sequence[torch.Tensor]], torch.Tensor]
    weights: tuple[float, ...]
    merged: torch.Tensor | None
    kept: None = None

    def values(self, taus: Sequence[torch.Tensor], _block: Block) -> list[torch.Tensor]:
        """Return wᵢτᵢ."""
        return task_arithmetic.weigh(taus, self.weights)

    def combine(self, values: Sequence[torch.Tensor], block: Block) -> torch.Tensor:
        """Return what the function makes of the values."""
        if self.merged is not None:
            return self.merged[block.start : block.stop]
        return self.call(values)


class PluginMethod:
    """A method of an installed package."""

    __slots__ = ("_function", "_numbers", "_recipe", "_schema")
    passes = 2

    def __init__(self, recipe: Recipe, layers: int) -> None:
        """Import the package's function.

        Raises InputError if it cannot be imported.
        """
        self._recipe = recipe
        self._schema = schemas.method(recipe.method)
        self._numbers = Numbers(recipe, layers)
        self._function = _load(recipe.method)

    def check(self, names: Iterable[str]) -> None:
        """Accept all numbers that the schema accepts."""

    def survey(self, vectors: TaskVectors, run: Run) -> None:
        """Need nothing."""

    def step(self, name: str, vectors: TaskVectors, deltas: Mapping[int, Delta]) -> PluginStep:
        """Return the function at one tensor, with the numbers that hold there."""
        parameters = {parameter: self._value(parameter, name) for parameter in self._parameters}
        weights = tuple(self.weights(name)[term] for term in deltas)

        def call(values: Sequence[torch.Tensor]) -> torch.Tensor:
            merged = self._function(values, weights, parameters)
            if merged.shape != values[0].shape or merged.dtype != values[0].dtype:
                expected = f"{values[0].dtype} of shape {list(values[0].shape)}"
                found = f"{merged.dtype} of shape {list(merged.shape)}"
                why = f"the method {self._recipe.method} returned {found}, expected {expected}"
                raise InputError(why, tensor=name, field="recipe.method")
            return merged

        merged = None
        blocks = vectors.blocks(name)  # none of a tensor without elements
        if self._schema["x-unit"] == "tensor" and blocks:
            taus = [torch.cat([delta.block(one) for one in blocks]) for delta in deltas.values()]
            whole = [tau.reshape(vectors.shapes[name]) for tau in taus]
            merged = call(task_arithmetic.weigh(whole, weights)).reshape(-1)
        return PluginStep(call, weights, merged)

    def weights(self, name: str) -> tuple[float, ...]:
        """Return the weights of all terms at a tensor."""
        return self._numbers.weights(name)

    def kept(self) -> None:
        """Trim nothing."""

    @property
    def _parameters(self) -> Iterable[str]:
        return self._schema["properties"].keys()  # type: ignore[no-any-return]

    def _value(self, parameter: str, name: str) -> Any:
        value = self._numbers.choice(parameter)
        return self._numbers.number(parameter, name) if isinstance(value, Mapping) else value


def _load(method: str) -> Function:
    plugin = plugins.find(method)
    assert plugin is not None, "the request was checked"
    point = metadata.EntryPoint(method, plugin.function, plugins.GROUP)
    try:
        function: Function = point.load()
    except (ImportError, AttributeError) as error:
        why = f"the method {method} of package {plugin.package} cannot be imported: {error}"
        raise InputError(why, field="recipe.method") from error
    return function
