"""Who may do what at the service, and where it keeps what it has."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import os
from pathlib import Path

import pytest

from registry.errors import RegistryError, UsageError
from registry.service import access, jobs, place, reading
from registry.service.access import Scope, Secrets

SET = Secrets("reader", "writer", "hook")
OPEN = Secrets()


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"me:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("secrets", "authorization", "host", "scope"),
    [
        (SET, "Bearer reader", "x", Scope.READ),
        (SET, "bearer writer", "x", Scope.WRITE),
        (SET, "Bearer reader2", "x", Scope.NOTHING),
        (SET, "Bearer ", "127.0.0.1", Scope.NOTHING),
        (SET, "Bearer \u00e4\ud800", "x", Scope.NOTHING),
        (SET, "", "127.0.0.1:8400", Scope.NOTHING),
        # A browser sends it to whatever page asks: never enough to write.
        (SET, basic("writer"), "x", Scope.READ),
        (SET, basic("wrong"), "x", Scope.NOTHING),
        (SET, "Basic !!", "x", Scope.NOTHING),
        (Secrets(read="reader"), "Bearer ", "x", Scope.NOTHING),
        (OPEN, "", "127.0.0.1:8400", Scope.READ),
        (OPEN, "", "localhost", Scope.READ),
        (OPEN, "", "[::1]:8400", Scope.READ),
        (OPEN, "Bearer anything", "localhost", Scope.READ),
        # A page elsewhere whose name was pointed at this machine.
        (OPEN, "", "rebound.example.org:8400", Scope.NOTHING),
        (OPEN, "", "", Scope.NOTHING),
    ],
)
def test_a_caller_may_do_what_its_token_says(
    secrets: Secrets, authorization: str, host: str, scope: Scope
) -> None:
    assert access.scope(secrets, authorization, host) is scope


def test_others_are_let_in_only_with_tokens() -> None:
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        access.require_safe(host, OPEN)
    access.require_safe("0.0.0.0", SET)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(RegistryError, match="expected tokens for a service that others reach"):
            access.require_safe(host, OPEN)
    with pytest.raises(UsageError, match="expected two tokens, found the same"):
        access.secrets_of({"REGISTRY_READ_TOKEN": "x", "REGISTRY_WRITE_TOKEN": "x "})


def test_secrets_are_not_shown_and_not_given_to_children() -> None:
    environment = {"REGISTRY_READ_TOKEN": "r", "REGISTRY_WEBHOOK_SECRET": "h", "PATH": "p"}

    assert "r" not in repr(access.secrets_of(environment)).removeprefix("Secrets")
    assert access.without_secrets(environment) == {"PATH": "p"}


def test_a_webhook_is_signed_by_who_knows_the_secret() -> None:
    body = b'{"ref": "refs/heads/main"}'
    # The example of GitHub's own documentation.
    known = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret = "It's a Secret to Everybody"

    assert access.is_signed(secret, {"x-hub-signature-256": f"sha256={known}"}, b"Hello, World!")
    assert not access.is_signed(secret, {"x-hub-signature-256": f"sha256={known}"}, body)
    assert not access.is_signed(secret, {"x-hub-signature-256": known}, b"Hello, World!")
    assert access.is_signed("hook", {"x-gitlab-token": "hook"}, body)
    assert not access.is_signed("hook", {"x-gitlab-token": "hook2"}, body)
    assert not access.is_signed("hook", {}, body)
    empty = hmac.new(b"", body, hashlib.sha256).hexdigest()
    assert not access.is_signed("", {"x-hub-signature-256": f"sha256={empty}"}, body)
    assert not access.is_signed("", {"x-gitlab-token": ""}, body)


def test_only_a_push_event_names_a_ref() -> None:
    github, gitlab = {"x-github-event": "push"}, {"x-gitlab-event": "Push Hook"}
    form = {**github, "content-type": "application/x-www-form-urlencoded"}

    assert access.pushed_ref(github, b'{"ref": "refs/heads/x"}') == "refs/heads/x"
    assert access.pushed_ref(gitlab, b'{"ref": "refs/heads/x"}') == "refs/heads/x"
    assert access.pushed_ref(form, b"payload=%7B%22ref%22%3A%22r%22%7D") == "r"
    assert access.pushed_ref({"x-github-event": "ping"}, b"{}") is None
    assert access.pushed_ref(github, b'{"ref": 1}') is None
    for body in (b"{}", b"[]", b"not json", b"\xff"):
        with pytest.raises((ValueError, KeyError, TypeError)):
            access.pushed_ref(github, body)


def test_a_place_is_made_once_and_found_again(tmp_path: Path) -> None:
    (tmp_path / "repo").mkdir()

    made = place.claim(tmp_path / "new", "repo", None, tmp_path)
    found = place.claim(tmp_path / "new", None, None, tmp_path)

    assert made == found
    assert (made.repository, made.branch) == (str(tmp_path / "repo"), "main")
    with pytest.raises(UsageError, match="follows the branch main, not other"):
        place.claim(tmp_path / "new", None, "other", tmp_path)
    with pytest.raises(UsageError, match="follows the repository"):
        place.claim(tmp_path / "new", "https://example.org/x.git", None, tmp_path)


def test_a_folder_that_somebody_else_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/notes.txt").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/merge-registry-service.json").write_text("[]")
    (tmp_path / "file").write_text("")

    for name, message in (
        ("theirs", "is not empty, and no service made it"),
        ("broken", "expected the mark of a service"),
        ("file", "not a directory"),
    ):
        with pytest.raises(RegistryError, match=message):
            place.claim(tmp_path / name, str(tmp_path), None, tmp_path)
    with pytest.raises(UsageError, match="expected a repository to follow"):
        place.claim(tmp_path / "new", None, None, tmp_path)
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == ["notes.txt"]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://me:secret@example.org/x.git", "carries a password"),
        ("--upload-pack=touch x", "expected the address of a repository"),
        ("-o:x", "expected the address of a repository"),
        ("absent", "expected the address of a repository or a folder, found absent"),
        ("https://[::1/x", "expected the address of a repository"),
    ],
)
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        place.claim(tmp_path / "new", address, None, tmp_path)

    assert "secret" not in str(refused.value) + refused.value.hint


@pytest.mark.parametrize(
    ("code", "has_results", "outcome"),
    [
        (0, True, "done"),
        (1, True, "failed"),
        (1, False, "refused"),
        (64, False, "refused"),
        (70, False, "bug"),
        (75, True, "later"),
        (143, False, "interrupted"),
        (-15, False, "interrupted"),
        (-9, False, "died"),
    ],
)
def test_every_exit_code_is_an_outcome(code: int, has_results: bool, outcome: str) -> None:
    assert jobs.outcome(code, has_results=has_results) == outcome


@pytest.mark.parametrize("size", [0, 10, 100, 101, 5000])
def test_a_log_keeps_its_start_and_its_end(tmp_path: Path, size: int) -> None:
    told = bytes(65 + number % 26 for number in range(size))
    log = io.BytesIO()
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as out, os.fdopen(reading, "rb") as source:
        out.write(told)
        out.close()
        jobs.keep(source, log, 100)

    if size <= 100:
        assert log.getvalue() == told
    else:
        middle = f"\n… {size - 100} bytes left out …\n".encode()
        assert log.getvalue() == told[:50] + middle + told[-50:]


def test_what_json_does_not_have_becomes_nothing() -> None:
    data = {"a": float("nan"), "b": [1.5, float("inf")], "c": {"d": -float("inf")}}

    assert json.dumps(reading._finite(data), allow_nan=False) == (
        '{"a": null, "b": [1.5, null], "c": {"d": null}}'
    )
