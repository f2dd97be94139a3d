"""Whole tensors and rows that an adapter saved in the place of the base's.

PEFT saves them for `modules_to_save`, for `bias`, for `trainable_token_indices`, and beside the
factors of an embedding. A tensor that none of these explains is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from schemas.lora_config import AdapterError
from schemas.lora_fit import Given
from schemas.lora_header import Contents
from schemas.lora_target import LoraTarget, Saved, Tokens


def saved_targets(given: Given, found: Contents, names: Mapping[str, str]) -> Iterator[LoraTarget]:
    """Yield a target for every whole tensor; its name is empty if the base has no such tensor."""
    modules = {module.name for module in found.modules}
    for name, tensor in found.saved.items():
        shape = given.header[tensor].shape
        if not _is_explained(given, name, shape, modules):
            why = "expected only lora_A and lora_B, and tensors that modules_to_save or bias name"
            raise AdapterError(why, tensor=tensor)
        known = names.get(name, "")
        if known and given.base.shapes[known] != shape:
            expected = given.base.shapes[known]
            why = f"expected shape {list(expected)} of {known}, found {list(shape)}"
            if given.base.vocabulary and given.base.vocabulary == expected[0] != shape[0]:
                why += ": the vocabulary was resized"
            raise AdapterError(why, tensor=tensor)
        yield LoraTarget(known, saved=Saved(tensor))


def _is_explained(given: Given, name: str, shape: tuple[int, ...], modules: set[str]) -> bool:
    module, _, parameter = name.rpartition(".")
    if parameter == "bias" and given.config.get("bias", "none") != "none":
        return True
    if module in modules and parameter == "weight":
        return True  # the original of an embedding or head that has factors
    if any(_is_within(name, saved) for saved in given.config.get("modules_to_save") or ()):
        return True
    # save_embedding_layers of PEFT adds embedding and head.
    return len(shape) == 2 and shape[0] == given.base.vocabulary


def _is_within(name: str, saved: str) -> bool:
    # PEFT saves every module whose name ends so, with all that it holds.
    return f"{saved}." in name


def refuse_absent(given: Given, found: Contents) -> None:
    """Raise AdapterError if the config promises saved tensors of the base that are not there."""
    for saved in given.config.get("modules_to_save") or ():
        is_known = any(_is_within(name, saved) for name in given.base.shapes)
        if is_known and not any(_is_within(name, saved) for name in found.saved):
            why = f"expected saved tensors of {saved}, found none"
            raise AdapterError(why, field="modules_to_save")
    if given.config.get("trainable_token_indices") and not found.tokens:
        raise AdapterError("expected retrained rows, found none", field="trainable_token_indices")


def token_targets(given: Given, found: Contents, names: Mapping[str, str]) -> Iterator[LoraTarget]:
    """Yield a target for every embedding with retrained rows."""
    for module, tensor in found.tokens.items():
        name = names[f"{module}.weight"]
        indices = _indices(given, module, tensor)
        shape, expected = given.header[tensor].shape, given.base.shapes[name]
        if len(expected) != 2 or shape != (len(indices), expected[1]):
            why = f"expected {len(indices)} rows of {name} ({list(expected)}), found {list(shape)}"
            raise AdapterError(why, tensor=tensor)
        if indices and max(indices) >= expected[0]:
            why = f"expected token numbers below {expected[0]}, found {max(indices)}"
            raise AdapterError(why, field="trainable_token_indices")
        yield LoraTarget(name, tokens=Tokens(tensor, indices))


def _indices(given: Given, module: str, tensor: str) -> tuple[int, ...]:
    indices = given.config.get("trainable_token_indices") or []
    if not isinstance(indices, dict):
        return tuple(indices)
    lists = [tuple(rows) for key, rows in indices.items() if module.endswith(key)]
    if len(lists) != 1:
        why = f"expected one entry of trainable_token_indices for {module}, found {len(lists)}"
        raise AdapterError(why, tensor=tensor)
    return lists[0]
