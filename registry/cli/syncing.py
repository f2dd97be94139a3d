"""The command `sync`: choose, plan, carry out, tell, commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from registry import git, lock, observation, record, report
from registry.cli.acting import DEVICES, open_world
from registry.cli.names import MODEL
from registry.cli.session import FORMATS, Session, find_root, open_session
from registry.errors import NotNow, RegistryError, UsageError
from registry.plan import Action, Options, Plan
from registry.request import bytes_of

if TYPE_CHECKING:
    from registry.publish import Result
    from registry.world import World


def _size(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    if size := bytes_of(text):
        return size
    raise click.BadParameter(f"expected a size like 500MB or 2GB, found {text}")


@click.command()
@click.argument("models", nargs=-1, type=MODEL, metavar="[MODEL]...")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option(
    "--plan",
    "saved",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Carry out this saved plan; refused if anything moved since.",
)
@click.option("--device", type=DEVICES, help="Where merges are computed.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, metavar="N")
@click.option(
    "--memory",
    callback=_size,
    metavar="SIZE",
    help="What all workers may have in flight, like 2GB. Default: a quarter of what is free, each.",
)
@click.option("--push", is_flag=True, help="Push artifacts to the DVC remote.")
@click.option("--commit", is_flag=True, help="Commit records and pointers, and push the commit.")
@click.option("--prune", is_flag=True, help="Remove what is no longer declared.")
@click.option("--rebuild", is_flag=True, help="Build again even what is up to date.")
@click.option("--lock-timeout", type=click.FloatRange(0), default=60.0, show_default=True)
@click.option("--format", "form", type=FORMATS, default="text")
@click.pass_obj
def sync(  # noqa: PLR0913  one argument per option
    directory: Path,
    models: tuple[str, ...],
    saved: Path | None,
    device: str | None,
    jobs: int,
    memory: int | None,
    lock_timeout: float,
    form: str,
    *,
    dry_run: bool,
    push: bool,
    commit: bool,
    prune: bool,
    rebuild: bool,
) -> int:
    """Build what is stale, store it, log it, record it.

    Nothing is rebuilt that need not be; a second run says that there is nothing to do.
    """
    reviewed = _read_plan(saved) if saved else None

    def open_asked() -> tuple[Session, Options, Collection[str] | None]:
        return _asked(directory, models, reviewed, prune=prune, rebuild=rebuild)

    if dry_run:
        session, options, wanted = open_asked()
        made = _narrowed(session, options, wanted, push=push)
        is_json = form == "json"
        click.echo(report.as_json(made.as_data()) if is_json else report.plan_text(made))
        return 0
    place = observation.state_folder(find_root(directory)) / "lock"
    # Looked at under the lock, so that nothing moves; before it only so as to complain at once.
    with lock.held(place, lock_timeout, before_waiting=open_asked):
        session, options, wanted = open_asked()
        if push:
            session.store.require_remote()
        session.store.sweep()
        record.sweep(session.root, (entry.path for entry in session.outlook.found.others))
        made = _narrowed(session, options, wanted, push=push)
        if reviewed and reviewed.digest != made.digest:
            msg = f"the plan moved: {saved} is {reviewed.digest}, now it is {made.digest}"
            raise RegistryError(msg, "plan again, and look at what changed")
        opened = partial(open_world, session, device, jobs=jobs, push=push, memory_bytes=memory)
        results = _carry_out(session, made, options, wanted, opened)
        _tell_results(results, made, form)
        if commit:
            _commit(session, is_result=form == "text")
        codes = {one.exit_code for one in results}
        return 1 if 1 in codes else max(codes, default=0)


def _asked(
    directory: Path,
    models: Collection[str],
    reviewed: _Reviewed | None,
    *,
    prune: bool,
    rebuild: bool,
) -> tuple[Session, Options, Collection[str] | None]:
    """Return the session, and what is asked of it: options and the models, None for all."""
    session = open_session(directory)
    if prune and not session.upstream:
        msg = "expected at least one declared model, found none: --prune would remove everything"
        raise RegistryError(msg, "is this the right folder and branch?")
    chosen = session.require(models, also=session.recorded)
    options = Options(prune, (chosen or set(session.upstream)) if rebuild else ())
    if chosen:
        return session, options, session.with_upstream(chosen)
    return session, options, reviewed.models if reviewed else None


def _carry_out(
    session: Session,
    made: Plan,
    options: Options,
    wanted: Collection[str] | None,
    opened: Callable[[], AbstractContextManager[World]],
) -> list[Result]:
    if made.is_empty:
        return []
    with opened() as world:
        from registry import reconcile

        results = reconcile.carry_out(
            world, lambda: session.observed(with_push=world.push), options, wanted
        )
    session.index.save()
    return results


def _narrowed(
    session: Session, options: Options, wanted: Collection[str] | None, *, push: bool
) -> Plan:
    made = session.plan(options, with_push=push)
    return made if wanted is None else made.narrowed(wanted)


@dataclass(frozen=True, slots=True)
class _Reviewed:
    """A saved plan: its digest, and the models that it is about."""

    digest: str
    models: frozenset[str]


def _read_plan(saved: Path) -> _Reviewed:
    try:
        data = json.loads(saved.read_text("utf-8"))
        return _Reviewed(data["digest"], frozenset(row["model"] for row in data["changes"]))
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{saved}: expected a plan saved by `registry plan -o`"
        raise UsageError(msg) from error


def _tell_results(results: Collection[Result], made: Plan, form: str) -> None:
    if form == "json":
        click.echo(report.as_json({"results": [_result_data(one) for one in results]}))
        return
    if made.is_empty:
        click.echo(report.plan_text(made))
        return
    rows = [
        (one.model, _outcome(one), report.short(one.digest), one.note or one.problem)
        for one in results
    ]
    click.echo("\n".join(report.table(rows)))
    for one in results:
        if one.problem and one.hint:
            click.echo(f"{one.model}: {one.problem}\n  hint: {one.hint}", err=True)
    failed = sum(not one.is_done for one in results)
    idle = len({change.model for change in made.changes} - {one.model for one in results})
    click.echo(f"{len(results) - failed} done, {failed} failed, {idle} up to date")


def _result_data(one: Result) -> dict[str, Any]:
    """Return a result as the plain data of `--format json`; exit code 75 may work later."""
    return {
        "model": one.model,
        "action": one.action.value,
        "exit_code": one.exit_code,
        "model_digest": one.digest or None,
        "note": one.note,
        "problem": one.problem,
        "hint": one.hint,
    }


def _outcome(one: Result) -> str:
    words = {
        Action.BUILD: "built",
        Action.RESTORE: "restored",
        Action.EVALUATE: "evaluated",
        Action.JUDGE: "judged",
        Action.LOG: "logged",
        Action.PUSH: "pushed",
        Action.UNPUBLISH: "unpublished",
        Action.PRUNE: "pruned",
    }
    return words[one.action] if one.is_done else "FAILED"


def _commit(session: Session, *, is_result: bool) -> None:
    """Commit records and pointers, those of earlier syncs too, and push them where to.

    What it says is for standard error where the result is data.
    """
    root = session.root
    changed = [
        path for path in git.status(root, "catalog/builds") if path.endswith((".json", ".dvc"))
    ]
    models = sorted({Path(path).stem for path in changed})
    if changed:
        subject = models[0] if len(models) == 1 else f"{len(models)} models"
        commit = git.commit(root, changed, f"Registry: {subject} synced")
        click.echo(f"committed {commit[:12]}", err=not is_result)
    else:
        click.echo("nothing to commit", err=not is_result)
    if git.has_upstream(root) and not git.push(root):
        msg = "the branch moved meanwhile: the commit was not pushed"
        raise NotNow(msg, "run `git pull --rebase`, then `registry sync --commit` again")
