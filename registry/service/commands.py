"""The routes that ask for something: sync, suspend, resume. Each needs the write token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends

from registry.service import answers
from registry.service.guard import Now, Refused, ServiceOf, may_write, told, view_of
from registry.service.snapshot import Snapshot

writing = APIRouter(
    prefix="/api/v1",
    tags=["writing"],
    dependencies=[Depends(may_write)],
    responses=told(400, 401, 403, 411, 413, 503),
)

_Sync = Annotated[answers.SyncBody, Body(default_factory=answers.SyncBody)]
_Resume = Annotated[answers.ResumeBody, Body(default_factory=answers.ResumeBody)]


def _known(now: Snapshot, model: str | None) -> None:
    """Refuse what only the acting instance can do, and models that nobody declares."""
    seen = view_of(now)
    if model is not None and model not in seen.rows:
        raise Refused(404, f"no model {model}", "GET /api/v1/models names all")


@writing.post("/sync", status_code=202, responses=told(404, 409))
def sync(body: _Sync, service: ServiceOf, now: Now) -> answers.Asked:
    """Look and sync now. What failed of these models, or of all, is tried again."""
    view_of(now)
    for model in body.models:
        _known(now, model)
    if now.memory.suspended:
        raise Refused(409, "the service is suspended", "POST /api/v1/resume")
    service.reconciler.sync(body.models)
    return answers.Asked(asked="sync")


@writing.post("/suspend", responses=told(404))
def suspend(body: answers.SuspendBody, service: ServiceOf, now: Now) -> answers.Asked:
    """Leave a model, or everything, alone until it is resumed. A running sync goes on."""
    _known(now, body.model)
    service.reconciler.suspend(body.model, body.reason)
    return answers.Asked(asked="suspend")


@writing.post("/resume", responses=told(404))
def resume(body: _Resume, service: ServiceOf, now: Now) -> answers.Asked:
    """Go on with a model, or with everything: follow a rewritten branch, try after a bug."""
    if not now.is_acting:
        raise Refused(503, "another instance acts", "ask that one")
    if body.model is not None and body.model not in now.memory.suspended_models:
        raise Refused(404, f"model {body.model} is not suspended", "GET /api/v1/models")
    service.reconciler.resume(body.model)
    return answers.Asked(asked="resume")
