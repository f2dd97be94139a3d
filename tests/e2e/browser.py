"""A real browser, and what a person does with it."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
DRIVER = Path("/usr/bin/chromedriver")


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
        link = self.driver.find_element("xpath", f"//a[normalize-space()='{text}']")
        opens_tab = link.get_attribute("target") == "_blank"
        self.driver.execute_script("arguments[0].click()", link)
        deadline = time.monotonic() + 20
        while opens_tab and len(self.driver.window_handles) == tabs:
            assert time.monotonic() < deadline, f"no tab was opened by {text}"
            time.sleep(0.1)
        self.driver.switch_to.window(self.driver.window_handles[-1])

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
