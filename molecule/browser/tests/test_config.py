"""Edits of the configuration arrive on pages that are open."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import ConfigFile, Items

PROMISED_SECONDS = 2
GOOD = """\
banner = "Optics lab"
colour = "#ffd34d"
page_size = 2
[features]
notes = false
loans = true
"""
NOT_A_COLOUR = GOOD.replace("#ffd34d", "yellow").replace("Optics", "Acoustics")
NOT_TOML = GOOD.replace("page_size = 2", "page_size = two").replace("Optics", "Acoustics")


class Deadline:
    """What is left of the time in which an edit has to be seen."""

    def __init__(self) -> None:
        """Begin now: the edit is saved."""
        self._end = time.monotonic() + PROMISED_SECONDS
        self.message = f"seen {PROMISED_SECONDS} s after the edit"

    @property
    def left_ms(self) -> float:
        """For an expectation; 0 would mean for ever."""
        return max(1, (self._end - time.monotonic()) * 1000)


def test_edit_arrives_on_the_open_page(
    visit: Callable[[Page], None], config: ConfigFile, items: Items, page: Page
) -> None:
    items.add("lens 1", "lens 2", "lens 3", note="Drawer 4")
    visit(page)
    expect(page.locator(".item .note").first).to_be_visible()
    loads: list[str] = []
    page.on("domcontentloaded", lambda page: loads.append(page.url))
    config.save(GOOD)
    deadline = Deadline()

    def soon(thing: object) -> object:
        return expect(thing, deadline.message)

    soon(page.locator("#banner")).to_have_text("Optics lab", timeout=deadline.left_ms)
    soon(page).to_have_title("Optics lab", timeout=deadline.left_ms)
    soon(page.locator("header")).to_have_css(
        "background-color", "rgb(255, 211, 77)", timeout=deadline.left_ms
    )
    # On yellow, white could not be read.
    soon(page.locator("#banner")).to_have_css("color", "rgb(0, 0, 0)", timeout=deadline.left_ms)
    soon(page.locator("#features li")).to_have_text(
        ["notes off", "loans on"], timeout=deadline.left_ms
    )
    soon(page.locator("#add-note")).to_be_hidden(timeout=deadline.left_ms)
    soon(page.locator(".item")).to_have_count(2, timeout=deadline.left_ms)
    soon(page.locator(".item .note").first).to_be_hidden(timeout=deadline.left_ms)
    soon(page.locator("#config-loaded")).to_contain_text("2 items a page", timeout=deadline.left_ms)
    assert not loads, "the page was loaded anew"


@pytest.mark.parametrize(
    ("mistaken", "line"), [(NOT_A_COLOUR, 2), (NOT_TOML, 3)], ids=["value", "syntax"]
)
def test_mistake_is_told_and_the_last_good_version_stays(
    axe: Callable[[Page], None], config: ConfigFile, pages: list[Page], mistaken: str, line: int
) -> None:
    config.save(GOOD)
    for page in pages:
        expect(page.locator("#banner")).to_have_text("Optics lab")
    config.save(mistaken)
    deadline = Deadline()
    for page in pages:
        error = page.locator("#config-error")
        expect(error, deadline.message).to_contain_text(
            f"The configuration file has a mistake, line {line}: ", timeout=deadline.left_ms
        )
    for page in pages:
        axe(page)
        expect(page.locator("#banner")).to_have_text("Optics lab")
        expect(page.locator("#config-loaded")).to_contain_text("2 items a page")
    config.save(mistaken.replace("yellow", "#ffd34d").replace("two", "2"))
    deadline = Deadline()
    for page in pages:
        expect(page.locator("#banner"), deadline.message).to_have_text(
            "Acoustics lab", timeout=deadline.left_ms
        )
        expect(page.locator("#config-error")).to_be_hidden()
