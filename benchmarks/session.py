"""One run of the benchmarks: where it works, how often it measures, and what it has found so far.

Every sample is saved as soon as it is there, so an interrupted run can be reported or resumed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measure import Sample
from benchmarks.models import Shape

ROOT = Path(__file__).resolve().parent.parent
PEER_PATIENCE_SECONDS = 60.0
_BLOCK_BYTES = 1 << 20
_PACKAGES = ("torch", "safetensors", "dvc", "mlflow", "peft", "transformers")


class Refused(Exception):
    """The benchmarks cannot run here or not like this; the message says what to do."""


@dataclass(slots=True)
class Results:
    """Samples by key, in a file."""

    path: Path
    facts: dict[str, Any]
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    def of(self, key: str) -> Sequence[Sample]:
        """Return the samples of a key, none if there are none."""
        return self.samples.get(key, [])

    def add(self, key: str, sample: Sample) -> None:
        """Remember one more sample of a key, also on disk."""
        self.samples.setdefault(key, []).append(sample)
        self.save()

    def save(self) -> None:
        """Write the file anew, in one step."""
        samples = {key: [one.as_data() for one in found] for key, found in self.samples.items()}
        text = json.dumps({"facts": self.facts, "samples": samples}, indent=1)
        new = self.path.with_suffix(".new")
        new.write_text(text + "\n", "utf-8")
        new.replace(self.path)


def read_results(path: Path) -> Results:
    """Return what a file holds; raises OSError or ValueError if that cannot be read."""
    data = json.loads(path.read_text("utf-8"))
    samples = {key: [Sample(**one) for one in found] for key, found in data["samples"].items()}
    return Results(path, data["facts"], samples)


@dataclass(frozen=True, slots=True)
class Session:
    """What all parts of a run share."""

    folder: Path
    shape: Shape
    runs: int
    is_quick: bool
    has_peers: bool
    results: Results

    def measure(
        self,
        key: str,
        once: Callable[[], Sample],
        *,
        runs: int | None = None,
        patience: float | None = None,
    ) -> None:
        """Collect samples of a key up to `runs`; only one if it took more than `patience` s."""
        wanted = self.runs if runs is None else min(runs, self.runs)
        while len(found := self.results.of(key)) < wanted:
            if found and patience is not None and found[0].wall_seconds > patience:
                return
            sample = once()
            self.results.add(key, sample)
            say(
                f"{key}: {sample.cpu_seconds:.2f} CPU s, {sample.wall_seconds:.2f} s,"
                f" {sample.peak_bytes / 1e6:.0f} MB"
            )

    def measure_peer(self, key: str, once: Callable[[], Sample]) -> None:
        """Collect samples of a peer, one if it takes over a minute, none if peers are not asked."""
        if self.has_peers:
            self.measure(key, once, patience=PEER_PATIENCE_SECONDS)

    def scratch(self, name: str) -> Path:
        """Return an empty folder for what is made and thrown away."""
        folder = self.folder / "scratch" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def say(text: str) -> None:
    """Tell the person who waits; standard output is for the table."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise Refused unless the disk under a folder has so many bytes left."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise Refused(
            f"{folder}: expected {needed_bytes / 1e9:.0f} GB of free disk,"
            f" found {free / 1e9:.1f} GB; --size 0.1B needs little"
        )


def warm(folders: Iterable[Path]) -> None:
    """Read all files once, so that every run finds them in the page cache."""
    for folder in folders:
        for path in sorted(folder.iterdir()):
            with path.open("rb", buffering=0) as file:
                while file.read(_BLOCK_BYTES):
                    pass


def facts(size: str) -> dict[str, Any]:
    """Return on what and with what the figures are measured."""
    return {
        "commit": _output(["git", "rev-parse", "--short", "HEAD"]),
        "date": time.strftime("%Y-%m-%d"),
        "size": size,
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _first(path: str, label: str) -> str:
    lines = Path(path).read_text("utf-8").splitlines()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(label)]
    return found[0] if found else ""
