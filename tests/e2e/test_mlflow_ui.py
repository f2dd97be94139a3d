"""An auditor's clicks, in a real browser on a real MLflow server that `registry ui` would start."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.tracking import BuildLog, Operand, Pages, Tracker
from tests.conftest import REGISTRY, Repository
from tests.e2e.browser import CHROMIUM, DRIVER, Browser
from tests.e2e.conftest import MERGE, declare, runs_of
from tests.servers import free_port, mlflow_server, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM.exists() and DRIVER.exists()), reason="needs chromium and chromium-driver"
    ),
]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BASE = Operand("base", "smollm2-135m-instruct", None, "sha256:" + "b5" * 32)
SQL = Operand("adapter", "sql", 1, "sha256:" + "1a" * 32, 1.0)
JSON = Operand("adapter", "json", 2, "sha256:" + "2b" * 32, 0.8)
SHOUT = Operand("adapter", "shout", 1, "sha256:" + "3c" * 32, -0.5)
PYTHON = Operand("adapter", "python", 3, "sha256:" + "4d" * 32, 0.7)
CODING_DIGEST = "sha256:" + "5e" * 32
CODING = Operand("merge", "general-coding", None, CODING_DIGEST, 0.5)
EXPRESSION = "smollm2-135m-instruct + sql@1 + 0.8 json@2 - 0.5 shout@1 + 0.5 general-coding"


def build_of(model: str, digest: str, expression: str, *operands: Operand) -> BuildLog:
    key = "sha256:" + digest[7:][::-1]
    return BuildLog(
        model=model,
        key=key,
        model_digest=digest,
        artifact_digest="sha256:" + "6f" * 32,
        expression=expression,
        commit=COMMIT,
        method="ties",
        base=BASE,
        operands=operands,
        contains={"python:v3": "general-coding > python@3"} if CODING in operands else {},
        params={"parameters.density": "0.2", "parameters.election": "total", "seed": "0"},
        metrics={"eval.office.sql": 0.875, "merge.norm": 12.5},
        files={
            "lineage/recipe.json": b'{"recipe": {"method": "ties"}}',
            "report/build.json": b"{}",
        },
        source=f"catalog/builds/{model}.dvc",
        description="SQL and JSON skills, <b>shouting</b> [removed](http://evil.example).",
        owner="platform-ml",
        labels={"team": "search"},
    )


OFFICE = build_of("office-assistant", "sha256:" + "7a" * 32, EXPRESSION, SQL, JSON, SHOUT, CODING)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    root = tmp_path_factory.mktemp("catalog")
    uri = f"sqlite:///{root / '.registry' / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", os.environ.copy())
        tracker = Tracker(uri, "merge-registry")
        tracker.log(
            build_of("general-coding", CODING_DIGEST, "smollm2 + sql@1 + 0.7 python@3", SQL, PYTHON)
        )
        tracker.log(build_of("quiet", "sha256:" + "8b" * 32, "smollm2 - 0.5 shout@1", SHOUT))
        tracker.log(OFFICE)
    with mlflow_server(root, uri) as found:
        yield found


def test_an_auditor_finds_every_ingredient_with_sign_and_weight(
    pages: Pages, browser: Browser
) -> None:
    browser.driver.get(pages.url)
    browser.sees(
        "office-assistant", "general-coding", "adapter.shout", "base.smollm2-135m-instruct"
    )
    browser.shoot("1-models")

    browser.clicks("office-assistant")
    page = browser.sees(f"office-assistant = {EXPRESSION}", "Live: version 1", "@ live")
    for operand in (BASE, SQL, JSON, SHOUT, CODING):
        assert operand.digest in page
    rows = {line.split(" ")[0]: line for line in page.splitlines() if "adapter" in line}
    assert "-0.5" in rows["subtracted"]
    assert "adapter shout@1" in rows["subtracted"]
    assert "general-coding > python@3" in page
    assert COMMIT in page
    assert OFFICE.artifact_digest in page
    assert "<b>shouting</b> [removed](http://evil.example)." in page
    assert not browser.driver.find_elements("css selector", "a[href*='evil']")
    browser.shoot("2-model")

    browser.clicks("version 1")
    browser.sees(
        "Source Run", f"office-assistant = {EXPRESSION}", "uses.sql:v1", "negates.shout:v1"
    )
    browser.shoot("3-version")

    browser.sees(f"office-assistant {OFFICE.key[7:15]}")
    browser.clicks("inputs, output, metrics, recipe and report")
    run = browser.sees("Logged models (6)", "merge.weight/shout:v1", "Registered models")
    assert "eval.office.sql\n0.875" in run
    assert "merge.weight/shout:v1\n-0.5\nadapter shout@1" in run
    browser.driver.execute_script(
        "[...document.querySelectorAll('*')].filter(e => e.innerText === 'Logged models (6)')"
        ".pop().scrollIntoView()"
    )
    table = browser.sees("Input", "Output").split("Logged models (6)")[1]
    assert table.count("Input") == 5
    assert table.count("Output") == 1
    browser.shoot("4-run")


def test_an_adapters_page_lists_every_merge_that_used_it(pages: Pages, browser: Browser) -> None:
    browser.driver.get(pages.url)
    browser.clicks("adapter.shout")
    browser.sees("adapter shout@1", SHOUT.digest)
    browser.shoot("5-adapter")

    browser.clicks("Every merge that uses it directly, with its weight")
    page = browser.sees("Metrics (2)", "Parameters (4)")
    weights = page.split("Metrics (2)")[1].split("Parameters (4)")[0]
    assert "office-assistant" in weights
    assert "quiet" in weights
    assert weights.count("-0.5") == 2
    browser.shoot("6-adapter-uses")

    browser.clicks("The runs of those merges")
    browser.sees("2 matching runs", "office-assistant", "quiet")
    browser.shoot("7-adapter-runs")


def test_what_a_real_sync_wrote_is_what_the_pages_say(
    synced: Repository, browser: Browser, tmp_path: Path
) -> None:
    record = json.loads((synced.root / "catalog/builds/formal-not-brief.json").read_text())
    brief = (synced.root / "catalog/adapters/brief/1/adapter.yaml").read_text().split('"')[1]
    built_at = synced.git("rev-parse", "HEAD~1").strip()  # HEAD holds the records
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        command = [*REGISTRY, "ui", "--no-browser", "--port", str(port)]
        shown = subprocess.Popen(command, cwd=synced.root, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", shown, tmp_path / "log")
        address = (tmp_path / "log").read_text().splitlines()[0]
        browser.driver.get(address)
        browser.clicks("formal-not-brief")
        page = browser.sees("formal-not-brief = tiny-llama + 1·formal@1 − 0.5·brief@1", "@ live")
        for fact in (brief, record["key"], record["model_digest"], built_at):
            assert fact in page
        assert record["artifact"]["digest"] in page
        browser.clicks("inputs, output, metrics, recipe and report")
        run = browser.sees("Logged models (4)", "merge.weight/brief:v1")
        assert "merge.weight/brief:v1\n-0.5\nadapter brief@1" in run

        browser.driver.get(address)
        browser.clicks("adapter.brief")
        browser.sees("adapter brief@1", brief)
    finally:
        shown.terminate()
        assert shown.wait(30) == 143


def test_what_was_searched_compared_and_refused_is_shown_with_its_plots(
    asked: Repository, browser: Browser, tmp_path: Path
) -> None:
    assert asked.run("sync", "both-skills").code == 0
    assert asked.run("tune", "both-skills").code == 0
    assert asked.run("compare", "both-skills", "--by", "line", "--steps", "3").code == 0
    declare(asked, "evaluation: {suite: texts, gates: {first: {at_most: 1.5}}}\n")
    asked.edit(MERGE, "weight: 0.8", "weight: 3.0")
    stopped = asked.run("sync", "both-skills")
    assert stopped.code == 1
    (line,) = [one for one in stopped.out.splitlines() if "gate failed: " in one]
    reason = line.split("gate failed: ")[1]

    for folder in ("tuning/both-skills", "compared/both-skills/line"):
        browser.driver.get(f"file://{asked.root}/.registry/{folder}/report.html")
        browser.sees("base", "adapter brief@2 alone", "first", "second")
        assert_drawn(browser)
        browser.shoot(f"disk-{folder.split('/')[0]}")

    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        command = [*REGISTRY, "ui", "--no-browser", "--port", str(port)]
        shown = subprocess.Popen(command, cwd=asked.root, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", shown, tmp_path / "log")
        browser.driver.get((tmp_path / "log").read_text().splitlines()[0])
        browser.clicks("both-skills")
        browser.sees("The last attempt was not published:", reason, "Live: version 1")
        browser.shoot("8-refused")
        browser.clicks("what was tried")
        browser.sees("Not published:", "both-skills", "eval.texts.first")
        browser.shoot("9-what-was-tried")

        for kind, files in (
            ("search", ("search/progress.png", "search/over-weight-of-brief.png")),
            ("comparison", ("comparison/line-first.png",)),
            ("merge", ("quality/retention.png",)),
        ):
            run = runs_of(asked, kind)[0].info
            page = f"http://127.0.0.1:{port}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
            for file in files:
                browser.driver.get(f"{page}/artifacts/{file}")
                assert_drawn(browser, file)
                browser.shoot(file.replace("/", "-").removesuffix(".png"))
        run = runs_of(asked, "search")[0].info
        page = f"http://127.0.0.1:{port}/#/experiments/{run.experiment_id}/runs/{run.run_id}"
        browser.driver.get(page)
        told = browser.sees("searched on", "held out", "tuned", "search.objective")
        assert "adapter formal@1 alone" in told
        browser.shoot("10-search")
        browser.driver.get(f"{page}/artifacts/search/report.html")
        browser.enters("iframe")
        browser.sees("searched on", "Proposed edit", "parameters: {lambda:")
        browser.shoot("11-report")
    finally:
        shown.terminate()
        assert shown.wait(30) == 143


def assert_drawn(browser: Browser, name: str = "") -> None:
    """Wait until the page shows pictures that are whole; of a run's artifact, the one so called."""
    script = (
        "return [...document.querySelectorAll('img')].filter(one => one.alt !== 'logo')"
        ".map(one => [one.complete, one.naturalWidth])"
    )
    deadline = time.monotonic() + 60
    while True:
        found = browser.driver.execute_script(script)
        if found and all(is_whole and width > 100 for is_whole, width in found):
            return
        if time.monotonic() > deadline:
            browser.shoot("not-drawn")
            pytest.fail(f"{name}: no picture is drawn: {found}")
        time.sleep(0.2)
