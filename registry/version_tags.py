"""Tags and descriptions of one version in MLflow and of its run, compared with a build's.

Values only: asks nobody, and knows no model but the one that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from registry.differences import NOTHING, Cure, Difference, SeenRun, SeenVersion
from registry.tracked import BuildLog, tags

_OURS = ("registry.", "uses.", "negates.", "contains.")
_JOURNAL = "registry.journal"
_LEAD = 20  # characters that both texts have, before those in which they differ


def compare(
    build: BuildLog,
    version: SeenVersion,
    run: SeenRun | None,
    entries: frozenset[str],
    *,
    is_whole: bool,
) -> Iterator[Difference]:
    """Yield what is wrong with the tags of a version and its run, and between the two."""
    where = f"MLflow version {version.number}"
    expected = tags(build)
    yield from compare_tags(
        build.model,
        where,
        expected,
        version.tags,
        Cure("version-tag", build.model, version.number),
        is_whole=is_whole,
    )
    yield from _journal_tags(build.model, version, run, entries)
    if run is None:
        advice = "deleted for good; delete the version in MLflow, then audit --fix logs it anew"
        yield Difference(build.model, where, "run", "that of its build", NOTHING, advice=advice)
        return
    there = f"MLflow run {run.id[:8]}"
    if run.is_deleted:
        cure = Cure("run-restore", target=run.id)
        yield Difference(build.model, there, "stage", "active", "deleted", cure)
    yield from compare_tags(
        build.model, there, expected, run.tags, Cure("run-tag", target=run.id), is_whole=is_whole
    )
    if not is_ours(version, run):
        advice = "delete the version in MLflow, then audit --fix logs it anew"
        yield Difference(
            build.model, where, "source", f"models:/{run.output}", version.source, advice=advice
        )


def _journal_tags(
    model: str, version: SeenVersion, run: SeenRun | None, entries: frozenset[str]
) -> Iterator[Difference]:
    """Yield the ends of the journal that MLflow has seen, and that the journal no longer has."""
    places = [(f"MLflow version {version.number}", version.tags)]
    places += [(f"MLflow run {run.id[:8]}", run.tags)] if run else []
    for where, found in places:
        for digest in found.get(_JOURNAL, "").split():
            if digest not in entries:
                advice = "the journal has lost entries, or the tag was edited: nobody can tell"
                yield Difference(
                    model, where, _JOURNAL, "an entry of the journal", digest, advice=advice
                )


def is_ours(version: SeenVersion, run: SeenRun | None) -> bool:
    """Return whether a version names the logged model that its run made."""
    return run is None or not run.output or version.source == f"models:/{run.output}"


def compare_tags(
    model: str,
    where: str,
    expected: Mapping[str, str],
    found: Mapping[str, str],
    cure: Cure,
    *,
    is_whole: bool,
) -> Iterator[Difference]:
    """Yield the tags under our names that differ; `cure` gets the tag and its value."""
    ours = {tag for tag in found if tag.startswith(_OURS)} | expected.keys()
    for tag in sorted(ours - {_JOURNAL}):
        if tag.startswith("contains.") and not is_whole:
            continue
        wanted, is_now = expected.get(tag), found.get(tag)
        if wanted != is_now:
            yield Difference(
                model,
                where,
                tag,
                NOTHING if wanted is None else wanted,
                NOTHING if is_now is None else is_now,
                replace(cure, tag=tag, value=wanted),
            )


def first_difference(expected: str, found: str) -> tuple[str, str]:
    """Return the first lines in which two texts differ, from where they do."""
    ours, theirs = expected.split("\n"), found.split("\n")
    for number in range(max(len(ours), len(theirs))):
        one, other = (text[number] if number < len(text) else NOTHING for text in (ours, theirs))
        if one != other:
            pairs = enumerate(zip(one, other, strict=False))
            start = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other))) - _LEAD
            return (one, other) if start <= 0 else (f"…{one[start:]}", f"…{other[start:]}")
    return expected, found
