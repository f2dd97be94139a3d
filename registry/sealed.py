"""Files in `.registry/` that only this repository's own program can have written. Knows no content.

Each may be deleted at any time: one that is damaged, of another version of our code, or brought by
somebody else counts as absent. Its first line is the version and a keyed hash of the rest; the key
lies in the Git folder, where no pull request can put a file, so a file that somebody committed is
never believed, and nothing of it is read before the hash was compared.
"""

from __future__ import annotations

import os
from hashlib import blake2b, sha256
from pathlib import Path

import schemas

FOLDER = ".registry"
_KEY_BYTES = 32


def read(root: Path, name: str, version: str) -> bytes | None:
    """Return what `write` wrote for the same version, None if there is no such file."""
    try:
        whole = (root / FOLDER / name).read_bytes()
        start = whole.index(b"\n") + 1
        key = _key(root)
    except (OSError, ValueError):
        return None
    # A view, since it may be 50 MB.
    if key is None or whole[: start - 1] != _first_line(memoryview(whole)[start:], version, key):
        return None
    return whole[start:]


def write(root: Path, name: str, version: str, content: bytes) -> None:
    """Replace a file atomically. Raises OSError or ValueError where that is not possible."""
    first = _first_line(content, version, _key(root, make=True) or b"")
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    keep_out = folder / ".gitignore"
    if not keep_out.exists():
        keep_out.write_text("*\n", "utf-8")
    temporary = folder / f"{name}.{os.getpid()}.tmp"
    try:
        temporary.write_bytes(first + b"\n" + content)
        temporary.replace(folder / name)
    finally:
        temporary.unlink(missing_ok=True)


def code_version() -> str:
    """Return what tells apart the programs that wrote a file: all schemas and all modules here."""
    ours, theirs = Path(__file__).parent, Path(str(schemas.__file__)).parent
    digest = sha256()
    for file in sorted([*theirs.glob("*.json"), *theirs.glob("*.py"), *ours.glob("*.py")]):
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()


def git_folder(root: Path) -> Path:
    """Return where Git keeps what it knows of this work tree."""
    git = root / ".git"
    if git.is_file():  # of a linked work tree or a submodule: `gitdir: <folder>`
        git = root / git.read_text("utf-8").removeprefix("gitdir:").strip()
    return git


def _first_line(content: bytes | memoryview, version: str, key: bytes) -> bytes:
    return f"{version} {blake2b(content, key=key, digest_size=32).hexdigest()}".encode()


def _key(root: Path, *, make: bool = False) -> bytes | None:
    """Return the key of a repository, None if it has none yet; empty outside of Git."""
    git = git_folder(root)
    if not git.is_dir():
        return b""
    path = git / "registry-index-key"
    key = path.read_bytes() if path.exists() else b""
    if len(key) == _KEY_BYTES:
        return key
    if not make:  # none yet, or half of one: a hash under an empty key is anybody's
        return None
    key = os.urandom(_KEY_BYTES)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(key)
    temporary.replace(path)
    return key
