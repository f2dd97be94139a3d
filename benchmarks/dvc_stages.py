"""`dvc status` on as many stages as a catalog has models: DVC's way to ask what is stale.

One stage per merge in one dvc.yaml. It depends on its spec, the folder of the base and the folders
of two adapters out of some dozens; its output is a folder of seven files. All are small and as
dvc.lock says, and DVC has seen them before, so it hashes nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.session import PEER_PATIENCE_SECONDS, Session, say
from registry import keys
from registry.keys import StoredFile

COUNTS = (100, 1_000)
_ADAPTERS = 36
_BASE = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_ARTIFACT = (*_BASE, "tokenizer_config.json", "README.md", "recipe.json")
_DVC = str(Path(sys.executable).parent / "dvc")


def measure_count(session: Session, count: int) -> None:
    """Measure `dvc status` at one number of stages."""
    key = f"dvc/{count}"
    found = session.results.of(key)
    if len(found) >= session.runs or any(s.wall_seconds > PEER_PATIENCE_SECONDS for s in found):
        return
    folder = session.scratch(f"dvc-{count}")
    say(f"making a DVC repository of {count} stages")
    make(folder, count)
    measure.run([_DVC, "status", "--quiet"], cwd=folder)  # fills DVC's own memory of hashes
    session.measure_peer(key, lambda: measure.run([_DVC, "status", "--quiet"], cwd=folder)[0])
    shutil.rmtree(folder)


def make(folder: Path, count: int) -> None:
    """Make a DVC repository of so many stages in which all is as locked."""
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    subprocess.run([_DVC, "init", "--quiet"], cwd=folder, check=True)
    site = ["core.site_cache_dir", str(folder / ".dvc" / "site")]
    subprocess.run([_DVC, "config", *site], cwd=folder, check=True)
    base = _write_folder(folder, "base", _BASE)
    adapters = [_write_folder(folder, f"adapters/{n}", _ADAPTER) for n in range(_ADAPTERS)]
    stages, locked = {}, {}
    for number in range(count):
        pair = [adapters[(number + place) % _ADAPTERS] for place in (0, 7)]
        needed = [_write_file(folder, f"specs/{number}.yaml"), base, *pair]
        made = _write_folder(folder, f"artifacts/{number}", _ARTIFACT)
        command = f"merge {number}"
        paths = [str(one["path"]) for one in needed]
        stages[f"m{number}"] = {"cmd": command, "deps": paths, "outs": [made["path"]]}
        locked[f"m{number}"] = {"cmd": command, "deps": needed, "outs": [made]}
    # JSON is YAML too.
    _dump(folder / "dvc.yaml", {"stages": stages})
    _dump(folder / "dvc.lock", {"schema": "2.0", "stages": locked})


def _write_folder(root: Path, path: str, names: Sequence[str]) -> dict[str, Any]:
    """Write small files and their objects; return what dvc.lock says of the folder."""
    files = {}
    for name in names:
        entry = _write_file(root, f"{path}/{name}")
        files[name] = StoredFile("", entry["md5"], entry["size"])
    oid = keys.listing_oid(files)
    _write_object(root, oid, keys.listing(files))
    size = sum(file.size for file in files.values())
    return {"path": path, "hash": "md5", "md5": oid, "size": size, "nfiles": len(files)}


def _write_file(root: Path, path: str) -> dict[str, Any]:
    content = f"{path}\n".encode()
    md5 = hashlib.md5(content).hexdigest()
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)
    _write_object(root, md5, content)
    return {"path": path, "hash": "md5", "md5": md5, "size": len(content)}


def _write_object(root: Path, oid: str, content: bytes) -> None:
    path = keys.object_path(root / ".dvc" / "cache", oid)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(content)
        path.chmod(0o444)  # how DVC tells an object that it need not look at again


def _dump(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1), "utf-8")
