"""The page of all ingredients: what there is to merge, and how many models contain it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from registry import page
from registry.service import links
from registry.service.pages import filtered, frame, parts, words
from registry.service.pages.filtered import Filter
from registry.service.pages.frame import Site
from registry.service.snapshot import Snapshot

ADDRESS = "/ingredients"
_HEAD = ("ingredient", "live in", "declared in", "revoked", "license", "about")


def whole(now: Snapshot, chosen: Filter, told: Mapping[str, Any]) -> str:
    """Return the page; `told` is the answer of `contents.everything`."""
    everything = told["ingredients"]
    found = [one for one in everything if chosen.finds(_text(one))]
    asked = "Name, license, description or revoked"
    return frame.whole(
        Site(now.repository, now.branch),
        "Ingredients",
        [
            filtered.form(chosen, ADDRESS, "Ingredients", asked),
            filtered.table(chosen, ADDRESS, "ingredient", _HEAD, found, _row, len(everything)),
            parts.unknown(told["notes"]),
        ],
        section=ADDRESS,
    )


def _text(one: Mapping[str, Any]) -> str:
    revoked = f"revoked: {one['revoked']}" if one.get("revoked") else ""
    return f"{parts.label(one)} {revoked} {one['license']} {one['description']}"


def _row(one: Mapping[str, Any]) -> tuple[str, ...]:
    address = links.of(one["kind"], one["name"], one.get("version"))
    models = one["models"]
    return (
        page.linked(parts.label(one), address),
        words.count(models["live"], "model"),
        words.count(models["declared"], "model"),
        parts.revoked(one),
        escape(one["license"]),
        frame.long(one["description"]),
    )
