"""Make a new catalog repository: git, dvc, schemas for editors, workflows. Works offline."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import schemas
from registry import git, keys, store
from registry.errors import UsageError

_IGNORED = ("/.registry/", "/catalog/builds/*/")
_NAME = re.compile(r"[^a-z0-9]+")


def found(folder: Path) -> list[str]:
    """Make `folder` a catalog repository and return the files written; existing ones stay.

    Only the schemas' copies are renewed: they must be those of the installed package.
    """
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is not a folder"
        raise UsageError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        git.init(folder)
    if not (folder / ".dvc").is_dir():
        store.init(folder)
    name = _NAME.sub("-", folder.resolve().name.lower()).strip("-")[:63] or "catalog"
    written = [
        path
        for path, text in _files(name).items()
        if _write_new(folder / path, text, renew=path.startswith("schemas/"))
    ]
    return [*written, *_ignore(folder)]


def _files(name: str) -> dict[str, str]:
    files = {
        "catalog/registry.yaml": (
            "# yaml-language-server: $schema=../schemas/registry.schema.json\n"
            f"kind: registry\nname: {name}\n"
        ),
        "README.md": _template("README.md").replace("{name}", name),
        ".github/workflows/merge-registry.yml": _template("github-workflow.yml"),
        ".gitlab-ci.yml": _template("gitlab-ci.yml"),
        ".pre-commit-config.yaml": _template("pre-commit-config.yaml"),
    }
    return files | {f"schemas/{kind}.schema.json": schemas.text(kind) for kind in schemas.KINDS}


def _template(name: str) -> str:
    return resources.files("registry").joinpath("templates").joinpath(name).read_text("utf-8")


def _write_new(path: Path, text: str, *, renew: bool) -> bool:
    if path.exists() and (not renew or path.read_text("utf-8") == text):
        return False
    keys.replace_file(path, text.encode())
    return True


def _ignore(folder: Path) -> list[str]:
    path = folder / ".gitignore"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    missing = [line for line in _IGNORED if line not in lines]
    if not missing:
        return []
    keys.replace_file(path, ("\n".join([*lines, *missing]) + "\n").encode())
    return [".gitignore"]
