"""lm_eval: a task of lm-evaluation-harness, opened and its documents made prompts. Knows no model.

The package lm-eval is an option of the installation. A task is one of its own, whose data are
pinned by the digest of the documents, or a file of the suite, which is data: checked by the list in
`schemas.lm_eval_task`, its templates rendered in a sandbox.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import metadata
from typing import Any

from merger.errors import kind_of
from merger.evaluate.suite import Prompt, Task
from schemas import lm_eval_task

_HOW = "python -c \"from lm_eval.tasks import TaskManager; TaskManager().load(['{}'])\""


def open_task(bare: Task, data: Mapping[str, Any]) -> Task:
    """Return a task with lm-eval's own in `opened` and a prompt per document.

    `data` is the task of the request. Documents are called by their number. Raises EvaluationError.
    """
    _check_package(bare, data.get("package"))
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it tells which defaults it takes
    config = data.get("config")
    if (config is not None) != lm_eval_task.is_local(bare.options["task"]):
        raise bare.fault("config: expected it exactly where options.task is a file")
    with apart(bare, "lm-eval refuses the task: {}"):
        opened = _public(bare) if config is None else _local(bare, config)
        _set_shots(bare, opened)
        documents = opened.eval_docs
        count = min(len(documents), bare.options.get("limit", len(documents)))
        if config is None:
            _check_version(bare, opened, documents)
        _check_result(bare, opened)
    prompts = [Prompt(str(n), n + 1, "", None, is_expected_given=False) for n in range(count)]
    return replace(bare, prompts=tuple(prompts), opened=opened)


@contextlib.contextmanager
def apart(task: Task, message: str) -> Iterator[None]:
    """Have lm-eval work where it reaches nothing that a catalog brings; it tells by errors only.

    Templates of a suite see the document's data alone. The working folder is empty, since a metric
    or data set that is looked up by name is looked for there first, and may be a program. Whatever
    is raised becomes an EvaluationError with `message`.
    """
    with (
        _sandbox() if lm_eval_task.is_local(task.options["task"]) else contextlib.nullcontext(),
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        contextlib.redirect_stderr(io.StringIO()),  # its progress bars
    ):
        try:
            yield
        except Exception as error:
            if kind_of(error) != "bug":
                raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise task.fault(message.format(first)) from error


@contextlib.contextmanager
def _sandbox() -> Iterator[None]:
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from lm_eval import utils

    outside = utils.env
    inside = ImmutableSandboxedEnvironment(
        undefined=outside.undefined, keep_trailing_newline=outside.keep_trailing_newline
    )
    inside.filters.update(outside.filters)
    utils.env = inside
    try:
        yield
    finally:
        utils.env = outside


def _check_package(task: Task, package: Any) -> None:
    try:
        found = {"name": lm_eval_task.PACKAGE, "version": metadata.version(lm_eval_task.PACKAGE)}
    except metadata.PackageNotFoundError as error:
        what = f"expected the package {lm_eval_task.PACKAGE}, found none"
        raise task.fault(f"{what}: {lm_eval_task.INSTALL}") from error
    if package != found:
        raise task.fault(f"package: expected {package}, found {found}")


def _local(task: Task, config: Mapping[str, Any]) -> Any:
    """Return the task of a file beside suite.yaml."""
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask

    for fault in lm_eval_task.faults(config):
        raise task.fault(f"{task.options['task']}: {fault}")
    files = lm_eval_task.data_files(config)
    rows = {split: _rows(task, name) for split, name in files.items()}
    # Made here, since `load_dataset` writes a copy beside the user's models and asks the network.
    splits = DatasetDict({split: Dataset.from_list(each) for split, each in rows.items()})
    kept = {key: value for key, value in config.items() if not key.startswith("dataset_")}
    # A copy: lm-eval writes its defaults into what it is given.
    return ConfigurableTask(config={**copy.deepcopy(kept), "custom_dataset": lambda **_: splits})


def _rows(task: Task, name: str) -> list[dict[str, Any]]:
    file = task.file.parent / name
    if not file.is_file():
        raise task.fault(f"{task.options['task']}: expected a file beside it, found {name}")
    lines = [line for line in file.read_bytes().splitlines() if line.strip()]
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise task.fault(f"{name}: line {number}: expected a JSON object on one line")
        rows.append(row)
    if not rows:
        raise task.fault(f"{name}: expected at least one line, found none")
    return rows


def _public(task: Task) -> Any:
    """Return a task that lm-eval brings, its data out of the cache of `datasets`."""
    name = task.options["task"]
    manager = _manager()
    if name not in manager.all_subtasks:
        what = "one task, found a group" if name in manager.all_tasks else "a task of lm-eval"
        raise task.fault(f"options.task: expected {what}: {name}")
    how = f"its data must be at hand: run `{_HOW.format(name)}` once where there is a network"
    with apart(task, f"lm-eval cannot open {name}: {{}}; {how}"):
        (opened,) = manager.load([name])["tasks"].values()
    if getattr(opened, "UNSAFE_CODE", False):
        raise task.fault(f"options.task: {name} runs what models write as programs")
    if getattr(opened, "MULTIMODAL", False):
        raise task.fault(f"options.task: {name} asks about more than text")
    return opened


@cache
def _manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()  # reads all 14,000 task files: 7 s of processor time


def _set_shots(task: Task, opened: Any) -> None:
    own, wanted = opened.get_config("num_fewshot"), task.options.get("num_fewshot")
    if own == 0 and wanted:
        # lm-eval would keep the 0 and say so in its log.
        raise task.fault(f"options.num_fewshot: expected 0 as the task says, found {wanted}")
    opened.set_config("num_fewshot", (own or 0) if wanted is None else wanted)


def _check_version(task: Task, opened: Any, documents: Sequence[Any]) -> None:
    """Hold a public task to the version and the documents that the suite says."""
    found = {"version": opened.VERSION, "documents": digest(opened, documents)}
    for option, value in found.items():
        if task.options.get(option) != value:
            told = ", ".join(f"{name}: {one}" for name, one in found.items())
            said = task.options.get(option, "nothing")
            message = f"options.{option}: expected what lm-eval has ({told}), found {said}"
            raise task.fault(message)


def digest(opened: Any, documents: Sequence[Any]) -> str:
    """Return the digest of a task's documents, those of its solved examples too if it has any."""
    shots = opened.sampler.df if opened.get_config("num_fewshot") else []
    found = hashlib.sha256()
    for part in (documents, shots):
        for document in part:
            text = json.dumps(document, sort_keys=True, ensure_ascii=False, default=str)
            found.update(text.encode("utf-8", "surrogatepass") + b"\n")
        found.update(b"\n")
    return f"sha256:{found.hexdigest()}"


def _check_result(task: Task, opened: Any) -> None:
    """Tell before the first question if the task has no such result."""
    filters = [each.name for each in opened._filters]  # noqa: SLF001  nothing else tells
    known = [f"{metric},{name}" for metric in opened.aggregation() for name in filters]
    found = task.options["metric"]
    if found not in known:
        raise task.fault(f"options.metric: expected {' or '.join(known)}, found {found}")
