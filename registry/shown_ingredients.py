"""Whether MLflow shows the ingredients of merges as they are: versions by digest, tags, texts.

Reads through an `Auditor` and changes nothing. Knows no build.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry import version_tags
from registry.differences import NOTHING, Cure, Difference, SeenVersion
from registry.tracked import Operand
from registry.tracking_audit import Auditor


def compare(auditor: Auditor, operands: Sequence[Operand]) -> Iterator[Difference]:
    """Yield every difference between the ingredients that a store shows and these operands."""
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
    yield from version_tags.compare_tags(name, where, expected, seen.tags, cure, is_whole=True)
    text = auditor.ingredient_text(operand, seen.source.removeprefix("models:/"))
    if text != seen.text:
        lines = version_tags.first_difference(text, seen.text)
        cure = Cure("version-text", name, seen.number, value=text)
        yield Difference(name, where, "description", *lines, cure)
