"""What commands and merges cost, each beside its peer in the same run: `make bench`.

CPU seconds (user and system) and peak memory of whole processes, medians of several runs: the wall
clock of a shared machine says little. Peers: `dvc status` for the plan, PEFT's merge_and_unload for
a merge. Run from the root of the repository, with the base model in place.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
REGISTRY = str(BIN / "registry")
PEFT_MERGE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, output = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
merged.to(torch.bfloat16).save_pretrained(output)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took: user and system seconds, and its largest resident memory."""

    cpu_seconds: float
    peak_megabytes: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `goal` is in CPU seconds, or megabytes where `unit` says so."""

    name: str
    value: float
    spread: float
    unit: str
    goal: float | None = None


def cost(command: Sequence[str], *, stdin: str = "") -> Cost:
    """Run a command to its end; raises if it fails."""
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile() as told:
        given.write(stdin)
        given.seek(0)
        process = subprocess.Popen(command, stdin=given, stdout=told, stderr=told, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            told.seek(0)
            msg = f"{' '.join(command)}: {told.read().decode()[-2000:]}"
            raise RuntimeError(msg)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def measured(name: str, command: Sequence[str], runs: int, goal: float | None = None) -> Row:
    """Return the CPU seconds of a command."""
    cost(command)  # warms the file cache and the index
    seconds = [cost(command).cpu_seconds for _ in range(runs)]
    return Row(name, median(seconds), max(seconds) - min(seconds), "CPU s", goal)


def commands(runs: int) -> Iterator[Row]:
    """Yield what the light commands cost, and what DVC takes to look at as many pointers."""
    yield measured("registry --help", [REGISTRY, "--help"], runs, 0.25)
    yield measured("registry validate (second run)", [REGISTRY, "validate"], runs, 0.6)
    yield measured("registry plan", [REGISTRY, "plan"], runs, 0.6)
    yield measured("registry sync (nothing to do)", [REGISTRY, "sync", "--dry-run"], runs)
    yield measured("dvc status (peer)", [str(BIN / "dvc"), "status", "-q", "--no-updates"], runs)


def merges(runs: int) -> Iterator[Row]:
    """Yield what one merge takes in the worker, by method, and in PEFT."""
    declared = json.loads(_output([REGISTRY, "plan", "--format", "json"]))
    names = [change["model"] for change in declared["changes"]]
    folders = _ingredients()
    seen: set[str] = set()
    for name in names:
        shown = json.loads(_output([REGISTRY, "show", name, "--format", "json"]))
        is_plain = all(term["input"]["kind"] == "adapter" for term in shown["terms"])
        if shown["method"] in seen or not is_plain:
            continue
        seen.add(shown["method"])
        costs = [_build(shown, folders) for _ in range(runs)]
        label = f"merge {name} ({shown['method']} of {len(shown['terms'])})"
        yield _row(label, [one.cpu_seconds for one in costs], "CPU s")
        yield _row(f"{label}, memory", [one.peak_megabytes for one in costs], "MB", 1000)
    base = next(folder for folder in folders.values() if "/bases/" in folder)
    adapter = next(folder for folder in folders.values() if "/adapters/" in folder)
    costs = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as output:
            costs.append(cost([sys.executable, "-c", PEFT_MERGE, base, adapter, output]))
    yield _row("PEFT merge_and_unload of 1 (peer)", [one.cpu_seconds for one in costs], "CPU s")
    yield _row("PEFT, memory", [one.peak_megabytes for one in costs], "MB")


def _row(name: str, values: list[float], unit: str, goal: float | None = None) -> Row:
    return Row(name, median(values), max(values) - min(values), unit, goal)


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _ingredients() -> dict[str, str]:
    """Return the folder of every ingredient of the catalog by digest."""
    folders = {}
    for file in (ROOT / "catalog").glob("*/**/*.yaml"):
        weights = file.parent / "weights"
        if weights.is_dir():
            line = next(line for line in file.read_text().splitlines() if "sha256:" in line)
            folders["sha256:" + line.split("sha256:")[1][:64]] = str(weights)
    return folders


def _build(shown: dict[str, object], folders: dict[str, str]) -> Cost:
    """Run one build in a worker of its own, as a sync does, and return what it took."""
    keys = ("method", "parameters", "terms")
    recipe = {**{key: shown[key] for key in keys}, "compute": "float32"}
    request = {
        "format_version": 1,
        "numerics": json.loads((ROOT / "schemas/numerics.json").read_text())["numerics"],
        "base": shown["base"],
        "recipe": recipe,
        "output": shown["output"],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "request.json"
        path.write_text(json.dumps(request))
        inputs = [f"--input={digest}={place}" for digest, place in folders.items()]
        command = [sys.executable, "-m", "merger", "build", "--request", str(path), *inputs]
        return cost([*command, "--output", f"{folder}/model"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"{'what':60} {'median':>9} {'spread':>9}  unit   goal")
    for row in (*commands(runs), *merges(runs)):
        goal = (
            ""
            if row.goal is None
            else f"≤ {row.goal:g} {'ok' if row.value <= row.goal else 'MISSED'}"
        )
        print(f"{row.name:60} {row.value:9.2f} {row.spread:9.2f}  {row.unit:6} {goal}")


if __name__ == "__main__":
    main()
