"""A suite as it is asked for: tasks of the request and the lines of their data files.

Knows no model and no metric's meaning. Everything that a person wrote is checked here once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import schemas
from merger.evaluate.errors import EvaluationError
from schemas.utility import LM_EVAL

_LINE_KEYS = ("id", "prompt", "expected", "choices")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One line of a data file; `expected` means nothing unless `is_expected_given`."""

    id: str
    line: int
    text: str
    expected: Any
    is_expected_given: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """One number of a suite: what is asked and how the answers are scored."""

    suite: str
    name: str
    metric: str
    file: Path
    max_new_tokens: int
    system: str | None
    options: Mapping[str, Any]
    prompts: tuple[Prompt, ...]
    opened: Any = None
    """Of a task of lm-eval: what it made of it."""

    def fault(self, message: str, prompt: Prompt | None = None) -> EvaluationError:
        """Return the error that names suite and task, and file and line of `prompt` if given."""
        place = f"suite {self.suite}: task {self.name}: "
        if prompt is None:
            return EvaluationError(place + message, task=self.name)
        place += f"{self.file.name}:{prompt.line}: "
        return EvaluationError(place + message, task=self.name, prompt=prompt.id)

    def beside(self, option: str) -> Path:
        """Return the path of the file that an option names; it lies beside the data file."""
        name = self.text_option(option)
        path = self.file.parent / name
        if path.name != name or not path.is_file():
            raise self.fault(f"options.{option}: expected a file beside suite.yaml, found {name}")
        return path

    def text_option(self, option: str) -> str:
        """Return an option that must be a text."""
        value = self.options.get(option)
        if not isinstance(value, str) or not value:
            raise self.fault(f"options.{option}: expected a text, found {_kind(value)}")
        return value

    def number_option(self, option: str, default: float | None = None) -> Any:
        """Return an option that must be a number; the schema has its range and, if any, default."""
        schema = _option_schema(option)
        value = self.options.get(option, schema.get("default", default))
        kinds = (int,) if schema["type"] == "integer" else (int, float)
        least, most = schema["minimum"], schema["maximum"]
        if type(value) not in kinds or not least <= value <= most:
            kind = "a whole number" if schema["type"] == "integer" else "a number"
            message = f"expected {kind} from {least} to {most}, found {value!r}"
            raise self.fault(f"options.{option}: {message}")
        return value

    def expected_text(self, prompt: Prompt) -> str:
        """Return what is expected of a prompt, which must be a text that says something."""
        self.require_expected(prompt)
        if not isinstance(prompt.expected, str) or not prompt.expected.strip():
            raise self.fault(f"expected: expected a text, found {_kind(prompt.expected)}", prompt)
        return prompt.expected

    def require_expected(self, prompt: Prompt) -> None:
        """Refuse a line without `expected`."""
        if not prompt.is_expected_given:
            raise self.fault(f"expected: missing, {self.metric} compares with it", prompt)


def read(request: Mapping[str, Any], folder: Path) -> tuple[Task, ...]:
    """Return the tasks of the request's suite with the prompts that lie in `folder`."""
    return tuple(_task(request["name"], task, folder) for task in request["tasks"])


def _option_schema(option: str) -> Mapping[str, Any]:
    task = schemas.load("suite")["properties"]["tasks"]["items"]["properties"]
    schema: Mapping[str, Any] = task["options"]["properties"][option]
    return schema


def _task(suite: str, data: Mapping[str, Any], folder: Path) -> Task:
    if data["metric"] == LM_EVAL:
        return _of_lm_eval(suite, data, folder)
    file = folder / data["data"]
    bare = Task(
        suite=suite,
        name=data["name"],
        metric=data["metric"],
        file=file,
        max_new_tokens=data["max_new_tokens"],
        system=data["system"],
        options=data["options"],
        prompts=(),
    )
    if file.name != data["data"] or not file.is_file():
        raise bare.fault(f"data: expected a file beside suite.yaml, found {data['data']}")
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.strip():
            prompt = _prompt(bare, number, line)
            if (earlier := prompts.get(prompt.id)) is not None:
                message = f"id: expected an id of its own, found that of line {earlier.line} again"
                raise bare.fault(message, prompt)
            prompts[prompt.id] = prompt
    if not prompts:
        raise bare.fault(f"{file.name}: expected at least one line, found none")
    return Task(
        suite=bare.suite,
        name=bare.name,
        metric=bare.metric,
        file=file,
        max_new_tokens=bare.max_new_tokens,
        system=bare.system,
        options=bare.options,
        prompts=tuple(prompts.values()),
    )


def _of_lm_eval(suite: str, data: Mapping[str, Any], folder: Path) -> Task:
    from merger.evaluate.harness_task import open_task  # only it needs the package

    file = folder.absolute() / data["options"]["task"]
    bare = Task(suite, data["name"], data["metric"], file, 0, None, data["options"], ())
    return open_task(bare, data)


def _prompt(task: Task, number: int, line: bytes) -> Prompt:
    here = Prompt("", number, "", None, is_expected_given=False)
    try:
        data = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise task.fault("expected a JSON object on one line", here) from error
    if not isinstance(data, dict):
        raise task.fault(f"expected a JSON object, found {_kind(data)}", here)
    if unknown := sorted(data.keys() - set(_LINE_KEYS)):
        message = f"{unknown[0]}: unknown field, expected {', '.join(_LINE_KEYS)}"
        raise task.fault(message, here)
    if not isinstance(data.get("id"), str) or not data["id"]:
        raise task.fault(f"id: expected a text, found {_kind(data.get('id'))}", here)
    text: Any = data.get("prompt", "" if task.metric == "perplexity" else None)
    prompt = Prompt(data["id"], number, text, data.get("expected"), "expected" in data)
    if not isinstance(text, str):
        raise task.fault(f"prompt: expected a text, found {_kind(text)}", prompt)
    choices = data.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(one, str) and one for one in choices):
        raise task.fault("choices: expected a list of texts", prompt)
    return replace(prompt, choices=tuple(choices))


def _kind(value: Any) -> str:
    """Return how JSON calls a value's type; texts that say nothing are empty."""
    names = {bool: "a truth value", dict: "an object", list: "a list", type(None): "nothing"}
    if isinstance(value, str):
        return "an empty text" if not value.strip() else "a text"
    return names.get(type(value), "a number")
