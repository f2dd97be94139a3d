"""A mergekit file as mergekit 0.1.5 reads it: which inputs, which parameters in which precedence.

Knows neither our catalog nor our methods. Of the four ways to name inputs (models, slices, and both
inside modules) all become one list, as mergekit itself makes slices of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from registry.documents import Document, Path_, field_text, quote
from registry.errors import Problem, did_you_mean

_KEYS = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "modules",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
)
_INPUT_KEYS = ("model", "parameters", "layer_range")
_PARAMETERS = (
    *("weight", "density", "gamma", "epsilon", "lambda", "t", "scale", "select_topk", "int8_mask"),
    *("normalize", "normalize_weights", "rescale", "filter_wise", "max_iter", "tol"),
    *("nuslerp_flatten", "nuslerp_row_wise"),
)


@dataclass(slots=True)
class Findings:
    """What is collected while a file is translated."""

    document: Document
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    doubts: list[Problem] = field(default_factory=list)
    """Keys that mergekit ignores: notes beside a spec, the likely causes beside other problems."""

    def problem(self, path: Path_, message: str, hint: str = "") -> None:
        """Take a problem at a field."""
        line, column = self.document.place(path)
        found = Problem(self.document.file, line, column, field_text(path), message, hint)
        if found not in self.problems:
            self.problems.append(found)

    def unknown_keys(self, path: Path_, holder: Mapping[str, Any], known: Collection[str]) -> None:
        """Take the keys of a mapping that mean nothing to mergekit."""
        for key in holder:
            if key not in known:
                self._doubt((*path, key), did_you_mean(str(key), known))

    def misspelt_keys(self, path: Path_, holder: Mapping[str, Any], known: Collection[str]) -> None:
        """Take the unknown keys that look like a known one; there may be others that we ignore."""
        for key in holder:
            if key not in known and (near := did_you_mean(str(key), known)):
                self._doubt((*path, key), near)

    def _doubt(self, path: Path_, near: str) -> None:
        line, column = self.document.place(path)
        message = "means nothing to mergekit"
        field_ = field_text(path)
        self.doubts.append(Problem(self.document.file, line, column, field_, message, near))
        self.note(f"{quote(str(path[-1]))} {message}" + (f" ({near}?)" if near else ""))

    def note(self, text: str) -> None:
        """Take a note, once."""
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, slots=True)
class Reference:
    """A model as mergekit names it: path and revision, perhaps with a LoRA folded in."""

    model: str
    revision: str = ""
    lora: str = ""

    @property
    def text(self) -> str:
        """The reference without revisions, as people write it."""
        return f"{self.model}+{self.lora}" if self.lora else self.model


@dataclass(frozen=True, slots=True)
class Scope:
    """Parameters of one level, and where they stand."""

    path: Path_
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Input:
    """One model of the merge with the parameters of its own."""

    reference: Reference
    path: Path_
    scopes: tuple[Scope, ...] = ()
    layers: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """What a file says, before anything is translated."""

    method: str
    base: Reference | None
    base_path: Path_
    inputs: tuple[Input, ...]
    shared: tuple[Scope, ...]
    data: Mapping[str, Any]

    @property
    def non_base(self) -> tuple[Input, ...]:
        """The inputs without the base model."""
        return tuple(one for one in self.inputs if one.reference != self.base)


def read(findings: Findings) -> Config | None:
    """Return what the file says; None, with problems, if it is no mergekit file."""
    data = findings.document.data
    if not isinstance(data, dict) or "merge_method" not in data:
        keys = data if isinstance(data, dict) else ()
        near = next((key for key in keys if did_you_mean(str(key), ["merge_method"])), None)
        hint = "give the YAML file that mergekit-yaml takes"
        if near is not None:
            hint = f"write merge_method for {near}"
        findings.problem((), "expected a mergekit configuration with merge_method", hint)
        return None
    findings.unknown_keys((), data, _KEYS)
    body = _body(findings, data)
    config = None if body is None else _config(findings, data, *body)
    if config is not None:
        if not config.inputs:
            path = body[0] if body else ()
            findings.problem(path, "expected a list of models to merge, found none")
        if config.method != "passthrough":
            _refuse_twice(findings, config.inputs)
    return config


def _config(
    findings: Findings, data: Mapping[str, Any], path: Path_, body: Mapping[str, Any]
) -> Config | None:
    """Return the inputs and parameters of the mapping with `models` or `slices`."""
    shared = [_scope(findings, (), data)]
    if path:
        shared.insert(0, _scope(findings, path, body))
    base_path: Path_ = ("base_model",)
    base = _reference(findings, data.get("base_model"))
    if body.get("models"):
        inputs = tuple(_models(findings, path, body["models"]))
        if inputs and base and base not in [one.reference for one in inputs]:
            inputs += (Input(base, base_path),)
    elif data["merge_method"] == "passthrough":
        inputs = tuple(_stacked(findings, (*path, "slices"), body.get("slices")))
        if not inputs:
            return None
    else:
        one_slice = _slice(findings, (*path, "slices"), body.get("slices"))
        if one_slice is None:
            return None
        inside, body = one_slice
        if "base_model" in body:
            base_path = (*inside, "base_model")
            base = _reference(findings, body["base_model"])
        shared.insert(0, _scope(findings, inside, body))
        inputs = tuple(_models(findings, inside, body.get("sources"), "sources"))
    scopes = tuple(scope for scope in shared if scope.settings)
    return Config(str(data["merge_method"]), base, base_path, inputs, scopes, data)


def _body(findings: Findings, data: Mapping[str, Any]) -> tuple[Path_, Mapping[str, Any]] | None:
    """Return the place of the mapping with `models` or `slices`, and it: the file or its module."""
    modules = data.get("modules")
    if not modules:
        return (), data
    if not isinstance(modules, dict) or len(modules) > 1:
        count = len(modules) if isinstance(modules, dict) else "something else"
        findings.problem(("modules",), f"expected one module, found {count}")
        return None
    ((name, body),) = modules.items()
    if not isinstance(body, dict):
        findings.problem(("modules", name), "expected a mapping with models, found something else")
        return None
    return ("modules", name), body


def _slice(findings: Findings, path: Path_, slices: Any) -> tuple[Path_, Mapping[str, Any]] | None:
    if not isinstance(slices, list) or not slices:
        findings.problem(path[:-1], "expected models or slices, found neither")
        return None
    if len(slices) > 1 or not isinstance(slices[0], dict):
        message = f"expected one slice over all layers, found {len(slices)} slices"
        hint = "merge all layers, and stack slices of that merge with passthrough"
        findings.problem(path, message, hint)
        return None
    return (*path, 0), slices[0]


def _stacked(findings: Findings, path: Path_, slices: Any) -> Iterator[Input]:
    """Yield the one source of every slice; the slice's parameters stand behind its own."""
    if not isinstance(slices, list) or not slices:
        findings.problem(path[:-1], "expected models or slices, found neither")
        return
    for number, one in enumerate(slices):
        place: Path_ = (*path, number)
        sources = one.get("sources") if isinstance(one, dict) else None
        if not isinstance(sources, list) or len(sources) != 1:
            count = len(sources) if isinstance(sources, list) else "none"
            message = f"passthrough takes one source per slice, found {count}"
            hint = "merge the models in a file of its own, and stack layers of that merge"
            findings.problem((*place, "sources"), message, hint)
            continue
        scope = _scope(findings, place, one)
        for source in _models(findings, place, sources, "sources"):
            if source.layers is None:
                where = source.path[:-1]
                findings.problem(where, "expected layer_range, two whole numbers, found none")
                continue
            yield replace(source, scopes=(*source.scopes, *((scope,) if scope.settings else ())))


