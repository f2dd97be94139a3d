"""The routes: webhook, health, metrics, JSON API, page. Reads snapshots, asks the reconciler.

Routes that touch files are plain functions, which FastAPI runs on threads of its own; nothing here
waits for git or for a sync.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from registry.errors import RegistryError
from registry.service import access, answers, metrics, site
from registry.service.access import Scope, Secrets
from registry.service.reconciler import Reconciler
from registry.service.snapshot import Snapshot
from registry.service.view import View

BODY_BYTES = 5 << 20
"""Of a request: the largest push events are some megabytes."""

_CALM = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes work with."""

    reconciler: Reconciler
    secrets: Secrets
    version: str


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, error: str, hint: str = "", **headers: str) -> None:
        """Take the status, what is wrong, the cure, and headers with `_` for `-`."""
        super().__init__(error)
        self.status = status
        self.error = error
        self.hint = hint
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def create(service: Service) -> FastAPI:
    """Return the application."""
    app = FastAPI(
        title="merge-registry",
        version=service.version,
        description="The reconciler of a catalog of merged models. Times are seconds since 1970.",
        openapi_url="/api/v1/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        responses=_told(422),
    )
    app.state.service = service
    app.include_router(_open)
    app.include_router(_reading)
    app.include_router(_writing)
    app.include_router(site.router, dependencies=[Depends(_may_read)])
    app.add_exception_handler(Refused, _tell_refused)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(RegistryError, _tell_unread)
    app.add_exception_handler(Exception, _tell_bug)
    app.middleware("http")(_guard)
    return app


async def _guard(request: Request, call_next: Any) -> Response:
    """Refuse bodies that are too large or of unknown length; send nothing without our headers."""
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers:
        response = _error(411, "expected the header Content-Length", "send the body in one piece")
    elif not length.isdecimal() or int(length) > BODY_BYTES:
        response = _error(413, f"expected at most {BODY_BYTES} bytes", "")
    else:
        response = await call_next(request)
    for name, value in _CALM.items():
        response.headers.setdefault(name, value)
    return response


