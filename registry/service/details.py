"""What the pages show of models beyond the snapshot, read in the clone and told as plain data.

Runs in a child of the service (see `reading`): catalogs, records and Git's history are large, and
written by others. Knows no HTTP, writes no HTML but drawings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry import ancestry, git, graph_picture, lineage_report, record, tracking_place
from registry.cli.session import Session, open_session
from registry.lineage import Known, ingredients
from registry.record import BuildRecord, Evaluation, Logged, UnreadableRecord
from registry.service import drawn, links, past
from registry.spec import Catalog, MergeSpec
from registry.tracking_text import version_link

Data = dict[str, Any]


def recorded(root: Path) -> dict[str, Data]:
    """Return by model when its record changed last, and what the gates said; for the list."""
    changed = git.last_changes(root, "catalog/builds")
    found: dict[str, Data] = {}
    for model, one in record.read_all(root).items():
        commit, at = changed.get(past.file_of(model), ("", None))
        found[model] = {"at": at, "commit": commit, "passed": 0, "failed": [], "stopped": []}
        if isinstance(one, BuildRecord):
            judged = one.evaluation.verdicts if one.evaluation else ()
            refused = one.rejected.verdicts if one.rejected else ()
            found[model] |= {
                "passed": sum(bool(verdict["passed"]) for verdict in judged),
                "failed": [verdict["text"] for verdict in judged if not verdict["passed"]],
                "stopped": [verdict["text"] for verdict in refused if not verdict["passed"]],
            }
    return found


def model(root: Path, name: str) -> Data | None:
    """Return what a model is, as built or else as declared; None for an unknown one."""
    session = open_session(root)
    catalog = session.loaded.catalog
    records = session.observed().recorded
    if name not in records and name not in session.declared:
        return None
    one = records.get(name)
    known = one if isinstance(one, BuildRecord) else None
    live = ancestry.live(records, catalog, session.store.cache)
    wanted = ancestry.declared(session.declared.values(), catalog)
    data: Data = {
        "model": name,
        "unread": one.message if isinstance(one, UnreadableRecord) else "",
        "spec": _spec(catalog.merges.get(name)),
        "history": past.history(root, name),
        **_live_data(session, known),
    }
    data |= _made_of(name, live if name in live.requests else wanted, catalog)
    if known and known.built and name in session.declared:
        data["changes"] = _changes(session, name, records, known.built.request)
    return data


def lineage(root: Path, name: str) -> Data | None:
    """Return the ingredients of a model at any depth as a tree, None for an unknown one."""
    session = open_session(root)
    catalog = session.loaded.catalog
    live = ancestry.live(session.observed().recorded, catalog, session.store.cache)
    wanted = ancestry.declared(session.declared.values(), catalog)
    known = live if name in live.requests else wanted
    if name not in known.requests:
        return None
    tree: Data = lineage_report.as_data(ingredients(name, known), catalog)["model"]
    return tree


def _spec(spec: MergeSpec | None) -> Data | None:
    if spec is None:
        return None
    gates = {task: gate.as_data() for task, gate in spec.gates.items()}
    return {
        "description": spec.description,
        "owner": spec.owner,
        "labels": dict(spec.labels),
        "suspend": spec.suspend,
        "suite": spec.suite,
        "gates": gates,
    }


def _made_of(name: str, known: Known, catalog: Catalog) -> Data:
    request = known.requests.get(name)
    if request is None:
        return {"is_live": False, "request": None}
    graph = ingredients(name, known)
    title = f"{name} and what it is made of"
    focus = graph.nodes[-1]
    return {
        "is_live": bool(focus.digest),
        "request": request,
        "expression": focus.expression,
        "contains": lineage_report.as_data(graph, catalog)["contains"],
        "drawing": graph_picture.draw(graph, title, focus=focus, link=links.of_node),
    }


def _changes(
    session: Session,
    name: str,
    records: Mapping[str, BuildRecord | UnreadableRecord],
    built: Mapping[str, Any],
) -> list[Data]:
    """Return where what is declared differs from what is live."""
    digests = {
        model: one.built.model_digest
        for model, one in records.items()
        if isinstance(one, BuildRecord) and one.built
    }
    declared = session.declared[name]
    if any(merge not in digests for merge in declared.upstream):
        return []  # what it will be made of is not known before that is built
    return past.differences(built, declared.pin(digests))


def _live_data(session: Session, known: BuildRecord | None) -> Data:
    """Return what is recorded of a model beside its request."""
    if known is None:
        return {}
    data: Data = {}
    if built := known.built:
        sizes = [file["size"] for file in built.artifact["files"].values()]
        data["built"] = {
            "key": built.key,
            "model_digest": built.model_digest,
            "artifact_digest": built.artifact["digest"],
            "files": len(sizes),
            "bytes": sum(sizes),
            "device_class": built.device_class,
            "seconds": built.seconds,
            "peak_bytes": built.peak_bytes,
            "versions": dict(built.versions),
        }
        data["plots"] = [
            {"file": f, "title": one.title} for f, one in drawn.charts_of(session, known)
        ]
    if known.evaluation:
        data["evaluation"] = _evaluation(known.evaluation)
    if known.rejected:
        stopped = known.rejected
        data["rejected"] = {
            "metrics": dict(stopped.metrics),
            "verdicts": [dict(verdict) for verdict in stopped.verdicts],
        }
    if logged := known.mlflow:
        data["mlflow"] = {
            "run": logged.run,
            "version": logged.version,
            "url": _mlflow(session.root, known.model, logged),
        }
    return data


def _evaluation(measured: Evaluation) -> Data:
    return {
        "suite": measured.request["suite"]["name"],
        "metrics": dict(measured.metrics),
        "base": dict(measured.base),
        "baselines": {label: dict(one) for label, one in measured.baselines.items()},
        "verdicts": [dict(verdict) for verdict in measured.verdicts],
    }


def _mlflow(root: Path, model: str, logged: Logged) -> str | None:
    """Return the address of a version in MLflow, None where no server is known to show it."""
    uri = tracking_place.default_uri(root)
    pages = tracking_place.ui_command(root, uri)
    if pages.argv or tracking_place.known_store(root, uri) != logged.store:
        return None
    return pages.url.partition("#")[0] + version_link(model, logged.version)
