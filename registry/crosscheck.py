"""What no single document can tell: references, same base, cycles, weights that make no sense.

Pure: values and sources in, problems out. Broken documents are left out of the catalog by then, so
that a reference to one of them is not reported a second time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import schemas
from registry import output_rules, ranges, tuning_rules
from registry.errors import Problem, did_you_mean
from registry.judge import MEAN
from registry.schema import method_parameters
from registry.source import FieldPath, Source
from registry.spec import Catalog, Gate, MergeSpec, Suite, Term
from schemas.schedule import numbers_of, value_at
from schemas.stack import height, shown
from schemas.utility import LOWER_IS_BETTER, MEASURED, PERPLEXITY, kind_of

Sources = Mapping[tuple[str, ...], Source]


def check(
    catalog: Catalog,
    sources: Sources,
    broken: Collection[str],
    only: Collection[str] | None = None,
) -> list[Problem]:
    """Return every cross-check's problem; `broken` are files that have problems of their own.

    With `only`, no other merges are looked at.
    """
    problems: list[Problem] = []
    for ingredient in catalog.ingredients.values():
        source = sources[(ingredient.kind, ingredient.name, str(ingredient.version))]
        if ingredient.base is not None:
            problems += _base(catalog, source, ingredient.base, broken)
    for suite in catalog.suites.values():
        problems += _samples(suite, sources[("suite", suite.name)])
    for spec in catalog.merges.values():
        if only is not None and spec.name not in only:
            continue
        source = sources[("merge", spec.name)]
        found = _base(catalog, source, spec.base, broken)
        found += _terms(catalog, spec, source, broken)
        found += _dialect(spec, source)
        found += _slices(spec, source)
        found += _counts(spec, source)
        found += _parameters(spec, source)
        found += ranges.check(spec, source)
        found += _weights(spec, source)
        found += output_rules.check(catalog, spec, source)
        found += _evaluation(catalog, spec, source, broken)
        found += tuning_rules.check(catalog, spec, source)
        problems += found
    problems += _cycles(catalog, sources)
    return problems


def _samples(suite: Suite, source: Source) -> Iterator[Problem]:
    for number, task in enumerate(suite.tasks):
        k = task["options"].get("k", 1)
        samples = task["options"].get("samples", k)
        if samples < k:
            message = f"expected at least k, {k}, found {samples}"
            yield source.problem(("tasks", number, "options", "samples"), message)


def _base(catalog: Catalog, source: Source, name: str, broken: Collection[str]) -> list[Problem]:
    if ("base", name, None) in catalog.ingredients or f"catalog/bases/{name}/base.yaml" in broken:
        return []
    known = [ingredient.name for ingredient in catalog.ingredients.values() if not ingredient.base]
    return [source.problem(("base",), f"no base {name}", _hint(name, known, "base"))]


def _hint(name: str, known: Collection[str], kind: str) -> str:
    folder = {"base": "bases", "merge": "merges"}.get(kind, f"{kind}s")
    return did_you_mean(name, known) or f"declare it in catalog/{folder}/ first"


def _terms(
    catalog: Catalog, spec: MergeSpec, source: Source, broken: Collection[str]
) -> Iterator[Problem]:
    seen: dict[tuple[str, str, int | None], int] = {}
    for number, term in enumerate(spec.terms):
        path = spec.place(number)
        if term.id in seen:
            message = f"{term.label} stands in terms[{seen[term.id]}] already"
            yield source.problem((*path, term.kind), message, "add the weights up in one term")
            continue
        seen[term.id] = number
        if term.kind == "merge":
            if term.version is not None:
                yield source.problem((*path, "version"), "a merge has no version", "remove it")
            base = _merge_base(catalog, term)
        else:
            base = _ingredient_base(catalog, term)
        if base is None:
            yield from _missing(catalog, term, source, path, broken)
        elif base != spec.base:
            message = f"expected the base {spec.base} of this merge, found {term.label} on {base}"
            yield source.problem((*path, term.kind), message)


def _merge_base(catalog: Catalog, term: Term) -> str | None:
    spec = catalog.merges.get(term.name)
    return spec.base if spec else None


def _ingredient_base(catalog: Catalog, term: Term) -> str | None:
    ingredient = catalog.ingredients.get(term.id)
    return ingredient.base if ingredient else None


def _missing(
    catalog: Catalog, term: Term, source: Source, path: FieldPath, broken: Collection[str]
) -> Iterator[Problem]:
    file = {
        "merge": f"catalog/merges/{term.name}.yaml",
        "adapter": f"catalog/adapters/{term.name}/{term.version}/adapter.yaml",
        "checkpoint": f"catalog/checkpoints/{term.name}/{term.version}/checkpoint.yaml",
    }[term.kind]
    if file in broken:
        return
    if term.kind == "merge":
        hint = _hint(term.name, catalog.merges, "merge")
        yield source.problem((*path, "merge"), f"no merge {term.name}", hint)
        return
    same_kind = [one for one in catalog.ingredients.values() if one.kind == term.kind]
    versions = sorted(one.version or 0 for one in same_kind if one.name == term.name)
    if versions:
        known = ", ".join(str(version) for version in versions)
        hint = f"versions of {term.name}: {known}"
        yield source.problem((*path, "version"), f"no {term.label}", hint)
    else:
        hint = _hint(term.name, {one.name for one in same_kind}, term.kind)
        yield source.problem((*path, term.kind), f"no {term.kind} {term.name}", hint)


def _dialect(spec: MergeSpec, source: Source) -> Iterator[Problem]:
    if spec.dialect is None:
        return
    table = schemas.dialects()
    method = table[spec.dialect]["method"]
    if method != spec.method:
        others = [name for name, one in table.items() if one["method"] == spec.method]
        message = f"expected method {method} with {spec.dialect}, found {spec.method}"
        known = f"; dialects of {spec.method}: {', '.join(others)}" if others else ""
        hint = f"write method: {method}, or remove dialect{known}"
        yield source.problem(("recipe", "dialect"), message, hint)


def _slices(spec: MergeSpec, source: Source) -> Iterator[Problem]:
    for number, one in enumerate(spec.slices):
        if one.first >= one.last:
            message = f"expected [first, last) with first < last, found {shown(one)}"
            hint = f"layers [{one.first}, {one.first + 1}] are layer {one.first} alone"
            yield source.problem(("recipe", "slices", number, "layers"), message, hint)


def layer_bounds(
    catalog: Catalog, spec: MergeSpec, source: Source, layers: int
) -> Iterator[Problem]:
    """Yield what does not fit the layers of the operands; `layers` are those of the base."""
    if not spec.slices:
        for number, term in enumerate(spec.terms):
            found = _layers(catalog, term, layers)
            if found != layers:
                message = f"{term.label} has {found} layers and the base {layers}"
                path = (*spec.place(number), term.kind)
                yield source.problem(path, message, "only passthrough takes it, in slices")
    for number, one in enumerate(spec.slices):
        most = layers if one.term is None else _layers(catalog, spec.terms[one.term], layers)
        if one.last > most:
            whose = "the base" if one.term is None else spec.terms[one.term].label
            message = f"expected layers within [0, {most}] of {whose}, found {shown(one)}"
            yield source.problem(("recipe", "slices", number, "layers"), message)


def _layers(catalog: Catalog, term: Term, base: int) -> int:
    """Return the layers of an operand: those of the base, or of the stack that a merge declares."""
    spec = catalog.merges.get(term.name) if term.kind == "merge" else None
    return height(spec.slices) if spec and spec.slices else base


def _counts(spec: MergeSpec, source: Source) -> Iterator[Problem]:
    method = schemas.method(spec.method)
    least, most = method["x-terms"], method.get("x-terms-max")
    if len(spec.terms) < least or (most is not None and len(spec.terms) > most):
        wanted = f"{least}" if least == most else f"at least {least}"
        message = f"expected {wanted} terms for {spec.method}, found {len(spec.terms)}"
        yield source.problem(("recipe", "terms"), message, _other_count(spec, most))
    if method["x-weights"]:
        return
    for number, term in enumerate(spec.terms):
        if numbers_of(term.weight) != [1.0]:
            path: FieldPath = ("recipe", "terms", number, "weight")
            yield source.problem(path, f"{spec.method} takes no weights", "remove it")


def _other_count(spec: MergeSpec, most: int | None) -> str:
    """Return which method takes as many terms as there are."""
    if len(spec.terms) == 1:
        return "one term alone: task_arithmetic takes it, at any weight"
    return "more on a sphere: multislerp or karcher" if most else ""


def _parameters(spec: MergeSpec, source: Source) -> Iterator[Problem]:
    known = schemas.method(spec.method)["properties"]
    for number, term in enumerate(spec.terms):
        for name in term.parameters:
            path: FieldPath = ("recipe", "terms", number, "parameters", name)
            if name not in known:
                message = f"{spec.method} has no parameter {name}"
                yield source.problem(path, message, "remove it, or choose another method")
            elif not known[name].get("x-per-term", True):
                message = f"{name} of {spec.method} is one for all terms"
                yield source.problem(path, message, "set it in recipe.parameters")
    if spec.parameters.get("scope") == "model":
        # What trims the scope; in front of it DARE drops tensor by tensor.
        share = "trim_density" if "trim_density" in known else "density"
        path = ("recipe", "parameters", share)
        for place, density in [(path, spec.parameters.get(share))] + [
            (("recipe", "terms", number, "parameters", share), term.parameters.get(share))
            for number, term in enumerate(spec.terms)
        ]:
            if isinstance(density, Mapping):
                message = "expected a number with scope model, found a schedule"
                yield source.problem(place, message, f"use scope: tensor, or one {share}")


def _weights(spec: MergeSpec, source: Source) -> Iterator[Problem]:
    if not needs_positive_weights(spec):
        return
    rule, hint = _why_positive(spec)
    for number, term in enumerate(spec.terms):
        lowest = min(numbers_of(term.weight))
        if lowest < 0:
            path = ("recipe", "terms", number, "weight")
            message = f"expected no negative weight ({rule}), found {lowest:g}"
            yield source.problem(path, message, hint)
            return
    if not any(isinstance(term.weight, Mapping) for term in spec.terms):
        yield from zero_sum(spec, source, [""], layers=1)


def needs_positive_weights(spec: MergeSpec) -> bool:
    """Return whether the recipe divides by the sum of its weights."""
    return bool(_why_positive(spec)[0])


def _averages(spec: MergeSpec) -> bool:
    return bool(schemas.method(spec.method).get("x-averages", False))


def _why_positive(spec: MergeSpec) -> tuple[str, str]:
    """Return why the weights are divided by their sum and what to do instead; nothing if not."""
    if _averages(spec):
        return f"{spec.method} averages", "use task_arithmetic to subtract"
    parameters = method_parameters(spec.method, spec.parameters)
    if parameters.get("normalize") is True:
        return "normalize divides by the sum", "normalize: false"
    if parameters.get("combine") == "weighted_mean":
        return "weighted_mean divides by the sum", "combine: mean"
    return "", ""


def zero_sum(
    spec: MergeSpec, source: Source, names: Sequence[str], *, layers: int
) -> Iterator[Problem]:
    """Yield a problem if the weights sum to 0 at one of the base's tensors."""
    for name in names:
        if sum(value_at(term.weight, name, layers) for term in spec.terms) <= 0:
            where = f" at tensor {name}" if name else ""
            message = f"expected a sum of weights above 0, found 0{where}"
            hint = "" if _averages(spec) else _why_positive(spec)[1]
            yield source.problem(("recipe", "terms"), message, hint)
            return


