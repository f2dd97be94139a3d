"""What outlives a restart of the service: suspensions, what failed, the last attempts. Pure values.

Knows neither the plan nor how anything is done; all times are seconds since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from registry import keys
from registry.errors import RegistryError

ATTEMPTS = 10
"""Attempts remembered of each model."""

_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Suspension:
    """Somebody asked to leave the service or a model alone."""

    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a job did with a model; `count` of the same in a row, `first` and `last` of these."""

    job: int
    commit: str
    action: str
    outcome: str
    message: str
    hint: str
    first: float
    last: float
    count: int = 1

    def is_like(self, other: Attempt) -> bool:
        """Return whether two attempts say the same, whenever they were made."""
        mine, others = ((one.action, one.outcome, one.message, one.commit) for one in (self, other))
        return mine == others


@dataclass(frozen=True, slots=True)
class Condition:
    """One of Ready, Reconciling and Stalled, as it is since a time."""

    type: str
    status: bool
    reason: str
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class Memory:
    """All that is written down.

    `accepted` is the commit of the branch that was last followed, `forgiven` one that a person says
    may be followed though it does not descend from that; `failed` holds the change of each model
    that is not tried again (see `choice.identity`), `conditions` are kept for their times.
    """

    accepted: str | None = None
    forgiven: str | None = None
    suspended: Suspension | None = None
    suspended_models: Mapping[str, Suspension] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    attempts: Mapping[str, tuple[Attempt, ...]] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    synced_at: float | None = None

    def attempted(self, model: str, attempt: Attempt) -> Memory:
        """Return the memory with one attempt more; the same again is counted, not repeated."""
        known = self.attempts.get(model, ())
        if known and known[0].is_like(attempt):
            before = known[0]
            again = replace(attempt, first=before.first, count=before.count + 1)
            known, attempt = known[1:], again
        return replace(self, attempts={**self.attempts, model: (attempt, *known)[:ATTEMPTS]})


def write(path: Path, memory: Memory) -> None:
    """Write the memory atomically and durably; OSError if that cannot be."""
    data = {"format_version": _FORMAT_VERSION, **asdict(memory)}
    keys.replace_file(path, json.dumps(data, indent=1).encode() + b"\n")


def read(path: Path) -> Memory:
    """Return what was written, an empty memory if nothing was. Raises RegistryError."""
    try:
        return _parsed(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return Memory()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path}: expected what the service remembers, found something else ({error})"
        hint = "delete it: suspensions are forgotten and what failed is tried again"
        raise RegistryError(msg, hint) from error


def _parsed(data: Mapping[str, Any]) -> Memory:
    if data["format_version"] != _FORMAT_VERSION:
        msg = f"format_version {data['format_version']}"
        raise ValueError(msg)
    suspended = data["suspended"]
    attempts = data["attempts"].items()
    return Memory(
        accepted=data["accepted"],
        forgiven=data["forgiven"],
        suspended=Suspension(**suspended) if suspended else None,
        suspended_models={k: Suspension(**one) for k, one in data["suspended_models"].items()},
        failed=dict(data["failed"]),
        attempts={model: tuple(Attempt(**one) for one in some) for model, some in attempts},
        conditions=tuple(Condition(**one) for one in data["conditions"]),
        synced_at=data["synced_at"],
    )
