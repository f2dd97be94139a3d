"""What every route works with: the service, the snapshot, who may do what, how errors are told.

Knows no route.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer

from registry.service import access, links
from registry.service.access import Scope, Secrets
from registry.service.reconciler import Reconciler
from registry.service.snapshot import Snapshot
from registry.service.view import View

CALM = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
"""Headers of every answer."""


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


def error(
    status: int, what: str, hint: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return the answer that tells an error."""
    return JSONResponse({"error": what, "hint": hint}, status, {**CALM, **(headers or {})})


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
    is_page = links.is_for_people(request.url.path)
    challenge = 'Basic realm="merge-registry"' if is_page else "Bearer"
    hint = "send the header Authorization: Bearer TOKEN"
    raise Refused(401, "expected a token of this service", hint, WWW_Authenticate=challenge)


def may_read(request: Request, _: Annotated[Any, Depends(_bearer)]) -> None:
    """Refuse who may not read."""
    _require(request, Scope.READ)


def may_write(request: Request, _: Annotated[Any, Depends(_bearer)]) -> None:
    """Refuse who may not write."""
    _require(request, Scope.WRITE)


def told(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of errors."""
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


ServiceOf = Annotated[Service, Depends(_service)]
Now = Annotated[Snapshot, Depends(_now)]


def view_of(now: Snapshot) -> View:
    """Return the view; refused while there is none."""
    if now.view is None:
        hint = "try again soon; /api/v1/status says what the service waits for"
        raise Refused(503, "nothing was read of the branch yet", hint)
    return now.view
