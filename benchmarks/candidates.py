"""What a candidate in memory costs beside a build of the same request, on the real base.

CPU seconds of this process over all threads; the last candidate is compared with the build, bit for
bit. Run from the root of the repository, with the base model in place:

    python -m benchmarks.candidates
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from merger import engine, request
from merger.candidates import open_candidates
from tests import merging
from tests.merging import TermOf

ROOT = Path(__file__).resolve().parent.parent
BASE = ROOT / "catalog/bases/smollm2-135m-instruct/weights"
LIMITS = engine.Limits(torch.device("cpu"), engine.default_threads())
RUNS = 5
METHODS = (
    ("task_arithmetic", "lambda"),
    ("ties", "lambda"),
    ("dare_ties", "lambda"),
    ("slerp", "t"),
)


def adapters() -> list[TermOf]:
    """Return three adapters of the catalog."""
    chosen = (("sql", 1, 1.0), ("json", 2, 0.5), ("shout", 1, -0.3))
    root = ROOT / "catalog/adapters"
    return [TermOf(root / name / f"{v}/weights", w, name=name) for name, v, w in chosen]


def fine_tunes(folder: Path) -> list[TermOf]:
    """Write three models, each the base and noise on every tensor."""
    found = []
    for number, weight in enumerate((1.0, 0.5, 0.3)):
        made = folder / f"full{number}"
        made.mkdir()
        (made / "config.json").write_bytes((BASE / "config.json").read_bytes())
        noise = torch.Generator().manual_seed(number)
        tensors = {
            name: (tensor + 0.002 * torch.randn(tensor.shape, generator=noise)).to(tensor.dtype)
            for name, tensor in load_file(BASE / "model.safetensors").items()
        }
        save_file(tensors, made / "model.safetensors", {"format": "pt"})
        found.append(TermOf(made, weight, "checkpoint"))
    return found


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return what a call costs."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(terms: list[TermOf], method: str, varied: str, folder: Path) -> Iterator[str]:
    """Yield the cells of a row: held, opening, first, each, build, are the bits the same."""
    data = merging.request_of(BASE, terms, method)
    inputs = merging.inputs_of(BASE, terms)

    def candidate(number: int) -> request.BuildRequest:
        parameters = data["recipe"]["parameters"] | {varied: 0.3 + 0.1 * number}
        return request.parse(data | {"recipe": data["recipe"] | {"parameters": parameters}})

    into = load_file(BASE / "model.safetensors")
    with ExitStack() as stack:
        start = time.process_time()
        candidates = open_candidates(stack, candidate(0), inputs, LIMITS)
        opening = time.process_time() - start
        first, *each = (
            cpu_seconds(partial(candidates.apply, candidate(number), into))
            for number in range(RUNS + 1)
        )
        yield f"{candidates.held_bytes / 1e6:.0f} MB"
    built = folder / f"{method}{len(terms)}"
    build = cpu_seconds(
        lambda: engine.build(candidate(RUNS), inputs, built, LIMITS, lambda *_: None)
    )
    yield from (f"{seconds:.2f}" for seconds in (opening, first, median(each), build))
    yield str(_are_equal(built, into))


def _are_equal(built: Path, into: Mapping[str, torch.Tensor]) -> bool:
    written: dict[str, torch.Tensor] = {}
    for shard in built.glob("*.safetensors"):
        written |= load_file(shard)
    if written.keys() != into.keys():
        return False
    return all(torch.equal(written[n].view(torch.int16), into[n].view(torch.int16)) for n in into)


def main() -> None:
    """Print the table."""
    print("| operands | method | held | opening | first | each | build | same bits |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        full = fine_tunes(Path(root))
        for kind, terms in (
            ("2 adapters", adapters()[:2]),
            ("3 adapters", adapters()),
            ("3 full fine-tunes", full),
            ("2 full fine-tunes", full[:2]),
        ):
            for method, varied in METHODS:
                if method == "slerp" and len(terms) != 2:
                    continue
                asked = [TermOf(t.folder, 1.0, t.kind, t.name) for t in terms]
                with tempfile.TemporaryDirectory(dir=root) as folder:
                    used = asked if method == "slerp" else terms
                    cells = measure(used, method, varied, Path(folder))
                    print("|", " | ".join((kind, f"`{method}`", *cells)), "|", flush=True)


if __name__ == "__main__":
    main()
