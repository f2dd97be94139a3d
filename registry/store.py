"""Artifact bytes beyond this machine: fetched from and pushed to DVC remotes; the only user of DVC.

Importing DVC takes 0.5 s, so it happens inside the functions that need it. An object is moved
by DVC's file systems, but never trusted: its sha256 is verified on each way. Knows no spec and no
plan.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import dvc_config, keys, objects, provenance
from registry.errors import NotNow, RegistryError, VerificationFailed
from registry.keys import Artifact
from registry.local_store import LocalStore

LOCK_SECONDS = 60.0
"""How long to wait for a lock that a person's own `dvc` may hold; DVC itself waits for 3 s."""

_SECRET = re.compile(r"(?<=//)[^/\s@]+@")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Remote:
    """A DVC remote opened for work: its file system, and the folder there."""

    name: str
    id: str
    odb: Any
    fs: Any
    path: str

    def index(self, key: str) -> str:
        """Return where the index entry of a build key lies."""
        return self.place(keys.relative_path(key))

    def place(self, path: str) -> str:
        """Return where something of ours lies."""
        joined: str = self.fs.join(self.path, *path.split("/"))
        return joined

    def put(self, file: Path, path: str) -> None:
        """Send a file of ours there."""
        self.fs.makedirs(self.fs.parent(self.place(path)))
        self.fs.put_file(str(file), self.place(path))

    def object(self, oid: str) -> str:
        """Return where an object lies."""
        path: str = self.odb.oid_to_path(oid)
        return path


class Store(LocalStore):
    """The content store of one repository: DVC's cache, our index beside it, and one remote."""

    def __init__(self, root: Path, remote: str | None = None) -> None:
        """Take the repository's root, and the name of the remote for builds if one is set."""
        super().__init__(root, remote)
        self._remote = remote or dvc_config.default_remote(root)

    def find_remote_key(self, key: str) -> Artifact | None:
        """Return what the remote has under a build key; None without remote or entry.

        Raises NotNow if the remote cannot be reached.
        """
        if self._remote is None:
            return None
        with self._opened(self._remote) as remote:
            try:
                data = json.loads(remote.fs.cat_file(remote.index(key)))
            except (FileNotFoundError, ValueError):
                return None
        return keys.parse(data, key)

    def fetch(self, artifact: Artifact) -> bool:
        """Bring missing objects from the remote; return whether all are here afterwards.

        Nothing enters the cache before its sha256 was verified. Raises NotNow if the remote is
        configured and down.
        """
        missing = set(self.verify(artifact, deep=False)) & set(artifact.files)
        if missing and self._remote is None:
            return False
        arrived = self.staging()
        try:
            if missing and not self._download(artifact, missing, arrived):
                return False
            with objects.writing(artifact.size, self.cache):
                self._enter(artifact, arrived, missing)
        finally:
            shutil.rmtree(arrived, ignore_errors=True)
        return True

    def fetch_provenance(self, artifact: Artifact) -> None:
        """Bring the provenance of a fetched artifact, if the remote has one that fits it."""
        assert self._remote is not None, "the artifact came from there"
        path = keys.provenance_path(artifact.key)
        with self._opened(self._remote) as remote:
            try:
                content: bytes = remote.fs.cat_file(remote.place(path))
            except FileNotFoundError:
                return
        files = {name: file.sha256 for name, file in artifact.files.items()}
        if wrong := provenance.misfit(content, files, artifact.key):
            _log.warning("the provenance of %s in the remote does not fit: %s", artifact.key, wrong)
            return
        with objects.writing(len(content), self.cache):
            keys.replace_file(self.cache / path, content)

    def _download(self, artifact: Artifact, paths: set[str], folder: Path) -> bool:
        assert self._remote is not None
        size = sum(artifact.files[path].size for path in paths)
        with self._opened(self._remote) as remote, objects.room(size, self.cache):
            for path in sorted(paths):
                file = artifact.files[path]
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                try:
                    remote.fs.get_file(remote.object(file.md5), str(folder / path))
                except FileNotFoundError:
                    return False
                if not objects.is_intact(folder / path, file):
                    _log.warning("%s: altered in the remote %s", path, remote.name)
                    self._mark("altered", remote.id, file.md5)
                    return False
        return True

    def push(self, artifact: Artifact, pointer: Path) -> None:
        """Verify an artifact by sha256, then push its objects and, last, its index entry.

        Raises VerificationFailed before anything is sent, NotNow if the remote is down.
        """
        if artifact.oid not in pointer.read_text("utf-8"):
            msg = f"{pointer.name}: expected a pointer to {artifact.oid}"
            raise VerificationFailed(msg, "run registry sync")
        self._place_listing(artifact)
        if altered := self.verify(artifact, deep=True):
            msg = f"{altered[0]}: missing or altered in the store, nothing was pushed"
            raise VerificationFailed(msg, "run registry sync to restore it")
        with (
            self._opened(self.require_remote()) as remote,
            objects.room(artifact.size, self.cache),
        ):
            self._upload(artifact, remote)
            entry = self.cache / keys.relative_path(artifact.key)
            if keys.read(self.cache, artifact.key) != artifact:
                keys.write(self.cache, artifact)
            statement = keys.provenance_path(artifact.key)
            if (self.cache / statement).exists():
                remote.put(self.cache / statement, statement)
            remote.put(entry, keys.relative_path(artifact.key))
            self._mark("pushed", remote.id, artifact.key.removeprefix("sha256:"))

    def _upload(self, artifact: Artifact, remote: _Remote) -> None:
        from dvc_objects.fs import localfs

        sizes = {file.md5: file.size for file in artifact.files.values()}
        wanted = [oid for oid, size in sorted(sizes.items()) if self._is_wanted(remote, oid, size)]
        failures: list[BaseException] = []
        # The directory goes last, so that it never names an object that is not there.
        for oids in (wanted, [artifact.oid]):
            paths = [str(keys.object_path(self.cache, oid)) for oid in oids]
            remote.odb.add(
                paths,
                localfs,
                oids,
                check_exists=False,
                on_error=lambda _oid, error: failures.append(error),
            )
            if failures:
                raise failures[0]
        for oid in wanted:
            self._marker("altered", remote.id, oid).unlink(missing_ok=True)

    def _is_wanted(self, remote: _Remote, oid: str, size: int) -> bool:
        # DVC looks at names alone; an object cut short or known to be altered is sent again.
        try:
            found = remote.fs.info(remote.object(oid)).get("size")
        except FileNotFoundError:
            return True
        return found not in (None, size) or self._marker("altered", remote.id, oid).exists()

    def pushed(self, key: str) -> bool:
        """Return whether the artifact of a build key was pushed from here to today's remote."""
        if self._remote is None:
            return False
        marker = self._marker("pushed", self._remote_id(self._remote), key.removeprefix("sha256:"))
        return marker.exists()

    def _marker(self, kind: str, remote: str, name: str) -> Path:
        return self.cache / "registry" / kind / remote / name[:2] / name

    def _mark(self, kind: str, remote: str, name: str) -> None:
        keys.replace_file(self._marker(kind, remote, name), b"")

    def _remote_id(self, name: str) -> str:
        # By address: a name may be pointed elsewhere, and then nothing is pushed there yet.
        address = dvc_config.remote_address(self.root, name) or name
        return hashlib.sha256(address.encode()).hexdigest()[:16]

    def require_remote(self) -> str:
        """Return the name of the remote to push to; RegistryError if there is none."""
        if self._remote is None:
            msg = "no remote to push to is configured"
            raise RegistryError(msg, "add one with: dvc remote add -d NAME URL")
        return self._remote

    def remote_problem(self) -> str | None:
        """Return what keeps the remote from being used, or None."""
        try:
            self.require_remote()
            # Asking for a name that cannot be is the one question every kind of remote answers.
            self.find_remote_key("sha256:" + "0" * 64)
        except RegistryError as error:
            return error.message
        return None

    def pull_weights(self, pointer: Path) -> None:
        """Bring an ingredient's weights into its folder, as `dvc pull` does; verify them after."""
        name = pointer.name
        with self._repository() as repo, _refusals(f"{name}: could not be pulled"):
            _when_unlocked(lambda: repo.pull(targets=[str(pointer)]))

    def add_weights(self, folder: Path) -> Path:
        """Hand an ingredient's weights to DVC, as `dvc add` does; return the pointer."""
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        what = f"{folder.name}: could not be handed to DVC"
        with self._repository() as repo, _refusals(what), objects.writing(size, self.cache):
            _when_unlocked(lambda: repo.add(targets=[str(folder)]))
        return folder.with_name(folder.name + ".dvc")

    @contextlib.contextmanager
    def _repository(self) -> Iterator[Any]:
        from dvc.exceptions import NotDvcRepoError
        from dvc.repo import Repo

        try:
            repo = Repo(str(self.root))
        except NotDvcRepoError as error:
            msg = f"{self.root}: expected a DVC repository"
            raise RegistryError(msg, "run: dvc init") from error
        try:
            yield repo
        finally:
            repo.close()

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[_Remote]:
        with self._repository() as repo, _refusals(f"remote {name!r} cannot be used"):
            remote = repo.cloud.get_remote(name)
            yield _Remote(name, self._remote_id(name), remote.odb, remote.fs, remote.path)


