"""Build records: what the last published build of a model was, in `catalog/builds/<model>.json`.

Also the comparison of two build requests, field by field. Knows neither DVC nor MLflow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from registry import keys, objects, schema
from registry.cures import shown
from registry.errors import RegistryError
from registry.request import key_of
from schemas.expression import reference

FORMAT_VERSION = 1
_TEMPORARY = re.compile(r"\..*\.(json|dvc)\.[^.]+")


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made, and of what."""

    key: str
    request: Mapping[str, Any]
    model_digest: str
    artifact: Mapping[str, Any]
    versions: Mapping[str, str]
    device_class: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the model was measured on and how it was judged.

    `gates` are the declared conditions by task, `verdicts` one line of data per gate, `baselines`
    the metrics of each direct ingredient of positive weight alone, by label, `base` the base's own.
    """

    key: str
    request: Mapping[str, Any]
    metrics: Mapping[str, float]
    gates: Mapping[str, Mapping[str, float]]
    verdicts: tuple[Mapping[str, Any], ...] = ()
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    base: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Logged:
    """Where MLflow shows the model: id of the tracking store, run and version."""

    store: str
    run: str
    version: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """An attempt that a gate stopped; what is live stays beside it."""

    key: str
    model_digest: str
    evaluation_key: str
    gates: Mapping[str, Mapping[str, float]]
    verdicts: tuple[Mapping[str, Any], ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """The file of one model. `built` is None when only a rejected attempt is known."""

    model: str
    built: Built | None = None
    evaluation: Evaluation | None = None
    mlflow: Logged | None = None
    rejected: Rejected | None = None

    def as_data(self) -> dict[str, Any]:
        """Return the record as the plain data of its file; what is not known is left out."""
        data: dict[str, Any] = {"format_version": FORMAT_VERSION, "model": self.model}
        if self.built:
            data |= asdict(self.built)
        parts = (("evaluation", self.evaluation), ("mlflow", self.mlflow))
        for name, part in (*parts, ("rejected", self.rejected)):
            if part is not None:
                data[name] = asdict(part)
        return data


class UnreadableRecord(RegistryError):
    """A record file is not one of ours, contradicts itself, or has a format that we do not know.

    `field` is `file`, or the one that contradicts, with what it should hold and holds.
    """

    field = "file"
    expected = "a build record"

    def __init__(self, message: str, hint: str = "sync writes it anew") -> None:
        """Take the message, which is also what was found, and how to cure it."""
        super().__init__(message, hint)
        self.found = message


def folder(root: Path) -> Path:
    """Return where records and pointers lie."""
    return root / "catalog" / "builds"


def read(path: Path) -> BuildRecord:
    """Return the record in a file; raises UnreadableRecord for what is none, OSError if absent."""
    return parse(path.read_bytes(), path.stem)


def parse(content: bytes, model: str) -> BuildRecord:
    """Return the record of a model in the bytes of its file; raises UnreadableRecord.

    It fits its schema, and its key is that of its request: what it says was built, was.
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _unreadable(model, f"expected JSON, found something else ({error})") from error
    version = data.get("format_version") if isinstance(data, dict) else FORMAT_VERSION
    if version != FORMAT_VERSION:
        hint = "use the version of registry that wrote it, or delete it"
        said = f"expected format_version {FORMAT_VERSION}, found {shown(version)}"
        raise _unreadable(model, said, hint)
    if departure := schema.departure(data, "build-record"):
        raise _unreadable(model, departure)
    if data["model"] != model:
        raise _contradicting(model, "model", model, data["model"])
    if "key" in data and data["key"] != (key := _key_of(data["request"])):
        raise _contradicting(model, "key", key, data["key"])
    return BuildRecord(
        model=model,
        built=_part(Built, data) if "key" in data else None,
        evaluation=_optional(Evaluation, data.get("evaluation")),
        mlflow=_optional(Logged, data.get("mlflow")),
        rejected=_optional(Rejected, data.get("rejected")),
    )


def _key_of(request: Mapping[str, Any]) -> str:
    try:
        return key_of(request)
    except (ValueError, RecursionError):
        return "none: the request has no canonical form"  # NaN, or nested too deeply


def _unreadable(model: str, said: str, *hint: str) -> UnreadableRecord:
    return UnreadableRecord(f"catalog/builds/{model}.json: {said}", *hint)


def _contradicting(model: str, name: str, expected: str, found: str) -> UnreadableRecord:
    of = {"model": "of the file's name", "key": "of the request"}[name]
    error = _unreadable(model, f"{name}: expected that {of}, {expected}, found {found}")
    error.field, error.expected, error.found = name, expected, found
    return error


def _optional(kind: Any, data: Any) -> Any:
    return None if data is None else _part(kind, data)


def _part(kind: Any, data: Mapping[str, Any]) -> Any:
    wanted = [one.name for one in fields(kind)]
    values = {name: data[name] for name in wanted if name in data}
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return kind(**values)


def read_all(
    root: Path, models: Iterable[str] | None = None
) -> dict[str, BuildRecord | UnreadableRecord]:
    """Return every record, or those of `models`, by model; an unreadable one is its error."""
    if models is None:
        models = (path.stem for path in folder(root).glob("*.json"))
    records: dict[str, BuildRecord | UnreadableRecord] = {}
    for model in sorted(models):
        try:
            records[model] = read(folder(root) / f"{model}.json")
        except UnreadableRecord as error:
            records[model] = error
        except FileNotFoundError:
            continue
    return records


