"""A real Chromium for the page, and the stub that serves it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.browser.scene import fill
from tests.browser.stub import Stub, World

CHROMIUM = Path("/usr/bin/chromium")
HOW = "run `pip install playwright` and `sh tools/install.sh chromium`"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return one Chromium for the tests of a module, because no other test can run a loop meanwhile. CI requires it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    if sync_playwright is None or not CHROMIUM.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"the page needs Chromium: {HOW}")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=options)
        yield chromium
        chromium.close()


@pytest.fixture
def world() -> World:
    """Return the data of the stub: one operation of every kind."""
    return fill(World())


@pytest.fixture
def stub(world: World) -> Iterator[Stub]:
    """Return the running stub."""
    server = Stub(world).start()
    yield server
    server.stop()


@pytest.fixture
def open_page(browser: Any, stub: Stub) -> Iterator[Callable[..., Any]]:
    """Return a function that opens the page. A console error of a script or the content security policy fails the test."""
    contexts: list[Any] = []
    problems: list[str] = []

    def opened(path: str = "#/", *, wait: str = ".row", **options: Any) -> Any:
        context = browser.new_context(
            **{"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce", **options}
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("pageerror", lambda error: problems.append(f"{error}"))
        page.on("dialog", lambda dialog: (problems.append(f"a dialog of a script: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda message: problems.append(message.text) if heard(message) else None)
        page.goto(f"{stub.url}/{path}")
        if wait:
            page.wait_for_selector(wait)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def heard(message: Any) -> bool:
    """Return whether a console message is a problem. A failed request is not: tests stop the server."""
    return message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource")
