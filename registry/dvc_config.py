"""Where DVC keeps its cache and its remotes, read from its settings without importing DVC (0.5 s).

Knows no object and no artifact, and nothing of what other settings mean.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

_HEADING = re.compile(r"""\[\s*(?P<quote>['"]?)\s*(?P<name>.*?)\s*(?P=quote)\s*\]\s*(#.*)?""")
_ENTRY = re.compile(r"""(?P<key>[^=\s]+)\s*=\s*(?P<value>"[^"]*"|'[^']*'|[^#]*)""")
_ADDRESS = re.compile(r"\w+://")


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's cache for the repository at `root`."""
    folder = _settings(root).get(("cache", "dir"))
    return Path(folder) if folder else root / ".dvc" / "cache"


def default_remote(root: Path) -> str | None:
    """Return the name of DVC's default remote, if there is one."""
    return _settings(root).get(("core", "remote"))


def remote_address(root: Path, name: str) -> str | None:
    """Return the address of a remote, or None where no settings file has it."""
    return _settings(root).get((f'remote "{name}"', "url"))


def _settings(root: Path) -> dict[tuple[str, str], str]:
    # Later files win, as in DVC: system, user, repository, this clone.
    merged: dict[tuple[str, str], str] = {}
    for file in (
        _system_folder() / "config",
        _user_folder() / "config",
        root / ".dvc" / "config",
        root / ".dvc" / "config.local",
    ):
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # absent is usual, and DVC itself complains of an unreadable one
        for section, key, value in _entries(text):
            is_place = (section, key) == ("cache", "dir") or key == "url"
            merged[section, key] = _resolved(file.parent, value) if is_place else value
    return merged


def _entries(text: str) -> Iterator[tuple[str, str, str]]:
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if heading := _HEADING.fullmatch(line):
            # DVC lowers section names and keys, but not the names of remotes.
            name = heading["name"]
            section = name if '"' in name else name.lower()
        elif not line.startswith("#") and (entry := _ENTRY.match(line)):
            value = entry["value"].strip()
            quoted = len(value) > 1 and value[0] in "\"'"
            yield section, entry["key"].lower(), value[1:-1] if quoted else value


def _resolved(folder: Path, value: str) -> str:
    if _ADDRESS.match(value):
        return value
    return os.path.abspath(folder / os.path.expanduser(value))  # noqa: PTH100, PTH111 - as DVC does


def _system_folder() -> Path:
    if folder := os.environ.get("DVC_SYSTEM_CONFIG_DIR"):
        return Path(folder)
    if sys.platform == "darwin":
        return Path("/Library/Application Support/dvc")
    return Path(os.environ.get("XDG_CONFIG_DIRS", "").split(":")[0] or "/etc/xdg") / "dvc"


def _user_folder() -> Path:
    if folder := os.environ.get("DVC_GLOBAL_CONFIG_DIR"):
        return Path(folder)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "dvc"
    return Path(os.environ.get("XDG_CONFIG_HOME", "").strip() or Path.home() / ".config") / "dvc"
