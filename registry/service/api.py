"""The application: its routes, what no request may be, and how errors are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from registry.errors import RegistryError
from registry.service import links, site
from registry.service.commands import writing
from registry.service.guard import CALM, Refused, Service, told
from registry.service.guard import error as told_error
from registry.service.routes import open_to_all, reading

BODY_BYTES = 5 << 20
"""Of a request: the largest push events are some megabytes."""


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
        responses=told(422),
    )
    app.state.service = service
    app.include_router(open_to_all)
    app.include_router(reading)
    app.include_router(writing)
    app.include_router(site.router)
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
        response = told_error(
            411, "expected the header Content-Length", "send the body in one piece"
        )
    elif not length.isdecimal() or len(length) > 15 or int(length) > BODY_BYTES:
        response = told_error(413, f"expected at most {BODY_BYTES} bytes", "")
    else:
        response = await call_next(request)
    for name, value in CALM.items():
        response.headers.setdefault(name, value)
    return response


_SEE = "see /api/v1/openapi.json"


def _tell(
    request: Request, status: int, what: str, hint: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error as data, or as a page to a browser that asked for one."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if not wants_page or not links.is_for_people(request.url.path):
        return told_error(status, what, hint, headers)
    html = site.problem(request, what, "" if hint == _SEE else hint)
    return HTMLResponse(html, status, {**CALM, **(headers or {})})


def _tell_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _tell(request, error.status, error.error, error.hint, error.headers)


def _tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    hint = _SEE if error.status_code in (400, 404, 405) else ""
    return _tell(request, error.status_code, str(error.detail).lower(), hint, error.headers)


def _tell_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return _tell(request, 422, f"{place}: {first['msg']}".lower(), _SEE)


def _tell_unread(request: Request, error: Exception) -> Response:
    assert isinstance(error, RegistryError)
    return _tell(request, 503, error.message, error.hint)


def _tell_bug(request: Request, error: Exception) -> Response:
    what = f"a bug of ours: {type(error).__name__}"
    return _tell(request, 500, what, "the log of the service has more")
