"""The one value that everybody reads: what the service knows and does at a moment. Immutable.

Made by the reconciler, read by HTTP; computes how it looks, never what is done about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from registry.service import choice
from registry.service.choice import Survey
from registry.service.memory import Memory
from registry.service.view import View


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that does not work, at which commit, since when; a commit may be unknown."""

    reason: str
    message: str
    since: float
    commit: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One `registry sync`. `models` is empty for all; `outcome` is `running` until it ends.

    `results` are those of `sync --format json`.
    """

    id: int
    trigger: str
    commit: str
    started: float
    models: tuple[str, ...] = ()
    ended: float | None = None
    outcome: str = "running"
    exit_code: int | None = None
    results: tuple[Mapping[str, Any], ...] = ()

    def as_data(self) -> dict[str, Any]:
        """Return the job as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Snapshot:
    """What is known now.

    `seen` is the branch's commit when it was last looked at, `view` belongs to the one that is
    followed; the two differ while the service is stalled. `jobs` has the newest first,
    `next_sync_at` is a time of the monotonic clock.
    """

    repository: str
    branch: str
    memory: Memory = field(default_factory=Memory)
    is_acting: bool = False
    is_draining: bool = False
    view: View | None = None
    seen: str | None = None
    looked_at: float | None = None
    unreachable: Trouble | None = None
    branch_trouble: Trouble | None = None
    job_trouble: Trouble | None = None
    fetch_failures: int = 0
    retries: int = 0
    next_sync_at: float = 0.0
    jobs: tuple[Job, ...] = ()
    counters: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Events since the start, by name and label: `("job", "done")`, `("webhook", "202")`."""

    @property
    def trouble(self) -> Trouble | None:
        """What stalls the service."""
        return self.branch_trouble or self.job_trouble

    @property
    def job(self) -> Job | None:
        """The running job."""
        return self.jobs[0] if self.jobs and self.jobs[0].ended is None else None

    @cached_property
    def survey(self) -> Survey:
        """How every model stands."""
        if self.view is None:
            return Survey({}, ())
        return choice.survey(self.view.plan.changes, self.view.upstream, self.memory)

    @property
    def is_held(self) -> bool:
        """Whether nothing is synced: suspended or stalled."""
        return self.memory.suspended is not None or self.trouble is not None

    @property
    def selection(self) -> tuple[str, ...] | None:
        """The models that the next sync names, nothing for all, None if there is nothing to do."""
        is_ahead = self.view is not None and self.view.is_ahead
        return self.survey.selection(is_ahead=is_ahead)
