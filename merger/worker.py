"""Carry out one work order and say what happened, as events. Knows neither streams nor methods.

torch is not imported by this module, so asking for help costs nothing.
"""

from __future__ import annotations

import gc
import logging
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merger import errors, memory, request
from merger.errors import InputError

if TYPE_CHECKING:
    import torch

    from merger.engine import Limits

_LOG = logging.getLogger(__name__)
_FORMAT_VERSION = 1
_TASKS = ("build", "evaluate", "analyze", "search", "serve")
_NEEDED = {"build": ("output",), "search": ("budget", "known")}
_PACKAGES = ("torch", "safetensors", "transformers", "peft", "merge-registry")
_SECONDS_BETWEEN_PROGRESS = 0.1

Emit = Callable[[Mapping[str, Any]], None]


def warm_up() -> None:
    """Import torch while nobody waits for it; if that fails, the first order will say so."""
    try:
        _import_engine()
    except Exception:  # noqa: BLE001 as above
        _LOG.debug("not warmed up", exc_info=True)


def _import_engine() -> None:
    """Import torch and all that a build needs, none of which the garbage collector looks at."""
    if "merger.engine" in sys.modules:
        return  # what an order left behind is not to be frozen: it may be garbage
    # Importing torch makes some hundred thousand objects that stay: to look through them takes
    # 50 ms every time, and happens some four times on the way.
    gc.disable()
    try:
        from merger import engine  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


def carry_out(order: Any, emit: Emit) -> bool:
    """Emit the events of one order, the last a report or a failure; return whether it succeeded."""
    started = time.monotonic()
    _reset_peak()
    try:
        report = _run(order, emit)
    except Exception as error:  # noqa: BLE001 every failure becomes an event
        if errors.kind_of(error) == "bug":
            traceback.print_exc(file=sys.stderr)
        emit(errors.as_event(error))
        return False
    seconds = round(time.monotonic() - started, 3)
    emit(report | {"seconds": seconds, "peak_bytes": _peak_bytes()})
    return True


def _run(order: Any, emit: Emit) -> dict[str, Any]:
    task = _checked(order)
    _import_engine()
    import torch

    device = _device(order["device"])
    threads = order.get("threads") or _default_threads()
    device_class = describe(device)
    emit({"event": "started", "task": task, "device": device.type, "device_class": device_class})
    inputs = {digest: Path(folder) for digest, folder in order["inputs"].items()}
    progress = _Throttled(emit)
    if task in ("evaluate", "serve"):
        torch.set_num_threads(threads)
        report = (_evaluate if task == "evaluate" else _serve)(order, inputs, device, progress)
    else:
        from merger.engine import Limits

        limits = Limits(device, threads, order.get("memory_bytes") or memory.default_bytes())
        if task == "search":
            report = _search(order, inputs, limits, emit)
        else:
            report = (_build if task == "build" else _analyze)(order, inputs, limits, progress)
    return {"event": "report", "task": task, "device_class": device_class} | report


def _checked(order: Any) -> str:
    """Return the task of an order of the right shape."""
    if not isinstance(order, dict) or order.get("format_version") != _FORMAT_VERSION:
        raise InputError(
            f"expected a work order of format {_FORMAT_VERSION}", field="format_version"
        )
    task = order.get("task")
    if task not in _TASKS:
        raise InputError(f"expected {', '.join(_TASKS)}, found {task!r}", field="task")
    needed = ("request", "inputs", "device", *_NEEDED.get(task, ()))
    for key in needed:
        if key not in order:
            raise InputError("expected this field, found none", field=key)
    for key in ("threads", "memory_bytes"):
        limit = order.get(key)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise InputError(f"expected a whole number from 1 or null, found {limit!r}", field=key)
    return str(task)