def write(root: Path, record: BuildRecord) -> None:
    """Replace the record of a model atomically and durably; RegistryError if that cannot be."""
    data = encode(record)
    with objects.writing(len(data), folder(root)):
        keys.replace_file(folder(root) / f"{record.model}.json", data)


def encode(record: BuildRecord) -> bytes:
    """Return the bytes of a record's file."""
    data = json.dumps(record.as_data(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return data.encode()


def sweep(root: Path, files: Iterable[str]) -> None:
    """Remove those of the files that are half-written ones of a sync that was killed.

    The caller holds the lock, and names files by their paths from the root.
    """
    place = folder(root)
    for file in files:
        path = root / file
        if path.parent == place and _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which two build requests differ; `is_input` tells bytes from recipe."""

    field: str
    old: Any
    new: Any
    is_input: bool = False


_MAPS = ("package", "parameters")  # of a recipe, compared key by key
_UNSAID = {"tokenizer": "base"}  # what a request leaves out at its default


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Return where two build requests differ; terms are matched by what they name, not by place."""
    differences = []
    if old["numerics"] != new["numerics"]:
        differences.append(Difference("numerics", old["numerics"], new["numerics"]))
    if old["base"] != new["base"]:
        differences.append(_input_change(old["base"], new["base"]))
    old_recipe, new_recipe = old["recipe"], new["recipe"]
    for key in sorted((old_recipe.keys() | new_recipe.keys()) - {"terms", "slices", *_MAPS}):
        was, is_now = (recipe.get(key, _UNSAID.get(key)) for recipe in (old_recipe, new_recipe))
        if was != is_now:
            differences.append(Difference(f"recipe.{key}", was, is_now))
    differences += _slices(_stacked(old), _stacked(new))
    for key in _MAPS:
        olds, news = old_recipe.get(key, {}), new_recipe.get(key, {})
        differences += _fields(f"recipe.{key}", olds, news)
    terms = list(_terms(old_recipe["terms"], new_recipe["terms"]))
    if old_recipe.get("slices") and new_recipe.get("slices"):
        # An operand of a stack has no weight, and its slices were just told.
        terms = [one for one in terms if one.is_input]
    differences += terms
    differences += _fields("output", old["output"], new["output"])
    return differences


def _fields(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield Difference(f"{prefix}.{key}", old.get(key), new.get(key))


def _stacked(request: Mapping[str, Any]) -> list[str] | None:
    """Return the slices of a stack by what they name: `adapter sql@1[10:30]`."""
    recipe = request["recipe"]
    if not recipe.get("slices"):
        return None
    labels = [input_label(term["input"]) for term in recipe["terms"]]
    found = []
    for one in recipe["slices"]:
        label = input_label(request["base"]) if one["term"] is None else labels[one["term"]]
        first, last = one["layers"]
        found.append(f"{label}[{first}:{last}]")
    return found


def _slices(old: list[str] | None, new: list[str] | None) -> Iterator[Difference]:
    """Yield the slices that differ by their place; of another number of them, all in one line."""
    if old and new and len(old) == len(new):
        for number, (was, is_now) in enumerate(zip(old, new, strict=True)):
            if was != is_now:
                yield Difference(f"recipe.slices[{number}]", was, is_now)
    elif old != new:
        before, after = (", ".join(one) if one else None for one in (old, new))
        yield Difference("recipe.slices", before, after)


def input_label(source: Mapping[str, Any]) -> str:
    """Return how texts name an input of a request: `adapter sql@1`."""
    return f"{source['kind']} {reference(source)}"


def _input_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> Difference:
    if input_label(old) == input_label(new):
        return Difference(input_label(new), old["digest"], new["digest"], is_input=True)
    return Difference(new["kind"], reference(old), reference(new), is_input=True)


def _terms(old: Any, new: Any) -> Iterator[Difference]:
    before = {input_label(term["input"]): term for term in old}
    after = {input_label(term["input"]): term for term in new}
    gone = [label for label in before if label not in after]
    come = [label for label in after if label not in before]
    for label in list(come):
        # The same adapter in another version is a changed input, not one term less and one more.
        successors = [one for one in gone if _same_thing(before[one], after[label])]
        if len(successors) == 1:
            was = successors[0]
            yield _input_change(before[was]["input"], after[label]["input"])
            yield from _term_fields(label, before[was], after[label])
            gone.remove(was)
            come.remove(label)
    for label in sorted(before.keys() & after.keys()):
        if before[label]["input"] != after[label]["input"]:
            yield _input_change(before[label]["input"], after[label]["input"])
        yield from _term_fields(label, before[label], after[label])
    for label in sorted(gone):
        yield Difference(f"recipe.terms[{label}]", before[label]["weight"], None)
    for label in sorted(come):
        yield Difference(f"recipe.terms[{label}]", None, after[label]["weight"])


def _same_thing(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return all(old["input"][key] == new["input"][key] for key in ("kind", "name"))


def _term_fields(
    label: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[Difference]:
    prefix = f"recipe.terms[{label}]"
    if old["weight"] != new["weight"]:
        yield Difference(f"{prefix}.weight", old["weight"], new["weight"])
    yield from _fields(f"{prefix}.parameters", old["parameters"], new["parameters"])
