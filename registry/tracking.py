"""MLflow, and only here: one run per build, registered versions, found again by build key.

A projection of what Git holds, never the truth. The order of calls makes a crash harmless: the
version comes last, so its presence says that the rest is there, and a run without one is taken up
again. Whatever MLflow refuses is one `NotNow`, and after the first nothing more is asked, so that
a server that is down costs seconds. Knows no plan and no path of the catalog.
"""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from registry import lock
from registry.record import Logged
from registry.tracked import BuildLog, Operand, RunLog, shortened, tags, weight_metric
from registry.tracking_audit import Auditor
from registry.tracking_models import Models, model_of
from registry.tracking_place import (
    CALM,
    SQLITE,
    Pages,
    artifact_folder,
    default_uri,
    file_of,
    known_store,
    remember_store,
    ui_command,
)
from registry.tracking_session import Session

__all__ = [
    "BuildLog",
    "Logged",
    "Operand",
    "Pages",
    "Tracker",
    "create_store",
    "default_uri",
    "known_store",
    "remember_store",
    "ui_command",
]

CALL_SECONDS = 8
"""How long one request may stay unanswered; MLflow itself tries for 247 s."""

_CREATION_SECONDS = 60
"""How long to wait for another process that makes the same store; it takes 3 s."""

_BATCH = 100  # MLflow refuses more parameters or tags at once
_METRIC_BATCH = 800  # and no more than 1000 of all kinds together


