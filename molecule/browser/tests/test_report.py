"""The page that make verify writes, as people open it: on a phone, in dark and light, on paper."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.controller import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.controller import Controller

HIDDEN = "[...document.querySelectorAll('details pre')].filter(e => !e.checkVisibility()).length"


@pytest.fixture(scope="module")
def report(controller: Controller, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about the machine at hand, from a few of the checks."""
    path = tmp_path_factory.mktemp("report") / "verify.html"
    pytest_here = Path(sys.executable).parent / "pytest"
    subprocess.run(
        [
            *(pytest_here, "-q", "-p", "no:cacheprovider", "tests/acceptance/test_services.py"),
            *("--hosts", f"ansible://{controller.machine}", "--report", path),
            *("--ansible-inventory", controller.inventory),
        ],
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    return path


@pytest.mark.parametrize("viewport", ["phone", "desktop"])
def test_page_of_verify_stands_alone_fits_and_prints(
    browser: Browser,
    axe: Callable[[Page], None],
    report: Path,
    viewports: dict[str, dict[str, Any]],
    viewport: str,
) -> None:
    """It asks for nothing, needs no scrolling sideways, and shows all evidence on paper."""
    page = browser.new_context(**viewports[viewport]).new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(report.as_uri())
    assert (asked, said) == ([report.as_uri()], [])
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    axe(page)
    assert page.evaluate(HIDDEN) == page.locator("details pre").count() > 5
    page.screenshot(path=ROOT / f"build/browser/report-{viewport}.png")
    page.emulate_media(media="print")
    assert page.evaluate(HIDDEN) == 0
    page.context.close()
