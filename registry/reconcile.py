"""Carry out a plan in the publishing order: a crash anywhere means that the next plan goes on.

inputs -> build -> checks -> store -> evaluate, judge -> pointer -> push -> MLflow -> record (last).
The bytes enter the content store before they are judged, so that an interrupted or failed
evaluation costs no second build; they are published by their pointer and record only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from registry import evaluation, keys, logbook, observation, plan, record
from registry.errors import BuildFailed, Interrupted, NotNow, RegistryError, VerificationFailed
from registry.keys import Artifact, StoredFile
from registry.plan import Action, Change, Observed, Options
from registry.record import BuildRecord, Built, Evaluation, Rejected
from registry.request import Declaration
from registry.world import World
from schemas.digest import FileHash, model_digest, tree_digest
from schemas.header import HeaderError
from schemas.model import ModelError, read_model


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


def carry_out(
    world: World,
    observe: Callable[[], Observed],
    options: Options,
    models: Collection[str] | None,
) -> list[Result]:
    """Carry out what the plan says until nothing is left that can be done.

    A model that waits for another is planned again once that one is there. One failure stops the
    model and what depends on it; the others go on. `observe` returns a fresh `Observed`.
    """
    results: list[Result] = []
    attempted: set[str] = set()
    forced = set(options.rebuild)
    while True:
        current = Options(options.prune, forced - attempted)
        todo = _next(world, observe(), current, models, attempted, results)
        if not todo:
            return results + _stopped(world, results, attempted, models)
        attempted |= {change.model for change in todo}
        results += _attempt_all(world, todo)


def _next(
    world: World,
    observed: Observed,
    options: Options,
    models: Collection[str] | None,
    attempted: Collection[str],
    results: Collection[Result],
) -> list[Change]:
    """Return the changes that can be carried out now."""
    broken = _downstream(world, {result.model for result in results if not result.is_done})
    current = plan.make(world.declared, observed, options)
    if models is not None:
        current = current.narrowed(models)
    idle = (Action.NONE, Action.MAYBE)
    return [
        change
        for change in current.changes
        if change.action not in idle
        and change.model not in attempted
        and change.model not in broken
    ]


def _downstream(world: World, failed: Collection[str]) -> set[str]:
    """Return these models and every model made of them."""
    found = set(failed)
    for one in world.declared.values():
        if found & set(one.upstream):
            found.add(one.model)
    return found


def _stopped(
    world: World,
    results: Collection[Result],
    attempted: Collection[str],
    models: Collection[str] | None,
) -> list[Result]:
    """Return a result for each model that could not be tried because an ingredient failed."""
    failed = {result.model for result in results if not result.is_done}
    stopped = []
    for model in sorted(_downstream(world, failed) - set(attempted)):
        if models is None or model in models:
            cause = next(name for name in world.declared[model].upstream)
            problem = f"not built: merge {cause} failed"
            stopped.append(Result(model, Action.MAYBE, problem=problem, exit_code=1))
    return stopped


def _attempt_all(world: World, todo: list[Change]) -> list[Result]:
    if world.executor.jobs == 1:
        return [_attempt(world, change) for change in todo]
    with ThreadPoolExecutor(world.executor.jobs) as pool:
        try:
            return list(pool.map(lambda change: _attempt(world, change), todo))
        except BaseException:
            # Ends the orders that other threads wait for; the pool joins them.
            pool.shutdown(wait=False, cancel_futures=True)
            world.executor.close()
            raise


def _attempt(world: World, change: Change) -> Result:
    try:
        with world.turn:
            return _ACTIONS[change.action](world, change)
    except Interrupted:
        raise
    except RegistryError as error:
        return Result(
            change.model,
            change.action,
            problem=error.message,
            hint=error.hint,
            exit_code=error.exit_code,
        )


def _recorded(world: World, model: str) -> BuildRecord:
    """Return the model's record; an empty one if there is none that can be read."""
    try:
        return record.read(record.folder(world.root) / f"{model}.json")
    except (FileNotFoundError, record.UnreadableRecord):
        return BuildRecord(model)


