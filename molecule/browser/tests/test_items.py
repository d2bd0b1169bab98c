"""Items: listed, added, found, paged through, changed and deleted in the page."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import Locator, Page, expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import ConfigFile, Items


def row(page: Page, name: str) -> Locator:
    """The item of that name in the list."""
    return page.locator(".item").filter(
        has=page.locator('[data-part="name"]', has_text=re.compile(f"^{re.escape(name)}$"))
    )


def names(page: Page) -> Locator:
    """The names in the list."""
    return page.locator('.item [data-part="name"]')


def test_item_is_added_and_found(items: Items, page: Page) -> None:
    items.add("solder, 1 mm", "solder, 0.5 mm")
    page.get_by_role("textbox", name="Name").fill("oscilloscope, bench 3")
    page.get_by_role("textbox", name="Note").fill("Two probes <b>missing</b>")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.locator("#add-news")).to_have_text(
        re.compile(r"^“oscilloscope, bench 3” is added by api \w{12}\.$")
    )
    expect(names(page).first).to_have_text("oscilloscope, bench 3")
    expect(page.locator("#add-name")).to_have_value("")
    page.get_by_role("searchbox", name="Search").fill("PROBES")
    expect(names(page)).to_have_text(["oscilloscope, bench 3"])
    expect(row(page, "oscilloscope, bench 3")).to_contain_text("Two probes <b>missing</b>")
    expect(page.locator("#items-news")).to_have_text("1 found.")
    page.get_by_role("searchbox", name="Search").fill("no such thing")
    expect(page.locator("#no-items")).to_have_text("Nothing holds “no such thing”.")
    page.get_by_role("searchbox", name="Search").fill("")
    expect(names(page).nth(1)).to_have_text("solder, 0.5 mm")


def test_pages_lead_to_every_item_and_back(config: ConfigFile, items: Items, page: Page) -> None:
    numbered = [f"multimeter {number}" for number in range(1, 6)]
    items.add(*numbered, "oven")
    config.save("page_size = 2\n")
    page.get_by_role("searchbox", name="Search").fill("multimeter")
    newer, older = page.locator("#newer"), page.locator("#older")
    for number, shown in enumerate((("5", "4"), ("3", "2"), ("1",)), 1):
        expect(names(page)).to_have_text([f"multimeter {each}" for each in shown])
        expect(page.locator("#page-number")).to_have_text(f"page {number}")
        expect(newer).to_have_attribute("aria-disabled", str(number == 1).lower())
        expect(older).to_have_attribute("aria-disabled", str(number == 3).lower())
        if number < 3:
            older.click()
    newer.click()
    expect(names(page)).to_have_text(["multimeter 3", "multimeter 2"])


def test_what_others_change_shows_by_itself(items: Items, pages: list[Page]) -> None:
    items.add("label printer")
    for page in pages:
        expect(names(page).first).to_have_text("label printer")
    items.remove()
    for page in pages:
        expect(row(page, "label printer")).to_have_count(0)


def test_item_is_changed_in_a_dialog(
    visit: Callable[[Page], None], axe: Callable[[Page], None], items: Items, page: Page
) -> None:
    items.add("drill press", note="Ground floor")
    visit(page)
    page.get_by_role("button", name="Edit drill press").click()
    dialog = page.get_by_role("dialog", name="Edit the item")
    expect(dialog.get_by_label("Note")).to_have_value("Ground floor")
    axe(page)
    dialog.get_by_label("Name").fill("pillar drill")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#items-news")).to_have_text(
        re.compile(r"^“pillar drill” is saved by api \w{12}\.$")
    )
    expect(row(page, "pillar drill")).to_contain_text("version 2")
    (stored,) = items.added
    assert (stored["name"], stored["note"]) == ("pillar drill", "Ground floor")


def test_nobodys_change_is_overwritten_unseen(
    visit: Callable[[Page], None], axe: Callable[[Page], None], items: Items, page: Page
) -> None:
    items.add("heat gun")
    visit(page)
    page.get_by_role("button", name="Edit heat gun").click()
    items.change("Lent to room 2")
    dialog = page.get_by_role("dialog", name="Edit the item")
    dialog.get_by_label("Note").fill("Out of order")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("somebody else changed it meanwhile")
    expect(dialog.get_by_label("The present text")).to_contain_text("Lent to room 2")
    assert items.added[0]["note"] == "Lent to room 2"
    axe(page)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()
    assert items.added[0]["note"] == "Out of order"


def test_item_is_deleted_when_that_is_confirmed(
    visit: Callable[[Page], None], axe: Callable[[Page], None], items: Items, page: Page
) -> None:
    items.add("cable drum", "extension lead")
    visit(page)
    page.get_by_role("button", name="Delete cable drum").click()
    dialog = page.get_by_role("dialog", name="Delete this item?")
    expect(dialog).to_contain_text("cable drum")
    axe(page)
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert [each["name"] for each in items.added] == ["extension lead", "cable drum"]
    page.get_by_role("button", name="Delete cable drum").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("#items-news")).to_have_text(
        re.compile(r"^“cable drum” is deleted by api \w{12}\.$")
    )
    expect(row(page, "cable drum")).to_have_count(0)
    assert [each["name"] for each in items.added] == ["extension lead"]


def test_refused_field_says_why_at_the_field(
    axe: Callable[[Page], None], items: Items, page: Page
) -> None:
    name = page.get_by_role("textbox", name="Name")
    for refused in ("   ", "x" * 201):
        name.fill(refused)
        page.get_by_role("button", name="Add", exact=True).click()
        expect(name).to_have_attribute("aria-invalid", "true")
        expect(name).to_have_accessible_description(re.compile("1 to 200 characters"))
        expect(name).to_be_focused()
        expect(name).to_have_value(refused)
    axe(page)
    assert items.added == []
    name.fill("x" * 200)
    name.press("Enter")
    expect(names(page).first).to_have_text("x" * 200)
    expect(name).not_to_have_attribute("aria-invalid", "true")


def test_source_of_an_answer_is_told(
    visit: Callable[[Page], None], items: Items, page: Page
) -> None:
    items.add("power supply")
    visit(page)
    line = row(page, "power supply")
    for source in ("database", "cache", "cache"):
        line.get_by_role("button", name="Read").click()
        expect(line.locator("output")).to_have_text(
            re.compile(rf"^Read from the {source} in [\d.]+ ms, api \w{{12}}$")
        )
        # The next answer may be the same to the letter.
        line.locator("output").evaluate("each => each.textContent = ''")
    expect(page.locator("#list-source")).to_have_text(
        re.compile(r"^From the database in [\d.]+ ms, api \w{12}$")
    )
