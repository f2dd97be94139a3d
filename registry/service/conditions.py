"""Ready, Reconciling and Stalled, from what the service knows. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from registry.service.choice import Standing, Survey
from registry.service.memory import Condition
from registry.service.snapshot import Snapshot

_Verdict = tuple[bool, str, str]


def judge(now: Snapshot, at: float) -> tuple[Condition, ...]:
    """Return the three conditions; one that did not change keeps its time."""
    verdicts = {"Ready": _ready(now), "Reconciling": _reconciling(now), "Stalled": _stalled(now)}
    before = {one.type: one for one in now.memory.conditions}
    return tuple(
        _since(before.get(kind), Condition(kind, status, reason, message, at))
        for kind, (status, reason, message) in verdicts.items()
    )


def _since(before: Condition | None, now: Condition) -> Condition:
    if before and (before.status, before.reason) == (now.status, now.reason):
        return replace(now, since=before.since)
    return now


def _ready(now: Snapshot) -> _Verdict:
    if not now.is_acting:
        return False, "Standby", "another instance acts on this directory"
    if trouble := now.trouble or now.unreachable:
        return False, trouble.reason, trouble.message
    if now.view is None:
        return False, "Starting", "the branch was not read yet"
    if now.memory.suspended:
        return False, "Suspended", now.memory.suspended.reason
    return _models_ready(now.survey, is_ahead=now.view.is_ahead)


def _models_ready(found: Survey, *, is_ahead: bool) -> _Verdict:
    counts = Counter(found.standings.values())
    if counts[Standing.DUE]:
        return False, "Due", f"{_models(counts[Standing.DUE])} to sync"
    if count := counts[Standing.FAILED] + counts[Standing.BLOCKED]:
        return False, "ModelsFailed", f"{_models(count)} failed or blocked by what failed"
    if is_ahead:
        return False, "NotPushed", "records are not pushed to the branch yet"
    return True, "UpToDate", f"{_models(len(found.standings))} as declared"


def _reconciling(now: Snapshot) -> _Verdict:
    if job := now.job:
        return True, "Syncing", f"job {job.id}"
    if not now.is_acting:
        return False, "Standby", "another instance acts on this directory"
    if now.is_held:
        return False, "Held", "suspended or stalled"
    if now.selection is None:
        return False, "Idle", "nothing to do"
    if now.retries:
        return True, "Retrying", f"tried {now.retries} times"
    return True, "Queued", f"{_models(len(now.survey.due))} to sync"


def _stalled(now: Snapshot) -> _Verdict:
    if trouble := now.trouble:
        return True, trouble.reason, trouble.message
    return False, "Following", f"branch {now.branch}"


def _models(count: int) -> str:
    return f"{count} model{'' if count == 1 else 's'}"
