"""Fixtures for the tests: a seeded generator, and a browser that notices what a page does wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Playwright

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = (
    "--headless",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1", "ws://127.0.0.1")
_failed = pytest.StashKey[bool]()


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh stream with the same numbers in every test."""
    return torch.Generator().manual_seed(20_231)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever opens a page is a browser test, whether or not its author said so."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Leave a note for `page`: was the body of this test a failure?"""
    report = yield
    if report.when == "call":
        item.stash[_failed] = report.failed
    return report


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """The driver process, one for the session."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def chromium(playwright: Playwright) -> Path:
    """Path of a Chromium that starts: `$CHROMIUM`, the system's, Playwright's own; else a loud skip.

    With REQUIRE_BROWSER=1 or CI=true a missing browser is a failure.
    """
    found = find_chromium(Path(playwright.chromium.executable_path))
    if found is not None:
        return found
    reason = "no Chromium: set CHROMIUM=/path/to/it, or let `make test` install one"
    if {os.environ.get("REQUIRE_BROWSER", ""), os.environ.get("CI", "")} & {"1", "true"}:
        pytest.fail(reason)
    pytest.skip(reason)


def find_chromium(own: Path) -> Path | None:
    """The first candidate that answers `--version`; `own` is Playwright's download."""
    candidates = [os.environ.get("CHROMIUM"), *CHROMIUM_NAMES, str(own)]
    for candidate in (shutil.which(name) for name in candidates if name):
        if candidate is None:
            continue
        # Some distributions install a stub that only says where the real package is.
        answer = subprocess.run([candidate, "--version"], capture_output=True, text=True, timeout=60, check=False)
        if answer.returncode == 0:
            return Path(candidate)
    return None


@pytest.fixture(scope="session")
def browser(playwright: Playwright, chromium: Path) -> Iterator[Browser]:
    """One headless Chromium for the session; each test opens its own `page` in it."""
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    opened = playwright.chromium.launch(executable_path=str(chromium), args=[*CHROMIUM_ARGUMENTS, *as_root])
    yield opened
    opened.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest, session_folder: Path) -> Iterator[Page]:
    """A page that must stay clean: no script error, no console error, no request to anywhere but this machine."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(120_000)  # the drawing library is 5 MB to read, which a busy machine takes long for
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    opened.on("console", lambda line: problems.append(f"console: {line.text}") if line.type == "error" else None)
    context.on("request", lambda sent: problems.append(f"request: {sent.url}") if not is_local(sent.url) else None)
    yield opened
    if problems or request.node.stash.get(_failed, False):
        picture = session_folder / "screenshots" / f"{request.node.name.replace('/', '_')}.png"
        opened.screenshot(path=picture, full_page=True)
        problems = problems and [*problems, f"screenshot: {picture}"]
        print(f"screenshot: {picture}")
    context.close()
    assert not problems, "\n".join(problems)


def is_local(url: str) -> bool:
    """Whether a request stays on this machine."""
    return url.startswith(LOCAL)
