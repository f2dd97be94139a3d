"""What `registry show` tells of one model, as plain data and as text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from registry.record import BuildRecord, input_label
from registry.report import metrics_text, table, value_text, weight_text
from registry.request import Declaration
from registry.spec import Catalog
from schemas.expression import expression


def model(
    catalog: Catalog,
    declared: Declaration | None,
    known: BuildRecord | None,
    name: str,
    report: Mapping[str, Any] | None = None,
    provenance: str | None = None,
) -> dict[str, Any]:
    """Return what is inside a model: as built, or as declared if it was never built.

    `report` is its build report and `provenance` the digest of its provenance, where the store has
    them.
    """
    built = known.built if known else None
    request = built.request if built else declared.request if declared else None
    spec = catalog.merges.get(name)
    data: dict[str, Any] = {"model": name, "is_built": built is not None}
    if spec:
        data |= {"description": spec.description, "owner": spec.owner, "labels": dict(spec.labels)}
    if request:
        recipe = request["recipe"]
        data |= {
            "expression": expression(request["base"]["name"], recipe),
            "base": request["base"],
            "method": recipe["method"],
            "parameters": recipe["parameters"],
            "terms": recipe["terms"],
            **{name: recipe[name] for name in ("tokenizer", "slices") if name in recipe},
            "output": request["output"],
        }
    if built:
        data |= {
            "key": built.key,
            "model_digest": built.model_digest,
            "artifact_digest": built.artifact["digest"],
            "provenance_digest": provenance,
            "device_class": built.device_class,
            "versions": dict(built.versions),
            "seconds": built.seconds,
            "peak_bytes": built.peak_bytes,
        }
    if adapter := (report or {}).get("statistics", {}).get("adapter"):
        data["adapter"] = {key: value for key, value in adapter.items() if key != "tensors"}
    if known and known.evaluation:
        one = known.evaluation
        data["evaluation"] = {
            "suite": one.request["suite"]["name"],
            "metrics": dict(one.metrics),
            "verdicts": [verdict["text"] for verdict in one.verdicts],
        }
    if known and known.mlflow:
        logged = known.mlflow
        data["mlflow"] = {"run": logged.run, "version": logged.version, "store": logged.store}
    if known and known.rejected:
        data["rejected"] = [verdict["text"] for verdict in known.rejected.verdicts]
    return data


def text(data: Mapping[str, Any]) -> str:
    """Return the same as text."""
    return "\n".join(_lines(data))


def _lines(data: Mapping[str, Any]) -> Iterator[str]:
    yield f"{data['model']} = {data.get('expression', 'no readable record')}"
    if data.get("description"):
        yield f"  {data['description']}"
    rows = [(name, str(data[name])) for name in ("method", "tokenizer", "owner") if data.get(name)]
    if data.get("parameters"):
        pairs = (f"{name} {value_text(value)}" for name, value in data["parameters"].items())
        rows.append(("parameters", ", ".join(pairs)))
    names = ("key", "model_digest", "artifact_digest", "provenance_digest", "device_class")
    rows += [(name.replace("_", " "), data[name]) for name in names if data.get(name)]
    if data["is_built"]:
        rows.append(
            ("built in", f"{data['seconds']:.1f} s, peak {data['peak_bytes'] / 1e6:.0f} MB")
        )
    if one := data.get("adapter"):
        rows += _adapter(one)
    if one := data.get("evaluation"):
        rows.append((f"suite {one['suite']}", metrics_text(one["metrics"])))
        rows += [("gate", verdict) for verdict in one["verdicts"]]
    rows += [("last attempt", verdict) for verdict in data.get("rejected", ())]
    if one := data.get("mlflow"):
        rows.append(("mlflow", f"version {one['version']}, run {one['run']}"))
    yield from (f"  {line}" for line in table(rows))
    yield "  operands"
    yield from (f"    {line}" for line in table(_operands(data)))
    if not data["is_built"]:
        yield "  not built"


def _adapter(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    count = one["exact"] + one["inexact"]
    cut = f"{one['inexact']} of {count} tensors cut off" if one["inexact"] else "nothing cut off"
    yield "adapter", f"rank {one['rank']}, {cut}, {100 * one['energy']:.6g} % of the energy"
    error = f"{one['relative_error']:.2g} of the merged delta"
    layers = one["layers"]["rows"]
    worst = max(layers, key=lambda layer: layers[layer][0])
    where = f"layer {worst}" if worst.isdigit() else f"the {worst}"
    yield "error", f"{error}; most in {where}: {layers[worst][0]:.2g}"


def _operands(data: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    if "base" not in data:
        return []
    rows = [("", input_label(data["base"]), data["base"]["digest"])]
    for term in data["terms"]:
        digest = term["input"].get("digest", "not built yet")
        rows.append((weight_text(term["weight"]), input_label(term["input"]), digest))
    return rows
