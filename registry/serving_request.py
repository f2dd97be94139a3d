"""What is asked of a merged model and of its adapters, to compare serving the two. Pure.

The adapters are those of what is built, not of what is declared: through merges of merges, each
once. Prompts are those of the model's suite, or a few of our own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import Any

from registry.errors import RegistryError
from registry.record import BuildRecord, Built, UnreadableRecord, input_label
from registry.request import is_adapter
from registry.spec import Catalog
from schemas.expression import reference

FORMAT_VERSION = 1
MERGED, SWITCHED = "merged", "switched"
_MOST_PROMPTS = 16
_PROMPTS = (
    "What is the capital of France?",
    "Write a sentence about a river.",
    "Name three animals that live in the sea.",
    "Why is the sky blue?",
    "Give the first five prime numbers.",
    "How does one boil an egg?",
    "Translate 'good morning' into Spanish.",
    "Describe a library to a child.",
)

Recorded = Mapping[str, BuildRecord | UnreadableRecord]


@dataclass(frozen=True, slots=True)
class Load:
    """How much is asked: batch sizes, tokens of every answer, requests of every mode and size."""

    batches: tuple[int, ...]
    tokens: int
    repeats: int


@dataclass(frozen=True, slots=True)
class Operands:
    """The pinned inputs of a merge, at any depth: what can be switched to, and what cannot."""

    adapters: tuple[Mapping[str, Any], ...]
    others: tuple[Mapping[str, Any], ...]


def operands(model: str, built: Built, recorded: Recorded, catalog: Catalog) -> Operands:
    """Return what a built model is made of, by name.

    Raises RegistryError where a merge that it is made of is another one now, where the base or an
    adapter is not in the catalog as it was, and where there is no adapter at all.
    """
    found = {one["digest"]: one for one in _leaves(model, built, recorded)}
    ordered = sorted(found.values(), key=lambda one: (one["name"], one["version"]))
    adapters = tuple(one for one in ordered if one["kind"] == "adapter")
    others = tuple(one for one in ordered if one["kind"] != "adapter")
    if not adapters:
        named = ", ".join(map(input_label, others)) or "the base alone"
        msg = f"{model}: there is nothing to switch, it is made of {named}"
        raise RegistryError(msg, "only a merge with an adapter can be compared with switching")
    for one in (built.request["base"], *adapters):
        known = catalog.ingredients.get((one["kind"], one["name"], one.get("version")))
        if known is None or known.digest != one["digest"]:
            msg = f"{model}: {input_label(one)} is not in the catalog as it was built"
            raise RegistryError(msg, f"run `registry sync {model}`")
    return Operands(adapters, others)


def _leaves(model: str, built: Built, recorded: Recorded) -> Iterator[Mapping[str, Any]]:
    for term in built.request["recipe"]["terms"]:
        source = term["input"]
        if source["kind"] != "merge":
            yield source
            continue
        one = recorded.get(source["name"])
        inner = one.built if isinstance(one, BuildRecord) else None
        if inner is None or inner.model_digest != source["digest"]:
            msg = f"{model}: merge {source['name']} is not what it was when this was built"
            raise RegistryError(msg, f"run `registry sync {model}`")
        yield from _leaves(model, inner, recorded)


def serving_request(
    built: Built, found: Operands, prompts: Iterable[Mapping[str, Any]], load: Load
) -> dict[str, Any]:
    """Return the serving request of a built model, with both sides in it."""
    form = "adapter" if is_adapter(built.request) else "model"
    return {
        "format_version": FORMAT_VERSION,
        "model": {"digest": built.model_digest, "form": form},
        "base": built.request["base"]["digest"],
        "adapters": [{"label": reference(one), "digest": one["digest"]} for one in found.adapters],
        "prompts": list(prompts),
        "batches": list(load.batches),
        "tokens": load.tokens,
        "repeats": load.repeats,
        "sides": [MERGED, SWITCHED],
    }


def own_prompts() -> list[dict[str, Any]]:
    """Return the prompts for a model without a suite."""
    return [{"text": text, "system": None} for text in _PROMPTS]


def suite_prompts(tasks: Iterable[tuple[Mapping[str, Any], bytes]]) -> list[dict[str, Any]]:
    """Return the first prompts of every task in turn; `tasks` come with their data files.

    Our own where no task asks anything.
    """
    columns = [list(islice(_asked(task, data), _MOST_PROMPTS)) for task, data in tasks]
    in_turn = (one for one in chain.from_iterable(zip_longest(*columns)) if one is not None)
    return list(islice(in_turn, _MOST_PROMPTS)) or own_prompts()


def _asked(task: Mapping[str, Any], data: bytes) -> Iterator[dict[str, Any]]:
    lines = (json.loads(line) for line in data.splitlines() if line.strip())
    for line in lines:
        if line["prompt"]:
            yield {"text": line["prompt"], "system": task["system"]}
