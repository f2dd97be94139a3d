"""Which base tensors an adapter changes, and how: from configuration and headers alone.

Understood is what PEFT 0.21 writes for LoRA and can fold into its base: products of two factors on
linear, Conv1D, convolution and embedding layers, on attention's packed projection and on packed
experts; DoRA; biases; whole saved tensors; retrained rows of an embedding. Every other feature is
refused by its name, never skipped: a skipped feature would be a wrong model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from schemas.digest import ADAPTER_CONFIG
from schemas.header import TensorInfo
from schemas.lora_base import describe
from schemas.lora_config import AdapterError, check_config, rank_of, scale_of
from schemas.lora_fit import Given, Option, choose, options
from schemas.lora_header import B_BIAS, MAGNITUDE, Contents, Module, contents
from schemas.lora_names import Wanted, resolve
from schemas.lora_saved import refuse_absent, saved_targets, token_targets
from schemas.lora_target import LoraTarget, Product, Saved, Vector
from schemas.lora_ties import join_twins, refuse_one_side

CONFIG = ADAPTER_CONFIG
WEIGHTS = "adapter_model.safetensors"


def lora_targets(
    config: Mapping[str, Any],
    header: Mapping[str, TensorInfo],
    base_tensors: Mapping[str, TensorInfo],
    base_config: Mapping[str, Any],
) -> tuple[LoraTarget, ...]:
    """Return the targets of an adapter, sorted by base tensor.

    Raises AdapterError for anything that is not understood, or does not fit this base.
    """
    check_config(config)
    given = Given(config, header, describe(base_tensors, base_config))
    found = contents(header)
    if not (found.modules or found.saved or found.tokens):
        raise AdapterError("expected at least one pair of lora_A and lora_B, found none")
    refuse_absent(given, found)
    names = resolve(list(_wanted(given, found)), given.base)
    claims = [
        *(one for module in found.modules for one in _module_targets(given, module, names)),
        *saved_targets(given, found, names),
        *token_targets(given, found, names),
    ]
    targets: dict[str, LoraTarget] = {}
    pieces = (piece for claim in claims if claim.name for piece in _spread(claim, given))
    for claim in pieces:
        _refuse_integers(given, claim.name, claim.tensor)
        known = targets.get(claim.name)
        targets[claim.name] = _both(known, claim) if known else claim
    refuse_one_side(given, targets)
    join_twins(given, targets, [claim for claim in claims if not claim.name])
    return tuple(target for _, target in sorted(targets.items()))


def _wanted(given: Given, found: Contents) -> Iterator[Wanted]:
    for module in found.modules:
        a, b = module.factors
        names = tuple(option.name for option in options(given.config, module))
        if not names:
            why = f"expected the name of a parameter of {module.name}, found none"
            raise AdapterError(why, field="target_parameters")
        shape = (given.header[b].shape[0], *given.header[a].shape[1:])
        yield _side(given, names, a, shape[::-1] if module.is_embedding else shape)
        yield Wanted((f"{module.name}.bias",), a, optional=True)
    for name, tensor in found.saved.items():
        yield _side(given, (name,), tensor, given.header[tensor].shape)
    for name, tensor in found.tokens.items():
        yield Wanted((f"{name}.weight",), tensor)


def _side(given: Given, names: tuple[str, ...], tensor: str, shape: tuple[int, ...]) -> Wanted:
    is_side = given.is_side(shape)
    optional = is_side and bool(given.config.get("ensure_weight_tying"))
    return Wanted(names, tensor, optional, is_side)


def _module_targets(given: Given, module: Module, names: Mapping[str, str]) -> Iterator[LoraTarget]:
    a, b = module.factors
    possible = options(given.config, module)
    found = {option: names[option.name] for option in possible if option.name in names}
    for name in found.values():
        _refuse_integers(given, name, a)
    if not found:  # the other side of a tied matrix
        rank, scale = (of(given.config, module.name) for of in (rank_of, scale_of))
        yield LoraTarget("", Product(a, b, scale, int(rank)), magnitude=_magnitude(given, module))
        return
    option, product = choose(found, module, given)
    magnitude = _magnitude(given, module)
    yield LoraTarget(found[option], product, magnitude=magnitude)
    if magnitude and (product.experts or not option.is_plain):
        raise AdapterError("PEFT has no DoRA for this parameter", tensor=magnitude)
    if vector := _vector(given, module, option, product):
        if f"{module.name}.bias" not in names:
            why = f"lora_bias adds to {module.name}.bias, which the base does not have"
            raise AdapterError(why, tensor=vector.tensor)
        yield LoraTarget(names[f"{module.name}.bias"], vector=vector)


def _magnitude(given: Given, module: Module) -> str:
    """Return the tensor of DoRA's magnitudes, empty without DoRA."""
    tensor = module.tensors.get(MAGNITUDE, "")
    if not given.config.get("use_dora"):
        if tensor:
            raise AdapterError("expected magnitudes only with use_dora", tensor=tensor)
        return ""
    a, b = module.factors
    if not tensor:
        raise AdapterError(f"expected magnitudes beside {a}, found none", field="use_dora")
    rows = given.header[b].shape[0]
    if given.header[tensor].elements != rows:
        why = f"expected {rows} magnitudes, found shape {list(given.header[tensor].shape)}"
        raise AdapterError(why, tensor=tensor)
    return tensor


