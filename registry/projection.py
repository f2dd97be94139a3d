"""Whether MLflow shows what Git holds: every tag, description, alias and version, compared.

Reads through an `Auditor` and changes nothing. What is expected comes from records, journal and
catalog; parameters and metrics, which MLflow lets nobody edit, are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from registry import shown_ingredients, tracking_text, version_tags
from registry.differences import NOTHING, Cure, Difference, SeenModel, SeenRun, SeenVersion
from registry.record import Logged
from registry.tracked import BuildLog, Operand
from registry.tracking_audit import Auditor

_NOTE = "mlflow.note.content"


@dataclass(frozen=True, slots=True)
class Known:
    """What Git says of one model; `build` is None where nothing of it is published.

    `history` are the build keys that became live, in order, None for a time when none was;
    `commits` those at which the journal saw a key. Where `is_whole` is false, what lies deeper
    inside has moved on since the build, and is not compared.
    """

    build: BuildLog | None = None
    logged: Logged | None = None
    rejected: str = ""
    history: tuple[str | None, ...] = ()
    commits: Mapping[str, tuple[str, ...]] | None = None
    is_declared: bool = False
    is_whole: bool = True

    def commits_of(self, key: str) -> tuple[str, ...]:
        """Return the commits at which a key was published or logged, the last one last."""
        return (self.commits or {}).get(key, ())


@dataclass(frozen=True, slots=True)
class Expectations:
    """What an audit of MLflow compares with; `build_of` makes a log of what the store knows.

    `keys_of_git` are the build keys that records ever had; `unsure` are models of which nothing is
    known, since their record is no good.
    """

    models: Mapping[str, Known]
    operands: Sequence[Operand]
    entries: frozenset[str]
    build_of: Callable[[str, str], BuildLog | None]
    keys_of_git: Callable[[], frozenset[str]]
    unsure: frozenset[str] = frozenset()


def compare(auditor: Auditor, wanted: Expectations) -> Iterator[Difference]:
    """Yield every difference between a tracking store and what is expected of it."""
    # First, since the pages of merges link to what is found here, whatever its tags say.
    yield from shown_ingredients.compare(auditor, wanted.operands)
    for name in sorted((wanted.models.keys() | auditor.known_models()) - wanted.unsure):
        seen = auditor.model(name)
        known = wanted.models.get(name, Known())
        if known.build is None:
            yield from _unpublished(name, seen, is_known=name in wanted.models)
            for other in seen.versions if seen and name in wanted.models else ():
                yield from _other(auditor, wanted, known, other, name)
        else:
            yield from _published(auditor, wanted, known, known.build, seen)


def _unpublished(name: str, seen: SeenModel | None, *, is_known: bool) -> Iterator[Difference]:
    if seen is None:
        return
    if "live" in seen.aliases:
        found = f"version {seen.aliases['live']}"
        yield Difference(
            name, "MLflow model", "alias live", NOTHING, found, Cure("unpublish", name)
        )
    elif not is_known and not tracking_text.is_unpublished(seen.text):
        advice = "left alone: delete it in MLflow if nobody needs it"
        found = "a model that no record and no entry of the journal knows"
        yield Difference(name, "MLflow model", "origin", NOTHING, found, advice=advice)


def _published(
    auditor: Auditor, wanted: Expectations, known: Known, build: BuildLog, seen: SeenModel | None
) -> Iterator[Difference]:
    version = _live_version(known, build, seen)
    if seen is None or version is None:
        where = "MLflow" if seen is None else "MLflow model"
        field = "registered model" if seen is None else "version"
        yield Difference(
            build.model, where, field, f"one of {build.key}", NOTHING, Cure("log", build.model)
        )
    if seen is None:
        return
    if (kind := seen.tags.get("registry.kind")) != "merge":
        cure = Cure("model-tag", seen.name, tag="registry.kind", value="merge")
        yield Difference(seen.name, "MLflow model", "registry.kind", "merge", kind or NOTHING, cure)
    if version is not None:
        yield from _live(auditor, wanted, known, seen, version)
    for other in seen.versions:
        if other is not version:
            yield from _other(auditor, wanted, known, other, seen.name)


def _live(
    auditor: Auditor, wanted: Expectations, known: Known, seen: SeenModel, version: SeenVersion
) -> Iterator[Difference]:
    """Yield what is wrong with the live version, what the record says of it, and the aliases."""
    assert known.build is not None
    run = auditor.run(version.run)
    build = replace(known.build, commit=_commit(known, known.build.key, version, run))
    yield from version_tags.compare(build, version, run, wanted.entries, is_whole=known.is_whole)
    is_named = known.logged is None or known.logged.version == version.number
    if known.logged and not is_named and version_tags.is_ours(version, run):
        expected, found = f"version {version.number}", f"version {known.logged.version}"
        cure = Cure("log", build.model)
        yield Difference(build.model, "record", "mlflow.version", expected, found, cure)
    if known.is_declared and known.is_whole:
        yield from _texts(auditor, known, build, seen, version, run)
    yield from _aliases(known, seen, version)


def _live_version(known: Known, build: BuildLog, seen: SeenModel | None) -> SeenVersion | None:
    """Return the version that the record names, else the newest that carries its build key."""
    versions = seen.versions if seen else ()
    for one in versions:
        if known.logged and (one.number, one.run) == (known.logged.version, known.logged.run):
            return one
    carried = [one for one in versions if one.tags.get("registry.key") == build.key]
    return carried[-1] if carried else None


def _commit(known: Known, key: str, version: SeenVersion, run: SeenRun | None) -> str:
    """Return the commit that a build's tags should name.

    MLflow is believed as far as the journal does not contradict it: it says which of several.
    """
    told = [version.tags.get("registry.commit", "")]
    told += [run.tags.get("registry.commit", "")] if run else []
    commits = known.commits_of(key)
    return next(
        (one for one in told if one and (not commits or one in commits)), (*commits, "")[-1]
    )


def _texts(
    auditor: Auditor,
    known: Known,
    build: BuildLog,
    seen: SeenModel,
    version: SeenVersion,
    run: SeenRun | None,
) -> Iterator[Difference]:
    text, whole = auditor.texts(build, version)
    if known.rejected:
        whole = auditor.rejected(whole, build.model, known.rejected)
    rows = [
        (f"MLflow version {version.number}", version.text, text, Cure("version-text", build.model)),
        ("MLflow model", seen.text, whole, Cure("model-text", build.model)),
    ]
    if run is not None:
        note = run.tags.get(_NOTE, "")
        rows.append((f"MLflow run {run.id[:8]}", note, text, Cure("run-tag", tag=_NOTE)))
    for where, found, expected, cure in rows:
        if found != expected:
            target = run.id if run and cure.kind == "run-tag" else version.number
            yield Difference(
                build.model,
                where,
                "description",
                *version_tags.first_difference(expected, found),
                replace(cure, target=target, value=expected),
            )


def _aliases(known: Known, seen: SeenModel, version: SeenVersion) -> Iterator[Difference]:
    numbers = {one.tags.get("registry.key", ""): one.number for one in seen.versions}
    previous = _previous(known.history, numbers)
    found = seen.aliases.get("previous")
    if previous is None and found is not None and found != version.number:
        # From before there was a journal; that no sync made it is told of the version itself.
        previous = found
    for alias, expected in (("live", version.number), ("previous", previous)):
        is_now = seen.aliases.get(alias)
        if is_now != expected:
            yield Difference(
                seen.name,
                "MLflow model",
                f"alias {alias}",
                f"version {expected}" if expected else NOTHING,
                f"version {is_now}" if is_now else NOTHING,
                Cure("alias", seen.name, tag=alias, value=expected),
            )


def _previous(history: Sequence[str | None], numbers: Mapping[str, str]) -> str | None:
    """Return the version that was live before, of those that MLflow was told of."""
    live = previous = None
    for key in history:
        if key is None:
            live = None
        elif key in numbers:
            previous = live if live not in (None, key) else previous
            live = key
    return numbers[previous] if previous else None


def _other(
    auditor: Auditor, wanted: Expectations, known: Known, other: SeenVersion, name: str
) -> Iterator[Difference]:
    """Yield what is wrong with a version that is not live: its origin, else its tags."""
    key = other.tags.get("registry.key", "")
    where = f"MLflow version {other.number}"
    build = wanted.build_of(name, key)
    is_second = known.build is not None and key == known.build.key
    is_ours = build is not None or key in known.history or key in wanted.keys_of_git()
    if is_second or not is_ours:
        found = f"build key {key}" if key else "a version without build key"
        found = f"a second version of the live {found}" if is_second else found
        advice = "left alone: delete it in MLflow if nobody needs it"
        yield Difference(name, where, "origin", "a build of this model", found, advice=advice)
    elif build is not None:
        run = auditor.run(other.run)
        build = replace(build, commit=_commit(known, key, other, run))
        yield from version_tags.compare(build, other, run, wanted.entries, is_whole=False)
