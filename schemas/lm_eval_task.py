"""A task file of lm-evaluation-harness as a suite may have one: data and templates, never code.

A pull request must run nothing that it brings along. So only what is known to be read as data is
let through: no `!function`, no class, no other dataset than JSON lines beside the file, no metric
that would be fetched, no option that reaches the model's `generate`. Both sides ask: `registry`
tells the author, `merger` makes sure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

PACKAGE = "lm-eval"
INSTALL = "pip install 'merge-registry[lm-eval]'"

_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.jsonl")

_TEXT, _COUNT, _FLAG = (str,), (int,), (bool,)
_FIELDS: Mapping[str, tuple[type, ...]] = {
    "task": _TEXT,
    "output_type": _TEXT,
    "dataset_path": _TEXT,
    "dataset_kwargs": (dict,),
    "training_split": _TEXT,
    "validation_split": _TEXT,
    "test_split": _TEXT,
    "fewshot_split": _TEXT,
    "fewshot_config": (dict,),
    "num_fewshot": _COUNT,
    "description": _TEXT,
    "doc_to_text": _TEXT,
    "doc_to_target": (str, int),
    "doc_to_choice": (str, list),
    "target_delimiter": _TEXT,
    "fewshot_delimiter": _TEXT,
    "gen_prefix": _TEXT,
    "generation_kwargs": (dict,),
    "filter_list": (list,),
    "metric_list": (list,),
    "metadata": (dict,),
}
_REQUIRED = ("task", "output_type", "dataset_path", "dataset_kwargs", "doc_to_text")
_OUTPUTS = ("multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until")
_NESTED: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "dataset_kwargs": {"data_files": (str, dict)},
    "fewshot_config": {"sampler": _TEXT},
    # Anything else would be handed to `generate`, which can be told to load code.
    "generation_kwargs": {
        "until": (str, list),
        "max_gen_toks": _COUNT,
        "do_sample": _FLAG,
        "temperature": (int, float),
    },
    "metadata": {"version": (str, int, float)},
}
_METRIC: Mapping[str, tuple[type, ...]] = {
    "metric": _TEXT,
    "aggregation": _TEXT,
    "higher_is_better": _FLAG,
    "ignore_case": _FLAG,
    "ignore_punctuation": _FLAG,
    "ignore_numbers": _FLAG,
    "regexes_to_ignore": (list,),
}
# What lm-eval has itself: any other name it would fetch as a program.
_METRICS = (
    "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "brier_score", "exact_match", "f1", "mcc",
    "likelihood", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "bleu",
    "chrf", "ter",
)  # fmt: skip
_FILTER: Mapping[str, tuple[type, ...]] = {
    "function": _TEXT,
    "regex_pattern": _TEXT,
    "group_select": _COUNT,
    "fallback": _TEXT,
}
_FILTERS = ("regex", "remove_whitespace", "lowercase", "uppercase", "take_first")
_SAMPLERS = ("default", "first_n")
_NO_CODE = "a suite holds data, no code: this and whatever else lm-eval knows is left out"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place of a task file, and the cure."""

    path: tuple[str | int, ...]
    message: str
    hint: str = ""

    def __str__(self) -> str:
        """Return the fault in one line."""
        where = ".".join(str(part) for part in self.path)
        return f"{where}: {self.message}" if where else self.message


def is_local(task: str) -> bool:
    """Return whether `options.task` names a file beside suite.yaml instead of a public task."""
    return task.endswith(".yaml")


def faults(data: Any) -> Iterator[Fault]:
    """Yield what is wrong with the plain data of a task file."""
    if not isinstance(data, dict):
        yield Fault((), "expected a mapping")
        return
    for name in _REQUIRED:
        if name not in data:
            yield Fault((name,), "expected this field, found none")
    yield from _typed(data, _FIELDS, ())
    if not {"test_split", "validation_split"} & data.keys():
        yield Fault(("test_split",), "expected this field or validation_split, found neither")
    yield from _word(data, "output_type", _OUTPUTS, ())
    yield from _word(data, "dataset_path", ("json",), ())
    for name, known in _NESTED.items():
        if isinstance(data.get(name), dict):
            yield from _typed(data[name], known, (name,))
    if isinstance(data.get("fewshot_config"), dict):
        yield from _word(data["fewshot_config"], "sampler", _SAMPLERS, ("fewshot_config",))
    yield from _sampling(data.get("generation_kwargs"))
    yield from _files(data.get("dataset_kwargs"))
    yield from _metrics(data.get("metric_list", ()))
    yield from _filters(data.get("filter_list", ()))


def data_files(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the file of every split of a task file without faults; one alone is `train`."""
    files = data["dataset_kwargs"]["data_files"]
    return {"train": files} if isinstance(files, str) else dict(files)


def _typed(
    data: Mapping[str, Any], known: Mapping[str, tuple[type, ...]], path: tuple[str | int, ...]
) -> Iterator[Fault]:
    for name, value in data.items():
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}" if near else _NO_CODE
            yield Fault((*path, name), f"expected a known field, found {name}", hint)
        elif type(value) not in known[name]:
            nouns = " or ".join(each.__name__ for each in known[name])
            yield Fault((*path, name), f"expected {nouns}, found {type(value).__name__}")


def _word(
    data: Mapping[str, Any], name: str, known: tuple[str, ...], path: tuple[str | int, ...]
) -> Iterator[Fault]:
    value = data.get(name)
    if isinstance(value, str) and value not in known:
        yield Fault((*path, name), f"expected {', '.join(known)}, found {value}")


def _sampling(options: Any) -> Iterator[Fault]:
    if not isinstance(options, dict):
        return
    for name in ("do_sample", "temperature"):
        if options.get(name):
            path = ("generation_kwargs", name)
            yield Fault(path, f"expected greedy answers, found {name}", "remove it")


def _files(options: Any) -> Iterator[Fault]:
    if not isinstance(options, dict):
        return
    path: tuple[str, ...] = ("dataset_kwargs", "data_files")
    if "data_files" not in options:
        yield Fault(path, "expected this field, found none")
        return
    files = options["data_files"]
    each = files.items() if isinstance(files, dict) else [("", files)]
    if not each:
        yield Fault(path, "expected at least one file, found none")
    for split, name in each:
        if not isinstance(name, str) or not _FILE.fullmatch(name):
            where = (*path, split) if split else path
            yield Fault(where, f"expected the name of a .jsonl file beside it, found {name}")


def _metrics(entries: Any) -> Iterator[Fault]:
    for number, one in enumerate(entries if isinstance(entries, list | tuple) else ()):
        path = ("metric_list", number)
        if not isinstance(one, dict) or "metric" not in one:
            yield Fault(path, "expected a mapping with metric")
            continue
        yield from _typed(one, _METRIC, path)
        yield from _word(one, "metric", _METRICS, path)


def _filters(entries: Any) -> Iterator[Fault]:
    for number, one in enumerate(entries if isinstance(entries, list | tuple) else ()):
        path: tuple[str | int, ...] = ("filter_list", number)
        if not isinstance(one, dict) or not {"name", "filter"} <= one.keys():
            yield Fault(path, "expected a mapping with name and filter")
            continue
        yield from _typed(one, {"name": _TEXT, "filter": (list,)}, path)
        for place, step in enumerate(one["filter"] if isinstance(one["filter"], list) else ()):
            where = (*path, "filter", place)
            if not isinstance(step, dict) or "function" not in step:
                yield Fault(where, "expected a mapping with function")
                continue
            yield from _typed(step, _FILTER, where)
            yield from _word(step, "function", _FILTERS, where)
