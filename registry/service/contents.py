"""What the pages and the API tell of ingredients: each, all, and which models contain them.

Runs in a child of the service (see `reading`). Knows no HTTP, writes no HTML but drawings.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from registry import ancestry, impact_report, lineage_report
from registry import impact as impacts
from registry.cli.session import Session, open_session
from registry.errors import UsageError
from registry.lineage import Node
from registry.service import links

_DRAWN = 60
"""Models with an ingredient that are drawn: of more nobody sees anything, and a table has them."""

Data = dict[str, Any]


def everything(root: Path) -> Data:
    """Return every base, adapter and checkpoint with the number of models that contain it."""
    asked = _Asked(open_session(root))
    rows = []
    for one in impacts.spread(asked.world, ancestry.given(asked.catalog)):
        known = asked.catalog.ingredients.get(one.node.id)
        about = {
            "description": known.description if known else "",
            "license": known.license if known else "",
            "models": {"live": one.live, "declared": one.declared},
        }
        rows.append(lineage_report.node_data(one.node) | about)
    told = impact_report.as_data((), asked.unknown)
    return {**told, "ingredients": rows, "notes": [*impact_report.unknown_text(asked.unknown)]}


def impact(root: Path, kind: str, name: str, version: str) -> Data | None:
    """Return what `registry impact --format json` tells; None for an unknown ingredient."""
    asked = _Asked(open_session(root))
    targets = asked.find(kind, name, version)
    found = [impacts.impact(node, asked.world) for node in targets]
    return impact_report.as_data(found, asked.unknown) if found else None


class _Asked:
    """The graphs of what is live and declared, for questions about an ingredient."""

    def __init__(self, session: Session) -> None:
        self.catalog = session.loaded.catalog
        recorded = session.observed().recorded
        live = ancestry.live(recorded, self.catalog, session.store.cache)
        declared = ancestry.declared(session.declared.values(), self.catalog)
        self.world = impacts.look(live, declared)
        self.unknown = impacts.unknown(self.world)

    def find(self, kind: str, name: str, version: str) -> list[Node]:
        """Return an ingredient, every version of it without one; nothing for an unknown one."""
        reference = f"{name}@{version}" if version else name
        try:
            return impacts.find(kind, reference, self.world, ancestry.given(self.catalog))
        except UsageError:
            return []


def ingredient(root: Path, kind: str, name: str, version: str) -> Data | None:
    """Return what an ingredient is and every model that contains it; None for an unknown one."""
    asked = _Asked(open_session(root))
    targets = asked.find(kind, name, version)
    if not targets:
        return None
    catalog, unknown = asked.catalog, asked.unknown
    found = impacts.impact(targets[0], asked.world)
    versions = _versions(asked.find(kind, name, ""))
    is_drawn = len(found.uses) <= _DRAWN
    told = impact_report.as_data([found], unknown)
    known = catalog.ingredients.get(found.node.id)
    about: Data = {}
    if known:
        about = {
            "description": known.description,
            "license": known.license,
            "origin": {str(key): str(value) for key, value in known.origin.items()},
            "base": known.base,
            "folder": known.folder,
        }
    return {
        **told["ingredients"][0],
        **about,
        "versions": versions,
        "unknown": list(impact_report.unknown_text(unknown)),
        "drawing": impact_report.drawing([found], links.of_node) if is_drawn else "",
    }


def _versions(nodes: Iterable[Node]) -> list[Data]:
    return [
        {"version": one.version, "revoked": one.revoked} for one in nodes if one.version is not None
    ]
