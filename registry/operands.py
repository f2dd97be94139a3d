"""Names on the command line as things of the catalog: `sql@1`, `sql`, `adapter sql@1`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from registry.errors import UsageError, did_you_mean
from registry.spec import Catalog, IngredientId, label

KINDS = ("adapter", "checkpoint", "merge")
"""What a name may be said to be; a base is no operand."""


def find(words: Sequence[str], catalog: Catalog) -> tuple[IngredientId, ...]:
    """Return what the words name, in their order; a merge has no version.

    A kind may stand before a name, and a version that is the only one may be left out. Raises
    UsageError with the nearest name for what does not exist, and for what is named twice.
    """
    known = [
        *(one for one in catalog.ingredients if one[0] in KINDS),
        *(("merge", name, None) for name in catalog.merges),
    ]
    found: list[IngredientId] = []
    for kind, name in _references(words):
        one = _find(kind, name, known)
        if one in found:
            msg = f"{label(*one)} is named twice"
            raise UsageError(msg)
        found.append(one)
    return tuple(found)


def _references(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield every name with the kind that stands before it, if one does."""
    parts = iter(part for word in words for part in word.split())
    for part in parts:
        if part not in KINDS:
            yield "", part
            continue
        name = next(parts, None)
        if name is None:
            msg = f"expected a name after {part}"
            raise UsageError(msg)
        yield part, name


def _find(kind: str, reference: str, known: Iterable[IngredientId]) -> IngredientId:
    name, _, version = reference.partition("@")
    of_kind = [one for one in known if kind in ("", one[0])]
    named = sorted((one for one in of_kind if one[1] == name), key=_position)
    found = [one for one in named if not version or str(one[2]) == version]
    if len(found) == 1:
        return found[0]
    if found:
        msg = f"{reference} may be {' or '.join(label(*one) for one in found)}"
        raise UsageError(msg, "name one of them")
    if named:
        msg = f"no {reference}, but {', '.join(label(*one) for one in named)}"
        raise UsageError(msg)
    what = kind or "merge, adapter or checkpoint"
    msg = f"no {what} {reference}"
    raise UsageError(msg, did_you_mean(name, {one[1] for one in of_kind}))


def _position(one: IngredientId) -> tuple[str, int]:
    return one[0], one[2] or 0
