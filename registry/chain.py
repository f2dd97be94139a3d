"""The journal as it was written, or not: its entries read, every one held against its digest.

Pure but for the reading of files below `journal/`. How they come there, `journal` knows; what is
live in truth, Git knows.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from schemas import canonical

FOLDER = "journal"
FORMAT_VERSION = 1
_MOST_BYTES = 16 << 20
"""Of one file; a sync of 10,000 models writes 8 MB."""
_MOST_CHARACTERS = 2000
"""Of one text in an entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done to one model; `digest` is that of all the rest.

    `result` says what is so afterwards: `live`, `rejected`, `unpublished`, `logged`, `pushed`.
    `provenance` is the digest of the statement that a build wrote.
    """

    seq: int
    previous: tuple[str, ...]
    time: str
    who: str
    commit: str
    action: str
    model: str
    key: str
    model_digest: str
    result: str
    reason: str
    provenance: str
    digest: str

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of the entry's line."""
        return {"format_version": FORMAT_VERSION, **asdict(self), "previous": list(self.previous)}


@dataclass(frozen=True, slots=True)
class Flaw:
    """Where the journal is not what was written: a file with its line, and what does not hold."""

    place: str
    field: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Chain:
    """The journal as it lies there: its entries by time, what is wrong, and what a crash left."""

    entries: tuple[Entry, ...] = ()
    flaws: tuple[Flaw, ...] = ()
    unfinished: tuple[str, ...] = ()

    @property
    def digests(self) -> frozenset[str]:
        """The digests of all entries."""
        return frozenset(one.digest for one in self.entries)

    @property
    def heads(self) -> tuple[str, ...]:
        """The digests of the entries that no other one follows."""
        followed = {before for one in self.entries for before in one.previous}
        return tuple(sorted(self.digests - followed))


_TEXTS = tuple(one.name for one in fields(Entry) if one.name not in ("seq", "previous"))


def made(texts: Mapping[str, str], *, seq: int, previous: tuple[str, ...]) -> Entry:
    """Return an entry of these texts by name, with its digest; texts that are absent are empty."""
    facts: dict[str, Any] = {**dict.fromkeys(_TEXTS, ""), **texts, "seq": seq, "previous": previous}
    return Entry(**{**facts, "digest": digest(Entry(**facts).as_data())})


def digest(data: Mapping[str, Any]) -> str:
    """Return the digest that the plain data of an entry must have."""
    return canonical.digest({name: value for name, value in data.items() if name != "digest"})


