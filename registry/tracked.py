"""What MLflow is told of a build, and how its things are called there: values, names and tags.

Pure: knows no MLflow call, no store and no plan. The names are those of the design, section 10.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

RECIPE = "lineage/recipe.json"
"""Path of the exact build request among a run's artifacts; longer texts point there."""

_TAG_CHARACTERS = 5000  # MLflow cuts run tags at 8000 and parameters at 6000 without a word


@dataclass(frozen=True, slots=True)
class Operand:
    """One direct input of a build: a base, an adapter, a checkpoint or another merge.

    `weight` is the number shown, a schedule's mean, or None where the method has no weights;
    `schedule` is a schedule as text.
    """

    kind: str
    name: str
    version: int | None
    digest: str
    weight: float | None = None
    schedule: str | None = None

    @property
    def key(self) -> str:
        """Return the name in keys of tags and metrics, where `@` is not allowed: `sql:v1`."""
        prefix = "" if self.kind == "adapter" else f"{self.kind}."
        return prefix + self.name + (f":v{self.version}" if self.version is not None else "")

    @property
    def title(self) -> str:
        """Return the name for people: `adapter sql@1`."""
        version = f"@{self.version}" if self.version is not None else ""
        return f"{self.kind} {self.name}{version}"

    @property
    def registered_name(self) -> str:
        """Return the name of its registered model; a merge stands under its own name."""
        return self.name if self.kind == "merge" else f"{self.kind}.{self.name}"

    @property
    def is_subtracted(self) -> bool:
        """Return whether it is taken away from the base."""
        return self.weight is not None and self.weight < 0


@dataclass(frozen=True, slots=True)
class BuildLog:
    """All that MLflow shows of one build; `contains` maps deeper ingredients to their path.

    `files` become artifacts of the run, by path, and so do `pictures`, which are drawn only if the
    build is not logged yet; `source` says where the bytes are, `journal` where the journal ended.
    """

    model: str
    key: str
    model_digest: str
    artifact_digest: str
    expression: str
    commit: str
    method: str
    base: Operand
    operands: tuple[Operand, ...]
    contains: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    files: Mapping[str, bytes]
    source: str
    description: str = ""
    owner: str = ""
    labels: Mapping[str, str] | None = None
    pictures: Callable[[], Mapping[str, bytes]] = dict
    journal: str = ""


def metric_name(label: str) -> str:
    """Return a label as part of a metric's name: MLflow takes letters, digits, and these."""
    return "".join(one if one.isalnum() or one in "_-./ " else "_" for one in label)


def weight_text(operand: Operand) -> str:
    """Return the weight as tags and tables show it, the shortest text that gives the number."""
    if operand.weight is None:
        return "none"
    text = repr(operand.weight)
    return text.removesuffix(".0")


def tags(build: BuildLog) -> dict[str, str]:
    """Return the tags that the run and the version of a build share."""
    negates = any(operand.is_subtracted for operand in build.operands)
    found = {
        "registry.kind": "merge",
        "registry.model": build.model,
        "registry.key": build.key,
        "registry.model_digest": build.model_digest,
        "registry.artifact_digest": build.artifact_digest,
        "registry.commit": build.commit,
        "registry.expression": shortened(build.expression),
        "registry.negates": "true" if negates else "false",
        "registry.source": build.source,
    }
    if build.journal:
        found["registry.journal"] = build.journal
    for operand in build.operands:
        found[f"uses.{operand.key}"] = weight_text(operand)
        if operand.is_subtracted:
            found[f"negates.{operand.key}"] = weight_text(operand)
    for key, path in build.contains.items():
        found[f"contains.{key}"] = shortened(path)
    return found


@dataclass(frozen=True, slots=True)
class RunLog:
    """A run that is no published build: a search, a measurement, an attempt that a gate stopped.

    `points` are metrics: name, step, value. With `once`, the name of one of the tags, a finished
    run that has the same value of it is this one.
    """

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    points: tuple[tuple[str, int, float], ...]
    files: Mapping[str, bytes]
    once: str = ""


def weight_metric(operand: Operand) -> tuple[str, float]:
    """Return the metric that ties a build to its operand's page: its own key for each operand.

    With one key for all, the run's page would show one operand's weight beside another's name.
    """
    if operand.weight is None:
        return f"merge.uses/{operand.key}", 1.0
    return f"merge.weight/{operand.key}", operand.weight


def shortened(text: str) -> str:
    """Return a text that MLflow keeps whole; what is cut stands in the recipe."""
    if len(text) <= _TAG_CHARACTERS:
        return text
    return f"{text[:_TAG_CHARACTERS]} … (cut; the whole is in {RECIPE})"
