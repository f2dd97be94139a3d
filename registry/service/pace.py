"""What is done next, and when: looking at the branch, syncing, or waiting. Pure: no clock, no I/O.

Every chance is a number in [0, 1) that the caller draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

FIRST_SECONDS = 2.0
LONGEST_SECONDS = 600.0
"""Between two tries of what fails: it doubles from the first to the longest."""

_JITTER_RATIO = (
    0.2  # of an interval: a hundred services started at once do not ask at once for ever
)


class Step(Enum):
    """What the reconciler does next."""

    LOOK = "look"
    SYNC = "sync"
    WAIT = "wait"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the next step depends on; times in seconds on one clock."""

    now: float
    next_look_at: float
    next_sync_at: float
    is_draining: bool = False
    is_asked_to_look: bool = False
    is_held: bool = False
    """Suspended or stalled: the branch is looked at, nothing is synced."""
    is_due: bool = False
    """There is a model to sync, or a commit to push."""


def next_step(now: Situation) -> tuple[Step, float]:
    """Return the next step, and for WAIT the seconds until there is another, unless asked."""
    if now.is_draining:
        return Step.STOP, 0.0
    if now.is_asked_to_look or now.now >= now.next_look_at:
        return Step.LOOK, 0.0
    may_sync = now.is_due and not now.is_held
    if may_sync and now.now >= now.next_sync_at:
        return Step.SYNC, 0.0
    until = min(now.next_look_at, now.next_sync_at) if may_sync else now.next_look_at
    return Step.WAIT, until - now.now


def retry_seconds(failures: int, chance: float) -> float:
    """Return how long to wait after so many failures in a row: doubled each time, half by chance.

    >>> [retry_seconds(count, 0.5) for count in (1, 2, 3)]
    [1.5, 3.0, 6.0]
    """
    # More doublings than that overflow nothing but say nothing either.
    whole = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** (min(failures, 32) - 1))
    return whole * (0.5 + 0.5 * chance)


def interval_seconds(interval: float, chance: float) -> float:
    """Return how long to wait until the next look: the interval, a tenth more or less."""
    return interval * (1 + _JITTER_RATIO * (chance - 0.5))
