"""What a tracking store shows of models, read for an audit, and the calls that set it right.

Reads by searching only: asking for what is not there is an error to MLflow, and a `Session` asks
nothing after one. Knows not what should be there; MLflow's client is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from registry import tracking_text
from registry.differences import Cure, SeenModel, SeenRun, SeenVersion
from registry.tracked import BuildLog, Operand, shortened
from registry.tracking_models import Models
from registry.tracking_session import Session

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_RUN = re.compile(r"[0-9a-f]{32}")
_ALL_RUNS = 3  # mlflow.entities.ViewType.ALL: deleted ones too
_PAGE = 1000


class Auditor:
    """Reads and repairs one experiment of one tracking store."""

    def __init__(self, session: Session, client: Any, experiment: str, models: Models) -> None:
        """Take the conversation, the client, the experiment's id and the models in it."""
        self._ask = session.ask
        self._client = client
        self._experiment = experiment
        self._models = models

    def known_models(self) -> set[str]:
        """Return the models of which this experiment has a run of a build."""
        found, token = set(), None
        while True:
            page = self._ask(
                self._client.search_runs,
                [self._experiment],
                "tags.`registry.kind` = 'merge'",
                max_results=_PAGE,
                page_token=token,
            )
            found |= {run.data.tags.get("registry.model", "") for run in page}
            token = page.token
            if not token:
                # A tag may hold anything, and goes into the next question.
                return {name for name in found if _NAME.fullmatch(name)}

    def model(self, name: str) -> SeenModel | None:
        """Return a registered model with its versions, None if there is none."""
        if not self._ask(self._client.search_registered_models, f"name = '{name}'"):
            return None
        one = self._ask(self._client.get_registered_model, name)
        aliases = {alias: str(version) for alias, version in one.aliases.items()}
        versions = tuple(sorted(self._versions(name), key=lambda version: int(version.number)))
        return SeenModel(name, one.description or "", dict(one.tags), aliases, versions)

    def _versions(self, name: str) -> Iterator[SeenVersion]:
        for one in self._ask(self._client.search_model_versions, f"name = '{name}'"):
            yield SeenVersion(
                number=str(one.version),
                tags=dict(one.tags),
                text=one.description or "",
                run=one.run_id or "",
                source=one.source or "",
            )

    def run(self, run: str) -> SeenRun | None:
        """Return a run of this experiment, a deleted one too; None if there is none."""
        if not _RUN.fullmatch(run):  # whoever may edit versions writes what they like there
            return None
        wanted = f"attributes.run_id = '{run}'"
        found = self._ask(
            self._client.search_runs, [self._experiment], wanted, run_view_type=_ALL_RUNS
        )
        if not found:
            return None
        outputs = getattr(found[0].outputs, "model_outputs", None)
        return SeenRun(
            id=run,
            tags=dict(found[0].data.tags),
            is_deleted=found[0].info.lifecycle_stage == "deleted",
            output=str(outputs[0].model_id) if outputs else "",
        )

    def texts(self, build: BuildLog, version: SeenVersion) -> tuple[str, str]:
        """Return the descriptions that a live version and its model should have."""
        text = self._models.describe(build, version.run)
        return text, self._models.describe_live(build, version.number, version.run)

    def rejected(self, text: str, model: str, reason: str) -> str:
        """Return a model's description with its last attempt, which was stopped; as far as told."""
        wanted = f"tags.`registry.kind` = 'rejected' AND tags.`registry.model` = '{model}'"
        found = self._ask(
            self._client.search_runs,
            [self._experiment],
            wanted,
            max_results=_PAGE,
            order_by=["attributes.start_time DESC"],
        )
        runs = [run for run in found if run.data.tags.get("registry.reason") == shortened(reason)]
        if not runs:
            return text
        link = tracking_text.run_link(self._experiment, runs[0].info.run_id)
        return tracking_text.rejected(text, reason, link)

    def ingredient_text(self, operand: Operand, model: str) -> str:
        """Return the description that an ingredient's version should have."""
        return tracking_text.of_ingredient(operand, self._experiment, model)

    def take(self, operand: Operand, version: SeenVersion) -> None:
        """Take a version for that of an ingredient, whatever its tags say."""
        self._models.take(operand, version.source, version.number)

    def enter(self, operand: Operand) -> None:
        """Make an ingredient's version."""
        self._models.ingredient(operand)

    def cure(self, cure: Cure) -> None:
        """Set one thing right."""
        call, *texts = _CALLS[cure.kind, cure.value is not None]
        given: dict[str, str | None] = {
            "run": cure.target,
            "version": cure.target,
            "name": cure.name,
        }
        given |= {"tag": cure.tag, "value": cure.value}
        self._ask(getattr(self._client, call), *(given[text] for text in texts))


_CALLS = {
    ("run-tag", True): ("set_tag", "run", "tag", "value"),
    ("run-tag", False): ("delete_tag", "run", "tag"),
    ("run-restore", False): ("restore_run", "run"),
    ("version-tag", True): ("set_model_version_tag", "name", "version", "tag", "value"),
    ("version-tag", False): ("delete_model_version_tag", "name", "version", "tag"),
    ("version-text", True): ("update_model_version", "name", "version", "value"),
    ("model-text", True): ("update_registered_model", "name", "value"),
    ("model-tag", True): ("set_registered_model_tag", "name", "tag", "value"),
    ("alias", True): ("set_registered_model_alias", "name", "tag", "value"),
    ("alias", False): ("delete_registered_model_alias", "name", "tag"),
}
