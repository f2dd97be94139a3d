"""The routes of the pages for people. Reads snapshots, asks the reconciler, decides nothing.

What is large is read by a child, whose answers are kept as long as the view.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse

from registry.plan import Change
from registry.service import links
from registry.service.guard import Now, Refused, Service, ServiceOf, may_read, view_of
from registry.service.pages import frame, ingredient, ingredients, jobs, model, models, versions
from registry.service.pages.filtered import Filter
from registry.service.reconciler import Reconciler
from registry.service.snapshot import Job, Snapshot

router = APIRouter(
    include_in_schema=False,
    default_response_class=HTMLResponse,
    dependencies=[Depends(may_read)],
)


def problem(request: Request, title: str, hint: str) -> str:
    """Return a page that says what is wrong."""
    service: Service = request.app.state.service
    now = service.reconciler.snapshot
    return frame.error(frame.Site(now.repository, now.branch), title, hint)


def _reconciler(service: ServiceOf) -> Reconciler:
    return service.reconciler


_Reconciler = Annotated[Reconciler, Depends(_reconciler)]
_Name = Annotated[str, InPath(pattern=links.NAME)]
_Version = Annotated[int, InPath(ge=1, le=2**53 - 1)]
_Number = Annotated[int, InPath(ge=1, le=2**53 - 1)]
_Commit = Annotated[str, Query(pattern=links.COMMIT)]


def _chosen(
    q: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
    page: Annotated[int, Query(ge=1, le=10**6)] = 1,
) -> Filter:
    return Filter(q.strip(), state, page)


_Chosen = Annotated[Filter, Depends(_chosen)]


def _records(reconciler: Reconciler, now: Snapshot) -> Mapping[str, Any]:
    found: Mapping[str, Any] = reconciler.answer("recorded") if now.view else {}
    return found


def _change(now: Snapshot, name: str) -> Change:
    for change in view_of(now).plan.changes:
        if change.model == name:
            return change
    raise Refused(404, f"no model {name}")


def _job(now: Snapshot, number: int) -> Job:
    for job in now.jobs:
        if job.id == number:
            return job
    raise Refused(404, f"no job {number}; the newest are remembered")


def _log(reconciler: Reconciler, number: int) -> str:
    return (reconciler.log(number) or b"").decode(errors="replace")


@router.get("/")
def all_models(reconciler: _Reconciler, now: Now, chosen: _Chosen) -> str:
    """Return the page of all models."""
    return models.whole(now, chosen, _records(reconciler, now), reconciler.progress)


@router.get("/live")
def live_models(reconciler: _Reconciler, now: Now, chosen: _Chosen) -> str:
    """Return what changes of it."""
    return models.fragment(now, chosen, _records(reconciler, now), reconciler.progress)


@router.get("/models/{name}")
def one_model(name: _Name, reconciler: _Reconciler, now: Now) -> str:
    """Return the page of a model."""
    change = _change(now, name)
    told = reconciler.answer("model", name)
    if told is None:
        raise Refused(404, f"no model {name}")
    return model.whole(now, change, told, reconciler.progress)


@router.get("/live/models/{name}")
def live_model(name: _Name, commit: _Commit, reconciler: _Reconciler, now: Now) -> str:
    """Return what changes of it; `commit` is the one that the page was made of."""
    return model.fragment(now, _change(now, name), commit, reconciler.progress)


@router.get("/models/{name}/diff")
def difference(
    name: _Name,
    reconciler: _Reconciler,
    now: Now,
    old: Annotated[str, Query(alias="from", pattern=links.COMMIT)],
    new: Annotated[str, Query(alias="to", pattern=links.COMMIT)],
) -> str:
    """Return what changed in a model between two commits."""
    told = reconciler.answer("difference", name, old, new) if now.view else None
    if told is None:
        raise Refused(404, "a commit is not one of the branch that is followed")
    return versions.difference(now, name, told)


@router.get("/models/{name}/plots/{file}")
def plot(
    name: _Name,
    file: Annotated[str, InPath(pattern=r"^[a-z][a-z-]{0,62}\.svg$")],
    reconciler: _Reconciler,
    now: Now,
) -> Response:
    """Return a plot of a model."""
    drawn = reconciler.answer("plots", name) if now.view else {}
    try:
        picture = Path(drawn[file]).read_bytes()
    except (KeyError, FileNotFoundError):  # another was drawn since it was looked up
        raise Refused(404, f"no plot {file} of {name}") from None
    return Response(picture, media_type="image/svg+xml")


@router.get("/ingredients")
def all_ingredients(reconciler: _Reconciler, now: Now, chosen: _Chosen) -> str:
    """Return the page of everything that models are made of."""
    view_of(now)
    return ingredients.whole(now, chosen, reconciler.answer("ingredients"))


def _ingredient(
    reconciler: Reconciler, now: Snapshot, kind: str, name: str, version: int | None = None
) -> str:
    view_of(now)
    told = reconciler.answer("ingredient", kind, name, str(version or ""))
    if told is None:
        label = name if version is None else f"{name}@{version}"
        raise Refused(404, f"no {kind} {label}")
    return ingredient.whole(now, told)


@router.get("/adapters/{name}/{version}")
def adapter(name: _Name, version: _Version, reconciler: _Reconciler, now: Now) -> str:
    """Return the page of an adapter."""
    return _ingredient(reconciler, now, "adapter", name, version)


@router.get("/checkpoints/{name}/{version}")
def checkpoint(name: _Name, version: _Version, reconciler: _Reconciler, now: Now) -> str:
    """Return the page of a checkpoint."""
    return _ingredient(reconciler, now, "checkpoint", name, version)


@router.get("/bases/{name}")
def base(name: _Name, reconciler: _Reconciler, now: Now) -> str:
    """Return the page of a base."""
    return _ingredient(reconciler, now, "base", name)


@router.get("/jobs")
def all_jobs(reconciler: _Reconciler, now: Now) -> str:
    """Return the page of all jobs."""
    return jobs.whole(now, reconciler.progress)


@router.get("/live/jobs")
def live_jobs(reconciler: _Reconciler, now: Now) -> str:
    """Return what changes of it."""
    return jobs.fragment(now, reconciler.progress)


@router.get("/jobs/{number}")
def one_job(number: _Number, reconciler: _Reconciler, now: Now) -> str:
    """Return the page of a job."""
    job = _job(now, number)
    return jobs.one(now, job, _log(reconciler, number), reconciler.progress)


@router.get("/live/jobs/{number}")
def live_job(number: _Number, reconciler: _Reconciler, now: Now) -> str:
    """Return what changes of it."""
    job = _job(now, number)
    return jobs.one_fragment(now, job, _log(reconciler, number), reconciler.progress)


@router.get("/static/live.js")
def script() -> Response:
    """Return the script, which only refreshes what is shown."""
    return Response(_script(), media_type="text/javascript; charset=utf-8")


@cache
def _script() -> bytes:
    return files("registry.service.pages").joinpath("live.js").read_bytes()
