"""The output options of a build request: a model or an adapter. Knows no tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merger.errors import InputError
from merger.request_checks import expect_keys

_DTYPES = ("base", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Output:
    """What is written: a model or an adapter, and its type (`base`: each tensor keeps its own).

    `max_shard_size` in bytes is a model's; `rank` is an adapter's, None for exactly the delta.
    """

    form: str
    dtype: str
    max_shard_size: int = 0
    rank: int | None = None


def parse_output(data: Any) -> Output:
    """Return the output options in plain data; InputError for what is not written so."""
    if isinstance(data, dict) and data.get("form") == "adapter":
        return _adapter_output(data)
    expect_keys(data, "output", required=("form", "dtype", "max_shard_size"))
    if data["form"] != "model":
        why = f"expected model or adapter, found {data['form']!r}"
        raise InputError(why, field="output.form")
    _check_dtype(data["dtype"], _DTYPES)
    size = data["max_shard_size"]
    if type(size) is not int or size < 1:
        raise InputError("expected a number of bytes", field="output.max_shard_size")
    return Output("model", data["dtype"], max_shard_size=size)


def _adapter_output(data: Mapping[str, Any]) -> Output:
    expect_keys(data, "output", required=("form", "dtype", "rank"))
    _check_dtype(data["dtype"], _DTYPES[1:])  # no tensor of the base is in an adapter
    rank = data["rank"]
    if rank is not None and (type(rank) is not int or rank < 1):
        why = f"expected a whole number from 1 or null, found {rank!r}"
        raise InputError(why, field="output.rank")
    return Output("adapter", data["dtype"], rank=rank)


def _check_dtype(dtype: Any, known: tuple[str, ...]) -> None:
    if dtype not in known:
        why = f"expected one of {', '.join(known)}, found {dtype!r}"
        raise InputError(why, field="output.dtype")
