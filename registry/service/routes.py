"""The routes that change nothing: health, webhook, metrics, status, models, jobs.

Routes that touch files or ask a child are plain functions, which FastAPI runs on threads of their
own; nothing here waits for git or for a sync.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from registry.service import access, answers, links, metrics
from registry.service.guard import (
    Now,
    Refused,
    Service,
    ServiceOf,
    error,
    may_read,
    told,
    view_of,
)
from registry.service.snapshot import Snapshot

open_to_all = APIRouter(tags=["open to all"])
reading = APIRouter(tags=["reading"], dependencies=[Depends(may_read)], responses=told(401))

_Model = Annotated[str, Path(pattern=links.NAME, description="A model's name.")]
_Number = Annotated[int, Path(ge=1, le=2**53 - 1, description="A job's number.")]


@open_to_all.get("/healthz")
async def healthz() -> answers.Health:
    """Say that the process answers."""
    return answers.Health(status="ok")


@open_to_all.get("/readyz", responses={503: {"model": answers.Health, "description": "Not ready."}})
async def readyz(now: Now, response: Response) -> answers.Health:
    """Say whether this instance acts and has read the branch."""
    if now.is_draining:
        status = "draining"
    elif not now.is_acting:
        status = "standby"
    else:
        status = "starting" if now.view is None else "ready"
    response.status_code = 200 if status == "ready" else 503
    return answers.Health(status=status)


@open_to_all.post(
    "/webhook",
    status_code=202,
    responses={
        202: {"model": answers.Asked, "description": "The branch is looked at."},
        204: {"description": "Another event, or another branch."},
        # Here by `model`, so that the document has its schema.
        400: {"model": answers.Error, "description": "No event."},
        **told(401, 411, 413),
    },
)
async def webhook(request: Request, service: ServiceOf, now: Now) -> Response:
    """Take a push event: GitHub's and Gitea's, signed (`X-Hub-Signature-256`), or GitLab's."""
    answer = await _webhook(request, service, now.branch)
    service.reconciler.count("webhook", str(answer.status_code))
    return answer


async def _webhook(request: Request, service: Service, branch: str) -> Response:
    body = await request.body()
    if not access.is_signed(service.secrets.webhook, request.headers, body):
        hint = f"the secret of the webhook is that of {access.WEBHOOK_SECRET}"
        return error(401, "expected a signature by the secret of this service", hint)
    try:
        ref = access.pushed_ref(request.headers, body)
    except (ValueError, KeyError, TypeError, RecursionError):
        return error(400, "expected a push event in JSON", "")
    if ref != f"refs/heads/{branch}":
        return Response(status_code=204)
    service.reconciler.ask("push")
    return JSONResponse({"asked": "look"}, 202)


@reading.get("/metrics", response_class=PlainTextResponse)
def read_metrics(service: ServiceOf, now: Now) -> Response:
    """Return the metrics for Prometheus, in its text format."""
    return Response(metrics.text(now, service.version), media_type=metrics.CONTENT_TYPE)


@reading.get("/api/v1/status")
def status(now: Now) -> answers.Status:
    """Return how the service stands: conditions, commits, what is suspended."""
    counts: dict[str, int] = {}
    for standing in now.survey.standings.values():
        counts[standing.value] = counts.get(standing.value, 0) + 1
    data = {
        "repository": now.repository,
        "branch": now.branch,
        "observed_commit": now.view.commit if now.view else None,
        "seen_commit": now.seen,
        "looked_at": now.looked_at,
        "synced_at": now.memory.synced_at,
        "conditions": [asdict(one) for one in now.memory.conditions],
        "suspended": asdict(now.memory.suspended) if now.memory.suspended else None,
        "unreachable": asdict(now.unreachable) if now.unreachable else None,
        "models": counts,
        "job": now.job.id if now.job else None,
    }
    return answers.Status.model_validate(data)


