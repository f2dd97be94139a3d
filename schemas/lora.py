"""Which base tensor an adapter's factors change, and by which scale: from config and header alone.

Understood is plain LoRA, with rank and alpha patterns, rsLoRA and fan_in_fan_out. Every other
feature is refused by its name, never skipped: a skipped feature would be a wrong model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.digest import ADAPTER_CONFIG
from schemas.header import FLOATS, TensorInfo

CONFIG = ADAPTER_CONFIG
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")

_UNDERSTOOD = frozenset({
    "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "bias", "init_lora_weights",
})  # fmt: skip
# Facts that change no number of the folded weight.
_HARMLESS = frozenset({
    "base_model_name_or_path", "revision", "task_type", "inference_mode", "lora_dropout",
    "peft_version", "runtime_config", "qalora_group_size",
    "megatron_core",  # PEFT always writes this module's name; only megatron_config makes it count
})  # fmt: skip
_CODE = ("auto_map", "auto_mapping", "trust_remote_code")
# Features whose delta is no product of the two factors alone, understood by us or not.
_BEYOND = (
    "use_dora", "lora_bias", "modules_to_save", "target_parameters", "trainable_token_indices",
)  # fmt: skip
# Initialisations that leave the base weights alone; PiSSA, OLoRA, CorDA and others change them.
_PLAIN_INITS = (True, False, None, "gaussian", "default", "eva", "orthogonal")


class AdapterError(ValueError):
    """An adapter cannot be merged; `field` is a key of its config, `tensor` one of its tensors."""

    def __init__(self, why: str, *, field: str = "", tensor: str = "") -> None:
        """Say what is wrong, and with which field or tensor."""
        super().__init__(": ".join(part for part in (field or tensor, why) if part))
        self.why = why
        self.field = field
        self.tensor = tensor


@dataclass(frozen=True, slots=True)
class LoraTarget:
    """One changed base tensor: its delta is `scale` · B·A, transposed if `transposed`."""

    name: str
    a: str
    b: str
    scale: float
    rank: int
    transposed: bool


def lora_targets(
    config: Mapping[str, Any],
    header: Mapping[str, TensorInfo],
    base_shapes: Mapping[str, tuple[int, ...]],
) -> tuple[LoraTarget, ...]:
    """Return the targets of an adapter, sorted by base tensor.

    Raises AdapterError for anything that is not plain LoRA on tensors that the base has.
    """
    check_config(config)
    modules = _modules(header)
    targets = [_target(config, header, base_shapes, module) for module in sorted(modules)]
    if not targets:
        raise AdapterError("expected at least one pair of lora_A and lora_B, found none")
    return tuple(sorted(targets, key=lambda target: target.name))


def check_config(config: Mapping[str, Any]) -> None:
    """Raise AdapterError for what adapter_config.json may not hold."""
    for key in (key for key in _CODE if config.get(key)):
        raise AdapterError("refused: it would run code from the adapter", field=key)
    for key, wanted, default in (("peft_type", "LORA", None), ("bias", "none", "none")):
        if config.get(key, default) != wanted:
            raise AdapterError(f"expected {wanted}, found {config.get(key)}", field=key)
    _check_init(config.get("init_lora_weights", True))
    if not _is_rank(config.get("r")):
        raise AdapterError(f"expected a whole number from 1, found {config.get('r')}", field="r")
    if not _is_number(alpha := config.get("lora_alpha")):
        raise AdapterError(f"expected a number, found {alpha}", field="lora_alpha")
    for key in ("rank_pattern", "alpha_pattern"):
        _check_pattern(key, config.get(key) or {})
    unknown = sorted(config.keys() - _UNDERSTOOD - _HARMLESS)
    for key in (key for key in unknown if config[key] not in (None, False, "", [], {})):
        why = f"this feature is not understood (value {config[key]!r})"
        raise AdapterError(why, field=key)


def feature_beyond_factors(config: Mapping[str, Any]) -> str:
    """Return the key that makes a delta more than s·B·A of linear modules; nothing if none does."""
    if config.get("bias", "none") != "none":
        return "bias"
    return next((key for key in _BEYOND if config.get(key)), "")


def _check_init(init: Any) -> None:
    if init not in _PLAIN_INITS:
        why = f'"{init}" trains against altered base weights; convert it to plain LoRA first'
        raise AdapterError(why, field="init_lora_weights")


def _check_pattern(key: str, pattern: Any) -> None:
    is_good = _is_rank if key == "rank_pattern" else _is_number
    if not isinstance(pattern, dict) or not all(is_good(value) for value in pattern.values()):
        raise AdapterError("expected a map of module pattern to number", field=key)
    for module in pattern:
        if not _is_harmless(module):
            why = f"expected a module's name or a simple pattern, found {module[:80]!r}"
            raise AdapterError(why, field=key)


def _is_harmless(pattern: str) -> bool:
    """Return whether a regular expression compiles and cannot take long on any name.

    Anybody who can open a pull request can send one: repeated groups take exponential time, and
    every repetition multiplies it by the length of a name.
    """
    if len(pattern) > 256 or "{" in pattern or re.search(r"\)[*+?]", pattern):
        return False
    if len(re.findall(r"[*+?]", pattern)) > 2:
        return False
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _is_rank(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _modules(header: Mapping[str, TensorInfo]) -> set[str]:
    modules: set[str] = set()
    for tensor, info in header.items():
        match = _FACTOR.fullmatch(tensor.removeprefix(PREFIX))
        if match is None or not tensor.startswith(PREFIX):
            raise AdapterError("expected only lora_A and lora_B of linear modules", tensor=tensor)
        if info.dtype not in FLOATS:
            raise AdapterError(f"expected F32, F16 or BF16, found {info.dtype}", tensor=tensor)
        if len(info.shape) != 2:
            raise AdapterError(f"expected two dimensions, found {len(info.shape)}", tensor=tensor)
        modules.add(match["module"])
    return modules


def _target(
    config: Mapping[str, Any],
    header: Mapping[str, TensorInfo],
    base_shapes: Mapping[str, tuple[int, ...]],
    module: str,
) -> LoraTarget:
    a, b = (f"{PREFIX}{module}.lora_{side}.weight" for side in "AB")
    for tensor, other in ((a, b), (b, a)):
        if tensor not in header:
            raise AdapterError(f"expected this tensor beside {other}, found none", tensor=tensor)
    name = f"{module}.weight"
    if name not in base_shapes:
        raise AdapterError(f"the base has no tensor {name}", tensor=a)
    rank = int(_matched(config.get("rank_pattern"), module, config["r"]))
    rows, columns = header[b].shape[0], header[a].shape[1]
    if header[a].shape[0] != rank or header[b].shape[1] != rank:
        found = f"{header[a].shape[0]} and {header[b].shape[1]}"
        raise AdapterError(f"expected rank {rank}, found {found}", tensor=a)
    transposed = bool(config.get("fan_in_fan_out", False))
    shape = (columns, rows) if transposed else (rows, columns)
    if base_shapes[name] != shape:
        why = f"expected a delta of shape {list(base_shapes[name])} for {name}, found {list(shape)}"
        raise AdapterError(why, tensor=a)
    alpha = _matched(config.get("alpha_pattern"), module, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return LoraTarget(name, a, b, scale, rank, transposed)


def _matched(pattern: Mapping[str, float] | None, module: str, default: float) -> float:
    # PEFT's rule: the first key that matches the end of the module's name, on a dot.
    for key, value in (pattern or {}).items():
        if re.fullmatch(rf"(.*\.)?({key})", module):
            return value
    return default
