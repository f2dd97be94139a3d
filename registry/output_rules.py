"""What a spec may ask of its output, and when an adapter holds a merge exactly.

An adapter is the merged delta itself only if the method is a sum with fixed coefficients and every
term a plain LoRA adapter: then factors are concatenated. Anything else is cut to a rank, which the
spec must name. What the catalog tells is judged with it, what adapter_config.json tells by
preflight, where the bytes are at hand; the build has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import schemas
from registry.errors import Problem
from registry.source import Source
from registry.spec import Catalog, Ingredient, MergeSpec, Term
from schemas.lora_config import feature_beyond_factors

_CURE = "add a rank, as in rank: 32, to cut it off there, or build it as a model"


def check(catalog: Catalog, spec: MergeSpec, source: Source) -> Iterator[Problem]:
    """Yield what the output cannot be, as far as the catalog alone tells."""
    if not spec.is_adapter:
        if "rank" in spec.output:
            hint = "write form: adapter, or remove it"
            yield source.problem(("output", "rank"), "a model has no rank", hint)
        return
    if "max_shard_size" in spec.output:
        yield source.problem(("output", "max_shard_size"), "an adapter is one file", "remove it")
    if spec.slices or spec.tokenizer == "union":
        message = "an adapter has the base's layers and tokens: no stack, no union"
        yield source.problem(("output", "form"), message, "build it as a model")
    elif _must_be_exact(spec) and (why := _why_inexact(catalog, spec)):
        yield _problem(source, why)


def check_adapters(
    spec: MergeSpec,
    source: Source,
    ingredients: Mapping[Any, Ingredient],
    read: Callable[[Ingredient], Mapping[str, Any] | None],
) -> Iterator[Problem]:
    """Yield the first adapter that is more than a product of factors where it must not be.

    `read` returns adapter_config.json of an adapter; None if it is not at hand or no configuration.
    """
    if not _must_be_exact(spec):
        return
    for term in spec.terms:
        if term.kind != "adapter" or (config := read(ingredients[term.id])) is None:
            continue
        if feature := feature_beyond_factors(config):
            yield _problem(source, f"{term.label} has {feature}, which no product of factors holds")
            return


def _must_be_exact(spec: MergeSpec) -> bool:
    return spec.is_adapter and "rank" not in spec.output


def _why_inexact(catalog: Catalog, spec: MergeSpec) -> str:
    if not schemas.methods().get(spec.method, {}).get("x-linear", False):  # a package's: unknown
        return f"{spec.method} is not linear, so no adapter holds its result exactly"
    whole = [term for term in spec.terms if _is_whole(catalog, term)]
    return f"{whole[0].label} is a whole model, no product of factors" if whole else ""


def _is_whole(catalog: Catalog, term: Term) -> bool:
    if term.kind == "merge":
        upstream = catalog.merges.get(term.name)
        return upstream is not None and not upstream.is_adapter
    return term.kind == "checkpoint"


def _problem(source: Source, why: str) -> Problem:
    return source.problem(("output", "form"), f"expected a rank beside it: {why}", _CURE)
