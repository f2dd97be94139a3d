"""The page of an adapter, a checkpoint or a base: what it is, and the models that contain it. Pure.

What a catalog says of it is text; only a plain http address becomes a link.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from registry import page
from registry.service import links
from registry.service.pages import frame, parts, words
from registry.service.pages.frame import Site
from registry.service.snapshot import Snapshot

_ADDRESS = re.compile(r"https?://[^\s\"'<>]+")
_HEAD = ("model", "where", "sign", "weight", "by way of")
_WHERE = {
    "both": "live and declared",
    "live": "live, not declared any more",
    "declared": "declared, not live",
}


def whole(now: Snapshot, told: Mapping[str, Any]) -> str:
    """Return the page; `told` is the answer of `contents.ingredient`."""
    title = parts.label(told)
    sections = (*_about(told), *_models(told))
    return frame.whole(Site(now.repository, now.branch), title, sections)


def _about(told: Mapping[str, Any]) -> Iterator[str]:
    if reason := told.get("revoked"):
        text = "No model that contains it is built or stays published."
        yield frame.notice("Revoked", page.text(reason) + page.text(text), "bad")
    base = told.get("base")
    yield frame.facts(
        [
            ("about", escape(told.get("description", ""))),
            ("license", escape(told.get("license", ""))),
            ("base", page.linked(base, links.of("base", base)) if base else ""),
            ("digest", frame.code(told["digest"])),
            ("lies in", frame.code(told.get("folder", ""))),
            *((f"origin: {key}", _address(value)) for key, value in told.get("origin", {}).items()),
            ("other versions", _versions(told)),
        ]
    )


def _address(value: str) -> str:
    shown = escape(value)
    if _ADDRESS.fullmatch(value):
        return f'<a href="{shown}" rel="noreferrer">{shown}</a>'
    return shown


def _versions(told: Mapping[str, Any]) -> str:
    others = [one for one in told["versions"] if one["version"] != told.get("version")]
    return ", ".join(
        page.linked(
            f"{told['name']}@{one['version']}{' (revoked)' if one['revoked'] else ''}",
            links.of(told["kind"], told["name"], one["version"]),
        )
        for one in others
    )


def _models(told: Mapping[str, Any]) -> Iterator[str]:
    yield page.heading("Models that contain it")
    models = told["models"]
    live = sum(one["sign"]["live"] is not None for one in models)
    if models:
        yield page.text(f"In {words.count(len(models), 'model')}, of which {live} live.")
        if told["drawing"]:
            yield page.figure("Drawing of the models that contain it", told["drawing"])
        yield page.table("Models that contain it", _HEAD, list(_rows(told)))
    else:
        yield page.text("It is in no model.")
    yield parts.unknown(told["unknown"])


def _rows(told: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for one in told["models"]:
        name = page.linked(one["model"], links.of_model(one["model"]))
        for way in one["paths"]:
            yield name, _WHERE[way["where"]], *parts.cells(way)
        if one["more_paths"]:
            yield name, _WHERE[one["where"]], "", "", f"{one['more_paths']} more ways"
