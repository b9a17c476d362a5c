"""Chromium, and the house that its stories are told in."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.house import EmbeddedHouse, House, opened

# Accepted by axe as WCAG 2.2 AA; "best-practice" rules are not part of it.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Iterator[EmbeddedHouse]:
    with opened(EmbeddedHouse(tmp_path_factory.mktemp("house"), prepared)) as built:
        yield built


@pytest.fixture
def home(standing: EmbeddedHouse) -> House:
    """One house for all stories of a process; each finds it as if it had just been opened."""
    standing.renew()
    return standing


@pytest.fixture(params=["with JavaScript", "without JavaScript"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A fresh reader; the page fails the test on any error that it logs, a refused style or script among them."""
    yield from open_page(browser, javascript=request.param == "with JavaScript")


@pytest.fixture
def staff_page(browser: Browser) -> Iterator[Page]:
    yield from open_page(browser, javascript=True)


def open_page(browser: Browser, *, javascript: bool) -> Iterator[Page]:
    context = browser.new_context(java_script_enabled=javascript, locale="en-US")
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    # A form that is sent back with words beside a field is 422, which Chromium logs as a problem.
    assert not [text for text in problems if "favicon" not in text and "status of 422" not in text], problems


def assert_accessible(page: Page) -> None:
    """No violation of WCAG 2.2 AA, as far as a machine can tell."""
    found = Axe().run(page, options=RULES)
    assert found.violations_count == 0, found.generate_report()
