"""What a built model must look like: names and shapes from its base's header and recipe. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.errors import VerificationFailed
from schemas import stack, vocabulary
from schemas.model import ModelHeader
from schemas.stack import StackError
from schemas.vocabulary import VocabularyError


def check(base: ModelHeader, found: ModelHeader, recipe: Mapping[str, Any]) -> None:
    """Raise VerificationFailed unless a model has the tensors that a recipe gives it."""
    try:
        if recipe.get("slices"):
            _check_stack(base, found, stack.height(stack.parse(recipe["slices"])))
        else:
            wanted = base.shapes
            if recipe.get("tokenizer") == "union":
                wanted |= _united(base, found)
            _check_shapes(wanted, found.shapes)
    except (StackError, VocabularyError) as error:
        raise VerificationFailed(f"the built model: {error}") from error


def _check_shapes(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    if wanted != found:
        names = sorted(wanted.keys() | found.keys())
        odd = next(name for name in names if wanted.get(name) != found.get(name))
        msg = f"tensor {odd}: expected {wanted.get(odd)}, found {found.get(odd)}"
        raise VerificationFailed(msg)


def _united(base: ModelHeader, found: ModelHeader) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the vocabulary's tensors with the rows that the result's config has."""
    tensors = vocabulary.vocabulary_tensors(base.shapes, base.config)
    count = max(tensors.rows, vocabulary.rows(found.config) or 0)
    return {name: (count, *base.shapes[name][1:]) for name in tensors.names}


def _check_stack(base: ModelHeader, found: ModelHeader, height: int) -> None:
    stack.refuse_unlike(found.shapes, base.shapes)
    if (layers := stack.layers_of(found.tensors)) != height:
        msg = f"expected {height} layers, found {layers}"
        raise VerificationFailed(msg)
