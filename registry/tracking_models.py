"""Registered models, their versions and the logged models behind them: found by tag, else made.

Knows no run; MLflow's client is handed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from registry import tracking_text
from registry.tracked import BuildLog, Operand
from registry.tracking_session import Session

_LIVE, _PREVIOUS = "live", "previous"


class Models:
    """What one tracking store holds of merges and their ingredients."""

    def __init__(
        self, session: Session, client: Any, experiment: str, create: Callable[..., Any]
    ) -> None:
        """Take the conversation, the client, the experiment's id and the maker of versions."""
        self._ask = session.ask
        self._client = client
        self._experiment = experiment
        self._create = create
        self._ingredients: dict[tuple[str, str], tuple[str, str]] = {}

    def find_version(self, name: str, tag: str, value: str) -> Any:
        """Return the newest version of a model with that tag, or None."""
        wanted = f"name = '{name}' AND tags.`{tag}` = '{value}'"
        found = self._ask(self._client.search_model_versions, wanted)
        return max(found, key=lambda version: int(version.version), default=None)

    def make_version(
        self, name: str, model: str, facts: Mapping[str, str], text: str, run: str | None = None
    ) -> Any:
        """Return a new version of a registered model, which is made too if it is not there."""
        if not self._is_registered(name):
            labels = {"registry.kind": facts["registry.kind"]}
            self._ask(self._client.create_registered_model, name, tags=labels)
        options = {"run_id": run, "tags": dict(facts), "description": text}
        version = self._ask(self._create, name, model, **options)
        # Without the first of these the page of the logged model says "not registered".
        known = json.dumps([{"name": name, "version": version.version}])
        shown = {"mlflow.modelVersions": known, "mlflow.note.content": text}
        self._ask(self._client.set_logged_model_tags, model, shown)
        return version

    def _is_registered(self, name: str) -> bool:
        return bool(self._ask(self._client.search_registered_models, f"name = '{name}'"))

    def make_model(self, name: str, facts: Mapping[str, str], run: str | None = None) -> str:
        """Return the id of a logged model; one that a crash left without a version is taken up."""
        tag = "registry.key" if "registry.key" in facts else "registry.digest"
        wanted = f"name = '{name}' AND tags.`{tag}` = '{facts[tag]}'"
        found = self._ask(self._client.search_logged_models, [self._experiment], wanted)
        if found:
            return str(found[0].model_id)
        model = self._ask(
            self._client.create_logged_model,
            self._experiment,
            name=name,
            source_run_id=run,
            # The page of such a model shows its parameters, but not its tags.
            params={key.removeprefix("registry."): value for key, value in facts.items()},
            tags=dict(facts),
            model_type=facts["registry.kind"],
        )
        self._ask(self._client.finalize_logged_model, model.model_id, "READY")
        return str(model.model_id)

    def ingredient(self, operand: Operand) -> tuple[str, str] | None:
        """Return the logged model and the version of an operand, made if need be.

        None for a merge that this store does not hold: only its own build can enter it.
        """
        known = self.known_ingredient(operand)
        if known is None and operand.kind != "merge":
            version = self._enter(operand)
            return self.take(operand, version.source, version.version)
        return known

    def known_ingredient(self, operand: Operand) -> tuple[str, str] | None:
        """Return the logged model and the version of an operand; None if the store has none."""
        found = self._ingredients.get((operand.registered_name, operand.digest))
        if found is None:
            tag = "registry.model_digest" if operand.kind == "merge" else "registry.digest"
            version = self.find_version(operand.registered_name, tag, operand.digest)
            if version is not None:
                return self.take(operand, version.source, version.version)
        return found

    def take(self, operand: Operand, source: str, version: int | str) -> tuple[str, str]:
        """Take a version for that of an operand; return its logged model and its number."""
        found = (model_id(source), str(version))
        self._ingredients[operand.registered_name, operand.digest] = found
        return found

    def _enter(self, operand: Operand) -> Any:
        facts = {
            "registry.kind": operand.kind,
            "registry.name": operand.name,
            "registry.digest": operand.digest,
        }
        if operand.version is not None:
            facts["registry.version"] = str(operand.version)
        model = self.make_model(operand.title, facts)
        text = tracking_text.of_ingredient(operand, self._experiment, model)
        version = self.make_version(operand.registered_name, model, facts, text)
        known = self._ask(self._client.search_model_versions, f"name = '{operand.registered_name}'")
        texts = [other.description or "" for other in known]
        whole = "\n\n".join(sorted(texts))
        self._ask(self._client.update_registered_model, operand.registered_name, whole)
        return version

    def _places(self, build: BuildLog) -> dict[str, str]:
        """Return the links to the pages of a build's operands, by their keys."""
        places = {}
        for operand in (build.base, *build.operands):
            if (found := self.known_ingredient(operand)) is not None:
                places[operand.key] = tracking_text.version_link(operand.registered_name, found[1])
        return places

    def describe(self, build: BuildLog, run: str) -> str:
        """Return the description of a build that a run has logged."""
        link = tracking_text.run_link(self._experiment, run)
        return tracking_text.of_build(build, self._places(build), link)

    def make_live(self, build: BuildLog, version: str, run: str) -> None:
        """Point `live` at a version, `previous` at the one before, and describe the model so."""
        name = build.model
        former = self._ask(self._client.get_registered_model, name).aliases.get(_LIVE)
        # An alias is a number or a text, as the store happens to give it.
        if str(former) != version:
            if former is not None:
                # First this one, so that nothing is lost between the two calls.
                self._ask(self._client.set_registered_model_alias, name, _PREVIOUS, str(former))
            self._ask(self._client.set_registered_model_alias, name, _LIVE, version)
        text = self.describe_live(build, version, run)
        self._ask(self._client.update_registered_model, name, text)

    def describe_live(self, build: BuildLog, version: str, run: str) -> str:
        """Return the description of a model whose live version is this one."""
        link = tracking_text.run_link(self._experiment, run)
        return tracking_text.of_model(build, self._places(build), version, link)

    def mark_rejected(self, name: str, reason: str, run: str) -> None:
        """Say on a model's page that its last attempt was stopped; what is live stays so."""
        if not self._is_registered(name):
            return
        text = self._ask(self._client.get_registered_model, name).description or ""
        link = tracking_text.run_link(self._experiment, run)
        told = tracking_text.rejected(text, reason, link)
        if told != text:
            self._ask(self._client.update_registered_model, name, told)

    def take_back(self, name: str) -> None:
        """Take `live` away from a model, and say so on its page."""
        if not self._is_registered(name):
            return
        found = self._ask(self._client.get_registered_model, name)
        if _LIVE in found.aliases:
            self._ask(self._client.delete_registered_model_alias, name, _LIVE)
        text = tracking_text.unpublished(found.description or "")
        if text != found.description:
            self._ask(self._client.update_registered_model, name, text)


def model_of(version: Any) -> str:
    """Return the id of the logged model behind a version."""
    return model_id(version.source)


def model_id(source: str) -> str:
    """Return the id of the logged model that a version's source names."""
    return str(source).removeprefix("models:/")
