"""Carry out a plan in the publishing order: a crash anywhere means that the next plan goes on.

inputs -> build -> checks -> store -> evaluate, judge -> pointer -> push -> MLflow -> record (last).
The bytes enter the content store before they are judged, so that an interrupted or failed
evaluation costs no second build; they are published by their pointer and record only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from registry import build, evaluation, keys, logbook, observation, plan, publish, record
from registry.errors import RegistryError
from registry.logbook import Attempt
from registry.plan import Action, Change, Observed, Options
from registry.publish import Outcome, Result
from registry.record import BuildRecord
from registry.tracking import Tracker
from registry.world import World

Made = TypeVar("Made")


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
    """Return the changes that can be carried out now, in any order and side by side.

    What is made of another of them waits for the next round; so does a second name for the same
    key, which then finds its artifact in the store.
    """
    broken = _downstream(world, {result.model for result in results if not result.is_done})
    current = plan.make(world.declared, observed, options)
    if models is not None:
        current = current.narrowed(models)
    taken: dict[str, Change] = {}
    keys_taken: set[str] = set()
    for change in current.changes:
        is_idle = change.action in (Action.NONE, Action.MAYBE)
        if is_idle or change.model in attempted or change.model in broken:
            continue
        if change.key in keys_taken or _downstream(world, taken) & {change.model}:
            continue
        taken[change.model] = change
        keys_taken |= {change.key} if change.key else set()
    return list(taken.values())


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
    broken = _downstream(world, {result.model for result in results if not result.is_done})
    stopped = []
    for model in sorted(broken - set(attempted)):
        if models is None or model in models:
            cause = next(name for name in world.declared[model].upstream if name in broken)
            problem = f"not built: merge {cause} failed"
            stopped.append(Result(model, Action.MAYBE, problem=problem, exit_code=1))
    return stopped


def _attempt_all(world: World, todo: list[Change]) -> list[Result]:
    """Carry out changes; return once the lane has done its part too, for the next plan reads it."""
    working = sum(change.action in (Action.BUILD, Action.EVALUATE) for change in todo)
    if working:
        world.executor.warm(working)
        world.connect()
    outcomes = _outcomes(world, todo)
    return [_settled(change, one) for change, one in zip(todo, outcomes, strict=True)]


def _outcomes(world: World, todo: list[Change]) -> list[Outcome]:
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


def _attempt(world: World, change: Change) -> Outcome:
    def act() -> Outcome:
        with world.turn:
            return _ACTIONS[change.action](world, change)

    return _told(change, act)


def _settled(change: Change, outcome: Outcome) -> Result:
    return outcome if isinstance(outcome, Result) else _told(change, outcome.result)


def _told(change: Change, act: Callable[[], Made]) -> Made | Result:
    """Return what `act` does; a failure of it is a result too."""
    try:
        return act()
    except RegistryError as error:
        return Result(
            change.model,
            change.action,
            problem=error.message,
            hint=error.hint,
            exit_code=error.exit_code,
        )


def _push(world: World, change: Change) -> Result:
    built = observation.require_record(world.root, change.model).built
    assert built is not None
    artifact = keys.read(world.store.cache, built.key)
    assert artifact is not None, "the plan saw it"
    publish.push_artifact(world, change.model, artifact)
    return Result(change.model, Action.PUSH, built.model_digest)


def _evaluate(world: World, change: Change) -> Outcome:
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
        attempt = Attempt(built.key, built.request, built.model_digest, measured)
        return publish.reject(world, known, attempt, problems, change)
    fresh = replace(known, evaluation=measured, rejected=None)
    result = Result(change.model, change.action, known.built.model_digest)

    def finish() -> Result:
        logged = publish.log(world, fresh)
        if logged and measured:
            told, files = logbook.judged(world, fresh)
            world.track(lambda tracker: tracker.log_later(logged, told, files, one.model))
        with world.lane.lasting():
            publish.journalise(world, change, "live", fresh.built)
            record.write(world.root, replace(fresh, mlflow=logged))
        return result

    world.observer.stage(change.model, "log")
    return world.lane.submit(finish)


def _log_again(world: World, change: Change) -> Outcome:
    known = observation.require_record(world.root, change.model)
    assert known.built is not None
    if any(reason.kind == "not-pushed" for reason in change.reasons):
        _push(world, change)
    result = Result(change.model, Action.LOG, known.built.model_digest)

    def finish() -> Result:
        logged = publish.log(world, known)
        if logged is None:
            return replace(result, note="left for later")
        if logged != known.mlflow:
            with world.lane.lasting():
                publish.journalise(world, change, "logged", known.built)
                record.write(world.root, replace(known, mlflow=logged))
        return result

    world.observer.stage(change.model, "log")
    return world.lane.submit(finish)


def _unpublish(world: World, change: Change) -> Outcome:
    """Take a model away: alias, pointer, record, in this order; bytes stay in the store.

    While MLflow cannot be told, a record of nothing but its run stays for the next sync.
    """
    known = publish.recorded(world, change.model)
    folder = record.folder(world.root)

    def unpublish(tracker: Tracker) -> bool:
        tracker.unpublish(change.model)
        return True

    def finish() -> Result:
        is_told = known.mlflow is None or world.track(unpublish)
        with world.lane.lasting():
            if known.built is not None or is_told:
                publish.journalise(world, change, "unpublished", known.built)
            (folder / f"{change.model}.dvc").unlink(missing_ok=True)
            if is_told:
                (folder / f"{change.model}.json").unlink(missing_ok=True)
            else:
                record.write(world.root, BuildRecord(change.model, mlflow=known.mlflow))
        return Result(change.model, change.action)

    return world.lane.submit(finish)


_ACTIONS = {
    Action.BUILD: build.build,
    Action.RESTORE: build.restore,
    Action.EVALUATE: _evaluate,
    Action.JUDGE: _evaluate,
    Action.LOG: _log_again,
    Action.PUSH: _push,
    Action.UNPUBLISH: _unpublish,
    Action.PRUNE: _unpublish,
}
