"""What the page says while a part of the stack is away, and that it is back by itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.acceptance.stack import Stack

    from .conftest import Items

# Until a page has noticed: the part's own end or start, and what each look may wait for.
NOTICED_MS = 15_000
CLOCK = r"\d{1,2}:\d\d:\d\d(\s[AP]M)?"

pytestmark = pytest.mark.disruptive


def expect_lost(pages: list[Page], sentence: str) -> None:
    """Each page says so, of the time of the last answer, and keeps what it knew."""
    for page in pages:
        lost = page.get_by_role("alert").and_(page.locator("#lost"))
        expect(lost).to_have_text(re.compile(f"^{sentence}"), timeout=NOTICED_MS)
        expect(page.locator("body")).to_have_class(re.compile("is-lost"))
        expect(page.locator("#stores .node")).to_have_count(2)


def expect_live(pages: list[Page]) -> None:
    """Each page has an answer again."""
    for page in pages:
        expect(page.locator("#live")).to_contain_text("Live", timeout=NOTICED_MS)
        expect(page.locator("#lost")).to_be_hidden()
        expect(page.locator("body")).not_to_have_class(re.compile("is-lost"))


def expect_store(pages: list[Page], name: str, status: str) -> None:
    """Each page draws the database or the cache like that."""
    for page in pages:
        node = page.locator("#stores .node", has_text=name)
        expect(node).to_have_attribute("data-status", status, timeout=NOTICED_MS)


def test_lost_contact_is_told(axe: Callable[[Page], None], stack: Stack, pages: list[Page]) -> None:
    stack.compose("stop", "gateway")
    expect_lost(pages, f"No contact since {CLOCK}. The machine cannot be reached.")
    for page in pages:
        axe(page)
    stack.compose("start", "gateway")
    expect_live(pages)


def test_without_an_api_nothing_is_pretended(
    axe: Callable[[Page], None], stack: Stack, items: Items, pages: list[Page]
) -> None:
    stack.compose("stop", "api")
    expect_lost(pages, f"No answer from an api since {CLOCK}. No api replica answers")
    for page in pages:
        page.locator("#add-name").fill("added in vain")
        page.locator("#add-name").press("Enter")
        page.locator("#burst").click()
    for page in pages:
        expect(page.locator("#add-news")).to_have_text(
            re.compile("^Not added: No api replica answers"), timeout=NOTICED_MS
        )
        expect(page.locator("#add-name")).to_have_value("added in vain")
        expect(page.locator("#burst-result")).to_contain_text("0 answered, 50 failed")
        axe(page)
    stack.compose("start", "api")
    expect_live(pages)
    # What was typed is still there.
    for page in pages:
        page.locator("#add-name").press("Enter")
        expect(page.locator("#add-news")).to_contain_text("is added", timeout=NOTICED_MS)
    assert [each["name"] for each in items.added] == ["added in vain"] * 2


def test_without_the_database_items_are_shown_as_stale(
    axe: Callable[[Page], None], stack: Stack, items: Items, pages: list[Page]
) -> None:
    items.add("spectrum analyser")
    for page in pages:
        expect(page.locator(".item").first).to_contain_text("spectrum analyser")
    stack.compose("stop", "database")
    expect_store(pages, "database", "away")
    for page in pages:
        source = page.locator("#list-source")
        expect(source).to_have_text(
            re.compile(f"^Stale, as of {CLOCK}: the database is away; from the cache"),
            timeout=NOTICED_MS,
        )
        expect(source).to_have_class(re.compile("is-stale"))
        expect(page.locator(".item").first).to_contain_text("spectrum analyser")
        page.get_by_role("button", name="Delete spectrum analyser").click()
        dialog = page.get_by_role("dialog", name="Delete this item?")
        dialog.get_by_role("button", name="Delete").click()
        expect(dialog.get_by_role("alert")).to_have_text(
            re.compile(r"^Not deleted: .*database.*\.$", re.IGNORECASE), timeout=NOTICED_MS
        )
        dialog.get_by_role("button", name="Cancel").click()
        axe(page)
    stack.compose("start", "database")
    expect_store(pages, "database", "ok")
    for page in pages:
        expect(page.locator("#list-source")).to_contain_text(
            "From the database", timeout=NOTICED_MS
        )
        expect(page.locator("#list-source")).not_to_have_class(re.compile("is-stale"))


def test_without_the_cache_items_come_from_the_database(
    visit: Callable[[Page], None],
    axe: Callable[[Page], None],
    stack: Stack,
    items: Items,
    pages: list[Page],
) -> None:
    items.add("signal generator")
    stack.compose("stop", "cache")
    expect_store(pages, "cache", "away")
    for page in pages:
        visit(page)
        expect(page.locator("#visits")).to_have_text(
            "not known: the cache, which counts them, is away", timeout=NOTICED_MS
        )
        line = page.locator(".item", has_text="signal generator")
        for _ in range(2):
            line.get_by_role("button", name="Read").click()
            expect(line.locator("output")).to_contain_text("from the database")
        axe(page)
    stack.compose("start", "cache")
    expect_store(pages, "cache", "ok")
    for page in pages:
        expect(page.locator("#visits")).to_have_text("1", timeout=NOTICED_MS)
