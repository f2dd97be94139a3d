"""One parameter of mergekit, its filters and gradients, as a number or a schedule of ours.

mergekit asks the levels from the most to the least special; in a list the first filter that occurs
in the tensor's name wins, and a list without a match leaves the question to the next level. A list
of numbers is stretched over the layers; **every tensor outside the layers, the head too, takes the
first number**, and with a single layer that layer takes the last. Knows no method and no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from registry.documents import Path_, quote
from registry.mergekit.reading import Findings, Scope
from schemas.schedule import Scheduled, count_layers, layer_of, value_at

Value = float | list[float]
REQUIRED = object()
"""Stands for a default where mergekit has none."""


@dataclass(frozen=True, slots=True)
class Case:
    """A value (a number, or numbers over the layers) for the tensors that a filter selects."""

    filter: str | None
    value: Value
    path: Path_


@dataclass(frozen=True, slots=True)
class Settings:
    """Reads parameters of one file; `names` are the base's tensors, empty if not at hand."""

    findings: Findings
    names: tuple[str, ...]

    def number(
        self, scopes: Iterable[Scope], name: str, default: Any, where: Path_
    ) -> Scheduled | None:
        """Return a numeric parameter; None, with a problem, where it cannot be written.

        `where` is the place that lacks it if it stands nowhere.
        """
        cases = self._cases(scopes, name)
        if cases is None:
            return None
        if not cases or cases[-1].filter is not None:
            if default is REQUIRED:
                scope = "nowhere" if not cases else "only for the tensors of a filter"
                message = f"expected {name}, which mergekit requires, found it {scope}"
                self.findings.problem(where, message)
                return None
            cases.append(Case(None, float(default), where))
        return self._schedule(cases, name)

    def constant(self, scopes: Iterable[Scope], name: str, *, default: Any, kind: type) -> Any:
        """Return a parameter that must be one value of a type for all tensors."""
        for scope in scopes:
            if name not in scope.settings:
                continue
            path, value = (*scope.path, name), scope.settings[name]
            if isinstance(value, list) and len(value) == 1:
                value = value[0]
            if isinstance(value, dict) and value.get("filter") in (None, "*"):
                value = value.get("value")
            is_whole = kind is int and isinstance(value, float) and value.is_integer()
            if kind is float and type(value) in (int, float):
                return float(value)
            if type(value) is not kind and not is_whole:
                wanted = "true or false" if kind is bool else "one number"
                hint = "it is one value for all tensors here"
                self.findings.problem(path, f"expected {wanted}, found {_shown(value)}", hint)
                return default
            return kind(value)
        return default

    def _cases(self, scopes: Iterable[Scope], name: str) -> list[Case] | None:
        found: list[Case] = []
        for scope in scopes:
            if name not in scope.settings:
                continue
            path: Path_ = (*scope.path, name)
            setting = scope.settings[name]
            is_conditional = isinstance(setting, list) and any(
                isinstance(one, dict) for one in setting
            )
            conditions = setting if is_conditional else [setting]
            for number, one in enumerate(conditions):
                place = (*path, number) if is_conditional else path
                case = self._case(one, place)
                if case is None:
                    return None
                found.append(case)
                if case.filter is None:
                    return found
        return found

    def _case(self, one: Any, path: Path_) -> Case | None:
        selects = None
        if isinstance(one, dict):
            selects, one, path = one.get("filter"), one.get("value"), (*path, "value")
        value = _value(one)
        if value is None:
            self.findings.problem(path, f"expected numbers, found {_shown(one)}")
            return None
        return Case(None if selects in (None, "", "*") else str(selects), value, path)

    def _schedule(self, cases: Sequence[Case], name: str) -> Scheduled | None:
        *filtered, rest = cases
        if not filtered and isinstance(rest.value, float):
            return rest.value
        layers = count_layers(self.names)
        schedule = _unfiltered(rest.value, layers)
        if isinstance(rest.value, list):
            self.findings.note(
                "mergekit gives the first number of a gradient to the embeddings, the final norm "
                "and the head: written out"
            )
        rules = []
        for case in filtered:
            if isinstance(case.value, list) and not self.names:
                message = f"expected a number beside a filter, found a gradient for {name}"
                hint = "it takes one rule per layer; fetch the base's weights, whose layers tell"
                self.findings.problem(case.path, message, hint)
                return None
            rules += _rules(case, self.names)
        if rules:
            schedule = {**schedule, "rules": rules}
        for tensor in self.names:
            ours = value_at(schedule, tensor, layers)
            if not math.isclose(ours, _at(cases, tensor, layers), rel_tol=1e-12, abs_tol=1e-15):
                message = f"the filter cannot be written as a pattern: {name} differs at {tensor}"
                self.findings.problem(cases[0].path, message)
                return None
        return schedule


def _value(one: Any) -> Value | None:
    if isinstance(one, list):
        numbers = [_number(part) for part in one]
        if not numbers or None in numbers:
            return None
        known = [number for number in numbers if number is not None]
        return known[0] if len(set(known)) == 1 else known
    return _number(one)


def _number(one: Any) -> float | None:
    # YAML 1.1, which mergekit reads, takes 1e-3 for a text; mergekit makes a number of it.
    try:
        number = float(one) if type(one) in (int, float, str) else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _unfiltered(value: Value, layers: int) -> dict[str, Any]:
    if isinstance(value, float):
        return {"layers": [value]}
    inside = value[-1:] if layers == 1 else value
    return {"layers": inside, "embeddings": value[0], "head": value[0]}


def _rules(case: Case, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rules of one filter: one per layer for a gradient, then one for all the rest."""
    text = case.filter or ""
    anywhere = f"*{_escaped(text)}*"
    if isinstance(case.value, float):
        return [{"match": anywhere, "value": case.value}]
    layers = count_layers(names)
    rules = []
    for prefix in sorted({_prefix(name) for name in names if layer_of(name) is not None}):
        for layer in range(layers):
            here = f"{prefix}{layer}."
            match = here + ("*" if text in here else anywhere)
            rules.append({"match": match, "value": _stretched(case.value, layer, layers)})
    return [*rules, {"match": anywhere, "value": case.value[0]}]


def _prefix(name: str) -> str:
    """Return what stands before the number of the layer."""
    number = str(layer_of(name))
    return name[: ("." + name).index(f".{number}.")]


def _escaped(text: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _at(cases: Sequence[Case], tensor: str, layers: int) -> float:
    """Return mergekit's value at a tensor."""
    value = next(one.value for one in cases if one.filter is None or one.filter in tensor)
    if isinstance(value, float):
        return value
    layer = layer_of(tensor)
    return value[0] if layer is None else _stretched(value, layer, layers)


def _stretched(values: Sequence[float], layer: int, layers: int) -> float:
    share = layer / (layers - 1) if layers > 1 else 1.0
    position = share * (len(values) - 1)
    left = int(position)
    right = min(left + 1, len(values) - 1)
    return (1 - (position - left)) * values[left] + (position - left) * values[right]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(value) if isinstance(value, str) else "nothing" if value is None else f"{value}"