def _error(
    status: int, error: str, hint: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": error, "hint": hint}, status, dict(headers or {}))


_SEE = "see /api/v1/openapi.json"


def _tell(
    request: Request, status: int, error: str, hint: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as data, or as a page to a browser that asked for one."""
    is_page = site.is_for_people(request.url.path)
    if is_page and "text/html" in request.headers.get("accept", ""):
        advice = "" if hint == _SEE else hint
        return HTMLResponse(site.problem(request, error, advice), status, dict(headers or {}))
    return _error(status, error, hint, headers)


def _tell_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _tell(request, error.status, error.error, error.hint, error.headers)


def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    hint = _SEE if error.status_code in (400, 404, 405) else ""
    return _tell(request, error.status_code, str(error.detail), hint, error.headers)


def _tell_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    told = f"{place}: {first['msg']}".lower()
    return _tell(request, 422, told, _SEE)


def _tell_unread(request: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)
    return _tell(request, 503, error.message, error.hint)


def _tell_bug(request: Request, error: Exception) -> Response:
    told = f"a bug of ours: {type(error).__name__}"
    return _tell(request, 500, told, "the log of the service has more")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _now(request: Request) -> Snapshot:
    return _service(request).reconciler.snapshot


_bearer = HTTPBearer(auto_error=False, description="A token of the service: read or write.")


def _require(request: Request, wanted: Scope) -> None:
    headers = request.headers
    secrets = _service(request).secrets
    given = headers.get("authorization", "")
    found = access.scope(secrets, given, headers.get("host", ""))
    if found >= wanted:
        return
    if found is Scope.READ and given:
        raise Refused(403, "this token may only read", "use the write token")
    if wanted is Scope.WRITE and not secrets.write:
        raise Refused(403, "nobody may write", f"start the service with {access.WRITE_TOKEN} set")
    # A browser asks for a password for pages only.
    is_page = site.is_for_people(request.url.path)
    challenge = 'Basic realm="merge-registry"' if is_page else "Bearer"
    hint = "send the header Authorization: Bearer TOKEN"
    raise Refused(401, "expected a token of this service", hint, WWW_Authenticate=challenge)


def _may_read(request: Request, _: Annotated[Any, Depends(_bearer)]) -> None:
    _require(request, Scope.READ)


def _may_write(request: Request, _: Annotated[Any, Depends(_bearer)]) -> None:
    _require(request, Scope.WRITE)


def _told(*codes: int) -> dict[int | str, dict[str, Any]]:
    about = {
        400: "The body is no JSON.",
        401: "No token, or a wrong one.",
        403: "The token may not do that.",
        404: "There is no such thing.",
        409: "The service is suspended.",
        411: "The length of the body is not told.",
        413: "The body is too large.",
        422: "Not understood.",
        503: "Nothing is known yet, or another instance acts.",
    }
    # Not by `model`: a route that answers in text would be said to answer its errors in text too.
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {code: {"description": about[code], "content": content} for code in codes}


_open = APIRouter(tags=["open to all"])
_reading = APIRouter(tags=["reading"], dependencies=[Depends(_may_read)], responses=_told(401))
_writing = APIRouter(
    prefix="/api/v1",
    tags=["writing"],
    dependencies=[Depends(_may_write)],
    responses=_told(400, 401, 403, 411, 413, 503),
)

_Service = Annotated[Service, Depends(_service)]
_Now = Annotated[Snapshot, Depends(_now)]
_Model = Annotated[str, Path(pattern=answers.NAME, description="A model's name.")]
_Number = Annotated[int, Path(ge=1, le=2**53 - 1, description="A job's number.")]


@_open.get("/healthz")
async def healthz() -> answers.Health:
    """Say that the process answers."""
    return answers.Health(status="ok")


@_open.get("/readyz", responses={503: {"model": answers.Health, "description": "Not ready."}})
async def readyz(now: _Now, response: Response) -> answers.Health:
    """Say whether this instance acts and has read the branch."""
    if now.is_draining:
        status = "draining"
    elif not now.is_acting:
        status = "standby"
    else:
        status = "starting" if now.view is None else "ready"
    response.status_code = 200 if status == "ready" else 503
    return answers.Health(status=status)


@_open.post(
    "/webhook",
    status_code=202,
    responses={
        202: {"model": answers.Asked, "description": "The branch is looked at."},
        204: {"description": "Another event, or another branch."},
        # Here by `model`, so that the document has its schema.
        400: {"model": answers.Error, "description": "No event."},
        **_told(401, 411, 413),
    },
)
async def webhook(request: Request, service: _Service, now: _Now) -> Response:
    """Take a push event: GitHub's and Gitea's, signed (`X-Hub-Signature-256`), or GitLab's."""
    answer = await _webhook(request, service, now.branch)
    service.reconciler.count("webhook", str(answer.status_code))
    return answer


async def _webhook(request: Request, service: Service, branch: str) -> Response:
    body = await request.body()
    if not access.is_signed(service.secrets.webhook, request.headers, body):
        hint = f"the secret of the webhook is that of {access.WEBHOOK_SECRET}"
        return _error(401, "expected a signature by the secret of this service", hint)
    try:
        ref = access.pushed_ref(request.headers, body)
    except (ValueError, KeyError, TypeError, RecursionError):
        return _error(400, "expected a push event in JSON", "")
    if ref != f"refs/heads/{branch}":
        return Response(status_code=204)
    service.reconciler.ask("push")
    return JSONResponse({"asked": "look"}, 202)


@_reading.get("/metrics", response_class=PlainTextResponse)
def read_metrics(service: _Service, now: _Now) -> Response:
    """Return the metrics for Prometheus, in its text format."""
    return Response(metrics.text(now, service.version), media_type=metrics.CONTENT_TYPE)


@_reading.get("/api/v1/status")
def status(now: _Now) -> answers.Status:
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


def _view(now: Snapshot) -> View:
    if now.view is None:
        hint = "try again soon; /api/v1/status says what the service waits for"
        raise Refused(503, "nothing was read of the branch yet", hint)
    return now.view


def _model(now: Snapshot, model: str) -> dict[str, Any]:
    row = _view(now).rows.get(model)
    if row is None:
        raise Refused(404, f"no model {model}", "GET /api/v1/models names all")
    return {**row, "note": row["state"], "state": now.survey.standings[model].value}


@_reading.get("/api/v1/models", responses=_told(503))
def models(now: _Now) -> answers.Models:
    """Return all models, declared or recorded."""
    seen = _view(now)
    rows = [_model(now, model) for model in seen.rows]
    return answers.Models.model_validate({"commit": seen.commit, "models": rows})


@_reading.get("/api/v1/models/{model}", responses=_told(404, 503))
def one_model(model: _Model, now: _Now) -> answers.ModelDetail:
    """Return one model with its last ten attempts."""
    suspended = now.memory.suspended_models.get(model)
    more = {
        "commit": _view(now).commit,
        "suspended": asdict(suspended) if suspended else None,
        "attempts": [asdict(one) for one in now.memory.attempts.get(model, ())],
    }
    return answers.ModelDetail.model_validate(_model(now, model) | more)


@_reading.get("/api/v1/plan", responses=_told(503))
def read_plan(now: _Now) -> answers.Plan:
    """Return the plan: what a sync of everything would do."""
    seen = _view(now)
    return answers.Plan.model_validate({"commit": seen.commit, **seen.plan.as_data()})


@_reading.get("/api/v1/lineage/{model}", responses=_told(404, 503))
def lineage(model: _Model, service: _Service, now: _Now) -> answers.Lineage:
    """Return the ingredients of a model at any depth, with sign and weight."""
    commit = _view(now).commit
    data = service.reconciler.answer("lineage", model)
    if data is None:
        raise Refused(404, f"no model {model}", "GET /api/v1/models names all")
    return answers.Lineage(commit=commit, model=data)


@_reading.get("/api/v1/impact/{kind}/{name}", responses=_told(404, 503))
def impact(
    kind: answers.IngredientKind,
    name: Annotated[str, Path(pattern=answers.NAME, description="The ingredient's name.")],
    service: _Service,
    now: _Now,
    version: Annotated[int | None, Query(ge=1, le=2**53 - 1)] = None,
) -> answers.Impact:
    """Return every model that contains an ingredient, at any depth; of any version without one."""
    commit = _view(now).commit
    found = service.reconciler.answer("impact", kind, name, str(version or ""))
    return answers.Impact.model_validate({"commit": commit, "models": found})


@_reading.get("/api/v1/jobs")
def jobs(now: _Now) -> answers.Jobs:
    """Return the jobs that are remembered, the newest first."""
    rows = [{**job.as_data(), "results": []} for job in now.jobs]
    return answers.Jobs.model_validate({"jobs": rows})


@_reading.get("/api/v1/jobs/{number}", responses=_told(404))
def one_job(number: _Number, now: _Now) -> answers.Job:
    """Return one job with what became of each model."""
    for job in now.jobs:
        if job.id == number:
            return answers.Job.model_validate(job.as_data())
    raise Refused(404, f"no job {number}", "GET /api/v1/jobs names all that are remembered")


@_reading.get("/api/v1/jobs/{number}/log", response_class=PlainTextResponse, responses=_told(404))
def job_log(number: _Number, service: _Service) -> Response:
    """Return the log of a job, as far as it is written."""
    log = service.reconciler.log(number)
    if log is None:
        raise Refused(404, f"no job {number}", "GET /api/v1/jobs names all that are remembered")
    return PlainTextResponse(log.decode(errors="replace"))


def _known(now: Snapshot, model: str | None) -> None:
    """Refuse what only the acting instance can do, and models that nobody declares."""
    seen = _view(now)
    if model is not None and model not in seen.rows:
        raise Refused(404, f"no model {model}", "GET /api/v1/models names all")


@_writing.post("/sync", status_code=202, responses=_told(404, 409))
def sync(body: answers.SyncBody, service: _Service, now: _Now) -> answers.Asked:
    """Look and sync now. What failed of these models, or of all, is tried again."""
    _view(now)
    for model in body.models:
        _known(now, model)
    if now.memory.suspended:
        raise Refused(409, "the service is suspended", "POST /api/v1/resume")
    service.reconciler.sync(body.models)
    return answers.Asked(asked="sync")


@_writing.post("/suspend", responses=_told(404))
def suspend(body: answers.SuspendBody, service: _Service, now: _Now) -> answers.Asked:
    """Leave a model, or everything, alone until it is resumed. A running sync goes on."""
    _known(now, body.model)
    service.reconciler.suspend(body.model, body.reason)
    return answers.Asked(asked="suspend")


@_writing.post("/resume", responses=_told(404))
def resume(body: answers.ResumeBody, service: _Service, now: _Now) -> answers.Asked:
    """Go on with a model, or with everything: follow a rewritten branch, try after a bug."""
    if not now.is_acting:
        raise Refused(503, "another instance acts", "ask that one")
    if body.model is not None and body.model not in now.memory.suspended_models:
        raise Refused(404, f"model {body.model} is not suspended", "GET /api/v1/models")
    service.reconciler.resume(body.model)
    return answers.Asked(asked="resume")
