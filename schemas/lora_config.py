"""What adapter_config.json may say: what is understood, harmless, or refused with its reason.

Knows no tensor. Everything that PEFT 0.21 writes stands in one of the three tables; any other key
that says something is refused by its name: a skipped feature would be a wrong model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_UNDERSTOOD = frozenset({
    "peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out",
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "bias", "init_lora_weights", "lora_bias", "use_dora", "modules_to_save", "target_parameters",
    "trainable_token_indices", "ensure_weight_tying",
})  # fmt: skip
# Facts that change no number of the folded weight.
_HARMLESS = frozenset({
    "base_model_name_or_path", "revision", "task_type", "inference_mode", "lora_dropout",
    "peft_version", "runtime_config", "qalora_group_size", "eva_config", "velora_config",
    # Read by initialisations only, which init_lora_weights names; a converted adapter keeps them.
    "corda_config", "loftq_config", "lora_ga_config",
    "megatron_core",  # PEFT always writes this module's name; only megatron_config makes it count
})  # fmt: skip
_REFUSED = {
    "alora_invocation_tokens": "it acts on some tokens only, which no single set of weights does",
    "arrow_config": "it chooses among adapters token by token, which no single set of weights does",
    "kasa_config": "it trains against base weights with singular values cut off",
    "layer_replication": "its model has more layers than the base",
    "megatron_config": "its layers are Megatron's, whose tensors are not those of the base",
    "monteclora_config": "its factors are drawn at random around the saved ones",
    "use_bdlora": "its factors are block-diagonal",
    "use_qalora": "it acts on pooled inputs of a quantised base, which no weight expresses",
}
_CODE = ("auto_map", "auto_mapping", "trust_remote_code")
# Initialisations that leave the base weights alone.
_PLAIN_INITS = (True, False, None, "gaussian", "default", "eva", "orthogonal", "mica")
_BIASES = ("none", "all", "lora_only")
# Features whose delta is no product of the two factors alone.
_BEYOND = (
    "use_dora", "lora_bias", "modules_to_save", "target_parameters", "trainable_token_indices",
)  # fmt: skip
_SILENT: tuple[object, ...] = (None, False, "", [], {})


class AdapterError(ValueError):
    """An adapter cannot be merged; `field` is a key of its config, `tensor` one of its tensors."""

    def __init__(self, why: str, *, field: str = "", tensor: str = "") -> None:
        """Say what is wrong, and with which field or tensor."""
        super().__init__(": ".join(part for part in (field or tensor, why) if part))
        self.why = why
        self.field = field
        self.tensor = tensor


def check_config(config: Mapping[str, Any]) -> None:
    """Raise AdapterError for what adapter_config.json may not hold."""
    for key in (key for key in _CODE if config.get(key)):
        raise AdapterError("refused: it would run code from the adapter", field=key)
    if (found := config.get("peft_type")) != "LORA":
        why = f"expected LORA, found {found}; a method without a product of two factors is not read"
        raise AdapterError(why, field="peft_type")
    if config.get("bias", "none") not in _BIASES:
        why = f"expected none, all or lora_only, found {config.get('bias')}"
        raise AdapterError(why, field="bias")
    _check_init(config.get("init_lora_weights", True))
    if not _is_rank(config.get("r")):
        raise AdapterError(f"expected a whole number from 1, found {config.get('r')}", field="r")
    if not _is_number(alpha := config.get("lora_alpha")):
        raise AdapterError(f"expected a number, found {alpha}", field="lora_alpha")
    for key in ("rank_pattern", "alpha_pattern"):
        _check_pattern(key, config.get(key) or {})
    for key in ("modules_to_save", "target_parameters"):
        _check_names(key, config.get(key) or [])
    _check_tokens(config.get("trainable_token_indices") or [])
    _check_other_keys(config)


def _check_init(init: Any) -> None:
    if init in _PLAIN_INITS:
        return
    why = f'"{init}" trains against altered base weights; convert it to plain LoRA first'
    if isinstance(init, str) and init.startswith(("pissa", "olora", "corda", "lora_ga")):
        why += ": save_pretrained(…, path_initial_model_for_weight_conversion=…) of PEFT does that"
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


def _check_names(key: str, names: Any) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise AdapterError("expected a list of names", field=key)


def _check_tokens(tokens: Any) -> None:
    lists = list(tokens.values()) if isinstance(tokens, dict) else [tokens]
    for indices in lists:
        if (
            not isinstance(indices, list)
            or not all(type(index) is int and index >= 0 for index in indices)
            or len(set(indices)) != len(indices)
        ):
            why = "expected distinct numbers of tokens, or a map of module to them"
            raise AdapterError(why, field="trainable_token_indices")


def _check_other_keys(config: Mapping[str, Any]) -> None:
    for key in sorted(config.keys() - _UNDERSTOOD - _HARMLESS):
        if config[key] in _SILENT:
            continue
        if key in _REFUSED:
            why = f"this feature is not understood: {_REFUSED[key]}"
        else:
            why = f"this feature is not understood (value {config[key]!r})"
        raise AdapterError(why, field=key)


def _is_rank(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def rank_of(config: Mapping[str, Any], key: str) -> int:
    """Return the rank that the config gives a module or parameter of that name."""
    return int(_matched(config.get("rank_pattern"), key, config["r"]))


def scale_of(config: Mapping[str, Any], key: str) -> float:
    """Return α/r, or α/√r with rsLoRA, of a module or parameter of that name."""
    rank = rank_of(config, key)
    alpha = _matched(config.get("alpha_pattern"), key, config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _matched(pattern: Mapping[str, float] | None, key: str, default: float) -> float:
    # PEFT's rule: the first pattern that matches the end of the name, on a dot.
    for expression, value in (pattern or {}).items():
        if re.fullmatch(rf"(.*\.)?({expression})", key):
            return value
    return default


def feature_beyond_factors(config: Mapping[str, Any]) -> str:
    """Return the key that makes a delta more than s·B·A of linear modules; nothing if none does."""
    if config.get("bias", "none") != "none":
        return "bias"
    return next((key for key in _BEYOND if config.get(key)), "")