def _model(now: Snapshot, model: str) -> dict[str, Any]:
    row = view_of(now).rows.get(model)
    if row is None:
        raise Refused(404, f"no model {model}", "GET /api/v1/models names all")
    return {**row, "note": row["state"], "state": now.survey.standings[model].value}


@reading.get("/api/v1/models", responses=told(503))
def models(now: Now) -> answers.Models:
    """Return all models, declared or recorded."""
    seen = view_of(now)
    rows = [_model(now, model) for model in seen.rows]
    return answers.Models.model_validate({"commit": seen.commit, "models": rows})


@reading.get("/api/v1/models/{model}", responses=told(404, 503))
def one_model(model: _Model, now: Now) -> answers.ModelDetail:
    """Return one model with its last ten attempts."""
    suspended = now.memory.suspended_models.get(model)
    more = {
        "commit": view_of(now).commit,
        "suspended": asdict(suspended) if suspended else None,
        "attempts": [asdict(one) for one in now.memory.attempts.get(model, ())],
    }
    return answers.ModelDetail.model_validate(_model(now, model) | more)


@reading.get("/api/v1/plan", responses=told(503))
def read_plan(now: Now) -> answers.Plan:
    """Return the plan: what a sync of everything would do."""
    seen = view_of(now)
    return answers.Plan.model_validate({"commit": seen.commit, **seen.plan.as_data()})


@reading.get("/api/v1/lineage/{model}", responses=told(404, 503))
def lineage(model: _Model, service: ServiceOf, now: Now) -> answers.Lineage:
    """Return the ingredients of a model at any depth, with sign and weight."""
    commit = view_of(now).commit
    data = service.reconciler.answer("lineage", model)
    if data is None:
        raise Refused(404, f"no model {model}", "GET /api/v1/models names all")
    return answers.Lineage(commit=commit, model=data)


@reading.get("/api/v1/ingredients", responses=told(503))
def ingredients(service: ServiceOf, now: Now) -> answers.Ingredients:
    """Return every base, adapter and checkpoint, and how many models contain it."""
    commit = view_of(now).commit
    found = service.reconciler.answer("ingredients")
    return answers.Ingredients.model_validate({"commit": commit, **found})


@reading.get("/api/v1/impact/{kind}/{name}", responses=told(404, 503))
def impact(
    kind: answers.IngredientKind,
    name: Annotated[str, Path(pattern=links.NAME, description="The ingredient's name.")],
    service: ServiceOf,
    now: Now,
    version: Annotated[int | None, Query(ge=1, le=2**53 - 1)] = None,
) -> answers.Impact:
    """Return every model that contains an ingredient, at any depth; of any version without one."""
    commit = view_of(now).commit
    found = service.reconciler.answer("impact", kind, name, str(version or ""))
    if found is None:
        raise Refused(
            404, f"no {kind} {name}", "GET /api/v1/ingredients and /api/v1/models name all"
        )
    return answers.Impact.model_validate({"commit": commit, **found})


@reading.get("/api/v1/jobs")
def jobs(now: Now) -> answers.Jobs:
    """Return the jobs that are remembered, the newest first."""
    rows = [{**job.as_data(), "results": []} for job in now.jobs]
    return answers.Jobs.model_validate({"jobs": rows})


@reading.get("/api/v1/jobs/{number}", responses=told(404))
def one_job(number: _Number, now: Now) -> answers.Job:
    """Return one job with what became of each model."""
    for job in now.jobs:
        if job.id == number:
            return answers.Job.model_validate(job.as_data())
    raise Refused(404, f"no job {number}", "GET /api/v1/jobs names all that are remembered")


@reading.get("/api/v1/jobs/{number}/log", response_class=PlainTextResponse, responses=told(404))
def job_log(number: _Number, service: ServiceOf) -> Response:
    """Return the log of a job, as far as it is written."""
    log = service.reconciler.log(number)
    if log is None:
        raise Refused(404, f"no job {number}", "GET /api/v1/jobs names all that are remembered")
    return PlainTextResponse(log.decode(errors="replace"))
