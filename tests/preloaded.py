"""Imported once by the process that `tests.conftest` forks commands from: what most of them import.

It takes up to four seconds of a sync, changes nothing that a sync does, and the suite has hundreds.
"""

import importlib

from registry import tracking

for name in (
    "pytest",  # in whose name the forked process starts
    "registry.__main__",
    "registry.cli",
    "dvc.repo",
    "matplotlib.figure",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
):
    importlib.import_module(name)
# Says to MLflow, as a command does before its first call, how long to wait; connects to nothing.
tracking._client("http://127.0.0.1:9")
