"""What the tensors of an adapter are, by PEFT's names: factors of a module, or whole tensors.

Knows no base. PEFT wraps a changed module, so that names of the base get a `base_layer` within;
here all names are those of the model before wrapping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.header import FLOATS, TensorInfo
from schemas.lora_config import AdapterError

PREFIX = "base_model.model."
_WRAPPED = "base_layer"
_PART = re.compile(
    r"(?P<module>.+?)\.(?P<role>lora_A\.weight|lora_B\.weight|lora_B\.bias"
    r"|lora_embedding_A|lora_embedding_B|lora_magnitude_vector"
    r"|token_adapter\.trainable_tokens_delta)"
)
# Written beside the factors and read by nothing but training: the projection of VeLoRA.
_IGNORED = (".lora_velora_embed",)
A, B, B_BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias"
EMBEDDING_A, EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"
MAGNITUDE = "lora_magnitude_vector"
TOKENS = "token_adapter.trainable_tokens_delta"


def module_of(tensor: str) -> str:
    """Return the module, by its name in the model before wrapping, that a factor belongs to."""
    match = _PART.fullmatch(tensor.removeprefix(PREFIX))
    assert match is not None, "the header was checked"
    return ".".join(part for part in match["module"].split(".") if part != _WRAPPED)


@dataclass(frozen=True, slots=True)
class Module:
    """A changed module: its name in the model, and its tensors in the adapter by role.

    `depth` counts the wrappers around it: PEFT nests one per changed parameter of a module.
    `within` is a wrapped module that it lies in, empty if none: the attention of an `out_proj`.
    """

    name: str
    depth: int
    within: str
    tensors: Mapping[str, str]

    @property
    def factors(self) -> tuple[str, str]:
        """Names of A and B; raises AdapterError if one is missing."""
        pair = (EMBEDDING_A, EMBEDDING_B) if self.is_embedding else (A, B)
        for role in (role for role in pair if role not in self.tensors):
            had, beside = next(iter(sorted(self.tensors.items())))
            tensor = beside.removesuffix(had) + role
            raise AdapterError(f"expected this tensor beside {beside}, found none", tensor=tensor)
        return self.tensors[pair[0]], self.tensors[pair[1]]

    @property
    def is_embedding(self) -> bool:
        """Whether it is an embedding, whose product is stored transposed."""
        return EMBEDDING_A in self.tensors or EMBEDDING_B in self.tensors


@dataclass(frozen=True, slots=True)
class Contents:
    """All tensors of an adapter: modules with factors; whole tensors and rows by model's name."""

    modules: tuple[Module, ...]
    saved: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, str] = field(default_factory=dict)


def contents(header: Mapping[str, TensorInfo]) -> Contents:
    """Sort the tensors of an adapter by what they are.

    Raises AdapterError for a name or a dtype that PEFT does not write.
    """
    modules: dict[tuple[str, int, str], dict[str, str]] = {}
    saved: dict[str, str] = {}
    tokens: dict[str, str] = {}
    for tensor, info in sorted(header.items()):
        if not tensor.startswith(PREFIX):
            why = f"expected only lora_A and lora_B and whole tensors, named {PREFIX}…"
            raise AdapterError(why, tensor=tensor)
        if info.dtype not in FLOATS:
            raise AdapterError(f"expected F32, F16 or BF16, found {info.dtype}", tensor=tensor)
        path = tensor.removeprefix(PREFIX)
        match = _PART.fullmatch(path)
        if path.endswith(_IGNORED):
            continue
        if match is None:
            _add(saved, _whole_name(tensor, path), tensor)
        elif match["role"] == TOKENS:
            _add(tokens, _unwrapped(match["module"])[0], tensor)
        else:
            roles = modules.setdefault(_unwrapped(match["module"]), {})
            roles[match["role"]] = tensor
    found = (Module(*key, roles) for key, roles in sorted(modules.items()))
    return Contents(tuple(found), saved, tokens)


def _add(place: dict[str, str], name: str, tensor: str) -> None:
    if name in place:
        raise AdapterError(
            f"expected one tensor for {name}, found {place[name]} too", tensor=tensor
        )
    place[name] = tensor


def _whole_name(tensor: str, path: str) -> str:
    parts = path.split(".")
    if any(part.startswith("lora_") for part in parts) or len(parts) < 2:
        why = "expected lora_A, lora_B or what else PEFT 0.21 writes for LoRA"
        raise AdapterError(why, tensor=tensor)
    return _unwrapped(path)[0]


def _unwrapped(path: str) -> tuple[str, int, str]:
    """Return a path without wrappers, how many end it, and what the innermost one wraps within."""
    parts = path.split(".")
    depth = 0
    while depth < len(parts) and parts[-1 - depth] == _WRAPPED:
        depth += 1
    plain = [part for part in parts if part != _WRAPPED]
    body = parts[: len(parts) - depth]
    within = body[: len(body) - 1 - body[::-1].index(_WRAPPED)] if _WRAPPED in body else []
    return ".".join(plain), depth, ".".join(part for part in within if part != _WRAPPED)
