"""Whether MLflow shows what Git holds: every tag, description, alias and version, compared.

Reads through an `Auditor` and changes nothing. What is expected comes from records, journal and
catalog; parameters and metrics, which MLflow lets nobody edit, are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from registry import tracking_text
from registry.differences import NOTHING, Cure, Difference, SeenModel, SeenRun, SeenVersion
from registry.record import Logged
from registry.tracked import BuildLog, Operand, tags
from registry.tracking_audit import Auditor

_OURS = ("registry.", "uses.", "negates.", "contains.")
_NOTE = "mlflow.note.content"
_JOURNAL = "registry.journal"
_LEAD = 20  # characters that both texts have, before those in which they differ


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
    """What an audit of MLflow compares with; `build_of` makes a log of what the store knows."""

    models: Mapping[str, Known]
    operands: Sequence[Operand]
    entries: frozenset[str]
    build_of: Callable[[str, str], BuildLog | None]


def compare(auditor: Auditor, wanted: Expectations) -> Iterator[Difference]:
    """Yield every difference between a tracking store and what is expected of it."""
    # First, since the pages of merges link to what is found here, whatever its tags say.
    yield from _ingredients(auditor, wanted.operands)
    for name in sorted(wanted.models.keys() | auditor.known_models()):
        seen = auditor.model(name)
        known = wanted.models.get(name, Known())
        if known.build is None:
            yield from _unpublished(name, seen, is_known=name in wanted.models)
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
        run = auditor.run(version.run)
        build = replace(build, commit=_commit(known, build.key, version, run))
        yield from _version(build, version, run, wanted.entries, is_whole=known.is_whole)
        if known.is_declared and known.is_whole:
            yield from _texts(auditor, known, build, seen, version, run)
        yield from _aliases(known, seen, version)
    for other in seen.versions:
        if other is not version:
            yield from _other(auditor, wanted, known, other, seen)


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


def _version(
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
    yield from _tags(
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
    yield from _tags(
        build.model, there, expected, run.tags, Cure("run-tag", target=run.id), is_whole=is_whole
    )
    if run.output and version.source != f"models:/{run.output}":
        advice = "delete the version in MLflow, then audit --fix logs it anew"
        yield Difference(
            build.model, where, "source", f"models:/{run.output}", version.source, advice=advice
        )


def _tags(
    model: str,
    where: str,
    expected: Mapping[str, str],
    found: Mapping[str, str],
    cure: Cure,
    *,
    is_whole: bool,
) -> Iterator[Difference]:
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
                *_first_difference(expected, found),
                replace(cure, target=target, value=expected),
            )


def _first_difference(expected: str, found: str) -> tuple[str, str]:
    """Return the first lines in which two texts differ, from where they do."""
    ours, theirs = expected.split("\n"), found.split("\n")
    for number in range(max(len(ours), len(theirs))):
        one, other = (text[number] if number < len(text) else NOTHING for text in (ours, theirs))
        if one != other:
            pairs = enumerate(zip(one, other, strict=False))
            start = next((at for at, (a, b) in pairs if a != b), min(len(one), len(other))) - _LEAD
            return (one, other) if start <= 0 else (f"…{one[start:]}", f"…{other[start:]}")
    return expected, found


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
    auditor: Auditor, wanted: Expectations, known: Known, other: SeenVersion, seen: SeenModel
) -> Iterator[Difference]:
    """Yield what is wrong with a version that is not live: its origin, else its tags."""
    key = other.tags.get("registry.key", "")
    where = f"MLflow version {other.number}"
    build = wanted.build_of(seen.name, key)
    is_second = known.build is not None and key == known.build.key
    if is_second or (key not in known.history and build is None):
        found = f"build key {key}" if key else "a version without build key"
        found = f"a second version of the live {found}" if is_second else found
        advice = "left alone: delete it in MLflow if nobody needs it"
        yield Difference(seen.name, where, "origin", "a build of this model", found, advice=advice)
    elif build is not None:
        run = auditor.run(other.run)
        build = replace(build, commit=_commit(known, key, other, run))
        yield from _version(build, other, run, wanted.entries, is_whole=False)


def _ingredients(auditor: Auditor, operands: Sequence[Operand]) -> Iterator[Difference]:
    by_name: dict[str, list[tuple[int, Operand]]] = {}
    for number, operand in enumerate(operands):
        by_name.setdefault(operand.registered_name, []).append((number, operand))
    for name, known in sorted(by_name.items()):
        seen = auditor.model(name)
        versions = list(seen.versions) if seen else []
        for number, operand in known:
            one = next((one for one in versions if operand.digest in one.text), None) or next(
                (one for one in versions if one.tags.get("registry.digest") == operand.digest), None
            )
            if one is None:
                expected = f"{operand.title} {operand.digest}"
                cure = Cure("ingredient", name, str(number))
                yield Difference(name, "MLflow model", "version", expected, NOTHING, cure)
                continue
            auditor.take(operand, one)
            yield from _ingredient(auditor, operand, one)
            versions.remove(one)
        for other in versions:
            if not other.tags.get("registry.digest"):
                advice = "left alone: delete it in MLflow if nobody needs it"
                found = "a version without digest"
                where = f"MLflow version {other.number}"
                yield Difference(name, where, "origin", "an ingredient", found, advice=advice)


def _ingredient(auditor: Auditor, operand: Operand, seen: SeenVersion) -> Iterator[Difference]:
    name, where = operand.registered_name, f"MLflow version {seen.number}"
    expected = {
        "registry.kind": operand.kind,
        "registry.name": operand.name,
        "registry.digest": operand.digest,
    }
    if operand.version is not None:
        expected["registry.version"] = str(operand.version)
    cure = Cure("version-tag", name, seen.number)
    yield from _tags(name, where, expected, seen.tags, cure, is_whole=True)
    text = auditor.ingredient_text(operand, seen.source.removeprefix("models:/"))
    if text != seen.text:
        lines = _first_difference(text, seen.text)
        cure = Cure("version-text", name, seen.number, value=text)
        yield Difference(name, where, "description", *lines, cure)
