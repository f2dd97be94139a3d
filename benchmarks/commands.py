"""What commands cost on catalogs of 100 to 100,000 models, and `dvc status` on as many stages.

In the catalogs everything is built, so `registry sync` finds nothing to do; `plan` follows an edit
of one file; `plan --against` reviews such an edit in a clone where, as in CI, nothing is
remembered; `validate` is cold when nothing is.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import dvc_stages, measure
from benchmarks.measure import Sample
from benchmarks.session import ROOT, Session, require_space, say

COUNTS = (100, 1_000, 10_000, 100_000)
QUICK_COUNTS = (100, 1_000)
EDITED = 10_000
_LARGEST = COUNTS[-1]
_BYTES_PER_MODEL = 55_000  # small files, each in blocks of its own: seven, and three in the clone
_REGISTRY = str(Path(sys.executable).parent / "registry")
_TRACKING = ("mlflow.db", "tracking.json")  # the rest of .registry/ is what was remembered
_SECONDS_TO_SETTLE = 2.5  # the index trusts no file younger than 2 s


def measure_all(session: Session) -> None:
    """Measure every command at every count."""
    counts = QUICK_COUNTS if session.is_quick else COUNTS
    for count in counts:
        _measure_registry(session, count)
    if session.has_peers:
        for count in dvc_stages.COUNTS[: len(counts)]:
            dvc_stages.measure_count(session, count)


def _measure_registry(session: Session, count: int) -> None:
    keys = (f"validate/{count}", f"sync/{count}", f"plan/{count}", f"review/{count}")
    runs = session.runs
    wanted = (1 if count == _LARGEST else runs, runs, runs, runs)  # two minutes each at the largest
    if all(len(session.results.of(key)) >= many for key, many in zip(keys, wanted, strict=True)):
        return
    require_space(session.folder, count * _BYTES_PER_MODEL)
    folder = session.scratch(f"catalog-{count}")
    say(f"making a catalog of {count} models")
    _run([sys.executable, "-m", "benchmarks.catalogs", folder, "--models", str(count)], ROOT)
    time.sleep(_SECONDS_TO_SETTLE)
    session.measure(keys[0], lambda: _validate_cold(folder), runs=wanted[0])
    _in(folder, "sync")
    session.measure(keys[1], lambda: _in(folder, "sync"))
    files = iter(sorted((folder / "catalog" / "merges").glob("*.yaml")))
    session.measure(keys[2], lambda: _plan_after_edit(folder, next(files)))
    clone = session.scratch(f"review-{count}")
    _run(["git", "clone", "--quiet", folder, clone], ROOT)
    reviewed = iter(sorted((clone / "catalog" / "merges").glob("*.yaml")))
    session.measure(keys[3], lambda: _review_of_edit(clone, next(reviewed)))
    shutil.rmtree(clone)
    shutil.rmtree(folder)


def _in(folder: Path, *arguments: str) -> Sample:
    return measure.run([_REGISTRY, *arguments], cwd=folder)[0]


def _validate_cold(folder: Path) -> Sample:
    for path in (folder / ".registry").iterdir():
        if path.name not in _TRACKING and path.is_file():
            path.unlink()
    return _in(folder, "validate")


def _plan_after_edit(folder: Path, file: Path) -> Sample:
    """Change the first weight of a merge, then plan; the plan must say that it is stale."""
    _edit(file)
    return _naming(file, folder, "plan")


def _review_of_edit(clone: Path, file: Path) -> Sample:
    """Commit such an edit, forget everything, and plan the commit as the comment on it would."""
    _edit(file)
    who = ("-c", "user.name=Benchmark", "-c", "user.email=benchmark@localhost")
    _run(["git", *who, "commit", "--quiet", "--all", "--message=An edit"], clone)
    shutil.rmtree(clone / ".registry", ignore_errors=True)
    return _naming(file, clone, "plan", "--against", "HEAD~1", "--format", "markdown")


def _edit(file: Path) -> None:
    text = file.read_text("utf-8")
    changed = re.sub(r"(weight: )([0-9.]+|\{[^}]*\})\}", r"\g<1>0.123}", text, count=1)
    if changed == text:
        msg = f"{file}: expected a weight to change"
        raise RuntimeError(msg)
    file.write_text(changed, "utf-8")


def _naming(file: Path, folder: Path, *arguments: str) -> Sample:
    sample, told = measure.run([_REGISTRY, *arguments], cwd=folder)
    if file.stem not in told.replace("\\", ""):  # as Markdown escapes it
        msg = f"{file}: expected a plan that names the edited merge, found\n{told[-500:]}"
        raise RuntimeError(msg)
    return sample


def _run(command: list[str | Path], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