def plain(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Return text on one line, without what a terminal obeys or JSON cannot hold."""
    sound = text.encode("utf-8", "replace").decode("utf-8")
    shown = "".join(one if one.isprintable() else " " for one in sound)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def files(root: Path) -> Iterator[str]:
    """Yield the paths of the journal's files from the root, by name, which is by time."""
    if (root / FOLDER).is_symlink():
        yield FOLDER
        return
    found = []
    for folder, inner, names in os.walk(root / FOLDER):
        links = [name for name in inner if Path(folder, name).is_symlink()]
        found += [Path(folder, name).relative_to(root).as_posix() for name in [*names, *links]]
    yield from sorted(found)


def read(root: Path) -> Chain:
    """Return the whole journal, every line compared with its digest and with the line before."""
    found: list[tuple[str, Entry]] = []
    flaws: list[Flaw] = []
    unfinished: list[str] = []
    for path in files(root):
        shown = plain(path)  # a name may hold anything
        *lines, rest = _content(root / path, shown, flaws).split(b"\n")
        if rest:
            unfinished.append(f"{shown}:{len(lines) + 1}")
        before: Entry | None = None
        for number, line in enumerate(lines, 1):
            entry = _entry(line, f"{shown}:{number}", flaws)
            if entry is not None:
                found.append((f"{shown}:{number}", entry))
                if before is not None:
                    flaws += _between(before, entry, f"{shown}:{number}")
            before = entry
    flaws += _unlinked(found)
    entries = sorted((entry for _, entry in found), key=lambda one: (one.time, one.seq, one.digest))
    return Chain(tuple(entries), tuple(sorted(flaws, key=_by_place)), tuple(unfinished))


def digests_in(content: bytes) -> Iterator[str]:
    """Yield the digests of the sound entries in the content of a file."""
    for line in content.split(b"\n")[:-1]:
        flaws: list[Flaw] = []
        entry = _entry(line, "", flaws)
        if entry is not None and not flaws:
            yield entry.digest


def _between(before: Entry, entry: Entry, place: str) -> Iterator[Flaw]:
    if entry.previous != (before.digest,):
        told = ", ".join(entry.previous)
        yield Flaw(place, "previous", f"{before.digest}, the line before", told)
    elif entry.seq != before.seq + 1:
        yield Flaw(place, "seq", str(before.seq + 1), str(entry.seq))


def _by_place(flaw: Flaw) -> tuple[str, int]:
    path, _, number = flaw.place.rpartition(":")
    return (path, int(number)) if number.isdigit() else (flaw.place, 0)


def _content(file: Path, path: str, flaws: list[Flaw]) -> bytes:
    """Return the bytes of a file; none, and a flaw, if it can be no journal."""
    try:
        facts = file.lstat()
        if not stat.S_ISREG(facts.st_mode) or not path.endswith(".jsonl"):
            flaws.append(Flaw(path, "file", "files of the journal only", "something else"))
        elif facts.st_size > _MOST_BYTES:
            flaws.append(Flaw(path, "size", f"at most {_MOST_BYTES} bytes", f"{facts.st_size}"))
        else:
            return file.read_bytes()
    except OSError as error:
        flaws.append(Flaw(path, "file", "a file that can be read", str(error.strerror).lower()))
    return b""


def _entry(line: bytes, place: str, flaws: list[Flaw]) -> Entry | None:
    """Return the entry of a line; None, and a flaw, if it is none."""
    try:
        data = json.loads(line)
        entry = _parsed(data)
        is_canonical = canonical.canonical(data) == line
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        flaws.append(Flaw(place, "line", "an entry", plain(line.decode("utf-8", "replace"), 80)))
        return None
    if not is_canonical:
        flaws.append(Flaw(place, "line", "canonical JSON", "other spelling"))
    if (wanted := digest(data)) != entry.digest:
        flaws.append(Flaw(place, "digest", wanted, entry.digest))
    return entry


def _parsed(data: Any) -> Entry:
    wanted = {*_TEXTS, "seq", "previous", "format_version"}
    texts = [data[name] for name in _TEXTS] + data["previous"]
    is_sound = (
        data.keys() == wanted
        and data["format_version"] == FORMAT_VERSION
        and type(data["seq"]) is int
        and all(isinstance(text, str) and text == plain(text) for text in texts)
    )
    datetime.fromisoformat(data["time"])
    if not is_sound:
        msg = "no entry of this version"
        raise ValueError(msg)
    facts = {name: data[name] for name in wanted - {"format_version", "previous"}}
    return Entry(**facts, previous=tuple(data["previous"]))


def _unlinked(found: list[tuple[str, Entry]]) -> Iterator[Flaw]:
    """Yield the first lines of files that follow what is not there, and lines that stand twice."""
    known: set[str] = set()
    every = {entry.digest: entry for _, entry in found}
    for place, entry in found:
        if entry.digest in known:
            yield Flaw(place, "digest", "an entry that stands once", f"{entry.digest} again")
        known.add(entry.digest)
        if not place.endswith(":1"):
            continue
        for before in entry.previous:
            if before not in every:
                yield Flaw(place, "previous", "an entry of the journal", f"{before}, which is gone")
        last = max((every[one].seq for one in entry.previous if one in every), default=0)
        if entry.seq != last + 1 and all(one in every for one in entry.previous):
            yield Flaw(place, "seq", str(last + 1), str(entry.seq))


def of_model(entries: Iterable[Entry], model: str) -> list[Entry]:
    """Return what was done to a model, under its former names too, in order of time."""
    every = list(entries)
    found: list[Entry] = []
    end = len(every)
    while True:
        own = [number for number in range(end) if every[number].model == model]
        found = [every[number] for number in own] + found
        if not own or not every[own[0]].reason.startswith("renamed: "):
            return found
        # Under its former name the same was live.
        first, end = every[own[0]], own[0]
        same = (one.model for one in reversed(every[:end]) if one.key == first.key)
        model = next((name for name in same if name != model), "")


def live(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the entry that made live what is live of each model after these, in order of time."""
    found: dict[str, Entry] = {}
    for one in entries:
        if one.result == "live":
            if one.model not in found or found[one.model].key != one.key:
                found[one.model] = one
        elif one.result == "unpublished":
            found.pop(one.model, None)
    return found
