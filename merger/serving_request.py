"""What is to be measured of a merged model and of its adapters, as frozen values, checked.

Knows no tensor and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from merger.errors import InputError
from merger.request_checks import expect_equal, expect_keys

FORMAT_VERSION = 1
MERGED, SWITCHED = "merged", "switched"
SIDES = (MERGED, SWITCHED)
_KEYS = (
    "format_version", "model", "base", "adapters", "prompts", "batches", "tokens", "repeats",
    "sides",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Switched:
    """One adapter to switch to; `label` is its name in tables, and PEFT's for it."""

    label: str
    digest: str


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt and the system message before it, if there is one."""

    text: str
    system: str | None


@dataclass(frozen=True, slots=True)
class ServingRequest:
    """A merged model, the adapters of its base, and the requests that both are to answer.

    `is_adapter` says that the merged model is an adapter itself, to be folded into the base;
    `sides` are those that are opened.
    """

    model: str
    is_adapter: bool
    base: str
    adapters: tuple[Switched, ...]
    prompts: tuple[Question, ...]
    batches: tuple[int, ...]
    tokens: int
    repeats: int
    sides: tuple[str, ...]


def parse(data: Any) -> ServingRequest:
    """Return the request in plain data. Raises InputError naming the field."""
    expect_keys(data, "", required=_KEYS)
    expect_equal(data["format_version"], FORMAT_VERSION, "format_version")
    expect_keys(data["model"], "model", required=("digest", "form"))
    if data["model"]["form"] not in ("model", "adapter"):
        raise InputError("expected model or adapter", field="model.form")
    return ServingRequest(
        model=data["model"]["digest"],
        is_adapter=data["model"]["form"] == "adapter",
        base=data["base"],
        adapters=tuple(Switched(**one) for one in _maps(data, "adapters", ("label", "digest"))),
        prompts=tuple(Question(**one) for one in _maps(data, "prompts", ("text", "system"))),
        batches=tuple(_whole(one, "batches", 1) for one in _list(data, "batches")),
        tokens=_whole(data["tokens"], "tokens", 2),
        repeats=_whole(data["repeats"], "repeats", 1),
        sides=tuple(_side(one) for one in _list(data, "sides")),
    )


def _list(data: Any, field: str) -> list[Any]:
    found = data[field]
    if not isinstance(found, list) or not found:
        raise InputError("expected a list, not empty", field=field)
    return found


def _maps(data: Any, field: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    found = _list(data, field)
    for index, one in enumerate(found):
        expect_keys(one, f"{field}[{index}]", required=keys)
    return found


def _whole(value: Any, field: str, least: int) -> int:
    if type(value) is not int or value < least:
        raise InputError(f"expected a whole number from {least}, found {value!r}", field=field)
    return value


def _side(value: Any) -> str:
    if value not in SIDES:
        raise InputError(f"expected one of {', '.join(SIDES)}, found {value!r}", field="sides")
    return str(value)
