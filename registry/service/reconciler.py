"""The thread that follows the branch and syncs, one step at a time, and the requests put to it.

What it knows is one immutable snapshot, replaced under a lock and read without one. Whatever a step
raises is told in the snapshot; the thread goes on.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from registry import lock
from registry.errors import NotNow, RegistryError
from registry.service import branch, choice, conditions, jobs, memory, pace, reading, view
from registry.service.branch import Refusal, Rules
from registry.service.jobs import Jobs
from registry.service.memory import Memory, Suspension
from registry.service.pace import Situation, Step
from registry.service.place import Place
from registry.service.progress import Progress
from registry.service.snapshot import Job, Snapshot, Trouble
from registry.service.view import View
from registry.tracking_place import without_secrets

_STANDBY_SECONDS = 1.0
_ANSWERS = 256  # about one view, remembered
_READ_SECONDS = 600.0
"""How old a view may get while no commit comes: reading it shows what was lost from the store."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a service follows its branch; `sync_options` go to every `registry sync`."""

    interval: float
    require_signed: bool
    with_push: bool
    sync_options: tuple[str, ...] = ()


class Reconciler:
    """One service at work on its place."""

    def __init__(self, place: Place, settings: Settings) -> None:
        """Take the place, which is claimed but not locked."""
        self._place = place
        self._settings = settings
        self._jobs = Jobs(place.jobs)
        self._turn = threading.Condition()
        self._snapshot = Snapshot(without_secrets(place.repository), place.branch)
        self._next_look_at = 0.0
        self._trigger = "start"
        self._is_asked = False
        # Held while files of the clone are replaced, so that who reads them sees one commit.
        self._reading = threading.Lock()
        self._answers: tuple[View | None, dict[tuple[str, ...], Any]] = (None, {})
        self._read_at = 0.0
        self._change(lambda now: now)

    @property
    def snapshot(self) -> Snapshot:
        """What is known now."""
        return self._snapshot

    def ask(self, trigger: str) -> None:
        """Have the branch looked at now."""
        with self._turn:
            self._is_asked, self._trigger = True, trigger
            self._turn.notify_all()

    def sync(self, models: Collection[str]) -> None:
        """Look and sync now; what failed of these models, or of all, is tried again."""

        def forget(now: Snapshot) -> Snapshot:
            kept = {k: v for k, v in now.memory.failed.items() if models and k not in models}
            known = replace(now.memory, failed=kept)
            return replace(now, memory=known, retries=0, next_sync_at=0.0, job_trouble=None)

        self._change(forget)
        self.ask("request")

    def suspend(self, model: str | None, reason: str) -> None:
        """Leave a model, or everything, alone until somebody resumes it."""
        suspension = Suspension(reason, time.time())

        def suspend(known: Memory) -> Memory:
            if model is None:
                return replace(known, suspended=suspension)
            return replace(known, suspended_models={**known.suspended_models, model: suspension})

        self._change(lambda now: replace(now, memory=suspend(now.memory)))

    def resume(self, model: str | None) -> None:
        """End a suspension; without a model also a stall, that of a rewritten branch too."""

        def resume(now: Snapshot) -> Snapshot:
            known = now.memory
            if model is not None:
                left = {k: one for k, one in known.suspended_models.items() if k != model}
                return replace(now, memory=replace(known, suspended_models=left))
            trouble = now.branch_trouble
            if trouble and trouble.reason == "BranchRewritten":
                known = replace(known, forgiven=trouble.commit)
            known = replace(known, suspended=None)
            return replace(now, memory=known, job_trouble=None, retries=0, next_sync_at=0.0)

        self._change(resume)
        self.ask("request")

    def count(self, event: str, label: str) -> None:
        """Count an event for the metrics."""
        self._change(lambda now: _counted(now, event, label))

    def log(self, number: int) -> bytes | None:
        """Return the log of a job, None for an unknown one."""
        return self._jobs.log(number)

    @property
    def progress(self) -> Progress:
        """How far the running job is."""
        return self._jobs.progress

    def answer(self, question: str, *arguments: str) -> Any:
        """Return what a child reads in the catalog that is followed; once per view and question."""
        with self._reading:
            now = self._snapshot.view
            if self._answers[0] is not now:
                self._answers = (now, {})
            known = self._answers[1]
            if (question, *arguments) not in known:
                while len(known) >= _ANSWERS:
                    known.pop(next(iter(known)))
                told = reading.ask(question, self._place.clone, *arguments)
                known[(question, *arguments)] = told
            return known[(question, *arguments)]

    def drain(self) -> None:
        """Start nothing more, and let the running sync stop in order."""
        self._change(lambda now: replace(now, is_draining=True))
        self._jobs.stop()

    @property
    def is_working(self) -> bool:
        """Whether a sync runs."""
        return self._jobs.is_running

    def run(self) -> None:
        """Act until drained, once no other instance does. RegistryError if it cannot begin."""
        while not self._snapshot.is_draining:
            try:
                with lock.held(self._place.lock, _STANDBY_SECONDS):
                    self._act()
            except NotNow:
                continue

    def _act(self) -> None:
        known = memory.read(self._place.memory)
        found = self._jobs.load()
        _log.info("acting on %s, branch %s", self._snapshot.repository, self._place.branch)
        self._change(lambda now: replace(now, is_acting=True, memory=known, jobs=found))
        steps = {Step.LOOK: self._look, Step.SYNC: self._sync}
        while (step := self._next()) is not Step.STOP:
            try:
                steps[step]()
            except Exception as error:  # noqa: BLE001  whatever it is, the next step may work
                _log.exception("%s failed", step.value)
                self._fail(step, error)

    def _next(self) -> Step:
        """Return the next step once it is time for it."""
        while True:
            with self._turn:
                now = self._snapshot
                situation = Situation(
                    now=time.monotonic(),
                    next_look_at=self._next_look_at,
                    next_sync_at=now.next_sync_at,
                    is_draining=now.is_draining,
                    is_asked_to_look=self._is_asked,
                    is_held=now.is_held,
                    is_due=now.selection is not None,
                )
                step, seconds = pace.next_step(situation)
                if step is not Step.WAIT:
                    return step
                self._turn.wait(seconds)

    def _fail(self, step: Step, error: Exception) -> None:
        trouble = Trouble("Bug", f"{type(error).__name__}: {error}", time.time())
        if step is Step.LOOK:
            self._look_later(1)
            self._change(lambda now: replace(now, branch_trouble=trouble))
            return
        self._change(_died)
        if isinstance(error, OSError | RegistryError):
            self._change(_later)  # a full disk, say: nothing that a new commit would mend
        else:
            self._change(lambda now: replace(now, job_trouble=trouble))

    def _look(self) -> None:
        was_asked, self._is_asked = self._is_asked, False
        try:
            commit = branch.fetch(self._place)
        except RegistryError as error:
            self._count_failure(error, "Unreachable")
            return
        refused: Refusal | None
        found: View | None = None
        try:
            if (refused := self._refusal(commit)) is None:
                found = self._check_out(commit, is_asked=was_asked)
        except reading.Invalid as error:
            refused = Refusal("InvalidCatalog", error.message)
        except RegistryError as error:
            self._count_failure(error, "NotRead")
            return
        wait = pace.interval_seconds(self._settings.interval, _chance())
        self._next_look_at = time.monotonic() + wait
        self._change(lambda now: _looked(now, commit))
        if refused:
            self._refuse(commit, refused)
        if found:
            self._follow(commit, found)

    def _refusal(self, commit: str) -> Refusal | None:
        now = self._snapshot
        known = now.branch_trouble
        if known and (known.reason, known.commit) == ("InvalidCatalog", commit):
            return Refusal(known.reason, known.message)
        rules = Rules(now.memory.accepted, now.memory.forgiven, self._settings.require_signed)
        return branch.refusal(self._place, commit, rules)

    def _check_out(self, commit: str, *, is_asked: bool) -> View:
        now = self._snapshot
        is_old = time.monotonic() > self._read_at + _READ_SECONDS
        if now.view and commit == now.memory.accepted and not (is_asked or is_old):
            return now.view
        with self._reading:
            branch.check_out(self._place, commit, is_first=now.memory.accepted is None)
            return self._read()

    def _read(self) -> View:
        self._read_at = time.monotonic()
        return view.read(self._place, with_push=self._settings.with_push)

    def _count_failure(self, error: RegistryError, reason: str) -> None:
        message = without_secrets(error.message)
        known = self._snapshot.unreachable
        trouble = Trouble(reason, message, known.since if known else time.time())
        if known is None:
            _log.warning("the branch cannot be read: %s", message)
        failures = self._snapshot.fetch_failures + 1
        self._look_later(failures)
        self._change(
            lambda now: _counted(
                replace(now, unreachable=trouble, fetch_failures=failures), "fetch", "failed"
            )
        )

    def _look_later(self, failures: int) -> None:
        self._next_look_at = time.monotonic() + pace.retry_seconds(failures, _chance())

    def _refuse(self, commit: str, refused: Refusal) -> None:
        known = self._snapshot.branch_trouble
        is_known = known and (known.reason, known.commit) == (refused.reason, commit)
        if not is_known:
            _log.warning("stalled, %s: %s", refused.reason, refused.message)
            trouble = Trouble(refused.reason, refused.message, time.time(), commit)
            self._change(lambda now: replace(now, branch_trouble=trouble))

    def _follow(self, commit: str, found: View) -> None:
        before = self._snapshot
        is_new = commit != before.memory.accepted
        is_other_plan = before.view is None or before.view.digest != found.digest
        if is_new:
            _log.info("following commit %s", commit[:12])

        older = before.memory.accepted
        has_inputs = older and is_new and branch.brings_inputs(self._place, older, commit)

        def follow(now: Snapshot) -> Snapshot:
            known = now.memory
            if is_new:
                known = replace(known, accepted=commit, forgiven=None)
            if has_inputs:
                known = replace(known, failed={})
            now = replace(now, memory=known, view=found, branch_trouble=None)
            if is_new or is_other_plan:
                return replace(now, job_trouble=None, retries=0, next_sync_at=0.0)
            return now

        self._change(follow)

    def _sync(self) -> None:
        now = self._snapshot
        models = now.selection
        assert now.view is not None
        assert models is not None
        number = now.jobs[0].id + 1 if now.jobs else 1
        job = Job(number, self._trigger, now.view.commit, time.time(), models)
        self._trigger = "interval"
        _log.info("job %d: sync %s", number, " ".join(models) or "all")
        self._change(lambda now: replace(now, jobs=(job, *now.jobs)[: jobs.KEPT]))
        options = (*self._settings.sync_options, "--commit", "--format", "json")
        place = str(self._place.clone)
        ended = self._jobs.run(job, ["-C", place, "sync", *options, "--", *models])
        _log.info("job %d: %s (exit code %s)", number, ended.outcome, ended.exit_code)
        with self._reading:
            found = self._read()
        pushed = branch.accepted(self._place)
        self._change(lambda now: _counted(self._learnt(now, ended, found, pushed), *_event(ended)))
        if ended.outcome == "later":
            self.ask("retry")  # the branch may have moved under the sync

    def _learnt(self, now: Snapshot, ended: Job, found: View, pushed: str | None) -> Snapshot:
        """Return what is known after a job."""
        assert now.view is not None
        assert ended.ended is not None
        known = now.memory
        if ended.outcome != "interrupted":
            end = choice.Ended(ended.id, ended.commit, ended.ended)
            known = choice.learnt(known, ended.results, found.plan.changes, end)
        known = replace(known, accepted=pushed or known.accepted)
        moved = found.digest != now.view.digest
        others = tuple(job for job in now.jobs if job.id != ended.id)
        after = replace(now, memory=known, view=found, jobs=(ended, *others))
        if reason := {"bug": "Bug", "refused": "SyncRefused"}.get(ended.outcome):
            told = (self._jobs.log(ended.id) or b"").decode(errors="replace")[-2000:].strip()
            trouble = Trouble(reason, f"job {ended.id}: {told}", ended.ended, ended.commit)
            return replace(after, job_trouble=trouble)
        if after.selection is None:
            return replace(after, retries=0, next_sync_at=0.0)
        return _later(after, has_moved=moved)

    def _change(self, change: Callable[[Snapshot], Snapshot]) -> None:
        """Replace the snapshot, judge its conditions, and write down what outlives a restart."""
        with self._turn:
            before = self._snapshot
            now = change(before)
            judged = conditions.judge(now, time.time())
            now = replace(now, memory=replace(now.memory, conditions=judged))
            if now.is_acting and now.memory != before.memory:
                try:
                    memory.write(self._place.memory, now.memory)
                except OSError:
                    _log.exception("cannot write down what is to outlive a restart")
            self._snapshot = now
            self._turn.notify_all()


def _chance() -> float:
    return random.random()  # noqa: S311  jitter, no secret


def _looked(now: Snapshot, commit: str) -> Snapshot:
    return replace(now, seen=commit, looked_at=time.time(), unreachable=None, fetch_failures=0)


def _died(now: Snapshot) -> Snapshot:
    """Return the snapshot without a running job: what was to be told of it could not be."""
    if now.job is None:
        return now
    ended = replace(now.job, ended=time.time(), outcome="died")
    return _counted(replace(now, jobs=(ended, *now.jobs[1:])), *_event(ended))


def _later(now: Snapshot, *, has_moved: bool = False) -> Snapshot:
    """Return the snapshot with the next sync put off; not longer than before if something moved."""
    retries = max(1, now.retries) if has_moved else now.retries + 1
    at = time.monotonic() + pace.retry_seconds(retries, _chance())
    return replace(now, retries=retries, next_sync_at=at)


def _counted(now: Snapshot, event: str, label: str) -> Snapshot:
    count = now.counters.get((event, label), 0) + 1
    return replace(now, counters={**now.counters, (event, label): count})


def _event(ended: Job) -> tuple[str, str]:
    return "job", ended.outcome