def _build(
    order: Mapping[str, Any], inputs: Mapping[str, Path], limits: Limits, progress: _Throttled
) -> dict[str, Any]:
    from merger import engine, untouched

    parsed = request.parse(order["request"])
    output = Path(order["output"])
    known = untouched.parse_known(order.get("known_shards"))
    built = engine.build(parsed, inputs, output, limits, progress, known)
    files = {
        name: {"sha256": file.sha256, "md5": file.md5, "size": file.size}
        for name, file in sorted(built.files.items())
    }
    return {
        "files": files,
        "model_digest": built.model_digest,
        "artifact_digest": built.artifact_digest,
        "statistics": built.statistics,
        "shards": dict(built.shards),
        "versions": _versions("torch", "safetensors", "merge-registry"),
    }


def _analyze(
    order: Mapping[str, Any], inputs: Mapping[str, Path], limits: Limits, progress: _Throttled
) -> dict[str, Any]:
    from merger import analysis, analysis_request

    parsed = analysis_request.parse(order["request"])
    found = analysis.analyze(parsed, inputs, limits=limits, progress=progress)
    return {"analysis": found, "versions": _versions("torch", "safetensors", "merge-registry")}


def _evaluate(
    order: Mapping[str, Any], inputs: Mapping[str, Path], device: torch.device, progress: _Throttled
) -> dict[str, Any]:
    # Late: the evaluator imports transformers, which a build never needs.
    from merger.evaluate import run

    asked = order["request"]
    try:
        model, suite = inputs[asked["model"]], inputs[asked["suite"]["digest"]]
        base = inputs[asked["base"]] if "base" in asked else None
    except KeyError as error:
        raise InputError(f"no folder was given for {error.args[0]}", field="inputs") from error
    found = run(asked, model, suite, base=base, device=device.type, progress=progress)
    return {**found, "versions": _versions(*_PACKAGES)}


def _search(
    order: Mapping[str, Any], inputs: Mapping[str, Path], limits: Limits, emit: Emit
) -> dict[str, Any]:
    # Late, as above.
    from merger import search
    from merger.search.trial import Measured

    budget = search.Budget(**order["budget"])
    known = {row["key"]: Measured(**row) for row in order["known"]}

    def tell(row: Mapping[str, Any]) -> None:
        emit({"event": "measured", **row})

    found = search.run(order["request"], inputs, limits, budget=budget, known=known, tell=tell)
    return {"search": found, "versions": _versions(*_PACKAGES)}


def _serve(
    order: Mapping[str, Any], inputs: Mapping[str, Path], device: torch.device, progress: _Throttled
) -> dict[str, Any]:
    # Late, as above.
    from merger import serving

    found = serving.run(order["request"], inputs, device, progress)
    return {"serving": found, "versions": _versions(*_PACKAGES)}


def _device(name: Any) -> torch.device:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise InputError(f"expected auto, cpu or cuda, found {name!r}", field="device")
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise InputError("expected a GPU, torch finds none", field="device")
    if name == "cpu" or not has_gpu:
        return torch.device("cpu")
    # TF32 has 10 bits of mantissa; our arithmetic is float32.
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda")


def describe(device: torch.device) -> str:
    """Return the device class: within it, equal requests give equal bytes."""
    import torch

    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return f"cuda:{torch.cuda.get_device_name(device)}:{major}.{minor}"
    return f"cpu:{torch.backends.cpu.get_cpu_capability()}:{_vendor()}"


def _vendor() -> str:
    # BLAS libraries choose kernels by vendor as well as by instruction set.
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    return found[0] if found else platform.machine()


def _versions(*packages: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def _default_threads() -> int:
    from merger.engine import default_threads

    return default_threads()


class _Throttled:
    """Progress events, at most ten a second; the last one always."""

    __slots__ = ("_emit", "_last")

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._last = 0.0

    def __call__(self, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if done < total and now - self._last < _SECONDS_BETWEEN_PROGRESS:
            return
        self._last = now
        self._emit({"event": "progress", "done": done, "total": total, "unit": unit})


def _reset_peak() -> None:
    # Linux: 5 sets the peak back to the present resident set, so each order has a peak of its own.
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        _LOG.debug("the peak of resident memory cannot be reset here")


def _peak_bytes() -> int:
    # Not getrusage: its maximum is inherited from the parent across exec.
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
