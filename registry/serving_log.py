"""What MLflow is told of merged against switched: one run, a step per batch size. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from registry import serving_report
from registry.record import Built
from registry.tracked import RunLog, metric_name


def of(
    model: str,
    commit: str,
    built: Built,
    request: Mapping[str, Any],
    found: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> RunLog:
    """Return the log of a measurement; `files` are its report and pictures.

    Steps are batch sizes, 0 for all that has none.
    """
    return RunLog(
        name=f"{model} merged or switched",
        tags={
            "registry.kind": "serving",
            "registry.model": model,
            "registry.key": built.key,
            "registry.model_digest": built.model_digest,
            "registry.commit": commit,
            "mlflow.note.content": serving_report.markdown(model, request, found),
        },
        params={
            "base": built.request["base"]["name"],
            "adapters": ", ".join(one["label"] for one in request["adapters"]),
            "tokens": str(request["tokens"]),
            "repeats": str(request["repeats"]),
            "batches": ", ".join(map(str, request["batches"])),
            "threads": str(found["threads"]),
            "device_class": found["device_class"],
            "dtype": found["dtype"],
        },
        points=tuple(_points(request, found)),
        files={f"serving/{name}": data for name, data in files.items()},
    )


def _points(
    request: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[tuple[str, int, float]]:
    for row in found["rows"]:
        mode, batch = metric_name(row["mode"]), row["batch"]
        yield f"{mode}.tokens_per_second", batch, row["tokens_per_second"]
        yield f"{mode}.first_token_seconds", batch, row["first_token_seconds"]
        yield f"{mode}.token_seconds", batch, row["token_seconds"]["median"]
        yield f"{mode}.token_seconds_p95", batch, row["token_seconds"]["p95"]
    for side, facts in found["sides"].items():
        for name, value in facts.items():
            if isinstance(value, int | float):
                yield f"{side}.{name}", 0, float(value)
    yield "switch_seconds", 0, found["switch"]["median"]
    told = serving_report.ratios(request, found)
    for batch, ratio in told["tokens_per_second"].items():
        yield "merged_over_switched.tokens_per_second", int(batch), ratio["median"]
    yield "merged_over_switched.bytes_of_one_more_skill", 0, told["bytes_of_one_more_skill"]
