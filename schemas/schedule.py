"""One number per tensor from a number or a schedule, and where in a model a tensor stands.

Both sides need it: `registry` to refuse a sum of weights that is 0 somewhere, `merger` to merge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

_LAYER = re.compile(r"\.(?:layers|h|layer|blocks)\.(\d+)\.")
_EMBEDDING_PARTS = frozenset({"wte", "wpe", "tok_embeddings", "shared", "patch_embed"})

Number = int | float
Scheduled = Number | Mapping[str, Any]


def layer_of(name: str) -> int | None:
    """Return the transformer layer that a tensor belongs to, or None outside the layers."""
    match = _LAYER.search("." + name)
    return int(match.group(1)) if match else None


def count_layers(names: Iterable[str]) -> int:
    """Return the number of transformer layers of a model with these tensor names."""
    return 1 + max((layer for name in names if (layer := layer_of(name)) is not None), default=-1)


def is_embedding(name: str) -> bool:
    """Return whether a tensor outside the layers is read before layer 0 (a tied matrix too).

    Names differ between architectures; those of the input side say so (`embed_tokens`,
    `word_embeddings`, `wte`, `wpe`), everything else belongs to the head.
    """
    parts = name.split(".")
    return layer_of(name) is None and any(
        "embed" in part or part in _EMBEDDING_PARTS
        for part in parts
        if not part.startswith("embed_out")
    )


def part_of(name: str) -> str:
    """Return the part of a model that a tensor stands in: `embeddings`, `layer 3` or `head`."""
    layer = layer_of(name)
    if layer is not None:
        return f"layer {layer}"
    return "embeddings" if is_embedding(name) else "head"


def in_order(parts: Iterable[str]) -> list[str]:
    """Return parts as data passes through them: embeddings, the layers by number, head."""

    def position(part: str) -> tuple[int, int]:
        if part.startswith("layer "):
            return 1, int(part.removeprefix("layer "))
        return (0 if part == "embeddings" else 2), 0

    return sorted(parts, key=position)


def value_at(value: Scheduled, name: str, layers: int) -> float:
    """Return the number that holds for the tensor `name` in a model of `layers` layers.

    The first matching rule wins over all the rest. Inside the layers the list is stretched
    piecewise-linearly, its first value on the first layer and its last on the last; `embeddings`
    and `head` default to the mean of the list as written.
    """
    if not isinstance(value, Mapping):
        return float(value)
    for rule in value.get("rules", ()):
        if fnmatchcase(name, rule["match"]):
            return float(rule["value"])
    points = [float(point) for point in value["layers"]]
    layer = layer_of(name)
    if layer is not None:
        return _stretch(points, layer, layers)
    outside = value.get("embeddings" if is_embedding(name) else "head")
    return sum(points) / len(points) if outside is None else float(outside)


def numbers_of(value: Scheduled) -> list[float]:
    """Return every number that a number or schedule holds."""
    if not isinstance(value, Mapping):
        return [float(value)]
    ends = [value[key] for key in ("embeddings", "head") if key in value]
    return [*value["layers"], *ends, *(rule["value"] for rule in value.get("rules", ()))]


def _stretch(points: list[float], layer: int, layers: int) -> float:
    if layers <= 1 or len(points) == 1:
        return points[0]
    position = layer * (len(points) - 1) / (layers - 1)
    left = min(int(position), len(points) - 2)
    share = position - left
    # The end points are returned as written: 0.3 + 1.0 * (0.9 - 0.3) is not 0.9.
    if share == 0.0:
        return points[left]
    if share == 1.0:
        return points[left + 1]
    return points[left] + share * (points[left + 1] - points[left])
