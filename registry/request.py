"""From declarations to build requests with every input pinned, and to their keys. Pure.

A declared merge whose terms are merges too has holes until their model digests are known; `pin`
fills them. What is not in the request cannot influence the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import schemas
from registry.schema import default_of, method_parameters
from registry.spec import Catalog, Gate, MergeSpec, Term
from schemas import canonical, plugins
from schemas.stack import Slice

Request = Mapping[str, Any]
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True, slots=True)
class Declaration:
    """One declared model as the plan sees it: its request with holes, and what else is wanted.

    `request` has no digest in its terms of kind merge; `upstream` are the names of those merges.
    """

    model: str
    request: Request
    upstream: tuple[str, ...]
    suite: str | None
    suite_request: Mapping[str, Any] | None
    gates: Mapping[str, Gate]
    suspend: str
    revoked: str

    def pin(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """Return the build request, its merge terms pinned to `digests` (model name to digest)."""
        recipe = self.request["recipe"]
        terms = []
        for term in recipe["terms"]:
            source = term["input"]
            is_open = source["kind"] == "merge"
            pinned = {**source, "digest": digests[source["name"]]} if is_open else source
            terms.append({**term, "input": pinned})
        if schemas.method(recipe["method"])["x-symmetric"]:
            terms.sort(key=lambda term: (term["input"]["digest"], canonical.canonical(term)))
        return {**self.request, "recipe": {**recipe, "terms": terms}}

    def evaluation(self, model_digest: str) -> dict[str, Any] | None:
        """Return the evaluation request of the model with this digest, None without a suite."""
        return evaluation_request(self.suite_request, model_digest, base_under(self.request))


def evaluation_request(
    suite: Mapping[str, Any] | None, model_digest: str, base: str | None = None
) -> dict[str, Any] | None:
    """Return the evaluation request of a model on a suite, None without a suite.

    `base` is the digest of the base under an adapter, of which its own digest says nothing.
    """
    if suite is None:
        return None
    version = schemas.evaluator()
    wanted = {
        "format_version": 1,
        "evaluator": version,
        "model": model_digest,
        "suite": dict(suite),
    }
    return wanted if base is None else {**wanted, "base": base}


def base_under(request: Request) -> str | None:
    """Return the digest of the base that an adapter is read on, None for a model."""
    return str(request["base"]["digest"]) if is_adapter(request) else None


def is_adapter(request: Request) -> bool:
    """Return whether a build request asks for an adapter instead of a model."""
    return bool(request["output"]["form"] == "adapter")


def key_of(request: Request) -> str:
    """Return the key of a build or evaluation request: the digest of its canonical JSON."""
    return canonical.digest(dict(request))


def declare(catalog: Catalog, names: Iterable[str] | None = None) -> dict[str, Declaration]:
    """Return every declared model, each after all that it is made of.

    With `names` only those, in their order; of the others nothing may be revoked.
    """
    declared: dict[str, Declaration] = {}
    specs = catalog.ordered() if names is None else (catalog.merges[name] for name in names)
    for spec in specs:
        revoked = _revoked(catalog, spec, declared)
        declared[spec.name] = _declaration(catalog, spec, revoked)
    return declared


def _declaration(catalog: Catalog, spec: MergeSpec, revoked: str) -> Declaration:
    suite = catalog.suites[spec.suite] if spec.suite else None
    wanted = None
    if suite:
        wanted = {"name": suite.name, "digest": suite.digest, "tasks": list(suite.tasks)}
    return Declaration(
        model=spec.name,
        request=_request(catalog, spec),
        upstream=tuple(sorted(set(spec.upstream))),
        suite=spec.suite,
        suite_request=wanted,
        gates=spec.gates,
        suspend=spec.suspend,
        revoked=revoked,
    )


def _request(catalog: Catalog, spec: MergeSpec) -> dict[str, Any]:
    method = schemas.method(spec.method)
    base = catalog.base(spec.base)
    recipe: dict[str, Any] = {
        "method": spec.method,
        "parameters": method_parameters(spec.method, spec.parameters),
        "terms": [_term(catalog, term) for term in spec.terms],
        "compute": spec.compute,
    }
    if method["x-seed"]:
        recipe["seed"] = spec.seed
    if spec.method not in schemas.methods():
        recipe["package"] = _package(spec.method)
    if spec.tokenizer != "base":  # left out where it is: one request for one result
        recipe["tokenizer"] = spec.tokenizer
    if spec.slices:
        recipe["slices"] = _slices(spec.slices)
    return {
        "format_version": 1,
        "numerics": schemas.numerics(),
        "base": {"kind": "base", "name": base.name, "digest": base.digest},
        "recipe": recipe,
        "output": output(spec.output),
    }


def _package(method: str) -> dict[str, str]:
    plugin = plugins.find(method)
    assert plugin is not None, "the catalog was checked"
    return plugin.pinned


def _slices(slices: Sequence[Slice]) -> list[dict[str, Any]]:
    """Return slices as plain data, neighbours that are one run of layers joined."""
    joined: list[Slice] = []
    for one in slices:
        before = joined[-1] if joined else None
        if before and (before.term, before.last) == (one.term, one.first):
            joined[-1] = Slice(one.term, before.first, one.last)
        else:
            joined.append(one)
    return [{"term": one.term, "layers": [one.first, one.last]} for one in joined]


def _term(catalog: Catalog, term: Term) -> dict[str, Any]:
    source: dict[str, Any] = {"kind": term.kind, "name": term.name}
    if term.kind != "merge":
        source["version"] = term.version
        source["digest"] = catalog.ingredients[term.id].digest
    return {"input": source, "weight": term.weight, "parameters": dict(term.parameters)}


def output(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the output options with defaults written out; the shard size in bytes.

    A dtype that is left out is `base`: each tensor keeps its type there. The base's digest
    determines it, so the request stays complete without a look at the base's bytes. The factors of
    an adapter have no tensor to follow and are float32; it is one file, so it has no shards.
    """
    form = given.get("form", default_of("merge", ("output", "form")))
    if form == "adapter":
        dtype = given.get("dtype", "float32")
        return {"form": form, "dtype": dtype, "rank": given.get("rank")}
    size = given.get("max_shard_size", default_of("merge", ("output", "max_shard_size")))
    size_bytes = bytes_of(size)
    assert size_bytes is not None, "the schema allows nothing else"
    return {"form": form, "dtype": given.get("dtype", "base"), "max_shard_size": size_bytes}


