"""The files that a suite names beside its suite.yaml: found, hashed, held to their form.

Knows no metric's meaning. lm-eval is looked up, never imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry import documents, suite_data
from registry.errors import Problem
from registry.index import Index
from registry.source import FieldPath, Source
from registry.tree import Entry, Tree
from schemas import lm_eval_task
from schemas.digest import FileHash

_TAGS = "lm-eval would run `!function`; a suite holds data and templates, no code"


@dataclass(slots=True)
class SuiteFiles:
    """What is collected of the files of one suite."""

    tree: Tree
    index: Index
    entries: Mapping[str, Entry]
    source: Source
    folder: str
    hashes: dict[str, FileHash] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _seen: set[tuple[str, bool]] = field(default_factory=set)

    def take(self, place: FieldPath, name: str, *, as_lines: bool) -> None:
        """Take a file that a task names; JSON lines of questions are held to their form."""
        entry = self._entry(place, name)
        if entry is None or (name, as_lines) in self._seen:
            return
        self._seen.add((name, as_lines))
        found = suite_data.check(self.tree, self.index, entry, as_lines=as_lines)
        self.hashes[name], problems = found
        self.problems += problems

    def take_lm_eval(self, number: int, options: Mapping[str, Any]) -> dict[str, Any]:
        """Take the files of a task of lm-eval and return what else its request says."""
        version = installed()
        if version is None:
            message = f"expected the package {lm_eval_task.PACKAGE}, found none"
            hint = lm_eval_task.INSTALL
            self.problems.append(self.source.problem(("tasks", number, "metric"), message, hint))
        package = {"name": lm_eval_task.PACKAGE, "version": version or ""}
        if not lm_eval_task.is_local(options["task"]):
            return {"package": package, "config": None}
        place = ("tasks", number, "options", "task")
        for option in ("version", "documents"):
            if option in options:
                where = ("tasks", number, "options", option)
                message = "expected this only with a public task"
                hint = "remove it: the content of files here is in the suite's digest"
                self.problems.append(self.source.problem(where, message, hint))
        return {"package": package, "config": self._config(place, options["task"])}

    def _config(self, place: FieldPath, name: str) -> dict[str, Any]:
        entry = self._entry(place, name)
        if entry is None:
            return {}
        content = self.tree.read(entry.path)
        self.hashes[name] = suite_data.hash_of(content)
        config: dict[str, Any] | None = self.index.get_document(entry.path, entry.identity)
        if config is None:
            config, problems = _parsed(content, entry.path)
            self.problems += problems
            if problems:
                return {}
            self.index.put_document(entry.path, entry.identity, config)
        for file in lm_eval_task.data_files(config).values():
            self.take(place, file, as_lines=False)
        return config

    def _entry(self, place: FieldPath, name: str) -> Entry | None:
        entry = self.entries.get(f"{self.folder}/{name}")
        if entry is None:
            message = f"expected the file {name} beside suite.yaml, found none"
            self.problems.append(self.source.problem(place, message))
        return entry


def installed() -> str | None:
    """Return the version of lm-eval that is installed, None if none is."""
    from importlib import metadata  # 25 ms, and most catalogs ask for no package

    try:
        return metadata.version(lm_eval_task.PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def _parsed(content: bytes, path: str) -> tuple[dict[str, Any], list[Problem]]:
    document, problems = documents.parse(content, path)
    if document is None:
        return {}, [_explained(problem) for problem in problems]
    faults = lm_eval_task.faults(document.data)
    return document.data, [_problem(document, fault) for fault in faults]


def _problem(document: documents.Document, fault: lm_eval_task.Fault) -> Problem:
    line, column = document.place(fault.path)
    field_text = documents.field_text(fault.path)
    return Problem(document.file, line, column, field_text, fault.message, fault.hint)


def _explained(problem: Problem) -> Problem:
    """Return a problem of YAML with a hint that fits a task file of lm-eval."""
    if "!function" not in problem.message:
        return problem
    place = (problem.file, problem.line, problem.column, problem.field)
    return Problem(*place, problem.message, _TAGS)