def _models(findings: Findings, path: Path_, models: Any, key: str = "models") -> Iterator[Input]:
    for number, one in enumerate(models if isinstance(models, list) else []):
        place: Path_ = (*path, key, number)
        if not isinstance(one, dict):
            findings.problem(place, "expected a mapping with model, found something else")
            continue
        reference = _reference(findings, one.get("model"))
        if reference is None:
            findings.problem(place, "expected model, found none")
            continue
        findings.unknown_keys(place, one, _INPUT_KEYS)
        scope = _scope(findings, place, one)
        layers = one.get("layer_range") if key == "sources" else None
        known = None
        if isinstance(layers, list) and [type(end) for end in layers] == [int, int]:
            known = (layers[0], layers[1])
        scopes = (scope,) if scope.settings else ()
        yield Input(reference, (*place, "model"), scopes, known)


def _scope(findings: Findings, path: Path_, holder: Mapping[str, Any]) -> Scope:
    place = (*path, "parameters")
    settings = holder.get("parameters")
    if settings is not None and not isinstance(settings, dict):
        findings.problem(place, "expected a mapping, found something else")
        settings = None
    findings.misspelt_keys(place, settings or {}, _PARAMETERS)
    return Scope(place, settings or {})


def _reference(findings: Findings, value: Any) -> Reference | None:
    if isinstance(value, dict):
        model, revision = _path(value.get("model"))
        lora, _ = _path(value.get("lora"))
        return Reference(model, revision, lora) if model else None
    if not isinstance(value, str) or not value:
        return None
    model, _, lora = value.partition("+")
    (model, revision), (lora, _) = _path(model), _path(lora)
    if revision:
        findings.note(f"the revision of {model} is not carried over: the catalog pins digests")
    return Reference(model, revision, lora)


def _path(value: Any) -> tuple[str, str]:
    if isinstance(value, dict):
        return str(value.get("path") or ""), str(value.get("revision") or "")
    path, _, revision = str(value or "").partition("@")
    return path, revision


def _refuse_twice(findings: Findings, inputs: tuple[Input, ...]) -> None:
    seen: dict[Reference, Input] = {}
    for one in inputs:
        if one.reference in seen:
            first = field_text(seen[one.reference].path)
            message = f"{one.reference.text} stands in {first} already"
            findings.problem(one.path, message, "add the weights up in one input")
        seen[one.reference] = one
