"""A browser for the tests: Chromium that the machine has; without one they are skipped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="needs Playwright's Python client: pip install playwright")
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.study.web.browser.site import Site, make_study, served

expect.set_options(timeout=60_000)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")  # Playwright runs an event loop in this thread: tests of other modules want their own
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no browser on the PATH: neither chromium, chromium-browser nor google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with served(make_study(tmp_path / "study")) as site:
        yield site
