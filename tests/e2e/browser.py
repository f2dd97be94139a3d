"""A real browser, and what a person does with it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
DRIVER = Path("/usr/bin/chromedriver")

# Each finds and acts in one step: pages that refresh themselves replace elements between two.
CLICK = """
const link = [...document.querySelectorAll("a")].find(
  (one) => one.textContent.trim().replace(/\\s+/g, " ") === arguments[0]);
if (!link) return null;
const target = link.target || "_self";
link.click();
return target;
"""
TEXTS = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)"


class Browser:
    """What a person does: look, click, look at the tab that opened."""

    def __init__(self, driver: Any, shots: Path) -> None:
        self.driver = driver
        self.shots = shots

    def sees(self, *texts: str) -> str:
        deadline = time.monotonic() + 60
        while True:
            whole: str = self.driver.execute_script("return document.body.innerText")
            shown = re.sub("[ \t\xa0]+", " ", whole)
            missing = [text for text in texts if text not in shown]
            if not missing:
                return shown
            if time.monotonic() > deadline:
                self.shoot("failed")
                pytest.fail(f"{missing} not on the page:\n{shown}")
            time.sleep(0.2)

    def clicks(self, text: str) -> None:
        self.sees(text)
        tabs = len(self.driver.window_handles)
        opens_tab = self.waits_for(CLICK, text) == "_blank"
        deadline = time.monotonic() + 20
        while opens_tab and len(self.driver.window_handles) == tabs:
            assert time.monotonic() < deadline, f"no tab was opened by {text}"
            time.sleep(0.1)
        self.driver.switch_to.window(self.driver.window_handles[-1])

    def submits(self, text: str) -> None:
        """Press the button so called, and wait for the page that it leads to."""
        from selenium.webdriver.support import expected_conditions
        from selenium.webdriver.support.wait import WebDriverWait

        left = self.driver.find_element("css selector", "html")
        self.driver.find_element("xpath", f"//button[text()='{text}']").click()
        WebDriverWait(self.driver, 60).until(expected_conditions.staleness_of(left))
        self.waits_for("return document.readyState === 'complete'")

    def texts(self, selector: str) -> list[str]:
        """Return what each element shows, all at one moment: a live page replaces its elements."""
        found: list[str] = self.driver.execute_script(TEXTS, selector)
        return [" ".join(text.split()) for text in found]

    def waits_for(self, script: str, *arguments: Any) -> Any:
        """Run the script until what it returns is true, and return that."""
        deadline = time.monotonic() + 60
        while not (answer := self.driver.execute_script(script, *arguments)):
            assert time.monotonic() < deadline, script
            time.sleep(0.1)
        return answer

    def enters(self, tag: str) -> None:
        """Look into a frame of the page."""
        deadline = time.monotonic() + 60
        while not (found := self.driver.find_elements("css selector", tag)):
            assert time.monotonic() < deadline, f"no {tag} on the page"
            time.sleep(0.2)
        self.driver.switch_to.frame(found[0])

    def shoot(self, name: str) -> None:
        time.sleep(0.5)  # pictures and fade-ins
        self.driver.save_screenshot(str(self.shots / f"{name}.png"))