@contextlib.contextmanager
def _refusals(what: str) -> Iterator[None]:
    # Each file system has errors of its own: whatever is not ours is trouble on the way.
    from dvc.config import ConfigError
    from dvc_objects.fs.errors import RemoteMissingDepsError

    try:
        yield
    except RegistryError:
        raise
    except (ConfigError, RemoteMissingDepsError, ImportError) as error:
        raise RegistryError(f"{what}: {_sentence(error)}", "run registry doctor") from error
    except Exception as error:
        raise NotNow(f"{what}: {_sentence(error)}", "check the remote, then try again") from error


def _sentence(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _SECRET.sub("", lines[0])


def _when_unlocked(act: Callable[[], object]) -> None:
    from dvc.lock import LockError

    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            act()
        except LockError as error:
            if time.monotonic() >= deadline:
                msg = "DVC's lock is held by another process"
                raise NotNow(msg, "wait until that dvc command has ended") from error
        else:
            return


def init(root: Path) -> None:
    """Make the Git repository at `root` a DVC repository, without DVC's usage statistics."""
    from dvc.repo import Repo

    if (root / ".dvc").is_dir():
        return
    with _quiet(), Repo.init(str(root)) as repo, repo.config.edit("repo") as settings:
        settings["core"]["analytics"] = False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # DVC greets on standard output, which belongs to our results.
    logger = logging.getLogger("dvc")
    former = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(former)


def add_remote(root: Path, name: str, url: str, *, default: bool = False) -> None:
    """Enter a remote into the repository's DVC settings, perhaps as the default one.

    A relative path is relative to the repository's root; it breaks in a clone at another depth.
    """
    from dvc.config import Config

    with Config(str(root / ".dvc")).edit("repo") as settings:
        place = url if "://" in url else os.path.abspath(root / url)  # noqa: PTH100 - text for DVC
        settings["remote"].setdefault(name, {})["url"] = place
        if default:
            settings["core"]["remote"] = name