def _evaluation(
    catalog: Catalog, spec: MergeSpec, source: Source, broken: Collection[str]
) -> Iterator[Problem]:
    if spec.suite is None:
        return
    suite = catalog.suites.get(spec.suite)
    if suite is None:
        if f"catalog/suites/{spec.suite}/suite.yaml" not in broken:
            hint = _hint(spec.suite, catalog.suites, "suite")
            yield source.problem(("evaluation", "suite"), f"no suite {spec.suite}", hint)
        return
    tasks = {task["name"]: kind_of(task) for task in suite.tasks}
    can_retain = any(
        term.kind != "merge" and max(numbers_of(term.weight)) > 0 for term in spec.terms
    )
    for task, gate in spec.gates.items():
        path: FieldPath = ("evaluation", "gates", task)
        if task not in tasks and task != MEAN:
            hint = did_you_mean(task, [*tasks, MEAN]) or f"tasks: {', '.join(tasks)}, or {MEAN}"
            yield source.problem(path, f"suite {spec.suite} has no task {task}", hint)
        elif problem := _unfit(task, gate, tasks):
            field, message, hint = problem
            yield source.problem((*path, *field), message, hint)
        elif gate.retention is not None and not can_retain:
            message = "expected an adapter or checkpoint of positive weight to compare with"
            yield source.problem((*path, "retention"), message, "use at_least")


