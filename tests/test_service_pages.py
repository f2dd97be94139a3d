"""What the pages for people say, with literals: states in words, hostile text, what changes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from registry import terminal, tracking_place
from registry.amounts import size
from registry.plan import Action, Change, Plan, Reason
from registry.record import Logged
from registry.service import details, links
from registry.service.memory import Attempt, Condition, Memory, Suspension
from registry.service.pages import (
    frame,
    ingredient,
    ingredients,
    jobs,
    model,
    models,
    versions,
    words,
)
from registry.service.pages.filtered import Filter
from registry.service.progress import Progress
from registry.service.snapshot import Job, Snapshot, Trouble
from registry.service.view import View
from registry.worker import Progress as Done

KEY = "sha256:" + "a" * 64
COMMIT, OTHER = "c" * 40, "d" * 40
HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;\u202e</title>"
NOTHING = Progress()


class Reader(HTMLParser):
    """What a browser would find: tags with attributes, text, and whether all is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in {"meta", "link", "input", "br", "img"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def found(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def is_harmless(html: str) -> None:
    """Assert that nothing in a page was written by others as markup, and nothing of ours runs."""
    read = Reader(html)
    assert {one.get("src") for one in read.found("script")} <= {frame.SCRIPT}
    for tag, attributes in read.tags:
        assert tag not in {"iframe", "object", "embed", "base"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src", "action"):
            address = attributes.get(name) or "/"
            assert re.match(r"(/(?!/)|#|https?://|data:,)", address), (tag, address)
        if tag == "img":
            assert (attributes["src"] or "").startswith("/models/")


def row(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "state": "built", "expression": "b + 1·a@1", "metrics": {}, **more}


def seen(*changes: Change, memory: Memory | None = None, **rows: Any) -> Snapshot:
    plan = Plan(changes)
    found = {change.model: row(change.model, **rows) for change in changes}
    view = View(COMMIT, plan, plan.digest, found, {"waits": ("broken",)}, is_ahead=False)
    return Snapshot("repo", "main", memory or Memory(), is_acting=True, view=view, seen=COMMIT)


CHANGES = (
    Change("broken", Action.BUILD, (Reason("never-built"),), KEY),
    Change("fine", Action.NONE, (), KEY),
    Change(
        "new",
        Action.BUILD,
        (Reason("recipe-changed", "recipe.terms[adapter a@1].weight", 0.4, 0.6),),
        "sha256:" + "b" * 64,
    ),
    Change("old", Action.NONE, (Reason("undeclared"),)),
    Change("poisoned", Action.UNPUBLISH, (Reason("revoked", new=f"adapter a@1: {HOSTILE}"),)),
    Change("quiet", Action.NONE, (Reason("suspended", new="not now"),)),
    Change("waits", Action.BUILD, (Reason("input-changed", "merge broken"),), KEY),
)
FAILED = Attempt(7, COMMIT, "build", "failed", f"no such tensor {HOSTILE}", "look", 5, 65, count=2)
KNOWN = Memory(failed={"broken": f"build {KEY}"}, attempts={"broken": (FAILED,)})


def rows_of(html: str) -> list[list[str]]:
    table = html.partition("<tbody>")[2].partition("</tbody>")[0]
    return [
        [Reader(cell).text for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", one)]
        for one in table.split("</tr>")[:-1]
    ]


def test_models_stand_in_the_order_of_urgency_with_the_reason_in_words() -> None:
    html = models.whole(seen(*CHANGES, memory=KNOWN), Filter(), {}, NOTHING)

    told = {cells[0]: cells[1:3] for cells in rows_of(html)}
    assert list(told) == ["broken", "waits", "new", "poisoned", "quiet", "old", "fine"]
    assert told["broken"][0] == "✗ failed"
    assert "It was never built." in told["broken"][1]
    assert told["waits"] == [
        "‖ blocked",
        "It waits for what it is made of. Something that it is made of changed: merge broken.",
    ]
    assert told["new"] == [
        "→ due",
        "The recipe changed: recipe.terms[adapter a@1].weight 0.4 → 0.6.",
    ]
    assert told["quiet"] == ["‖ suspended", "It is suspended: not now."]
    assert told["fine"] == ["✓ up-to-date", "As declared."]
    is_harmless(html)


def test_names_and_addresses_that_are_hostile_are_text() -> None:
    now = seen(
        Change(HOSTILE, Action.NONE), state=HOSTILE, expression=HOSTILE, metrics={HOSTILE: 1.0}
    )
    records = {HOSTILE: {"at": 60, "failed": [HOSTILE], "stopped": [HOSTILE]}}

    html = models.whole(
        replace(now, repository=HOSTILE, branch=HOSTILE), Filter(), records, NOTHING
    )

    assert Reader(html).text.count(HOSTILE) == 8
    is_harmless(html)


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [
        (Filter("BROKEN"), ["broken", "waits"]),
        (Filter("a@1 fine"), ["fine"]),
        (Filter(state="due"), ["new", "poisoned"]),
        (Filter("new", "failed"), []),
        (Filter(number=2), []),
    ],
)
def test_a_filter_shows_what_matches_and_stays_in_the_form(
    chosen: Filter, shown: list[str]
) -> None:
    now = seen(*CHANGES, memory=KNOWN)
    assert now.view
    states = {"waits": "build: input-changed: merge broken"}
    rows = {name: {**one, "state": states.get(name, "")} for name, one in now.view.rows.items()}
    now = replace(now, view=replace(now.view, rows=rows))

    html = models.whole(now, chosen, {}, NOTHING)

    assert [cells[0] for cells in rows_of(html)] == shown
    assert f'value="{chosen.text}">' in html
    assert not chosen.state or f'<option value="{chosen.state}" selected>' in html


def test_a_hostile_filter_is_text_in_the_form_and_in_addresses() -> None:
    many = [Change(f"m{number:03}", Action.NONE) for number in range(450)]
    html = models.whole(seen(*many), Filter(HOSTILE, "", 2), {}, NOTHING)
    is_harmless(html)

    rest = models.whole(seen(*many), Filter("", "up-to-date", 3), {}, NOTHING)

    assert len(rows_of(rest)) == 50
    assert "450 models of 450 match; 401 to 450 are shown." in Reader(rest).text
    assert '<a href="/?state=up-to-date&amp;page=2">Previous models</a>' in rest
    assert "Next models" not in rest


def test_conditions_and_troubles_are_told_in_words_with_what_to_do() -> None:
    stalled = Condition("Stalled", True, "BranchRewritten", f"not a descendant {HOSTILE}", 60)
    ready = Condition("Ready", False, "BranchRewritten", "x", 60)
    known = replace(KNOWN, conditions=(ready, stalled), suspended=Suspension(HOSTILE, 0))
    now = replace(
        seen(*CHANGES, memory=known),
        branch_trouble=Trouble("BranchRewritten", f"why {HOSTILE}", 60, OTHER),
        unreachable=Trouble("Unreachable", f"no route {HOSTILE}", 60),
        seen=OTHER,
    )

    html = models.whole(now, Filter(), {}, NOTHING)

    text = Reader(html).text
    assert "The service is stalled" in text
    assert "Branch rewritten Since" not in text
    assert "Branch rewritten. Since 1970-01-01 00:01. At commit dddddddddddd." in text
    assert "to follow it as it is now, resume the service" in text
    assert "The service is suspended" in text
    assert "No contact" in text
    assert '<time datetime="1970-01-01T00:01:00Z">1970-01-01 00:01</time>' in html
    is_harmless(html)


def test_a_running_job_says_how_far_it_is() -> None:
    now = replace(seen(*CHANGES), jobs=(Job(3, "push", COMMIT, 60),))
    log = b"warning: x\nbroken  build\nbroken  store\nnew  build\nnew  build  3 of 12 ten"
    half = Progress().after(log)

    assert (half.model, half.stage, half.total) == ("new", "build", 0)
    far = half.after(b"sors\nother <b>  b\x00d\n")
    assert far == Progress({"broken", "new"}, "new", "build", 3, 12, "tensors")
    html = models.fragment(now, Filter(), {}, far)

    assert Reader(html).found("progress") == [
        {"aria-label": "Job 3: 2 of 4 models begun", "value": "1", "max": "4"},
        {"aria-label": "new: build", "value": "3", "max": "12"},
    ]
    assert "Job 3 is running." in Reader(html).text
    assert "new: build, 3 of 12 tensors" in Reader(html).text


def test_lines_without_an_end_do_not_grow() -> None:
    assert len(Progress().after(b"x" * 100_000).rest) == 4096


def told(**more: Any) -> dict[str, Any]:
    way = {
        "names": ["new", "m", "a@1"],
        "weights": [-0.5, 0.4],
        "lambdas": [0.9, 1],
        "sign": "-",
        "weight": -0.18,
    }
    part = {"kind": "adapter", "name": "a", "version": 1, "digest": KEY, "revoked": HOSTILE}
    request = {"recipe": {"method": "ties"}}
    return {
        "model": "new",
        "unread": "",
        "spec": {
            "description": HOSTILE,
            "owner": HOSTILE,
            "labels": {HOSTILE: HOSTILE},
            "suspend": HOSTILE,
        },
        "history": [version(COMMIT, 120), version(OTHER, 60)],
        "is_live": True,
        "request": request,
        "expression": HOSTILE,
        "contains": [{**part, "sign": "-", "ways": 3, "paths": [way]}],
        "drawing": "<svg></svg>",
        **more,
    }


def version(commit: str, at: int) -> dict[str, Any]:
    return {
        "commit": commit,
        "at": at,
        "author": HOSTILE,
        "subject": HOSTILE,
        "expression": HOSTILE,
        "metrics": {HOSTILE: 0.5},
        "is_removed": False,
    }


MEASURED: Mapping[str, Any] = {
    "suite": HOSTILE,
    "metrics": {"sql": 0.875, HOSTILE: None},
    "base": {"sql": 0.1},
    "baselines": {HOSTILE: {"sql": 0.9}},
    "verdicts": [
        {"task": HOSTILE, "condition": "at_least", "limit": 0.9, "value": 0.875, "passed": False}
    ],
}
BUILT = {
    "key": KEY,
    "model_digest": KEY,
    "artifact_digest": KEY,
    "files": 9,
    "bytes": 1_234_000_000,
    "device_class": HOSTILE,
    "seconds": 200,
    "peak_bytes": 500,
    "versions": {"torch": HOSTILE},
}


def test_the_page_of_a_model_has_all_of_it_and_no_markup_of_others() -> None:
    html = model.whole(
        seen(*CHANGES, memory=KNOWN),
        CHANGES[2],
        told(
            unread=HOSTILE,
            evaluation=MEASURED,
            rejected={"verdicts": MEASURED["verdicts"], "metrics": {}},
            built=BUILT,
            mlflow={"run": HOSTILE, "version": "4", "url": 'http://mlflow/" onclick="x'},
            plots=[{"file": "build-norms.svg", "title": HOSTILE}],
            changes=[{"field": HOSTILE, "old": 1, "new": HOSTILE, "is_input": True}],
        ),
        NOTHING,
    )

    text = Reader(html).text
    for fact in (
        "Asked to, a sync will build it.",
        "λ 0.9 · −0.5 m > +0.4 a@1",
        "− subtracted",
        "2 more ways",
        "⊘ revoked",
        "Declared, but not live yet",
        "at least 0.9",
        "1.23 GB in 9 files",
        "3 min 20 s, peak 500 B",
        "version 4",
    ):
        assert fact in text
    assert text.count(HOSTILE) > 15
    assert f'href="/models/new/diff?from={OTHER}&amp;to={COMMIT}"' in html
    assert 'href="/adapters/a/1"' in html
    is_harmless(html)
    orders = [int(tag[1]) for tag, _ in Reader(html).tags if re.fullmatch("h[1-6]", tag)]
    assert orders[0] == 1
    assert orders.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(orders))


def test_a_failed_model_says_what_it_said_and_how_often() -> None:
    html = model.whole(
        seen(*CHANGES, memory=KNOWN), CHANGES[0], told(is_live=False, history=[]), NOTHING
    )

    text = Reader(html).text
    assert f"No such tensor {HOSTILE}. It was never built." in text
    assert "Hint: Look." in text
    assert "1970-01-01 00:01 (2 times since 1970-01-01 00:00)" in text
    assert 'href="/jobs/7"' in html
    is_harmless(html)


def test_a_page_that_was_made_of_another_commit_offers_the_newer_state() -> None:
    now = seen(*CHANGES)

    same, other = (model.fragment(now, CHANGES[1], commit, NOTHING) for commit in (COMMIT, OTHER))

    assert "newer state" not in same
    assert '<a href="/models/fine">Load it</a>' in other
    assert "What is declared is what is live" not in other


def test_a_model_of_which_only_an_unreadable_record_is_left_has_a_page() -> None:
    html = model.whole(
        seen(*CHANGES),
        CHANGES[3],
        {"unread": HOSTILE, "spec": None, "history": [], "is_live": False, "request": None},
        NOTHING,
    )

    assert "The record cannot be read" in html
    is_harmless(html)


def test_a_difference_is_told_field_by_field_and_by_metric() -> None:
    html = versions.difference(
        seen(*CHANGES),
        "new",
        {
            "commits": [OTHER, COMMIT],
            "expressions": [HOSTILE, None],
            "digests": [KEY, None],
            "metrics": [{"sql": 0.5, "json": 1.0}, {"sql": 0.25, HOSTILE: 1}],
            "changes": [
                {"field": "recipe.method", "old": "linear", "new": HOSTILE, "is_input": False}
            ],
        },
    )

    (method, *metrics) = rows_of(html), rows_of(html.partition("Metrics</h2>")[2])
    assert method == [["recipe.method", "linear", HOSTILE, "recipe"]]
    assert ["sql", "0.5", "0.25", "−0.25"] in metrics[0]
    assert ["json", "1", "–", "–"] in metrics[0]
    is_harmless(html)


def test_the_page_of_an_ingredient_names_every_model_with_its_sign() -> None:
    path = {"names": ["new", "a@1"], "weights": [-0.5], "lambdas": [1], "sign": "-", "weight": -0.5}
    html = ingredient.whole(
        seen(*CHANGES),
        {
            "kind": "adapter",
            "name": "a",
            "version": 1,
            "digest": KEY,
            "revoked": HOSTILE,
            "description": HOSTILE,
            "license": HOSTILE,
            "base": HOSTILE,
            "folder": HOSTILE,
            "origin": {
                HOSTILE: HOSTILE,
                "site": "https://example.org/?a=1&b=2",
                "code": "javascript:alert(1)",
                "broken": 'https://x/"onmouseover="alert(1)',
            },
            "versions": [{"version": 1, "revoked": HOSTILE}, {"version": 2, "revoked": HOSTILE}],
            "models": [
                {
                    "model": "new",
                    "where": "both",
                    "sign": {"live": "-", "declared": "-"},
                    "paths": [{**path, "where": "live"}],
                    "more_paths": 4,
                }
            ],
            "unknown": [HOSTILE],
            "drawing": "<svg></svg>",
        },
    )

    assert rows_of(html) == [
        ["new", "live, not declared any more", "− subtracted", "−0.5", "directly"],
        ["new", "live and declared", "", "", "4 more ways"],
    ]
    assert 'href="https://example.org/?a=1&amp;b=2"' in html
    assert '<a href="/adapters/a/2">a@2 (revoked)</a>' in html
    assert html.count("https://") == 3
    is_harmless(html)


def test_all_ingredients_are_listed_and_found_by_what_is_said_of_them() -> None:
    def one(kind: str, name: str, live: int, **more: Any) -> dict[str, Any]:
        words = {"description": HOSTILE, "license": HOSTILE, "digest": KEY}
        return {
            "kind": kind,
            "name": name,
            "models": {"live": live, "declared": 3},
            **words,
            **more,
        }

    told = {
        "ingredients": [
            one("base", "b", 2),
            one("adapter", "a", 1, version=1, revoked=HOSTILE),
            one("adapter", HOSTILE, 0, version=2, license="mit"),
        ],
        "notes": [HOSTILE],
    }

    html = ingredients.whole(seen(*CHANGES), Filter(), told)

    rows = rows_of(html)
    assert [cells[:3] for cells in rows] == [
        ["base b", "2 models", "3 models"],
        ["adapter a@1", "1 model", "3 models"],
        [f"adapter {HOSTILE}@2", "0 models", "3 models"],
    ]
    assert rows[0][3] == "no"
    assert rows[1][3].startswith("⊘ revoked: ")
    assert '<a href="/adapters/a/1">adapter a@1</a>' in html
    assert "3 ingredients." in Reader(html).text
    is_harmless(html)
    found = ingredients.whole(seen(*CHANGES), Filter("REVOKED a@1"), told)
    assert [cells[0] for cells in rows_of(found)] == ["adapter a@1"]
    assert "1 ingredient of 3 match." in Reader(found).text
    found = ingredients.whole(seen(*CHANGES), Filter("mit"), told)
    assert [cells[0] for cells in rows_of(found)] == [f"adapter {HOSTILE}@2"]
    none = ingredients.whole(seen(*CHANGES), Filter(HOSTILE, "", 7), told)
    is_harmless(none)


def test_a_job_shows_its_results_and_the_end_of_its_log() -> None:
    result = {
        "model": HOSTILE,
        "action": HOSTILE,
        "exit_code": 1,
        "problem": HOSTILE,
        "note": "",
        "hint": HOSTILE,
    }
    job = Job(3, HOSTILE, COMMIT, 60, ("new",), 90, "failed", 1, (result,))
    now = replace(seen(*CHANGES), jobs=(job,))

    page = jobs.one(now, job, "\n".join([*map(str, range(300)), HOSTILE]), NOTHING)
    everything = jobs.whole(now, NOTHING)

    text = Reader(page).text
    assert "The last 200 of 301 lines." in text
    assert "\n102\n" in text
    assert "\n100\n" not in text
    assert rows_of(everything)[0][:4] == ["job 3", "✗ failed", "1970-01-01 00:01", "30 s"]
    for html in (page, everything):
        is_harmless(html)


def test_before_anything_was_read_the_pages_say_so() -> None:
    now = Snapshot("repo", "main")

    assert "Nothing was read of the branch yet." in models.whole(now, Filter(), {}, NOTHING)
    assert "There was no sync yet." in jobs.whole(now, NOTHING)
    is_harmless(frame.error(frame.Site(HOSTILE, HOSTILE), HOSTILE, HOSTILE))


def test_only_names_that_can_be_have_an_address() -> None:
    assert links.of("adapter", "a", 1) == "/adapters/a/1"
    assert links.of("merge", "a") == "/models/a"
    assert links.of("adapter", "../a", 1) is None
    assert links.of("adapter", "a", None) is None
    assert links.of("suite", "a") is None
    assert links.of_model("../a?b") == "/models/..%2Fa%3Fb"


def test_a_browser_is_asked_for_a_password_for_pages_only() -> None:
    pages = ("/", "/models/a", "/live/jobs/1", "/bases/b", "/static/live.js")
    assert all(map(links.is_for_people, pages))
    assert not any(map(links.is_for_people, ("/api/v1/models", "/metrics", "/healthz", "/webhook")))


def test_numbers_sizes_and_times_are_short() -> None:
    assert [words.number(one) for one in (0.12345, 318, 100000.0, None)] == [
        "0.1235", "318", "100,000", "–"
    ]  # fmt: skip
    assert [size(one) for one in (12, 1500, 2.5e6, 1.23e9, 2e12)] == [
        "12 B", "1.5 KB", "2.5 MB", "1.23 GB", "2 TB"
    ]  # fmt: skip
    assert [words.seconds(one) for one in (0.04, 12.3, 3599.9, 7500)] == [
        "0.04 s", "12 s", "1 h 0 min", "2 h 5 min"
    ]  # fmt: skip


def test_a_long_stage_says_now_and_then_how_far_it_is_without_a_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_LINE_SECONDS", 0.05)
    observer = terminal.Terminal()

    observer.stage("m", "build")
    observer.progress("m", Done(1, 9, "tensors"))
    time.sleep(0.1)
    observer.warn("MLflow: away")
    observer.progress("m", Done(2, 9, "tensors"))
    observer.progress("other", Done(1, 2, "prompts"))
    observer.progress("m", Done(3, 9, "tensors"))

    told = capfd.readouterr().err
    assert told.splitlines() == ["m  build", "warning: MLflow: away", "m  build  2 of 9 tensors"]
    assert Progress().after(told.encode()) == Progress({"m"}, "m", "build", 2, 9, "tensors")


@pytest.mark.parametrize(
    ("uri", "url"),
    [
        (
            "https://user:secret@mlflow.example/base/",
            "https://mlflow.example/base/#/models/a/versions/3?workflowType=machine_learning",
        ),
        ("sqlite:////var/mlflow.db", None),
    ],
)
def test_a_version_leads_into_mlflow_where_a_server_shows_that_store(
    uri: str, url: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracking_place.remember_store(tmp_path, uri, "this")

    assert details._mlflow(tmp_path, "a", Logged("this", "run", "3")) == url
    assert details._mlflow(tmp_path, "a", Logged("another", "run", "3")) is None


def test_reasons_of_one_kind_are_one_sentence() -> None:
    found = [Reason("input-changed", f"merge {name}") for name in ("m", "n")]

    assert words.reasons([*found, Reason("never-built"), Reason("no-such-kind", new=HOSTILE)]) == (
        "Something that it is made of changed: merge m; merge n. It was never built. "
        f"No-such-kind: {HOSTILE}."
    )
