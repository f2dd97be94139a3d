"""Publish what lies in the store: evaluate, judge, pointer, push, MLflow, and the record last.

What a gate stops is not published: the earlier version stays live, and the verdict is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from registry import evaluation, keys, logbook, observation, record, report
from registry.errors import NotNow
from registry.keys import Artifact
from registry.logbook import Attempt
from registry.plan import Action, Change
from registry.record import BuildRecord, Built, Rejected
from registry.request import Declaration
from registry.world import World


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one change. `problem` is empty if it was carried out."""

    model: str
    action: Action
    digest: str = ""
    problem: str = ""
    hint: str = ""
    exit_code: int = 0
    note: str = ""

    @property
    def is_done(self) -> bool:
        """Whether the change was carried out."""
        return not self.problem


Outcome = Result | Future[Result]
"""What became of a change, or what will tell it once the lane has done its part."""


def publish(
    world: World,
    one: Declaration,
    request: Mapping[str, Any],
    artifact: Artifact,
    change: Change,
    note: str = "",
) -> Outcome:
    """Evaluate, judge and publish what lies in the store; the record is written last.

    MLflow, journal and record are the lane's, so that the next build need not wait for them.
    """
    known = recorded(world, one.model)
    measured = evaluation.evaluate(world, one, request, artifact)
    if problems := evaluation.failed(measured):
        assert measured is not None
        attempt = Attempt(artifact.key, request, artifact.model_digest, measured)
        return reject(world, known, attempt, problems, change)
    built = Built(
        key=artifact.key,
        request=request,
        model_digest=artifact.model_digest,
        artifact={
            "digest": artifact.artifact_digest,
            "files": {
                path: {"sha256": file.sha256, "size": file.size}
                for path, file in artifact.files.items()
            },
        },
        **artifact.facts,
    )
    pointer = record.folder(world.root) / f"{one.model}.dvc"
    pointer.parent.mkdir(parents=True, exist_ok=True)
    world.store.write_pointer(pointer, one.model, artifact)
    if world.push:
        push_artifact(world, one.model, artifact)
    is_same = known.built is not None and known.built.model_digest == artifact.model_digest
    note = note or ("the recorded digest again" if is_same else "")
    result = Result(one.model, change.action, artifact.model_digest, note=note)
    fresh = BuildRecord(one.model, built, measured)

    def finish() -> Result:
        logged = log(world, fresh)
        with world.lane.lasting():
            journalise(world, change, "live", built)
            record.write(world.root, replace(fresh, mlflow=logged))
            _forget_altered(world, one.model)
        return result

    world.observer.stage(one.model, "log")
    return world.lane.submit(finish)


def journalise(
    world: World,
    change: Change,
    result: str,
    what: Built | Attempt | Artifact | None,
    reason: str = "",
) -> None:
    """Enter what was done into the journal, before the record that it tells of.

    After a crash between the two the next sync does it again, and enters it again.
    """
    reasons = [report.reason_text(one) for one in change.reasons]
    provenance = keys.provenance_digest(world.store.cache, what.key) if what else None
    world.journal.enter(
        {
            "action": change.action.value,
            "commit": world.commit,
            "model": change.model,
            "key": what.key if what else "",
            "model_digest": what.model_digest if what else "",
            "result": result,
            "reason": "; ".join([*reasons, *([reason] if reason else [])]),
            "provenance": provenance or "",
        }
    )


def reject(
    world: World, known: BuildRecord, attempt: Attempt, problems: tuple[str, ...], change: Change
) -> Outcome:
    """Record an attempt that a gate stopped, and tell MLflow of it; what is live stays so."""
    measured = attempt.measured
    rejected = Rejected(
        key=attempt.key,
        model_digest=attempt.model_digest,
        evaluation_key=measured.key,
        gates=measured.gates,
        verdicts=measured.verdicts,
        metrics=measured.metrics,
    )
    hint = "nothing was published"
    if known.built is not None:
        hint = f"the earlier version {known.built.model_digest[:19]}… stays live"
    problem = f"gate failed: {'; '.join(problems)}"
    result = Result(known.model, change.action, problem=problem, hint=hint, exit_code=1)

    def finish() -> Result:
        told = logbook.rejected_log(world, known.model, attempt, "; ".join(problems))
        reason = "; ".join(problems)
        world.track(lambda tracker: tracker.log_rejected(told, known.model, reason))
        with world.lane.lasting():
            journalise(world, change, "rejected", attempt, reason)
            record.write(world.root, replace(known, rejected=rejected))
        return result

    return world.lane.submit(finish)


def log(world: World, fresh: BuildRecord) -> record.Logged | None:
    """Tell MLflow of a published model; None if it cannot be told now. For tasks of the lane."""
    build = logbook.build_log(world, fresh, world.journal.open())
    logged = world.track(lambda tracker: tracker.log(build))
    return record.Logged(logged.store, logged.run, logged.version) if logged else None


def push_artifact(world: World, model: str, artifact: Artifact) -> None:
    """Push an artifact to the remote; one warning if that cannot be done now."""
    world.observer.stage(model, "push")
    try:
        world.store.push(artifact, record.folder(world.root) / f"{model}.dvc")
    except NotNow as error:
        world.observer.warn(f"{model}: not pushed: {error.message}; the next `sync --push` tries")
    else:
        journalise(world, Change(model, Action.PUSH), "pushed", artifact)


def recorded(world: World, model: str) -> BuildRecord:
    """Return the model's record; an empty one if there is none that can be read."""
    try:
        return record.read(record.folder(world.root) / f"{model}.json")
    except (FileNotFoundError, record.UnreadableRecord):
        return BuildRecord(model)


def _forget_altered(world: World, model: str) -> None:
    altered = observation.read_altered(world.root)
    if altered.pop(model, None) is not None:
        observation.write_altered(world.root, altered)
