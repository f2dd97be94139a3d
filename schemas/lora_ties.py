"""An adapter on a matrix that is input embedding and output head at once. Knows no other target.

A product or a whole tensor that PEFT trained on one side only fits no single matrix: PEFT's own
fold of it changes both sides, which is not what was trained. With `ensure_weight_tying` it trains
both as one and saves both; then they must be equal, and the product is folded once. (PEFT 0.21
folds it once per side into the one matrix, so that its folded model has the product twice.)
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace

from schemas.lora_config import AdapterError
from schemas.lora_fit import Given
from schemas.lora_names import one_side
from schemas.lora_target import LoraTarget, Product, Twin


def refuse_one_side(given: Given, targets: Mapping[str, LoraTarget]) -> None:
    """Raise AdapterError if a tied matrix was trained on one side, or with DoRA.

    Retrained rows are fine: PEFT ties them.
    """
    for target in (target for name, target in targets.items() if name in given.base.tied):
        if target.magnitude:
            why = f"{target.name} is input embedding and output head, which DoRA scales apart"
            raise AdapterError(why, tensor=target.magnitude)
        if (target.product or target.saved) and not given.config.get("ensure_weight_tying"):
            raise AdapterError(one_side(target.name), tensor=target.tensor)


def join_twins(
    given: Given, targets: MutableMapping[str, LoraTarget], others: Sequence[LoraTarget]
) -> None:
    """Attach the other side of a tied matrix to the side that the base stores.

    Raises AdapterError if there is no such side, or its factors have another shape or scale.
    """
    for other in others:
        main = next((targets[name] for name in given.base.tied if name in targets), None)
        pairs = _pairs(main, other) if main else ()
        if main is None or not pairs:
            raise AdapterError("the base has no such tensor", tensor=other.tensor)
        for twin in pairs:
            expected = given.header[twin.other].shape
            if given.header[twin.tensor].shape != (expected[::-1] if twin.transposed else expected):
                raise AdapterError(f"expected the shape of {twin.other}", tensor=twin.tensor)
        targets[main.name] = replace(main, twins=(*main.twins, *pairs))


def _pairs(main: LoraTarget, other: LoraTarget) -> tuple[Twin, ...]:
    if main.product and other.product:
        return _factors(main.product, other.product)
    if main.saved and other.saved:
        return (Twin(other.saved.tensor, main.saved.tensor),)
    return ()


def _factors(main: Product, other: Product) -> tuple[Twin, ...]:
    if main.scale != other.scale:
        raise AdapterError(f"expected the scale {main.scale} of {main.a}", tensor=other.a)
    # An embedding's product is stored transposed: its A is the head's B.
    if main.transposed:
        return (Twin(other.a, main.b, transposed=True), Twin(other.b, main.a, transposed=True))
    return (Twin(other.a, main.a), Twin(other.b, main.b))
