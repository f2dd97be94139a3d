"""The service's own directory: a mark that it is ours, the clone, the jobs, the memory, the lock.

Nothing is ever reset in a folder that somebody else made: the mark is what tells.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from registry import keys
from registry.errors import RegistryError, UsageError

_FORMAT_VERSION = 1
_MARK = "merge-registry-service.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service keeps what it has, and what it follows."""

    folder: Path
    repository: str
    branch: str

    @property
    def clone(self) -> Path:
        """The service's own clone."""
        return self.folder / "clone"

    @property
    def jobs(self) -> Path:
        """The folder of the jobs and their logs."""
        return self.folder / "jobs"

    @property
    def memory(self) -> Path:
        """The file of what outlives a restart."""
        return self.folder / "memory.json"

    @property
    def lock(self) -> Path:
        """The file that the acting instance holds."""
        return self.folder / "lock"


def claim(folder: Path, repository: str | None, branch: str | None, start: Path) -> Place:
    """Return the place in a folder: made if it is absent or empty, else as its mark has it.

    A path of a repository is taken from `start`. Raises RegistryError for a folder that the service
    did not make, or that follows something else.
    """
    found = _read_mark(folder)
    wanted = _address(repository, start) if repository else None
    if found is None:
        _require_empty(folder)
        if wanted is None:
            msg = f"{folder} follows nothing yet: expected a repository to follow"
            raise UsageError(msg, "pass --repository URL at the first start")
        found = {"repository": wanted, "branch": branch or "main"}
        data = json.dumps({"format_version": _FORMAT_VERSION, **found}, indent=1) + "\n"
        _write_mark(folder, data)
    for name, asked in (("repository", wanted), ("branch", branch)):
        if asked is not None and asked != found[name]:
            msg = f"{folder} follows the {name} {found[name]}, not {asked}"
            raise UsageError(msg, "pass another --directory")
    return Place(folder.absolute(), found["repository"], found["branch"])


def _read_mark(folder: Path) -> dict[str, str] | None:
    path = folder / _MARK
    try:
        data = json.loads(path.read_bytes())
        known = {name: str(data[name]) for name in ("repository", "branch")}
        return known if data["format_version"] == _FORMAT_VERSION else _other(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return _other(path)


def _other(path: Path) -> NoReturn:
    msg = f"{path}: expected the mark of a service, found something else"
    raise RegistryError(msg, "pass another --directory")


def _require_empty(folder: Path) -> None:
    try:
        is_taken = any(folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        msg = f"{folder}: {(error.strerror or str(error)).lower()}"
        raise UsageError(msg, "pass another --directory") from error
    if is_taken:
        msg = f"{folder} is not empty, and no service made it"
        raise UsageError(msg, "pass a new --directory: the service resets what it finds there")


def _write_mark(folder: Path, data: str) -> None:
    try:
        keys.replace_file(folder / _MARK, data.encode())
    except OSError as error:
        msg = f"cannot write to {folder}: {(error.strerror or str(error)).lower()}"
        raise RegistryError(msg, "pass another --directory") from error


def _address(repository: str, start: Path) -> str:
    """Return the address of a repository, of a folder the absolute path."""
    if "://" in repository:
        _refuse_password(repository)
        return repository
    if (start / repository).exists():
        return str((start / repository).resolve())
    if ":" in repository.partition("/")[0] and not repository.startswith("-"):
        return repository  # host:path, as ssh has it
    msg = f"expected the address of a repository or a folder, found {repository}"
    raise UsageError(msg, "give it as git clone takes it: https://…, git@host:path or a path")


def _refuse_password(address: str) -> None:
    try:
        has_password = urlsplit(address).password is not None
    except ValueError as error:
        msg = f"expected the address of a repository, found {address}"
        raise UsageError(msg) from error
    if has_password:
        msg = "the address of the repository carries a password"
        hint = "give it by a credential helper or GIT_ASKPASS: others see what stands in a command"
        raise UsageError(msg, hint)
