"""A browser on the controller, pages in it, and what checks change and have to put back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from tests.controller import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import APIRequestContext, ConsoleMessage, Playwright
    from testinfra.host import Host

    from tests.acceptance.stack import Stack

SCREENSHOTS = ROOT / "build/browser"
VIEWPORTS: dict[str, dict[str, Any]] = {
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
    },
    "desktop": {"viewport": {"width": 1280, "height": 800}},
    "projector": {"viewport": {"width": 1920, "height": 1080}, "color_scheme": "dark"},
}
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A proxy, which the environment may name, knows no way to a lab machine.
    "--no-proxy-server",
]
# What Chromium says of its own accord of an answer that is an error: that is for the page to tell.
REMARK = "Failed to load resource"
# From a page's first request to an answer about the stack.
OPENING_MS = 5000
TRIES = 3

# Open a page in the viewport of that name.
OpenPage = Callable[[str], Page]


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """What drives browsers, and sends requests of its own."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    program = shutil.which("chromium")
    if not program:
        pytest.fail("no chromium in the PATH; on Debian: apt install chromium", pytrace=False)
    # Its sandbox refuses to be root's.
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    browser = playwright.chromium.launch(executable_path=program, args=flags)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def viewports() -> dict[str, dict[str, Any]]:
    """What pages are looked at on, by name."""
    return VIEWPORTS


@pytest.fixture(scope="module")
def address(host: Host, stack: Stack) -> str:
    """Where the page is, seen from the controller."""
    there = host.ansible.get_variables().get("ansible_host", "127.0.0.1")
    return stack.url("/").replace("127.0.0.1", there)


@pytest.fixture(scope="session")
def visit() -> Callable[[Page], None]:
    """Open the stack's page in a tab, or open it anew, until it has heard from the stack.

    Chromium drops requests when an interface of its own machine comes or goes, as with every other
    lab machine that is made there; what is left then is a page without its scripts.
    """

    def open_in(tab: Page) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                tab.goto("/")
                expect(tab.locator("#live")).to_contain_text("Live", timeout=OPENING_MS)
            except (Error, AssertionError):
                if not tries_left:
                    raise
            else:
                return

    return open_in


@pytest.fixture
def open_page(
    browser: Browser,
    address: str,
    visit: Callable[[Page], None],
    config: ConfigFile,  # noqa: ARG001 - put back after the page was looked at for the last time
    request: pytest.FixtureRequest,
) -> Iterator[OpenPage]:
    """Open pages, each in a browser without a past.

    When the check ends, however it does, what they show is kept. None may have failed by itself.
    """
    check = request.node.originalname.removeprefix("test_").replace("_", "-")
    pages: dict[str, Page] = {}
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(REMARK):
            errors.append(message.text)

    def open_one(viewport: str) -> Page:
        page = browser.new_context(base_url=address, **VIEWPORTS[viewport]).new_page()
        pages[viewport] = page
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", note)
        visit(page)
        return page

    yield open_one
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for viewport, page in pages.items():
        page.evaluate("scrollTo(0, 0)")
        # Hiding the caret takes a style, which the page's policy refuses.
        path = SCREENSHOTS / f"{check}-{viewport}.png"
        page.screenshot(path=path, full_page=True, caret="initial")
        page.context.close()
    assert not errors, "\n".join(errors)


@pytest.fixture(params=["phone", "desktop"])
def page(open_page: OpenPage, request: pytest.FixtureRequest) -> Page:
    """An open page that has heard from the stack."""
    return open_page(request.param)


@pytest.fixture
def pages(open_page: OpenPage) -> list[Page]:
    """Several at once, as a stack is broken only once for all who look."""
    return [open_page("phone"), open_page("desktop")]


@pytest.fixture(scope="session")
def axe() -> Callable[[Page], None]:
    """Fail where axe finds anything to object to, in dark or in light."""
    program = Axe()

    def look(page: Page) -> None:
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            found = program.run(page)
            if found.violations_count:
                report = f"{scheme}, {page.viewport_size}: {found.generate_report()}"
                pytest.fail(report, pytrace=False)

    return look


class ConfigFile:
    """The file that people edit on the machine."""

    def __init__(self, stack: Stack) -> None:
        """Remember what is in it."""
        self._machine = stack.machine
        self._path = f"{stack.directory}/config/api/app.toml"
        self._before = self._machine.run("base64", "-w0", self._path).out
        self._is_edited = False

    def save(self, text: str) -> None:
        """Replace its content as editors do: by a new file under the old name."""
        self._is_edited = True
        self._replace("printf %s", text)

    def put_back(self) -> None:
        """Give it the content that it had, to the byte."""
        if self._is_edited:
            self._replace("base64 -d <<<", self._before)
            self._is_edited = False

    def _replace(self, printer: str, argument: str) -> None:
        script = f'set -e; cp -p "$1" "$1.new"; {printer} "$2" >"$1.new"; mv "$1.new" "$1"'
        self._machine.run("bash", "-c", script, "bash", self._path, argument)


@pytest.fixture(scope="module")
def config_file(stack: Stack) -> ConfigFile:
    """The configuration as it was found."""
    return ConfigFile(stack)


@pytest.fixture
def config(config_file: ConfigFile) -> Iterator[ConfigFile]:
    """The configuration, put back when the check ends."""
    yield config_file
    config_file.put_back()


class Items:
    """The items that checks add, by whatever way."""

    def __init__(self, api: APIRequestContext) -> None:
        """Remember which is the newest."""
        self._api = api
        newest = self._listed()[:1]
        self._last_before = newest[0]["id"] if newest else 0

    def _listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._api.get("/api/items").json().get("items", [])
        return found

    def add(self, *names: str, note: str | None = None) -> None:
        """Add items, so that the last one is on top of the list."""
        for name in names:
            answer = self._api.post("/api/items", data={"name": name, "note": note})
            assert answer.status == 201, answer.text()

    @property
    def added(self) -> list[dict[str, Any]]:
        """What was added and is still there, newest first."""
        return [item for item in self._listed() if item["id"] > self._last_before]

    def change(self, note: str) -> None:
        """Give the newest another note, as somebody else might."""
        newest = self.added[0]
        draft = {"name": newest["name"], "note": note}
        answer = self._api.put(f"/api/items/{newest['id']}", data=draft)
        assert answer.status == 200, answer.text()

    def remove(self) -> None:
        """Remove all that was added, as far as the stack lets it."""
        while found := self.added:
            paths = [f"/api/items/{item['id']}" for item in found]
            if not all(self._api.delete(path).ok for path in paths):
                return


@pytest.fixture(scope="module")
def all_items(playwright: Playwright, address: str) -> Iterator[Items]:
    """Removes at the end what a check could not: one that failed with the database away."""
    api = playwright.request.new_context(base_url=address)
    items = Items(api)
    yield items
    items.remove()
    api.dispose()


@pytest.fixture
def items(all_items: Items) -> Iterator[Items]:
    """Items for a check, removed when it ends."""
    yield all_items
    all_items.remove()
