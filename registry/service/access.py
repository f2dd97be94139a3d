"""Who may do what: bearer tokens, signatures of webhooks, addresses. Pure, in constant time.

Without any token, reading is open on this machine only and writing is refused: any page in a
browser here may post to this machine's addresses.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from urllib.parse import parse_qs

from registry.errors import RegistryError, UsageError

READ_TOKEN = "REGISTRY_READ_TOKEN"  # noqa: S105  names of variables
WRITE_TOKEN = "REGISTRY_WRITE_TOKEN"  # noqa: S105
WEBHOOK_SECRET = "REGISTRY_WEBHOOK_SECRET"  # noqa: S105


class Scope(IntEnum):
    """What a caller may do; each includes those before it."""

    NOTHING = 0
    READ = 1
    WRITE = 2


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the environment gives; empty means none. Never shown."""

    read: str = ""
    write: str = ""
    webhook: str = ""

    @property
    def has_token(self) -> bool:
        """Whether any token is set, so that reading needs one."""
        return bool(self.read or self.write)

    def __repr__(self) -> str:
        return "Secrets(…)"


def secrets_of(environment: Mapping[str, str]) -> Secrets:
    """Return the secrets of an environment; UsageError if reading would be writing."""
    names = (READ_TOKEN, WRITE_TOKEN, WEBHOOK_SECRET)
    read, write, webhook = (environment.get(name, "").strip() for name in names)
    if read and read == write:
        msg = f"expected two tokens, found the same in {READ_TOKEN} and {WRITE_TOKEN}"
        raise UsageError(msg, "whoever may read could write")
    return Secrets(read, write, webhook)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for children, which need none of them."""
    ours = (READ_TOKEN, WRITE_TOKEN, WEBHOOK_SECRET)
    return {name: value for name, value in environment.items() if name not in ours}


def require_safe(host: str, secrets: Secrets) -> None:
    """Raise RegistryError if others would reach the service and nothing keeps them out."""
    if not is_loopback(host) and not secrets.has_token:
        msg = f"expected tokens for a service that others reach at {host}, found none"
        hint = f"set {READ_TOKEN} and {WRITE_TOKEN}, or bind to 127.0.0.1"
        raise RegistryError(msg, hint)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_local_name(header: str) -> bool:
    """Return whether a Host header names this machine: another name is a page that was rebound."""
    name = header[: header.index("]") + 1] if "]" in header else header.partition(":")[0]
    return is_loopback(name)


def scope(secrets: Secrets, authorization: str, host: str) -> Scope:
    """Return what a caller may do by the headers Authorization and Host.

    A browser sends a password to whatever page asks, so a token as a password may only read.
    """
    kind, _, given = authorization.partition(" ")
    if kind.lower() == "basic":
        return min(Scope.READ, _of_token(secrets, _password(given)))
    if kind.lower() == "bearer" and (found := _of_token(secrets, given.strip())):
        return found
    is_open = not secrets.has_token and is_local_name(host)
    return Scope.READ if is_open else Scope.NOTHING


def _of_token(secrets: Secrets, given: str) -> Scope:
    if secrets.write and _is_same(given, secrets.write):
        return Scope.WRITE
    return Scope.READ if secrets.read and _is_same(given, secrets.read) else Scope.NOTHING


def _password(given: str) -> str:
    try:
        text = base64.b64decode(given, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    return text.partition(":")[2]


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode())


def is_signed(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether a webhook comes from who knows the secret; `headers` have lower-case names.

    GitHub and Gitea sign the body, GitLab sends the secret itself. Without a secret nobody does.
    """
    if not secret:
        return False
    if signature := headers.get("x-hub-signature-256", ""):
        expected = "sha256=" + hmac.new(secret.encode(), body, sha256).hexdigest()
        return _is_same(signature, expected)
    return _is_same(headers.get("x-gitlab-token", ""), secret)


def pushed_ref(headers: Mapping[str, str], body: bytes) -> str | None:
    """Return the ref that a push event names, None for another event. ValueError if it is none."""
    event = headers.get("x-github-event") or headers.get("x-gitlab-event", "")
    if event not in ("push", "Push Hook"):
        return None
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        body = parse_qs(body.decode())["payload"][0].encode()
    ref = json.loads(body)["ref"]
    return ref if isinstance(ref, str) else None