class Tracker:
    """One experiment of one tracking store, for one command's time."""

    def __init__(self, uri: str, experiment: str, *, deadline_seconds: float = 30.0) -> None:
        """Take the store's address and the experiment's name; nothing is asked yet."""
        self._uri = uri
        self._name = experiment
        self._session = Session(uri, deadline_seconds)
        self._ask = self._session.ask
        self._client: Any = None
        self._experiment: Any = None
        self._models: Models | None = None

    def _open(self) -> Models:
        if self._models is None:
            # Importing MLflow and making the tables of a file take long, but wait for nobody.
            if self._client is None:
                self._client = self._session.work(_connected, self._uri)
            self._experiment = self._find_experiment()
            self._models = Models(
                self._session,
                self._client,
                self._experiment.experiment_id,
                partial(_create_version, self._uri, self._client),
            )
        return self._models

    def auditor(self) -> Auditor | None:
        """Return who reads what is there; None if there is no store or experiment to read yet."""
        file = file_of(self._uri)
        if self._models is None and file is not None and not file.exists():
            return None
        if self._client is None:
            self._client = self._session.work(_connected, self._uri)
        if self._ask(self._client.get_experiment_by_name, self._name) is None:
            return None
        models = self._open()
        return Auditor(self._session, self._client, self._experiment.experiment_id, models)

    def _find_experiment(self) -> Any:
        client, name = self._client, self._name
        found = self._ask(client.get_experiment_by_name, name)
        if found is None:
            folder = artifact_folder(self._uri)
            place = folder.as_uri() if folder else None
            self._ask(client.create_experiment, name, artifact_location=place)
            found = self._ask(client.get_experiment_by_name, name)
        if "registry.store" not in found.tags:
            mark = ("registry.store", str(uuid.uuid4()))
            self._ask(client.set_experiment_tag, found.experiment_id, *mark)
            found = self._ask(client.get_experiment_by_name, name)
        return found

    def stop(self) -> None:
        """Ask nothing more, whatever is under way; may be called from another thread."""
        self._session.stop()

    def store_id(self) -> str:
        """Return the id of the tracking store, which a tag of the experiment keeps."""
        self._open()
        identity: str = self._experiment.tags["registry.store"]
        return identity

    def log(self, build: BuildLog) -> Logged:
        """Log a build unless its key is logged already, and make its version the live one."""
        models = self._open()
        version = models.find_version(build.model, "registry.key", build.key)
        if version is None:
            version = self._log_build(build, models)
        else:
            # The page of a model says what its version's page says, also when it is judged again.
            build = replace(build, commit=version.tags.get("registry.commit", build.commit))
        models.make_live(build, str(version.version), version.run_id)
        return Logged(self.store_id(), version.run_id, str(version.version))

    def _log_build(self, build: BuildLog, models: Models) -> Any:
        run = self._take_run(build)
        run_id = run.info.run_id
        weights = self._log_operands(run, build, models)
        text = models.describe(build, run_id)  # with links to the operands, which are there now
        model = self._take_output(run, build, models)
        self._log_files(run_id, {**build.files, **build.pictures()})
        points = weights + _points(build.metrics, run.info.start_time, model)
        self._log_facts(run, build, text, points)
        self._ask(self._client.set_terminated, run_id, "FINISHED")
        return models.make_version(build.model, model, tags(build), text, run_id)

    def _take_run(self, build: BuildLog) -> Any:
        wanted = f"tags.`registry.key` = '{build.key}' AND tags.`registry.model` = '{build.model}'"
        experiment = self._experiment.experiment_id
        found = self._ask(self._client.search_runs, [experiment], wanted, max_results=1)
        if found:
            return found[0]
        identity = {"registry.key": build.key, "registry.model": build.model}
        # Several builds of one model stand in one list: eight digits tell them apart.
        name = f"{build.model} {build.key.removeprefix('sha256:')[:8]}"
        return self._ask(self._client.create_run, experiment, tags=identity, run_name=name)

    def _log_facts(self, run: Any, build: BuildLog, text: str, points: Sequence[Any]) -> None:
        """Log parameters, tags and metrics, in one call where there are not very many."""
        from mlflow.entities import Param, RunTag

        facts = {"base": build.base.name, "method": build.method, **build.params}
        params = [
            Param(key, shortened(value))
            for key, value in facts.items()
            if key not in run.data.params  # a parameter cannot be written anew
        ]
        shown = tags(build) | {
            "mlflow.note.content": text,
            "mlflow.source.name": build.source,
            "mlflow.source.git.commit": build.commit.removesuffix("+dirty"),
        }
        labels = [RunTag(key, value) for key, value in shown.items()]
        rest = list(points[_METRIC_BATCH:])
        for start in range(0, max(len(params), len(labels)), _BATCH):
            part = slice(start, start + _BATCH)
            batch = {"params": params[part], "tags": labels[part]}
            metrics = [] if start else list(points[:_METRIC_BATCH])
            self._ask(self._client.log_batch, run.info.run_id, metrics=metrics, **batch)
        self._log_points(run.info.run_id, rest)

    def _log_operands(self, run: Any, build: BuildLog, models: Models) -> list[Any]:
        """Make the operands the run's inputs; return the metrics of their weights."""
        from mlflow.entities import LoggedModelInput, Metric

        known = {model.model_id for model in getattr(run.inputs, "model_inputs", None) or ()}
        ids: dict[Operand, str] = {}
        for operand in (build.base, *build.operands):
            if (found := models.ingredient(operand)) is not None:
                ids[operand] = found[0]
        added = [LoggedModelInput(model) for model in ids.values() if model not in known]
        if added:
            self._ask(self._client.log_inputs, run.info.run_id, models=added)
        weights = []
        for operand in build.operands:
            name, value = weight_metric(operand)
            # At the run's own time, so that writing it once more changes nothing.
            at = run.info.start_time
            weights.append(Metric(name, value, at, 0, model_id=ids.get(operand)))
        return weights

    def _take_output(self, run: Any, build: BuildLog, models: Models) -> str:
        from mlflow.entities import LoggedModelOutput

        if outputs := getattr(run.outputs, "model_outputs", None):
            return str(outputs[0].model_id)
        model = models.make_model(build.model, tags(build), run.info.run_id)
        self._ask(self._client.log_outputs, run.info.run_id, [LoggedModelOutput(model, 0)])
        return model

    def _log_files(self, run: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for path, data in files.items():
                target = Path(folder, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            self._ask(self._client.log_artifacts, run, folder)

    def _log_points(self, run: str, points: Sequence[Any]) -> None:
        for start in range(0, len(points), _METRIC_BATCH):
            part = points[start : start + _METRIC_BATCH]
            self._ask(self._client.log_batch, run, metrics=part)

    def log_later(
        self, logged: Logged, metrics: Mapping[str, float], files: Mapping[str, bytes], model: str
    ) -> None:
        """Add metrics and reports to a logged build, for a judgement that came later."""
        self._open()
        version = self._ask(self._client.get_model_version, model, logged.version)
        points = _points(metrics, int(time.time() * 1000), model_of(version))
        self._log_points(logged.run, points)
        self._log_files(logged.run, files)

    def unpublish(self, model: str) -> None:
        """Take the alias `live` away from a model; its versions stay."""
        self._open().take_back(model)

    def log_run(self, log: RunLog) -> str:
        """Log a run that is no published build, unless it is there; return its id."""
        self._open()
        from mlflow.entities import Metric, Param

        if known := self._known_run(log):
            return known
        experiment = self._experiment.experiment_id
        run = self._ask(self._client.create_run, experiment, tags=dict(log.tags), run_name=log.name)
        run_id, at = str(run.info.run_id), run.info.start_time
        params = [Param(key, shortened(value)) for key, value in log.params.items()]
        for start in range(0, len(params), _BATCH):
            self._ask(self._client.log_batch, run_id, params=params[start : start + _BATCH])
        self._log_points(run_id, [Metric(key, value, at, step) for key, step, value in log.points])
        self._log_files(run_id, log.files)
        self._ask(self._client.set_terminated, run_id, "FINISHED")
        return run_id

    def _known_run(self, log: RunLog) -> str | None:
        if not log.once:
            return None
        wanted = f"tags.`{log.once}` = '{log.tags[log.once]}' AND attributes.status = 'FINISHED'"
        experiment = self._experiment.experiment_id
        found = self._ask(self._client.search_runs, [experiment], wanted, max_results=1)
        return str(found[0].info.run_id) if found else None

    def log_rejected(self, log: RunLog, model: str, reason: str) -> str:
        """Log an attempt that a gate stopped, and say so on its model's page, if it has one."""
        run = self.log_run(log)
        self._open().mark_rejected(model, reason, run)
        return run


def _points(metrics: Mapping[str, float], at: int, model: str) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(key, value, at, 0, model_id=model) for key, value in metrics.items()]


def _connected(uri: str) -> Any:
    if folder := artifact_folder(uri):
        folder.mkdir(parents=True, exist_ok=True)
    _create_file(uri)
    return _client(uri)


def _client(uri: str) -> Any:
    os.environ.update(CALM)
    # Read when MLflow is imported or at each request; a retry could enter a thing twice.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(CALL_SECONDS)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def create_store(uri: str) -> None:
    """Make the store of an address that names a file which is not there; raises NotNow."""
    Session(uri, _CREATION_SECONDS).work(_create_file, uri)


def _create_file(uri: str) -> None:
    """Make the tables of a store in a file that is not there yet: all of them, or none.

    MLflow makes them by dozens of migrations over seconds, and cannot go on among them: a process
    killed there would leave a file that MLflow refuses for ever. So they are made in a file
    beside it, which takes its place when it is whole.
    """
    file = file_of(uri)
    if file is None or file.exists():
        return
    with lock.held(file.with_name(f"{file.name}.lock"), _CREATION_SECONDS):
        if file.exists():
            return
        unfinished = file.with_name(f"{file.name}.unfinished")
        for left in file.parent.glob(f"{unfinished.name}*"):  # SQLite's journal of it, too
            left.unlink()
        _client(f"{SQLITE}{unfinished}").search_experiments(max_results=1)
        unfinished.replace(file)


def _create_version(uri: str, client: Any, name: str, model: str, **options: Any) -> Any:
    # A store in a database looks the logged model up in the ambient store, whatever the client's
    # is; and setting that one changes the environment of everyone else.
    import mlflow

    former = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        return client.create_model_version(
            name, f"models:/{model}", await_creation_for=0, model_id=model, **options
        )
    finally:
        mlflow.set_tracking_uri(None)
        if former is not None:
            os.environ["MLFLOW_TRACKING_URI"] = former
