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
from registry.service import branch, conditions, jobs, memory, pace, reading, transitions, view
from registry.service.branch import Refusal, Rules
from registry.service.jobs import Jobs
from registry.service.kept import Answers, unpacked
from registry.service.memory import Suspension
from registry.service.pace import Situation, Step
from registry.service.place import Place
from registry.service.progress import Progress
from registry.service.snapshot import Job, Snapshot, Trouble
from registry.service.view import View
from registry.tracking_place import without_secrets

_STANDBY_SECONDS = 1.0
_TOLD_CHARACTERS = 2000  # of the log of a job that stalls the service
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
        self._answers = Answers()
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
        self._change(lambda now: transitions.asked_again(now, models))
        self.ask("request")

    def suspend(self, model: str | None, reason: str) -> None:
        """Leave a model, or everything, alone until somebody resumes it."""
        suspension = Suspension(reason, time.time())
        self._change(lambda now: transitions.suspended(now, model, suspension))

    def resume(self, model: str | None) -> None:
        """End a suspension; without a model also a stall, that of a rewritten branch too."""
        self._change(lambda now: transitions.resumed(now, model))
        self.ask("request")

    def count(self, event: str, label: str) -> None:
        """Count an event for the metrics. Cheap: anybody may send a webhook that is forged."""
        with self._turn:
            self._snapshot = transitions.counted(self._snapshot, event, label)

    def log(self, number: int) -> bytes | None:
        """Return the log of a job, None for an unknown one."""
        return self._jobs.log(number)

    @property
    def progress(self) -> Progress:
        """How far the running job is."""
        return self._jobs.progress

    def answer(self, question: str, *arguments: str) -> Any:
        """Return what a child reads in the catalog that is followed; once per view and question."""
        key = (question, *arguments)
        # What is known is told without waiting while the catalog is read anew.
        found = self._answers.find(self._snapshot.view, key)
        if found is None:
            with self._reading:
                now = self._snapshot.view
                found = self._answers.find(now, key)
                if found is None:
                    told = reading.ask(question, self._place.clone, *arguments)
                    found = self._answers.keep(now, key, told)
        return unpacked(found)

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
        """Tell what a step raised, and try again later or with another commit."""
        at = time.time()
        trouble = Trouble("Bug", f"{type(error).__name__}: {error}", at)
        if step is Step.LOOK:
            failures = self._look_later()
            self._change(lambda now: replace(now, branch_trouble=trouble, fetch_failures=failures))
            return
        self._change(lambda now: transitions.died(now, at))
        if isinstance(error, OSError | RegistryError):  # a full disk, say: no commit mends that
            self._sync_later(self._snapshot.retries + 1)
        else:
            self._change(lambda now: replace(now, job_trouble=trouble))

    def _look(self) -> None:
        with self._turn:
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
        self._change(lambda now: transitions.looked(now, commit, time.time()))
        if refused:
            self._refuse(commit, refused)
        if found:
            self._follow(commit, found)
        if self._snapshot.selection is None:
            self._trigger = "interval"

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
        found = view.read(self._place, with_push=self._settings.with_push)
        self._read_at = time.monotonic()
        return found

    def _count_failure(self, error: RegistryError, reason: str) -> None:
        message = without_secrets(error.message)
        known = self._snapshot.unreachable
        trouble = Trouble(reason, message, known.since if known else time.time())
        if known is None:
            _log.warning("the branch cannot be read: %s", message)
        failures = self._look_later()
        self.count("fetch", "failed")
        self._change(lambda now: replace(now, unreachable=trouble, fetch_failures=failures))

    def _look_later(self) -> int:
        """Put the next look off, and return how many failed in a row."""
        failures = self._snapshot.fetch_failures + 1
        self._next_look_at = time.monotonic() + pace.retry_seconds(failures, _chance())
        return failures

    def _sync_later(self, retries: int) -> None:
        try_at = time.monotonic() + pace.retry_seconds(retries, _chance())
        self._change(lambda now: transitions.later(now, retries, try_at))

    def _refuse(self, commit: str, refused: Refusal) -> None:
        known = self._snapshot.branch_trouble
        is_known = known and (known.reason, known.commit) == (refused.reason, commit)
        if not is_known:
            _log.warning("stalled, %s: %s", refused.reason, refused.message)
            trouble = Trouble(refused.reason, refused.message, time.time(), commit)
            self._change(lambda now: replace(now, branch_trouble=trouble))

    def _follow(self, commit: str, found: View) -> None:
        older = self._snapshot.memory.accepted
        has_inputs = False
        if commit != older:
            _log.info("following commit %s", commit[:12])
            has_inputs = older is not None and branch.brings_inputs(self._place, older, commit)
        self._change(lambda now: transitions.followed(now, commit, found, has_inputs=has_inputs))

    def _sync(self) -> None:
        now = self._snapshot
        models = now.selection
        assert now.view is not None
        assert models is not None
        number = now.jobs[0].id + 1 if now.jobs else 1
        job = Job(number, self._trigger, now.view.commit, time.time(), models)
        self._trigger = "interval"
        _log.info("job %d: sync %s", number, " ".join(models) or "all")
        self._change(lambda now: transitions.started(now, job, jobs.KEPT))
        options = (*self._settings.sync_options, "--commit", "--format", "json")
        place = str(self._place.clone)
        ended = self._jobs.run(job, ["-C", place, "sync", *options, "--", *models])
        _log.info("job %d: %s (exit code %s)", number, ended.outcome, ended.exit_code)
        if self._snapshot.is_draining:
            return  # what there is to learn is in the records, for the next instance
        with self._reading:
            found = self._read()
        pushed = branch.accepted(self._place)
        told = (self._jobs.log(number) or b"").decode(errors="replace")[-_TOLD_CHARACTERS:].strip()
        retries = transitions.failures_after(self._snapshot, found)
        self._change(lambda now: transitions.ended(now, ended, found, pushed, told))
        self._sync_later(retries)
        if ended.outcome == "later":
            self.ask("retry")  # the branch may have moved under the sync

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
