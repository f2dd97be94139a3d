"""What becomes of the snapshot: after a look, a job, a request of a person. Pure.

Times are given: `at` in seconds since 1970, `try_at` of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from registry.service import choice
from registry.service.memory import Suspension
from registry.service.snapshot import Job, Snapshot, Trouble
from registry.service.view import View


def counted(now: Snapshot, event: str, label: str) -> Snapshot:
    """Count an event for the metrics."""
    count = now.counters.get((event, label), 0) + 1
    return replace(now, counters={**now.counters, (event, label): count})


def asked_again(now: Snapshot, models: Collection[str]) -> Snapshot:
    """Forget what failed of these models, or of all, and wait for nothing."""
    kept = {k: v for k, v in now.memory.failed.items() if models and k not in models}
    known = replace(now.memory, failed=kept)
    return replace(now, memory=known, retries=0, next_sync_at=0.0, job_trouble=None)


def suspended(now: Snapshot, model: str | None, suspension: Suspension) -> Snapshot:
    """Leave a model, or everything, alone."""
    known = now.memory
    if model is None:
        return replace(now, memory=replace(known, suspended=suspension))
    models = {**known.suspended_models, model: suspension}
    return replace(now, memory=replace(known, suspended_models=models))


def resumed(now: Snapshot, model: str | None) -> Snapshot:
    """End a suspension; without a model also a stall, that of a rewritten branch too."""
    known = now.memory
    if model is not None:
        left = {k: one for k, one in known.suspended_models.items() if k != model}
        return replace(now, memory=replace(known, suspended_models=left))
    trouble = now.branch_trouble
    if trouble and trouble.reason == "BranchRewritten":
        known = replace(known, forgiven=trouble.commit)
    known = replace(known, suspended=None)
    return replace(now, memory=known, job_trouble=None, retries=0, next_sync_at=0.0)


def looked(now: Snapshot, commit: str, at: float) -> Snapshot:
    """Know the branch's commit."""
    return replace(now, seen=commit, looked_at=at, unreachable=None, fetch_failures=0)


def followed(now: Snapshot, commit: str, found: View, *, has_inputs: bool) -> Snapshot:
    """Follow a commit; what failed is tried again if it brings other inputs, see `branch`."""
    is_new = commit != now.memory.accepted
    is_other_plan = now.view is None or now.view.digest != found.digest
    known = now.memory
    if is_new:
        known = replace(known, accepted=commit, forgiven=None)
    if has_inputs:
        known = replace(known, failed={})
    now = replace(now, memory=known, view=found, branch_trouble=None)
    if is_new or is_other_plan:
        return replace(now, job_trouble=None, retries=0, next_sync_at=0.0)
    return now


def started(now: Snapshot, job: Job, kept: int) -> Snapshot:
    """Run a job; the newest `kept` are remembered."""
    return replace(now, jobs=(job, *now.jobs)[:kept])


def ended(now: Snapshot, job: Job, found: View, pushed: str | None, told: str) -> Snapshot:
    """Learn from a job: `pushed` is the branch's commit if ours is the same, `told` the log's end.

    What is left to do then has to be put off, see `later`.
    """
    assert job.ended is not None
    known = now.memory
    if job.outcome != "interrupted":
        end = choice.Ended(job.id, job.commit, job.ended)
        known = choice.learnt(known, job.results, found.plan.changes, end)
    known = replace(known, accepted=pushed or known.accepted)
    others = tuple(one for one in now.jobs if one.id != job.id)
    after = replace(now, memory=known, view=found, jobs=(job, *others))
    if reason := {"bug": "Bug", "refused": "SyncRefused"}.get(job.outcome):
        trouble = Trouble(reason, f"job {job.id}: {told}", job.ended, job.commit)
        after = replace(after, job_trouble=trouble)
    return counted(after, "job", job.outcome)


def died(now: Snapshot, at: float) -> Snapshot:
    """End a job of which nothing could be told."""
    if now.job is None:
        return now
    job = replace(now.job, ended=at, outcome="died")
    return counted(replace(now, jobs=(job, *now.jobs[1:])), "job", "died")


def failures_after(now: Snapshot, found: View) -> int:
    """Return how many syncs in a row left something to do, after one that left this.

    One that got on with something does not make the next wait for longer.
    """
    has_moved = now.view is not None and now.view.digest != found.digest
    return max(1, now.retries) if has_moved else now.retries + 1


def later(now: Snapshot, retries: int, try_at: float) -> Snapshot:
    """Put the next sync off, if there is anything to sync."""
    if now.selection is None:
        return replace(now, retries=0, next_sync_at=0.0)
    return replace(now, retries=retries, next_sync_at=try_at)
