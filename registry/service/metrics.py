"""What the service tells Prometheus, in its text format 0.0.4. Pure; every label is escaped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registry.service.choice import Standing
from registry.service.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OUTCOMES = ("done", "failed", "refused", "later", "bug", "interrupted", "died")
"""How a job ends, see `jobs.outcome`."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its samples: labels to value."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def text(now: Snapshot, version: str) -> str:
    """Return all metrics."""
    return "".join(_family_text(one) for one in families(now, version))


def families(now: Snapshot, version: str) -> Iterable[Family]:
    """Yield all metrics."""
    labels = {"version": version, "repository": now.repository, "branch": now.branch}
    yield _gauge("service_info", "What this service is and follows.", 1, labels)
    yield _gauge("acting", "1 if this instance acts, 0 while it waits for another.", now.is_acting)
    conditions = tuple(
        ({"type": one.type, "reason": one.reason}, float(one.status))
        for one in now.memory.conditions
    )
    yield Family("condition", "gauge", "1 if the condition holds; the reason of it.", conditions)
    standing = Counter(now.survey.standings.values())
    models = tuple(({"state": one.value}, float(standing[one])) for one in Standing)
    yield Family("models", "gauge", "Models by how they stand.", models)
    yield _gauge("queue_models", "Models that the next sync takes up.", len(now.survey.due))
    yield _gauge("job_running", "1 while a sync runs.", now.job is not None)
    yield _counter(now, "job", "jobs_total", "Syncs by outcome.", "outcome", OUTCOMES)
    answers = sorted({label for name, label in now.counters if name == "webhook"} | {"202"})
    yield _counter(now, "webhook", "webhooks_total", "Webhooks by answer.", "code", answers)
    failures = float(now.counters.get(("fetch", "failed"), 0))
    yield Family("fetch_failures_total", "counter", "Failed fetches.", (({}, failures),))
    since = now.unreachable.since if now.unreachable else 0
    about = "Since when the repository is not reached, 0 if it is."
    yield _gauge("unreachable_since_timestamp_seconds", about, since)
    about = "When the branch was last read."
    yield _gauge("last_look_timestamp_seconds", about, now.looked_at or 0)
    about = "When a sync last came to its end."
    yield _gauge("last_sync_timestamp_seconds", about, now.memory.synced_at or 0)


def _gauge(name: str, about: str, value: float, labels: Mapping[str, str] | None = None) -> Family:
    return Family(name, "gauge", about, ((labels or {}, float(value)),))


def _counter(
    now: Snapshot, event: str, name: str, about: str, label: str, values: Iterable[str]
) -> Family:
    counts = tuple(({label: one}, float(now.counters.get((event, one), 0))) for one in values)
    return Family(name, "counter", about, counts)


def _family_text(one: Family) -> str:
    name = f"registry_{one.name}"
    head = f"# HELP {name} {one.help}\n# TYPE {name} {one.kind}\n"
    return head + "".join(f"{name}{_labels(labels)} {value!r}\n" for labels, value in one.samples)


def _labels(labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{name}="{escape(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def escape(value: str) -> str:
    r"""Return a label's value as the format wants it: `\\`, `\"` and `\n` are escaped.

    Other control characters and lone surrogates, which no scraper needs, become `?`.
    """
    plain = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    shown = "".join(char if char.isprintable() else "?" for char in plain)
    return shown.encode("utf-8", "replace").decode()
