"""The pages of `registry serve` in a real browser: clicks, keys, a phone, light and dark, axe."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import Repository
from tests.e2e.browser import CHROMIUM, DRIVER, Browser
from tests.e2e.conftest import MERGE
from tests.e2e.test_service import Instance, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM.exists() and DRIVER.exists()), reason="needs chromium and chromium-driver"
    ),
]

HOSTILE = "\"><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
LAYERED = """\
kind: merge
name: layered
base: tiny-llama
recipe:
  method: task_arithmetic
  terms:
    - {merge: both-skills, weight: 0.5}
    - {merge: formal-not-brief, weight: -0.25}
"""


@pytest.fixture
def served(synced: Repository, empty_store: Path) -> Iterator[Instance]:
    """Return the service on the bare repository of a catalog with hostile words in it.

    Its first versions were built elsewhere; what the service syncs is the second one.
    """
    words = json.dumps(HOSTILE)
    synced.git("commit", "-q", "--amend", "-m", f"built {HOSTILE}")
    path = synced.root / MERGE
    more = f"description: {words}\nowner: {words}\nlabels: {{team: {words}}}\n"
    path.write_text(path.read_text().replace("weight: 0.8", "weight: 0.6") + more)
    (synced.root / "catalog/merges/layered.yaml").write_text(LAYERED)
    formal = synced.root / "catalog/adapters/formal/1/adapter.yaml"
    formal.write_text(formal.read_text() + f"description: {words}\norigin: {{from: {words}}}\n")
    synced.commit("less of brief")
    bare = synced.root.parent / "bare.git"
    synced.git("clone", "-q", "--bare", ".", str(bare))
    shutil.copyfile(empty_store, bare.parent / "mlflow.db")
    options = ("--repository", str(bare), "--directory", "own")
    uri = f"sqlite:///{bare.parent}/mlflow.db"
    with serving(bare.parent, 1, *options, MLFLOW_TRACKING_URI=uri) as service:
        yield service


def test_people_find_every_model_ingredient_and_version_with_mouse_and_keys(
    browser: Browser, served: Instance
) -> None:
    service = served
    it_tells_of_the_running_sync_and_of_its_end_without_being_asked(service, browser)
    it_leads_from_a_model_over_its_drawing_to_an_adapter_and_back(service, browser)
    it_lists_what_there_is_to_merge(service, browser)
    it_shows_what_changed_between_two_versions(service, browser)
    it_filters_without_a_script(service, browser)
    it_is_walked_by_keys(service, browser)
    it_fits_a_phone_and_has_no_finding_of_axe(service, browser)
    it_says_that_the_service_does_not_answer(service, browser)


def it_tells_of_the_running_sync_and_of_its_end_without_being_asked(
    service: Instance, browser: Browser
) -> None:
    browser.driver.get(service.url)
    browser.sees("Job 1 is running", "of 5 models begun")
    browser.shoot("service-1-running")

    page = browser.sees("Ready: 5 models as declared.")

    for model in ("average", "both-skills", "formal-not-brief", "layered", "trimmed"):
        assert f"\n{model}" in page
    assert page.count("✓ up-to-date") == 6
    assert "Job 1 is running" not in page


def it_leads_from_a_model_over_its_drawing_to_an_adapter_and_back(
    service: Instance, browser: Browser
) -> None:
    browser.driver.get(service.url)
    browser.clicks("layered")
    page = browser.sees("What it is", "tiny-llama + 0.5·both-skills − 0.25·formal-not-brief")
    assert "−0.25 formal-not-brief > −0.5 brief@1" in page
    assert "− subtracted" in page
    browser.shoot("service-2-model")

    clicks_node(browser, "/adapters/brief/1")
    browser.sees("adapter brief@1", "In 2 models, of which 2 live.")
    assert browser.texts("tbody tr") == [
        "formal-not-brief live and declared − subtracted −0.5 directly",
        "layered live and declared + added +0.125 −0.25 formal-not-brief > −0.5 brief@1",
    ]
    browser.shoot("service-3-adapter")

    clicks_node(browser, "/models/formal-not-brief")
    browser.sees("tiny-llama + 1·formal@1 − 0.5·brief@1")
    browser.waits_for("""
        const pictures = [...document.querySelectorAll(".plots img")];
        pictures.forEach((one) => { one.loading = "eager"; });
        return pictures.length && pictures.every((one) => one.naturalWidth > 100);
    """)


def it_lists_what_there_is_to_merge(service: Instance, browser: Browser) -> None:
    browser.driver.get(service.url)
    browser.clicks("Ingredients")
    browser.sees("base tiny-llama", HOSTILE)
    browser.shoot("service-5-ingredients")
    browser.driver.find_element("id", "q").send_keys("brief")
    browser.submits("Show")
    assert browser.texts("tbody tr") == [
        "adapter brief@1 2 models 2 models no",
        "adapter brief@2 4 models 4 models no",
    ]
    browser.clicks("adapter brief@1")
    browser.sees("In 2 models, of which 2 live.")


def clicks_node(browser: Browser, address: str) -> None:
    browser.driver.execute_script(
        "document.querySelector(arguments[0]).dispatchEvent("
        "new MouseEvent('click', {bubbles: true, cancelable: true}))",
        f"svg a[href='{address}']",
    )
    browser.waits_for("return location.pathname === arguments[0]", address)


def it_shows_what_changed_between_two_versions(service: Instance, browser: Browser) -> None:
    browser.driver.get(f"{service.url}/models/both-skills")
    page = browser.sees("History", f"built {HOSTILE}", "Registry: ")
    assert HOSTILE in page.split("History")[0]
    assert browser.driver.title.startswith("both-skills ·")

    browser.submits("Compare")

    page = browser.sees("both-skills: what changed")
    assert browser.texts("tbody tr")[0] == "recipe.terms[adapter brief@2].weight 0.8 0.6 recipe"
    assert page.index("0.8·brief@2") < page.index("0.6·brief@2")
    browser.shoot("service-4-difference")


def it_filters_without_a_script(service: Instance, browser: Browser) -> None:
    driver = browser.driver
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    driver.get(service.url)
    driver.find_element("id", "q").send_keys("brief@1")
    browser.submits("Show")

    assert browser.texts("#models tbody th") == ["formal-not-brief"]
    assert driver.find_element("id", "q").get_attribute("value") == "brief@1"
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def it_is_walked_by_keys(service: Instance, browser: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    driver = browser.driver
    driver.get(service.url)
    skip = presses(browser, Keys.TAB)
    assert skip.text == "Skip to the content"
    assert skip.value_of_css_property("outline-style") == "solid"

    skip.send_keys(Keys.ENTER)
    assert driver.switch_to.active_element.get_attribute("id") == "main"
    while (focused := presses(browser, Keys.TAB)).text != "layered":
        assert focused.text not in ("", "API") or focused.tag_name in ("input", "select", "div")
    time.sleep(4)  # the list is refreshed meanwhile

    assert driver.switch_to.active_element.text == "layered"
    focused.send_keys(Keys.ENTER)
    browser.sees("Ingredients")


def presses(browser: Browser, key: str) -> Any:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser.driver).send_keys(key).perform()
    return browser.driver.switch_to.active_element


def it_fits_a_phone_and_has_no_finding_of_axe(service: Instance, browser: Browser) -> None:
    from axe_core_python.base import AXE_SCRIPT

    driver = browser.driver
    driver.get(f"{service.url}/models/both-skills")
    compared = driver.execute_script("""return document.querySelector("a[href*='/diff?']").href""")
    pages = {
        "models": "/",
        "none": "/?q=nothing+is+called+so&state=failed",
        "model": "/models/layered",
        "hostile": "/models/both-skills",
        "difference": f"{urlsplit(compared).path}?{urlsplit(compared).query}",
        "adapter": "/adapters/formal/1",
        "base": "/bases/tiny-llama",
        "ingredients": "/ingredients",
        "jobs": "/jobs",
        "job": "/jobs/1",
        "missing": "/models/absent",
    }
    for name, address in pages.items():
        for width, scheme in ((390, "dark"), (1280, "light")):
            looks(browser, width, scheme)
            driver.get(service.url + address)
            whole = driver.execute_script("return document.documentElement.scrollWidth")
            assert whole <= width, (name, width)
            driver.save_screenshot(str(browser.shots / f"service-{name}-{width}-{scheme}.png"))
            driver.execute_script(AXE_SCRIPT)
            found = driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
            assert found["passes"], (name, scheme)
            bad = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
            assert not bad, (name, scheme, json.dumps(bad, indent=1))
            assert driver.title != "owned"
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def looks(browser: Browser, width: int, scheme: str) -> None:
    """Make the browser's window so wide, and its user one who wants it light or dark."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def it_says_that_the_service_does_not_answer(service: Instance, browser: Browser) -> None:
    browser.driver.get(service.url)
    service.process.terminate()
    service.process.wait(60)

    page = browser.sees("The service does not answer; this is what it said last.")

    assert "both-skills" in page
