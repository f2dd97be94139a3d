"""Take a base, an adapter or a checkpoint into the catalog: copy, check, digest, YAML, pointer."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from registry import keys, weights
from registry.errors import Problem, RegistryError, UsageError, did_you_mean
from registry.spec import Catalog, Ingredient
from registry.store import Store
from schemas import lora
from schemas.digest import INDEX, TreeError, hash_folder, is_carried, tree_digest
from schemas.header import HeaderError
from schemas.model import ModelError, read_model

_MOST_IN_GIT_BYTES = 10_000_000
"""Above this a pointer goes into Git instead of the bytes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be taken in, as the command line tells it."""

    kind: str
    name: str
    version: int | None
    base: str | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken in: its label, digest and YAML file, and what was left behind."""

    label: str
    digest: str
    file: str
    has_pointer: bool
    left: tuple[str, ...]


def completed(wanted: Wanted, catalog: Catalog) -> Wanted:
    """Return what is wanted with the next version and the only base filled in."""
    if wanted.kind == "base":
        if wanted.version is not None or wanted.base is not None:
            msg = "a base has neither version nor base"
            raise UsageError(msg, "leave out --version and --base")
        return wanted
    bases = [one.name for one in catalog.ingredients.values() if one.kind == "base"]
    base = wanted.base or (bases[0] if len(bases) == 1 else None)
    if base is None:
        msg = f"expected --base, one of: {', '.join(sorted(bases)) or 'none declared yet'}"
        raise UsageError(msg, "add the base first" if not bases else "")
    if base not in bases:
        msg = f"no base {base}"
        raise UsageError(msg, did_you_mean(base, bases))
    same = [
        one.version or 0
        for one in catalog.ingredients.values()
        if (one.kind, one.name) == (wanted.kind, wanted.name)
    ]
    version = wanted.version or max(same, default=0) + 1
    return Wanted(wanted.kind, wanted.name, version, base)


def take(root: Path, catalog: Catalog, store: Store, source: Path, wanted: Wanted) -> Taken:
    """Take a folder into the catalog; on any problem the catalog is as it was."""
    ingredient = _ingredient(wanted)
    folder = (root / ingredient.folder).parent
    if folder.exists():
        msg = f"{ingredient.label} stands in the catalog already"
        raise RegistryError(msg, "a version is immutable: add the next one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".adding-", dir=folder.parent))
    try:
        left = _copy(source, beside / "weights", wanted.kind)
        digest = _checked(root, catalog, beside / "weights", wanted)
        text = _yaml(wanted, digest)
        keys.replace_file(beside / f"{wanted.kind}.yaml", text.encode())
        beside.chmod(0o755)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    size = sum(path.stat().st_size for path in (folder / "weights").rglob("*"))
    if size > _MOST_IN_GIT_BYTES:
        store.add_weights(folder / "weights")
    file = (folder / f"{wanted.kind}.yaml").relative_to(root).as_posix()
    return Taken(ingredient.label, digest, file, size > _MOST_IN_GIT_BYTES, left)


def _ingredient(wanted: Wanted) -> Ingredient:
    place = f"catalog/{wanted.kind}s/{wanted.name}"
    if wanted.version is not None:
        place += f"/{wanted.version}"
    return Ingredient(wanted.kind, wanted.name, wanted.version, wanted.base, "", f"{place}/weights")


def _copy(source: Path, target: Path, kind: str) -> tuple[str, ...]:
    """Copy what merging needs and return the names of what it does not."""
    if not source.is_dir():
        msg = f"expected a folder with the weights, found {source}"
        raise UsageError(msg, "give the folder, not a file in it")
    target.mkdir()
    left = []
    for path in sorted(source.iterdir()):
        # Links are followed: model hubs keep their downloads as links into a cache.
        if path.is_file() and _is_needed(path.name, kind):
            shutil.copyfile(path, target / path.name)
        else:
            left.append(path.name)
    return tuple(left)


def _is_needed(name: str, kind: str) -> bool:
    if name == "README.md" or name.startswith(("LICENSE", "NOTICE")):
        return True
    if kind == "adapter":
        return name in (lora.CONFIG, lora.WEIGHTS)
    return name.endswith(".safetensors") or name == INDEX or is_carried(name)


def _checked(root: Path, catalog: Catalog, folder: Path, wanted: Wanted) -> str:
    """Return the digest of good weights; raises with everything that is wrong with them."""
    base_folder = None
    base = None
    if wanted.base:
        base_folder = root / catalog.base(wanted.base).folder
        try:
            base = read_model(base_folder)
        except (ModelError, HeaderError, OSError):
            base = None  # not at hand: only what the weights say alone is checked
    if wanted.kind == "base":
        findings = weights.check_base(folder)
    elif wanted.kind == "adapter":
        findings = weights.check_adapter(folder, base, base_folder)
    else:
        findings = weights.check_checkpoint(folder, base)
    if findings:
        problems = [Problem(one.file, 0, 0, one.field, one.message, one.hint) for one in findings]
        msg = "; ".join(problem.text() for problem in problems)
        raise RegistryError(msg, "nothing was added")
    try:
        return tree_digest(hash_folder(folder))
    except TreeError as error:
        msg = str(error)
        raise RegistryError(msg, "nothing was added") from error


def _yaml(wanted: Wanted, digest: str) -> str:
    depth = 3 if wanted.version is None else 4
    lines = [
        f"# yaml-language-server: $schema={'../' * depth}schemas/{wanted.kind}.schema.json",
        f"kind: {wanted.kind}",
        f"name: {wanted.name}",
    ]
    if wanted.version is not None:
        lines += [f"version: {wanted.version}", f"base: {wanted.base}"]
    return "\n".join([*lines, f'weights: {{digest: "{digest}"}}', ""])
