"""Layers taken from models and stacked: which tensor of the result comes from which tensor of whom.

From names alone, for both programs. What a model reads before its layers (a tied matrix too) comes
from the first slice, everything behind them from the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.schedule import is_embedding, layer_of

Shapes = Mapping[str, tuple[int, ...]]

_PLACE = re.compile(r"^((?:.*?\.)?(?:layers|h|layer|blocks)\.)(\d+)\.")
COUNT_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")
"""Keys of config.json that state the number of layers, by architecture."""
# Lists as long as the layers by accident, never one entry per layer.
_NO_LAYERS = re.compile(r"architectures|token|keys_to_ignore")


class StackError(ValueError):
    """Layers cannot be stacked; `tensor` may be empty."""

    def __init__(self, why: str, tensor: str = "") -> None:
        """Say why, and because of which tensor."""
        super().__init__(why)
        self.why = why
        self.tensor = tensor


@dataclass(frozen=True, slots=True)
class Slice:
    """Layers [first, last) of one operand: a term by its index, or None for the base."""

    term: int | None
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one tensor of the result comes from."""

    term: int | None
    name: str


def layers_of(names: Iterable[str]) -> int:
    """Return the number of layers of a model, all of them under one name.

    Raises StackError for a model without layers, with holes, or with layers of two kinds (an
    encoder and a decoder, a tower of its own for images): there "layer 5" would mean two things.
    """
    places = {(m[1], int(m[2])) for name in names if (m := _PLACE.match(name))}
    prefixes = sorted({prefix for prefix, _ in places})
    if len(prefixes) != 1:
        found = " and ".join(prefixes) or "none"
        raise StackError(f"expected layers under one name, found {found}")
    if len(places) != 1 + max(number for _, number in places):
        raise StackError(f"expected layers without holes under {prefixes[0]}")
    return len(places)


def stacked(
    names: Mapping[int | None, Sequence[str]], slices: Sequence[Slice]
) -> dict[str, Origin]:
    """Return the origin of every tensor of the result, sorted by its name there.

    `names` are the tensors of each operand. Raises StackError for a layer that an operand lacks.
    """
    found: dict[str, Origin] = {}
    position = 0
    for one in slices:
        count = layers_of(names[one.term])
        if one.last > count:
            raise StackError(f"expected layers within [0, {count}), found {shown(one)}")
        for name in names[one.term]:
            layer = layer_of(name)
            if layer is not None and one.first <= layer < one.last:
                renamed = renumber(name, position + layer - one.first)
                found[renamed] = Origin(one.term, name)
        position += one.last - one.first
    for one, is_first in ((slices[0], True), (slices[-1], False)):
        for name in names[one.term]:
            if layer_of(name) is None and is_embedding(name) == is_first:
                found[name] = Origin(one.term, name)
    return dict(sorted(found.items()))


def renumber(name: str, layer: int) -> str:
    """Return the name of the same tensor in another layer."""
    return _PLACE.sub(rf"\g<1>{layer}.", name, count=1)


def refuse_unlike(shapes: Shapes, base: Shapes) -> None:
    """Raise StackError unless a model is the base but for the number of its layers.

    Outside the layers it has the base's tensors, and each layer has those of some layer of the
    base.
    """
    mine, theirs = _outside(shapes), _outside(base)
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            found, wanted = _shape(mine.get(name)), _shape(theirs.get(name))
            raise StackError(f"expected the base's {wanted}, found {found}", name)
    known = frozenset(_layers(base).values())
    for layer, signature in sorted(_layers(shapes).items()):
        if signature not in known:
            why = f"layer {layer} has other tensors or shapes than the layers of the base"
            raise StackError(why)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no such tensor" if shape is None else f"shape {list(shape)}"


def _outside(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if layer_of(name) is None}


def _layers(shapes: Shapes) -> dict[int, frozenset[tuple[str, tuple[int, ...]]]]:
    found: dict[int, set[tuple[str, tuple[int, ...]]]] = {}
    for name, shape in shapes.items():
        if (layer := layer_of(name)) is not None:
            found.setdefault(layer, set()).add((renumber(name, 0), shape))
    return {layer: frozenset(tensors) for layer, tensors in found.items()}


def shown(one: Slice) -> str:
    """Return the layers of a slice as people write them: `[0, 20]`."""
    return f"[{one.first}, {one.last}]"


def height(slices: Iterable[Slice]) -> int:
    """Return the number of layers of the result."""
    return sum(one.last - one.first for one in slices)


def stacked_config(
    configs: Mapping[int | None, Mapping[str, Any]], layers: int, slices: Sequence[Slice]
) -> dict[str, Any]:
    """Return the fields of the base's config.json that differ for the stack.

    `layers` is the base's number of layers. A list with one entry per layer takes the entry of the
    operand's own layer. Raises StackError where no key states the number of layers, or a list
    names layers by their numbers.
    """
    base = configs[None]
    counts = [key for key in COUNT_KEYS if base.get(key) == layers]
    if not counts:
        keys = ", ".join(COUNT_KEYS)
        raise StackError(f"config.json: expected one of {keys} to be {layers}, found none")
    changed: dict[str, Any] = dict.fromkeys(counts, height(slices))
    for key, value in base.items():
        if not isinstance(value, list) or not value or _NO_LAYERS.search(key):
            continue
        if len(value) == layers:
            changed[key] = [
                _entry(configs[one.term], key, layer)
                for one in slices
                for layer in range(one.first, one.last)
            ]
        elif "layer" in key:
            raise StackError(f"config.json: {key} names layers in a way that cannot be restacked")
    return {key: value for key, value in changed.items() if base[key] != value}


def _entry(config: Mapping[str, Any], key: str, layer: int) -> Any:
    values = config.get(key)
    if not isinstance(values, list) or layer >= len(values):
        raise StackError(f"config.json: expected an entry of {key} for layer {layer}, found none")
    return values[layer]


def parse(data: Sequence[Mapping[str, Any]]) -> tuple[Slice, ...]:
    """Return the slices of a build request as values."""
    return tuple(Slice(one["term"], *one["layers"]) for one in data)