def _build(world: World, change: Change) -> Result:
    one = world.declared[change.model]
    request = _pinned(world, one)
    if artifact := _from_remote(world, change):
        return _publish(world, one, request, artifact, Action.RESTORE, "from the remote")
    scratch = world.store.staging()
    try:
        report = evaluation.build_folder(world, one.model, request, scratch)
        world.observer.stage(one.model, "check")
        files = _checked(world, request, report, scratch / "model")
        _compare_with_record(_recorded(world, one.model), change, report)
        facts = {name: report[name] for name in ("versions", "device_class", "seconds")}
        facts["peak_bytes"] = report["peak_bytes"]
        assert change.key is not None
        world.observer.stage(one.model, "store")
        _drop_altered(world, change.key)
        keys.write_report(world.store.cache, change.key, report)
        artifact = world.store.publish(
            scratch / "model",
            key=change.key,
            model_digest=report["model_digest"],
            artifact_digest=report["artifact_digest"],
            files=files,
            facts=facts,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _publish(world, one, request, artifact, Action.BUILD)


def _pinned(world: World, one: Declaration) -> dict[str, Any]:
    """Return the request with the digests of what is published under the upstream names."""
    digests = {}
    for name in one.upstream:
        built = _recorded(world, name).built
        assert built is not None, "the plan orders a model after what it is made of"
        digests[name] = built.model_digest
    return one.pin(digests)


def _from_remote(world: World, change: Change) -> Artifact | None:
    """Return what the remote has under this key, fetched; None if it has nothing or is away."""
    if any(reason.kind == "rebuild-requested" for reason in change.reasons):
        return None
    assert change.key is not None
    try:
        found = world.store.find_remote_key(change.key)
        if found is not None and world.store.fetch(found):
            return found
    except NotNow as error:
        world.observer.warn(f"remote: {error.message}; building instead")
    return None


def _checked(
    world: World, request: Mapping[str, Any], report: Mapping[str, Any], folder: Path
) -> dict[str, StoredFile]:
    """Return the artifact's files after comparing names, shapes and digests with what was asked."""
    files = {path: StoredFile(**hashes) for path, hashes in report["files"].items()}
    hashes = {path: FileHash(file.sha256, file.size) for path, file in files.items()}
    if (model_digest(hashes), tree_digest(hashes)) != (
        report["model_digest"],
        report["artifact_digest"],
    ):
        msg = "the worker's digests are not those of the files it reports"
        raise VerificationFailed(msg)
    base = world.catalog.base(request["base"]["name"])
    try:
        wanted = read_model(world.root / base.folder).shapes
        found = read_model(folder).shapes
    except (ModelError, HeaderError) as error:
        msg = f"the built model cannot be opened: {error}"
        raise VerificationFailed(msg) from error
    if wanted != found:
        odd = next(name for name in sorted(wanted | found) if wanted.get(name) != found.get(name))
        msg = f"tensor {odd}: expected {wanted.get(odd)}, found {found.get(odd)}"
        raise VerificationFailed(msg)
    return files


def _compare_with_record(known: BuildRecord, change: Change, report: Mapping[str, Any]) -> None:
    """Raise VerificationFailed if the same request gave other bytes on the same device class."""
    built = known.built
    if built is None or built.key != change.key or built.device_class != report["device_class"]:
        return
    if built.model_digest != report["model_digest"]:
        msg = f"not reproduced: expected {built.model_digest}, built {report['model_digest']}"
        hint = "the recorded model stays; compare versions in the record, or remove the record"
        raise BuildFailed(msg, hint)


def _drop_altered(world: World, key: str) -> None:
    if known := keys.read(world.store.cache, key):
        world.store.drop_altered(known)


def _restore(world: World, change: Change) -> Result:
    assert change.key is not None
    artifact = keys.read(world.store.cache, change.key)
    assert artifact is not None, "the plan saw it"
    if bad := world.store.verify(artifact, deep=True):
        world.observer.warn(f"{change.model}: {bad[0]} is altered in the store; building again")
        world.store.drop_altered(artifact)
        return _build(world, change)
    one = world.declared[change.model]
    return _publish(world, one, _pinned(world, one), artifact, Action.RESTORE)


def _publish(
    world: World,
    one: Declaration,
    request: Mapping[str, Any],
    artifact: Artifact,
    action: Action,
    note: str = "",
) -> Result:
    """Evaluate, judge and publish what lies in the store; the record is written last."""
    known = _recorded(world, one.model)
    measured = evaluation.evaluate(world, one, request, artifact)
    if problems := evaluation.failed(measured):
        assert measured is not None
        return _reject(
            world, known, artifact.key, artifact.model_digest, measured, problems, action
        )
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
        _push_artifact(world, one.model, artifact)
    fresh = BuildRecord(one.model, built, measured)
    fresh = replace(fresh, mlflow=_log(world, one, fresh))
    record.write(world.root, fresh)
    _forget_altered(world, one.model)
    is_same = known.built is not None and known.built.model_digest == artifact.model_digest
    note = note or ("the recorded digest again" if is_same else "")
    return Result(one.model, action, artifact.model_digest, note=note)


def _reject(
    world: World,
    known: BuildRecord,
    key: str,
    digest: str,
    measured: Evaluation,
    problems: tuple[str, ...],
    action: Action,
) -> Result:
    rejected = Rejected(
        key=key,
        model_digest=digest,
        evaluation_key=measured.key,
        gates=measured.gates,
        verdicts=measured.verdicts,
        metrics=measured.metrics,
    )
    record.write(world.root, replace(known, rejected=rejected))
    hint = "nothing was published"
    if known.built is not None:
        hint = f"the earlier version {known.built.model_digest[:19]}… stays live"
    problem = f"gate failed: {'; '.join(problems)}"
    return Result(known.model, action, problem=problem, hint=hint, exit_code=1)


def _log(world: World, one: Declaration, fresh: BuildRecord) -> record.Logged | None:
    world.observer.stage(one.model, "log")
    build = logbook.build_log(world, fresh)
    logged = world.track(lambda tracker: tracker.log(build))
    return record.Logged(logged.store, logged.run, logged.version) if logged else None


def _forget_altered(world: World, model: str) -> None:
    altered = observation.read_altered(world.root)
    if altered.pop(model, None) is not None:
        observation.write_altered(world.root, altered)


def _push_artifact(world: World, model: str, artifact: Artifact) -> None:
    world.observer.stage(model, "push")
    try:
        world.store.push(artifact, record.folder(world.root) / f"{model}.dvc")
    except NotNow as error:
        world.observer.warn(f"{model}: not pushed: {error.message}; the next `sync --push` tries")


def _push(world: World, change: Change) -> Result:
    built = observation.require_record(world.root, change.model).built
    assert built is not None
    artifact = keys.read(world.store.cache, built.key)
    assert artifact is not None, "the plan saw it"
    _push_artifact(world, change.model, artifact)
    return Result(change.model, Action.PUSH, built.model_digest)


def _evaluate(world: World, change: Change) -> Result:
    """Measure or judge again what is live; a failing gate is told and leaves it live."""
    known = observation.require_record(world.root, change.model)
    assert known.built is not None
    one = world.declared[change.model]
    artifact = keys.read(world.store.cache, known.built.key)
    assert artifact is not None, "the plan saw it"
    measured = evaluation.evaluate(world, one, known.built.request, artifact)
    if problems := evaluation.failed(measured):
        assert measured is not None
        built = known.built
        key, digest = built.key, built.model_digest
        return _reject(world, known, key, digest, measured, problems, change.action)
    fresh = replace(known, evaluation=measured, rejected=None)
    logged = _log(world, one, fresh)
    if logged and measured:
        told = {f"eval.{one.suite}.{task}": value for task, value in measured.metrics.items()}
        world.track(lambda tracker: tracker.log_metrics(logged, told, one.model))
    record.write(world.root, replace(fresh, mlflow=logged))
    return Result(change.model, change.action, known.built.model_digest)


def _log_again(world: World, change: Change) -> Result:
    known = observation.require_record(world.root, change.model)
    assert known.built is not None
    logged = _log(world, world.declared[change.model], known)
    if logged is None:
        return Result(change.model, Action.LOG, known.built.model_digest, note="left for later")
    if logged != known.mlflow:
        record.write(world.root, replace(known, mlflow=logged))
    if any(reason.kind == "not-pushed" for reason in change.reasons):
        return _push(world, change)
    return Result(change.model, Action.LOG, known.built.model_digest)


def _unpublish(world: World, change: Change) -> Result:
    """Take a model away: alias, pointer, record, in this order; bytes stay in the store."""
    known = _recorded(world, change.model)
    if known.mlflow is not None:
        world.track(lambda tracker: tracker.unpublish(change.model))
    folder = record.folder(world.root)
    for name in (f"{change.model}.dvc", f"{change.model}.json"):
        (folder / name).unlink(missing_ok=True)
    return Result(change.model, change.action)


_ACTIONS = {
    Action.BUILD: _build,
    Action.RESTORE: _restore,
    Action.EVALUATE: _evaluate,
    Action.JUDGE: _evaluate,
    Action.LOG: _log_again,
    Action.PUSH: _push,
    Action.UNPUBLISH: _unpublish,
    Action.PRUNE: _unpublish,
}
