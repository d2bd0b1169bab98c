"""For everybody: by keyboard alone, on a narrow screen, with a screen reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import ConfigFile, Items

# What the focus is on, as a screen reader names it: an id or a label; nothing on the body.
NAME = """() => {
  const at = document.activeElement;
  return at === document.body ? "" : at.id || at.ariaLabel || at.textContent.trim();
}"""
OUTLINE = """() => {
  const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
  return outlineStyle === "none" ? 0 : parseFloat(outlineWidth);
}"""
INSIDE = """dialog => dialog.contains(document.activeElement) ||
  document.activeElement === document.body"""


def walk(page: Page, key: str = "Tab") -> list[str]:
    """Press the key until the focus leaves the page or begins again; return where it was."""
    found: list[str] = []
    while True:
        page.keyboard.press(key)
        name = page.evaluate(NAME)
        if name in ("", *found):
            return found
        found.append(name)
        assert page.evaluate(OUTLINE) >= 2, f"the focus on {name} is not to be seen"
        assert page.locator(":focus").bounding_box(), f"{name} is not to be seen"


def test_tab_reaches_everything_in_the_order_of_the_page(
    config: ConfigFile, items: Items, page: Page
) -> None:
    items.add("balance", "pipette")
    config.save("page_size = 2\n")
    expect(page.locator(".item")).to_have_count(2)
    of_items = [
        f"{verb} {name}" for name in ("pipette", "balance") for verb in ("Read", "Edit", "Delete")
    ]
    to_add = ["to-add"] if page.locator("#to-add").is_visible() else []
    expected = ["burst", *to_add, "search-text", *of_items, "newer", "older"]
    expected += ["add-name", "add-note", "Add"]
    assert walk(page) == expected
    assert walk(page, "Shift+Tab") == expected[::-1]


def test_all_can_be_done_from_the_keyboard(items: Items, page: Page) -> None:
    keys = page.keyboard
    page.locator("#add-name").focus()
    keys.type("centrifuge")
    keys.press("Enter")
    edit = page.get_by_role("button", name="Edit centrifuge")
    expect(edit).to_be_visible()

    edit.focus()
    keys.press("Enter")
    dialog = page.get_by_role("dialog", name="Edit the item")
    expect(dialog.get_by_label("Name")).to_be_focused()
    for key in ["Tab"] * 7 + ["Shift+Tab"] * 7:
        keys.press(key)
        assert dialog.evaluate(INSIDE), f"{key} leaves the dialog for {page.evaluate(NAME)}"
    keys.press("Escape")
    expect(dialog).to_be_hidden()
    expect(edit).to_be_focused()

    keys.press("Enter")
    keys.press("End")
    keys.type(" 2")
    keys.press("Enter")
    expect(page.locator("#items-news")).to_contain_text("“centrifuge 2” is saved")
    expect(page.get_by_role("button", name="Edit centrifuge 2")).to_be_focused()

    # The next stop; and the harmless answer is the one that Enter gives.
    keys.press("Tab")
    keys.press("Enter")
    confirm = page.get_by_role("dialog", name="Delete this item?")
    expect(confirm.get_by_role("button", name="Cancel")).to_be_focused()
    keys.press("Enter")
    expect(confirm).to_be_hidden()
    assert len(items.added) == 1
    keys.press("Enter")
    keys.press("Shift+Tab")
    keys.press("Enter")
    expect(page.locator("#items-news")).to_contain_text("“centrifuge 2” is deleted")
    # Its button is gone, and the focus not lost.
    expect(page.locator("#items-title")).to_be_focused()
    assert items.added == []


def test_nothing_is_wider_than_the_screen(
    visit: Callable[[Page], None], axe: Callable[[Page], None], items: Items, page: Page
) -> None:
    items.add("w" * 200, note="w" * 2000)
    visit(page)
    expect(page.locator(".item").first).to_contain_text("w" * 200)
    axe(page)
    # 320 is what a desktop's page has when it is enlarged to 400 %.
    for width in (page.viewport_size["width"], 320):
        page.set_viewport_size({"width": width, "height": 844})
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} pixels on a screen of {width}"