def _unfit(
    task: str, gate: Gate, tasks: Mapping[str, str]
) -> tuple[tuple[str, ...], str, str] | None:
    """Return which condition a task's metric does not allow, why, and what to do."""
    metric = tasks.get(task)
    if metric is None and all(one in MEASURED for one in tasks.values()):
        return (), "a mean is of shares and perplexities, and the suite has none", "gate a task"
    if metric == PERPLEXITY and gate.retention is not None:
        message = "retention is a share of a score, and perplexity is better when lower"
        return ("retention",), message, "use at_most"
    compared = [name for name in ("retention", "no_worse_than") if getattr(gate, name) is not None]
    if metric in MEASURED and compared:
        message = f"{metric} is measured: no two runs and no two machines agree"
        hint = f"use {'at_most' if metric in LOWER_IS_BETTER else 'at_least'}"
        return (compared[0],), message, hint
    return None


def _cycles(catalog: Catalog, sources: Sources) -> list[Problem]:
    state: dict[str, str] = {}
    problems: list[Problem] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if state.get(name) == "open":
            cycle = (*trail[trail.index(name) :], name)
            last = cycle[-2]
            spec = catalog.merges[last]
            position = next(
                number
                for number, term in enumerate(spec.terms)
                if (term.kind, term.name) == ("merge", name)
            )
            message = f"these merges are made of each other: {' -> '.join(cycle)}"
            source = sources[("merge", last)]
            problems.append(source.problem((*spec.place(position), "merge"), message))
        if name in state:
            return
        state[name] = "open"
        for upstream in catalog.merges[name].upstream:
            if upstream in catalog.merges:
                visit(upstream, (*trail, name))
        state[name] = "done"

    for name in sorted(catalog.merges):
        visit(name, ())
    return problems


def immutable(catalog: Catalog, sources: Sources, before: Catalog) -> list[Problem]:
    """Return what changed or vanished of versions that stand at an earlier revision."""
    problems = []
    for key, old in before.ingredients.items():
        new = catalog.ingredients.get(key)
        if new is None:
            file = f"{old.folder.removesuffix('/weights')}/{old.kind}.yaml"
            message = f"{old.label} stands at the earlier revision and may not vanish"
            problems.append(
                Problem(file, 0, 0, "", message, "restore it; use `revoked:` to end it")
            )
            continue
        source = sources[(new.kind, new.name, str(new.version))]
        facts: list[tuple[FieldPath, Any, Any]] = [
            (("weights", "digest"), old.digest, new.digest),
            (("base",), old.base, new.base),
        ]
        for path, was, now in facts:
            if was != now:
                message = f"{old.label} is immutable: expected {was}, found {now}"
                hint = "make it a new version" if old.version else "give the new base another name"
                problems.append(source.problem(path, message, hint))
    return problems
