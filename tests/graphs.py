"""Requests of made-up models, as far as lineage looks at them."""

from __future__ import annotations

from typing import Any

from registry.lineage import Known

BASE = {"kind": "base", "name": "base", "digest": "sha256:" + "0" * 64}


def adapter(name: str, weight: Any = 1.0, version: int = 1) -> dict[str, Any]:
    source = {"kind": "adapter", "name": name, "version": version, "digest": digest(name)}
    return {"input": source, "weight": weight, "parameters": {}}


def merge(name: str, weight: Any = 1.0, of: str = "") -> dict[str, Any]:
    """Return a term that is a merge, pinned to a digest where it is built."""
    source = {"kind": "merge", "name": name, **({"digest": of} if of else {})}
    return {"input": source, "weight": weight, "parameters": {}}


def digest(letter: str) -> str:
    return "sha256:" + letter[0] * 64


def request(*terms: dict[str, Any], factor: Any = 1.0, method: str = "") -> dict[str, Any]:
    parameters = {} if method else {"lambda": factor, "normalize": False}
    recipe = {"method": method or "task_arithmetic", "parameters": parameters}
    return {"base": BASE, "recipe": {**recipe, "terms": list(terms)}}


def declared(**requests: dict[str, Any]) -> Known:
    return Known(requests)


def live(**requests: dict[str, Any]) -> Known:
    """Return models that are built; the digest of each repeats the first letter of its name."""
    return Known(requests, {name: digest(name) for name in requests})


def diamonds(count: int) -> Known:
    """Return merges of which each contains the one below in two ways: 2 to the power of `count`."""
    requests = {"m0": request(adapter("a"))}
    for number in range(count):
        below = f"m{number}"
        requests[f"l{number}"] = request(merge(below))
        requests[f"r{number}"] = request(merge(below))
        requests[f"m{number + 1}"] = request(merge(f"l{number}"), merge(f"r{number}"))
    return Known(requests)
