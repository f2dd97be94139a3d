"""Merged against switched as text, Markdown, JSON and charts: speeds, memory, ratios. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from registry import page
from registry.amounts import size
from registry.charts import Bars, Chart
from registry.report import table
from registry.serving_request import MERGED, SWITCHED

_SPEEDS = ("tokens/s", "ms per token", "95 %", "ms to first token")
_MANY = 10


def as_data(
    model: str, request: Mapping[str, Any], found: Mapping[str, Any], *, key: str
) -> dict[str, Any]:
    """Return a measurement as plain data for scripts, ratios and verdict included."""
    return {
        "model": model,
        "key": key,
        "request": request,
        **found,
        "ratios": ratios(request, found),
        "verdict": verdict(request, found),
    }


def text(model: str, request: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return a measurement as people read it on a terminal, the verdict last."""
    lines = [headline(model, request, found)]
    for head, rows in _tables(request, found):
        lines += ["", *table(rows, head=head)]
    return "\n".join([*lines, "", *_notes(found), f"verdict  {verdict(request, found)}"])


def markdown(model: str, request: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return a measurement as Markdown."""
    blocks = [f"# {model}, merged or switched", f"**{verdict(request, found)}**"]
    blocks.append(headline(model, request, found))
    blocks += [page.markdown_table(head, rows) for head, rows in _tables(request, found)]
    return "\n\n".join([*blocks, *_notes(found)]) + "\n"


def html(
    model: str,
    request: Mapping[str, Any],
    found: Mapping[str, Any],
    pictures: Mapping[str, bytes],
) -> str:
    """Return a measurement as one page that needs no other file and no network."""
    parts = [page.text(verdict(request, found)), page.text(headline(model, request, found))]
    parts += [page.html_table(head, rows) for head, rows in _tables(request, found)]
    parts += [*map(page.text, _notes(found)), *page.html_pictures(pictures)]
    return page.html_page(f"{model}, merged or switched", parts)


def headline(model: str, request: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return what was measured, how often, and on what."""
    repeats = request["repeats"]
    times = "once" if repeats == 1 else f"{repeats} times"
    return (
        f"{model}: answers of {request['tokens']} tokens, each way {times}, in {found['dtype']} "
        f"on {found['device_class']}, threads: {found['threads']}"
    )


def _tables(
    request: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[tuple[Sequence[str], list[Sequence[str]]]]:
    """Yield head and rows of every table: a speed table per batch size, memory, weights."""
    for batch in request["batches"]:
        rows = [_speeds(row) for row in found["rows"] if row["batch"] == batch]
        yield (f"batch {batch}", *_SPEEDS), rows
    sides = found["sides"]
    has_gpu = sides[MERGED]["cuda_peak_bytes"] is not None
    gpu = ("peak on the GPU",) if has_gpu else ()
    head = ("process alone", "s to load", "resident before", "with weights", "peak", *gpu)
    names = {MERGED: "merged", SWITCHED: f"base and {_count(len(request['adapters']), 'adapter')}"}
    yield head, [_process(name, sides[side], has_gpu=has_gpu) for side, name in names.items()]
    yield ("weights in memory", "merged", "switched"), _weights(request, found)


def _speeds(row: Mapping[str, Any]) -> Sequence[str]:
    step = row["token_seconds"]
    times = (step["median"], step["p95"], row["first_token_seconds"])
    speeds = (f"{1000 * one:.2f}" for one in times)
    return row["mode"], f"{row['tokens_per_second']:.1f}", *speeds


def _process(name: str, side: Mapping[str, Any], *, has_gpu: bool) -> Sequence[str]:
    seconds = side["load_seconds"] + sum(one["load_seconds"] for one in side["adapters"])
    steps = ("resident_before_bytes", "resident_opened_bytes", "resident_peak_bytes")
    gpu = (size(side["cuda_peak_bytes"]),) if has_gpu else ()
    return name, f"{seconds:.2f}", *(size(side[step]) for step in steps), *gpu


def _weights(request: Mapping[str, Any], found: Mapping[str, Any]) -> list[Sequence[str]]:
    """Return what skills take: one set of weights each as merged models, or base and adapters."""
    switched = found["sides"][SWITCHED]
    adapters = sum(one["weight_bytes"] for one in switched["adapters"])
    merged, one_more = _per_skill(found)
    count = _count(len(request["adapters"]), "adapter")
    return [
        (f"this merge of {count}", size(merged), size(switched["weight_bytes"] + adapters)),
        ("one more skill", size(merged), size(one_more)),
        (f"{_MANY} more skills", size(_MANY * merged), size(_MANY * one_more)),
    ]


def _per_skill(found: Mapping[str, Any]) -> tuple[int, int]:
    """Return the bytes of one more skill: a merged model, or an adapter of the mean size."""
    adapters = found["sides"][SWITCHED]["adapters"]
    total = sum(one["weight_bytes"] for one in adapters)
    return found["sides"][MERGED]["weight_bytes"], round(total / len(adapters))


def _notes(found: Mapping[str, Any]) -> Iterator[str]:
    if found["not_switched"]:
        yield f"not switched  {', '.join(found['not_switched'])}: no adapter"
    one = found["switch"]
    yield (
        f"switch  {1000 * one['median']:.2f} ms, 95 % within {1000 * one['p95']:.2f} ms "
        f"({_count(one['count'], 'switch', 'switches')})"
    )


def ratios(request: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Return merged over switched by batch size, a switch in tokens, and bytes of one more skill.

    Speeds are compared within each repeat, where the median of the adapters stands for them.
    """
    adapters = {one["label"] for one in request["adapters"]}
    speeds, switches = {}, {}
    for batch in request["batches"]:
        rows = [row for row in found["rows"] if row["batch"] == batch]
        merged = next(row for row in rows if row["mode"] == MERGED)
        switched = [row for row in rows if row["mode"] in adapters]
        others = [median(each) for each in zip(*(row["speeds"] for row in switched), strict=True)]
        over = [one / other for one, other in zip(merged["speeds"], others, strict=True)]
        values = {"median": median(over), "least": min(over), "most": max(over)}
        speeds[str(batch)] = {name: round(value, 4) for name, value in values.items()}
        step = median(row["token_seconds"]["median"] for row in switched)
        switches[str(batch)] = round(found["switch"]["median"] / step, 4)
    merged_bytes, adapter_bytes = _per_skill(found)
    return {
        "tokens_per_second": speeds,
        "switch_in_tokens": switches,
        "bytes_of_one_more_skill": round(merged_bytes / adapter_bytes, 2),
    }


def verdict(request: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return what it comes to, in ratios, on one line."""
    told = ratios(request, found)
    speeds = ", ".join(
        f"{one['median']:.2f} at batch {batch} ({one['least']:.2f} to {one['most']:.2f})"
        for batch, one in told["tokens_per_second"].items()
    )
    merged, adapter = _per_skill(found)
    batch, tokens = next(iter(told["switch_in_tokens"].items()))
    return (
        f"tokens per second, merged over switched: {speeds}; "
        f"a switch costs {tokens:.2g} tokens at batch {batch}; one more skill costs {size(merged)} "
        f"merged, {size(adapter)} switched: {told['bytes_of_one_more_skill']:.0f} times less"
    )


def charts(model: str, request: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Chart]:
    """Return the charts of a measurement by name: every way to answer over the batch sizes."""
    modes = list(dict.fromkeys(row["mode"] for row in found["rows"]))
    groups = tuple(f"batch {batch}" for batch in request["batches"])

    def series(value: Any) -> dict[str, tuple[float | None, ...]]:
        return {
            mode: tuple(value(row) for row in found["rows"] if row["mode"] == mode)
            for mode in modes
        }

    return {
        "throughput": Bars(
            f"{model}: tokens per second",
            groups,
            series(lambda row: row["tokens_per_second"]),
            unit="tokens per second, all rows together",
        ),
        "latency": Bars(
            f"{model}: from one token to the next",
            groups,
            series(lambda row: 1000 * row["token_seconds"]["median"]),
            unit="milliseconds, median",
        ),
    }


def _count(count: int, noun: str, plural: str = "") -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"
