"""Look for better numbers of a merge: ask a worker, remember every measurement. Builds nothing.

A measurement is kept as soon as it is known, one line per row in `.registry/measured/`, and is
never made twice: so a search that was killed goes on where it was, and one with a larger budget
goes on where a smaller one ended. Each file may be deleted at any time.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import evaluation, inputs, observation
from registry.worker import Progress
from registry.world import World
from schemas import canonical

_KEPT = ("key", "metrics", "seconds", "problem")


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent on candidates; no limit of minutes if that is None."""

    evaluations: int
    minutes: float | None


def run(world: World, model: str, request: Mapping[str, Any], budget: Budget) -> dict[str, Any]:
    """Return the report of a search request. Raises BuildFailed and VerificationFailed."""
    suite = request["suite"]
    journal = Journal(_place(world.root, request))
    scratch = world.store.staging()
    try:
        with world.turn:
            folders = inputs.gather(world, request["start"], scratch)
            folders[suite["digest"]] = str(world.root / world.catalog.suites[suite["name"]].folder)
            world.observer.stage(model, "measure")
            order = evaluation.order_for(world, "search", request, folders)
            seconds = None if budget.minutes is None else 60 * budget.minutes
            order["budget"] = {"evaluations": budget.evaluations, "seconds": seconds}
            order["known"] = journal.rows()
            watch = _Watch(world, model, request, budget, journal)
            report = world.run(model, order, watch.take)
            found: dict[str, Any] = report["search"]
            return found
    finally:
        journal.close()
        shutil.rmtree(scratch, ignore_errors=True)


def _place(root: Path, request: Mapping[str, Any]) -> Path:
    # One file for all searches on a base and a suite: they share what is compared with.
    asked = {"base": request["start"]["base"]["digest"], "suite": request["suite"]["digest"]}
    name = canonical.digest(asked).removeprefix("sha256:")[:16]
    return observation.state_folder(root) / "measured" / f"{name}.jsonl"


class Journal:
    """Measurements, one JSON object per line; the last line may be half of one after a kill."""

    def __init__(self, path: Path) -> None:
        """Take the file; it is made by the first row."""
        self._path = path
        self._file: int | None = None
        self._known: set[str] = set()

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows that are whole, each key once."""
        try:
            lines = self._path.read_bytes().split(b"\n")
        except OSError:
            return []
        found = {}
        for line in lines:
            row = _parsed(line)
            if row is not None:
                found[row["key"]] = row
        self._known = set(found)
        return list(found.values())

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row, durably, unless it is known."""
        if row["key"] in self._known:
            return
        self._known.add(row["key"])
        kept = {name: row[name] for name in _KEPT}
        # A line of its own even if the last one is half.
        os.write(self._open(), b"\n" + json.dumps(kept, allow_nan=False).encode() + b"\n")
        os.fsync(self._open())

    def _open(self) -> int:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        return self._file

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        return {name: row[name] for name in _KEPT}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(slots=True)
class _Watch:
    """Takes the worker's events: every measurement is kept, and moves the bar."""

    world: World
    model: str
    request: Mapping[str, Any]
    budget: Budget
    journal: Journal
    candidates: int = 0

    def take(self, event: Mapping[str, Any]) -> None:
        if event.get("event") != "measured":
            return
        self.journal.add(event)
        if event["kind"] == "candidate":
            self.candidates += 1
            progress = Progress(self.candidates, self._total(), f"candidates, {_score(event)}")
            self.world.observer.progress(self.model, progress)

    def _total(self) -> int:
        if self.request["strategy"]["name"] != "grid":
            return self.budget.evaluations
        size = math.prod(len(one["values"]) for one in self.request["variables"])
        return min(size, self.budget.evaluations)


def _score(event: Mapping[str, Any]) -> str:
    return "not measurable" if event["score"] is None else f"the last {event['score']:.3g}"
