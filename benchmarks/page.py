"""The docs' page of results: what is made anew between its marks, and the plots beside it.

The prose around the marks is written by hand and kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks import goals, plots, table
from benchmarks.goals import cost, without
from benchmarks.merges import CASES
from benchmarks.models import name_of, shape_of
from benchmarks.parts import key_of
from benchmarks.session import Results

PAGE = "benchmarks.md"
_BLOCK = re.compile(r"(<!-- made by make bench: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FLOOR = "task_arithmetic"
FACTS = {
    "processor": "processor",
    "cores": "cores",
    "memory": "memory",
    "system": "system",
    "python": "Python",
    "torch": "torch",
    "safetensors": "safetensors",
    "dvc": "DVC",
    "mlflow": "MLflow",
    "peft": "PEFT",
    "transformers": "transformers",
    "commit": "commit",
    "date": "date",
}


def write(folder: Path, results: Results) -> None:
    """Write plots and the made blocks of the page into a folder that holds the page."""
    page = folder / PAGE
    page.write_text(with_results(page.read_text("utf-8"), results), "utf-8")
    for name, content in plots.draw(results).items():
        (folder / name).write_bytes(content)


def with_results(page: str, results: Results) -> str:
    """Return the page with its made blocks made anew."""
    rows = goals.rows(results)
    blocks = {
        "machine": "\n".join(_machine(results)),
        "results": f"{table.markdown(rows)}\n\n{table.summary(rows)}.",
        "breakdown": "\n".join(breakdown(results)),
    }
    return _BLOCK.sub(lambda found: f"{found[1]}{blocks[found[2]]}\n{found[3]}", page)


def _machine(results: Results) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for key, name in FACTS.items():
        yield f"| {name} | {results.facts[key]} |"


def breakdown(results: Results) -> Iterator[str]:
    """Yield a table of CPU seconds: import, read, hashes and write at the floor's rates, the rest.

    The rates are those of the floor of the same run, in which nothing else is done.
    """
    yield "| merge | import torch | read | sha256 | md5 | write | kernels and the rest | all |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    shape = shape_of(results.facts["size"])
    floor = results.of(key_of(shape, _FLOOR, "floor"))
    if not floor:
        return
    told = floor[0].told
    start = cost(results.of("import-torch"))
    for case in CASES:
        if not (ours := results.of(key_of(shape, case.key))):
            continue
        read = told["read_seconds"] / told["read_bytes"] * ours[0].told["input_bytes"]
        written = ours[0].told["artifact_bytes"] / told["written_bytes"]
        parts = [told[f"{part}_seconds"] * written for part in ("sha256", "md5", "write")]
        cpu, _ = without(cost(ours), start)
        whole = cost(ours).cpu.median
        cells = [start.cpu.median, read, *parts, cpu - read - sum(parts), whole]
        shown = " | ".join(table.number(value) for value in cells)
        yield f"| {case.title}, {name_of(shape)} | {shown} |"
