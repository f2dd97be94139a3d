"""Fixtures that every test file shares: no hub, no telemetry, no user's own configuration."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import NoReturn

import pytest

os.environ.update(
    HF_HUB_OFFLINE="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    DVC_NO_ANALYTICS="true",
    GIT_CONFIG_NOSYSTEM="1",
)


@pytest.fixture(autouse=True, scope="session")
def _own_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from the user's home: Git's identity and DVC's site cache are made here."""
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Test\n\temail = test@localhost\n[init]\n\tdefaultBranch = main\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("DVC_SITE_CACHE_DIR", str(home / "dvc-site"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@dataclass(frozen=True)
class Ran:
    """What a command left: exit code and both outputs."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Repository:
    """A catalog repository of the example, with the ways to act on it."""

    root: Path

    def run(self, *arguments: str, **environment: str) -> Ran:
        """Run `registry` as a real process in the repository, forked from one that imported most.

        What an import could show is run by `REGISTRY`, as people start it.
        """
        with NamedTemporaryFile() as out, NamedTemporaryFile() as err:
            process = _FORKED.Process(
                target=_command,
                args=(arguments, self.root, {**os.environ, **environment}, out.name, err.name),
            )
            process.start()
            process.join(300)
            if process.exitcode is None:
                process.kill()
                msg = f"registry {arguments}: still runs after 300 s"
                raise TimeoutError(msg)
            return Ran(process.exitcode, out.read().decode(), err.read().decode())

    def run_anew(self, *arguments: str, **environment: str) -> Ran:
        """Run `registry` as a process of its own from the start."""
        done = subprocess.run(
            [*REGISTRY, *arguments],
            cwd=self.root,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def git(self, *arguments: str) -> str:
        """Run git in the repository."""
        return subprocess.run(
            ["git", *arguments], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text in a file of the repository."""
        path = self.root / file
        text = path.read_text("utf-8")
        assert old in text, (file, old)
        path.write_text(text.replace(old, new), "utf-8")

    def commit(self, message: str = "change") -> None:
        """Commit everything."""
        self.git("add", "-A")
        self.git("commit", "-qm", message)


REGISTRY = (sys.executable, "-m", "registry")

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["tests.preloaded"])


def _command(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], out: str, err: str
) -> NoReturn:
    from registry.__main__ import main

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for path, number in ((out, 1), (err, 2)):
        with Path(path).open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.argv[1:] = arguments
    main()


@pytest.fixture(scope="session")
def _example(tmp_path_factory: pytest.TempPathFactory, _own_world: None) -> Path:
    """Make the example once: `dvc init` takes a second."""
    from registry import example, founding

    root = tmp_path_factory.mktemp("example") / "models"
    founding.found(root)
    example.write(root)
    return root


@pytest.fixture
def make_repository(_example: Path, tmp_path: Path) -> Callable[[str], Repository]:
    """Return a maker of example catalogs, each in a folder of its own."""

    def make(name: str) -> Repository:
        made = Repository(tmp_path / name)
        shutil.copytree(_example, made.root)
        made.commit("start")
        return made

    return make


@pytest.fixture
def repository(make_repository: Callable[[str], Repository]) -> Repository:
    """Return an example catalog."""
    return make_repository("models")