def _vector(given: Given, module: Module, option: Option, product: Product) -> Vector | None:
    tensor = module.tensors.get(B_BIAS, "")
    if not given.config.get("lora_bias"):
        if tensor:
            raise AdapterError("expected a bias of B only with lora_bias", tensor=tensor)
        return None
    _, b = module.factors
    if not tensor:
        raise AdapterError(f"expected a bias beside {b}, found none", field="lora_bias")
    if not option.is_plain:
        raise AdapterError("PEFT folds no lora_bias into this parameter", tensor=tensor)
    if given.header[tensor].shape != given.header[b].shape[:1]:
        rows, shape = given.header[b].shape[0], list(given.header[tensor].shape)
        raise AdapterError(f"expected shape {[rows]}, found {shape}", tensor=tensor)
    return Vector(tensor, product.scale)


def _spread(target: LoraTarget, given: Given) -> Iterator[LoraTarget]:
    """Yield a target, or one for every matrix of the base that makes up a packed tensor."""
    if target.name not in given.base.pieces:
        yield target
        return
    _, rows, columns = given.base.shapes[target.name]
    for piece in given.base.pieces[target.name]:
        product, saved = target.product, target.saved
        if product:
            product = replace(product, expert=piece.expert, first=piece.first, last=piece.last)
        if saved:
            saved = Saved(saved.tensor, (piece.expert * rows + piece.first) * columns)
        yield LoraTarget(piece.name, product, saved=saved)


def _refuse_integers(given: Given, name: str, tensor: str) -> None:
    if name not in given.base.integers:
        return
    why = f"the base holds integers in {name}, which are never merged"
    if given.base.quantised:
        why += f": it is quantised ({given.base.quantised}); name the base in full precision"
    raise AdapterError(why, tensor=tensor)


def _both(known: LoraTarget, claim: LoraTarget) -> LoraTarget:
    for part in ("product", "vector", "saved"):
        if getattr(known, part) and getattr(claim, part):
            why = f"{claim.name} is changed by {known.tensor} too"
            raise AdapterError(why, tensor=claim.tensor)
    if known.tokens or claim.tokens:
        why = f"retrained rows of {claim.name} and another change of it are not understood"
        raise AdapterError(why, tensor=claim.tensor)
    return LoraTarget(
        claim.name,
        known.product or claim.product,
        known.vector or claim.vector,
        known.saved or claim.saved,
        known.magnitude or claim.magnitude,
    )


__all__ = ["CONFIG", "WEIGHTS", "AdapterError", "LoraTarget", "check_config", "lora_targets"]