def bytes_of(size: str) -> int | None:
    """Return the bytes of a size like `2GB`, in powers of 1000; None if it is no size."""
    match = re.fullmatch(r"(\d+)([KMG]B)", size)
    return None if match is None else int(match[1]) * _UNITS[match[2]]


def _revoked(catalog: Catalog, spec: MergeSpec, declared: Mapping[str, Declaration]) -> str:
    """Return which ingredient, at any depth, is revoked and why; nothing if none is."""
    base = catalog.base(spec.base)
    direct = [catalog.ingredients[term.id] for term in spec.terms if term.kind != "merge"]
    for ingredient in (base, *direct):
        if ingredient.revoked:
            return f"{ingredient.label}: {ingredient.revoked}"
    upstream = [declared[name] for name in spec.upstream if name in declared]
    return next((one.revoked for one in upstream if one.revoked), "")


def alone(request: Request, position: int) -> dict[str, Any]:
    """Return the request of one term alone at weight 1: what retention compares with.

    Always a model, since not every term alone is an adapter. Where the merge is one, it is not
    rounded on write, so neither is this.
    """
    recipe = request["recipe"]
    options = output({"dtype": "float32"}) if is_adapter(request) else request["output"]
    term = {"input": recipe["terms"][position]["input"], "weight": 1.0, "parameters": {}}
    # A term with tokens of its own can be built alone only with them.
    kept = {key: recipe[key] for key in ("compute", "tokenizer") if key in recipe}
    return {
        **request,
        "recipe": {
            "method": "task_arithmetic",
            "parameters": method_parameters("task_arithmetic", {}),
            "terms": [term],
            **kept,
        },
        "output": options,
    }
