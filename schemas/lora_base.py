"""What an adapter must know of its base: names, packed experts, what is tied, what is quantised.

Headers and config.json only. transformers 5 holds the experts of a layer as one packed parameter,
while most files hold a matrix per expert; here the packed name stands for those matrices:

    X.experts.gate_up_proj (E, 2I, H)  =  per expert gate_proj or w1, above up_proj or w3
    X.experts.down_proj    (E, H, I)   =  per expert down_proj or w2
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.header import FLOATS, TensorInfo

_EXPERT = re.compile(
    r"(?P<experts>.+\.experts)\.(?P<number>\d+)\.(?P<matrix>gate_proj|up_proj|down_proj|w[123])"
    r"\.weight"
)
_PACKED = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
_HEADED = re.compile(
    r"LMHead|ForCausalLM|ForMaskedLM|ForPreTraining|ForConditionalGeneration|ForSeq2SeqLM"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A tensor of the base that is a part of a packed one: rows `first` to `last` of an expert."""

    name: str
    expert: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ExpertLayer:
    """A layer with experts: the one block that holds them, and all its blocks."""

    block: str
    blocks: frozenset[str]


@dataclass(frozen=True, slots=True)
class Base:
    """A base model without its numbers, as an adapter's names and shapes are held against it."""

    shapes: Mapping[str, tuple[int, ...]]
    pieces: Mapping[str, tuple[Piece, ...]]
    expert_layers: Mapping[str, ExpertLayer]
    integers: frozenset[str]
    quantised: str
    tied: frozenset[str]
    vocabulary: int | None
    transposed_layers: Mapping[str, bool]

    def find(self, name: str) -> str:
        """Return the base's name of a parameter, empty if it has none.

        The block of a layer that holds the experts may have another name in the base (Mixtral's
        `block_sparse_moe` is `mlp` in transformers 5), if the base has no block of that name.
        """
        if name in self.shapes:
            return name
        parts = name.split(".")
        for position in range(1, len(parts) - 1):
            layer = self.expert_layers.get(".".join(parts[:position]))
            if layer is None or parts[position] in layer.blocks:
                continue
            renamed = ".".join([*parts[:position], layer.block, *parts[position + 1 :]])
            if renamed in self.shapes:
                return renamed
        return ""

    def stores_transposed(self, name: str) -> bool | None:
        """Return whether matrices of the same layer are stored (in, out); None if nothing tells."""
        return self.transposed_layers.get(_layer(name))


def describe(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> Base:
    """Return what an adapter must know of a base with these headers and this config.json."""
    shapes = {name: info.shape for name, info in tensors.items()}
    packed = dict(_packed(shapes))
    shapes |= {name: shape for name, (shape, _) in packed.items()}
    quantised = config.get("quantization_config")
    method = quantised.get("quant_method", "") if isinstance(quantised, dict) else ""
    vocabulary = _setting(config, "vocab_size")
    vocabulary = vocabulary if type(vocabulary) is int else None
    return Base(
        shapes=shapes,
        pieces={name: pieces for name, (_, pieces) in packed.items()},
        expert_layers=_expert_layers(shapes),
        integers=frozenset(name for name, info in tensors.items() if info.dtype not in FLOATS),
        quantised=str(method) or ("unknown" if quantised else ""),
        tied=_tied(shapes, config, vocabulary),
        vocabulary=vocabulary,
        transposed_layers=_transposed_layers(shapes),
    )


def _packed(
    shapes: Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[str, tuple[tuple[int, ...], tuple[Piece, ...]]]]:
    layers: dict[str, dict[str, dict[int, str]]] = {}
    for name in shapes:
        if match := _EXPERT.fullmatch(name):
            matrices = layers.setdefault(match["experts"], {})
            matrices.setdefault(match["matrix"], {})[int(match["number"])] = name
    for experts, matrices in layers.items():
        for parameter, spellings in _PACKED.items():
            for spelling in spellings:
                if found := _pack([matrices.get(part, {}) for part in spelling], shapes):
                    yield f"{experts}.{parameter}", found


def _pack(
    parts: list[dict[int, str]], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[tuple[int, ...], tuple[Piece, ...]] | None:
    count = len(parts[0])
    names = [name for part in parts for name in part.values()]
    if not names or len({shapes[name] for name in names}) != 1 or len(shapes[names[0]]) != 2:
        return None
    if any(sorted(part) != list(range(count)) for part in parts):
        return None
    rows, columns = shapes[names[0]]
    pieces = tuple(
        Piece(part[expert], expert, number * rows, (number + 1) * rows)
        for number, part in enumerate(parts)
        for expert in range(count)
    )
    return (count, rows * len(parts), columns), pieces


def _expert_layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, ExpertLayer]:
    holders: dict[str, set[str]] = {}
    for name in shapes:
        block, found, _ = name.partition(".experts.")
        parent, dot, last = block.rpartition(".")
        if found and dot:
            holders.setdefault(parent, set()).add(last)
    blocks: dict[str, set[str]] = {parent: set() for parent in holders}
    for name in shapes:
        parts = name.split(".")
        for position in range(1, len(parts)):
            if (parent := ".".join(parts[:position])) in blocks:
                blocks[parent].add(parts[position])
    return {
        parent: ExpertLayer(next(iter(holder)), frozenset(blocks[parent]))
        for parent, holder in holders.items()
        if len(holder) == 1
    }


def _transposed_layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, bool]:
    # The bias beside an oblong matrix is as long as its output.
    told: dict[str, set[bool]] = {}
    for name, shape in shapes.items():
        bias = shapes.get(name.removesuffix("weight") + "bias", ())
        if len(shape) == 2 and shape[0] != shape[1] and len(bias) == 1 and bias[0] in shape:
            told.setdefault(_layer(name), set()).add(bias[0] == shape[1])
    return {layer: True in answers for layer, answers in told.items() if len(answers) == 1}


def _layer(name: str) -> str:
    parts = name.split(".")
    while len(parts) > 1 and not parts[-1].isdigit():
        parts.pop()
    return ".".join(parts)


def _tied(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any], vocabulary: int | None
) -> frozenset[str]:
    """Return the matrices that are input embedding and output head at once.

    config.json may be silent where the architecture ties by default; then a model with a language
    head whose file holds one matrix over the vocabulary reads both from it.
    """
    rows = frozenset(
        name for name, shape in shapes.items() if len(shape) == 2 and shape[0] == vocabulary
    )
    architectures = config.get("architectures") or []
    is_headed = not architectures or any(_HEADED.search(str(one)) for one in architectures)
    flag = _setting(config, "tie_word_embeddings")
    is_tied = is_headed and (flag is True or (flag is None and len(rows) == 1))
    return rows if is_tied else frozenset()


def _setting(config: Mapping[str, Any], key: str) -> Any:
    if config.get(key) is not None:
        return config[key]
    nested = (part for part in config.values() if isinstance(part, dict))
    return next((part[key] for part in nested if part.get(key) is not None), None)
