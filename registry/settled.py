"""What an earlier plan found to be right, by model, with the facts on which that rests.

A sealed file in `.registry/`, an accelerator only. A row holds as long as its files are what they
were, what the recipe names is what it was, and so are all models that it is made of. The file is a
list of columns, since 100,000 rows of JSON would take a second to read.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from registry import sealed

FILE = "settled"

StoredObject = tuple[str, int]
"""DVC's name of an object, and its size."""


class Row(NamedTuple):
    """One settled model.

    `spec`, `record` and `entry` are the packed stats of its spec, its record and the entry of its
    key in the store, `needs` says what the recipe names that is no merge, `told` is what `status`
    shows of it.
    """

    model: str
    spec: bytes
    record: bytes
    entry: bytes
    key: str
    digest: str
    store: str | None
    upstream: tuple[str, ...]
    needs: tuple[str, ...]
    objects: tuple[StoredObject, ...]


@dataclass(frozen=True)
class Table:
    """All settled models; `tracked` is the stat of Git's index when no link was tracked.

    `needs` and `objects` are those of all rows, each once.
    """

    rows: Mapping[str, Row]
    needs: frozenset[str]
    objects: Sequence[StoredObject]
    tracked: bytes
    told_text: bytes

    @cached_property
    def told(self) -> dict[str, Any]:
        """What `status` shows of each model: parsed only when it is asked for."""
        return dict(zip(self.rows, json.loads(self.told_text), strict=True))


EMPTY = Table({}, frozenset(), (), b"", b"[]")


def read(root: Path, version: str) -> Table:
    """Return what is remembered of the repository at `root`; nothing after any damage."""
    content = sealed.read(root, FILE, version)
    return EMPTY if content is None else _decode(content)


def write(
    root: Path, version: str, rows: Sequence[Row], told: Mapping[str, Any], tracked: bytes
) -> None:
    """Remember these rows instead; that it cannot be done is no error."""
    try:
        sealed.write(root, FILE, version, _encode(rows, told, tracked))
    except (OSError, ValueError):  # read-only or full
        return


def _encode(rows: Sequence[Row], told: Mapping[str, Any], tracked: bytes) -> bytes:
    needs, needed = _numbered(row.needs for row in rows)
    objects, held = _numbered(row.objects for row in rows)
    stores, logged = _numbered((row.store,) for row in rows)
    facts = {
        "upstream": {row.model: row.upstream for row in rows if row.upstream},
        "needs": needs,
        "stores": stores,
        "tracked": tracked.hex(),
    }
    told_text = json.dumps([told[row.model] for row in rows], separators=(",", ":"))
    sections = [
        json.dumps(facts, separators=(",", ":")).encode(),
        told_text.encode(),
        _joined([row.model for row in rows]),
        b"".join([row.spec for row in rows]),
        b"".join([row.record for row in rows]),
        b"".join([row.entry for row in rows]),
        _joined([row.key for row in rows]),
        _joined([row.digest for row in rows]),
        _joined([name for name, _ in objects]),
        array("q", [size for _, size in objects]).tobytes(),
        *logged,
        *needed,
        *held,
    ]
    return b"\n".join([json.dumps([len(one) for one in sections]).encode(), b"".join(sections)])


def _decode(content: bytes) -> Table:
    lengths, _, rest = content.partition(b"\n")
    ends = accumulate(json.loads(lengths), initial=0)
    text, told, models_text, *parts = [rest[start:end] for start, end in pairwise(ends)]
    facts = json.loads(text)
    models = _split(models_text)
    upstream = {model: tuple(names) for model, names in facts["upstream"].items()}
    objects = list(zip(_split(parts[5]), array("q", parts[6]), strict=True))
    columns = zip(
        models,
        _chunks(parts[0]),
        _chunks(parts[1]),
        _chunks(parts[2]),
        _split(parts[3]),
        _split(parts[4]),
        (one for (one,) in _listed(facts["stores"], parts[7], parts[8])),
        (upstream.get(model, ()) for model in models),
        _listed(facts["needs"], parts[9], parts[10]),
        _listed(objects, parts[11], parts[12]),
        strict=True,
    )
    rows = dict(zip(models, map(Row._make, columns), strict=True))
    needs, tracked = frozenset(facts["needs"]), bytes.fromhex(facts["tracked"])
    return Table(rows, needs, objects, tracked, told)


def _joined(texts: Sequence[str]) -> bytes:
    # Names of valid models, digests and DVC's names have no line breaks; JSON takes thrice as long.
    return "\n".join(texts).encode()


def _split(column: bytes) -> list[str]:
    return column.decode().split("\n") if column else []


def _numbered(lists: Iterable[tuple[Any, ...]]) -> tuple[list[Any], tuple[bytes, bytes]]:
    """Return everything in the lists once; how many each list has, and all by number."""
    known: dict[Any, int] = {}
    counts, numbers = array("I"), array("I")
    for one in lists:
        counts.append(len(one))
        numbers.extend([known.setdefault(thing, len(known)) for thing in one])
    return list(known), (counts.tobytes(), numbers.tobytes())


def _listed(known: Sequence[Any], counts: bytes, numbers: bytes) -> Iterator[tuple[Any, ...]]:
    things = [known[number] for number in array("I", numbers)]
    ends = accumulate(array("I", counts), initial=0)
    return (tuple(things[start:end]) for start, end in pairwise(ends))


def _chunks(column: bytes) -> list[bytes]:
    return [column[start : start + 32] for start in range(0, len(column), 32)]
