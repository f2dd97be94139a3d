"""Differences that an audit finds: what, where, expected and found; and what would set them right.

Values only: knows neither how they are found nor how they are cured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cure:
    """One repair: its kind, and the texts that it needs; a text that is None is taken away.

    Kinds and what they need:

        run-tag         run, tag, value             version-tag    name, version, tag, value
        run-restore     run                         version-text   name, version, value
        alias           name, tag, value            model-text     name, value
        model-tag       name, tag, value            log            name: log the model (again)
        ingredient      operand (number in a list)  pointer        name: write the pointer
        adopt           name: enter into the journal what the record says
        unpublish       name: take `live` away
    """

    kind: str
    name: str = ""
    target: str = ""
    tag: str = ""
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One field of one thing that is not as it should be; `advice` says what no cure can do."""

    model: str
    where: str
    field: str
    expected: str
    found: str
    cure: Cure | None = None
    advice: str = ""

    def as_data(self) -> dict[str, Any]:
        """Return the plain data of `audit --format json`."""
        return {
            "model": self.model,
            "where": self.where,
            "field": self.field,
            "expected": self.expected,
            "found": self.found,
            "repairable": self.cure is not None,
            "advice": self.advice,
        }


NOTHING = "nothing"
"""How `expected` and `found` say that there is nothing."""


@dataclass(frozen=True, slots=True)
class SeenVersion:
    """One version of a registered model as MLflow shows it."""

    number: str
    tags: Mapping[str, str]
    text: str
    run: str
    source: str


@dataclass(frozen=True, slots=True)
class SeenRun:
    """One run as MLflow shows it; `output` is the id of the logged model that it made."""

    id: str
    tags: Mapping[str, str]
    is_deleted: bool
    output: str


@dataclass(frozen=True, slots=True)
class SeenModel:
    """One registered model as MLflow shows it."""

    name: str
    text: str
    tags: Mapping[str, str]
    aliases: Mapping[str, str]
    versions: tuple[SeenVersion, ...] = ()
