"""The picture of the stack: who is there, who answers, who left and came back."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Page, expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Response

    from tests.acceptance.stack import Stack

    from .conftest import Items, OpenPage

BURST_MS = 20_000
# What a replica's leaving or coming takes until it shows: its drain or start, DNS, two looks.
NOTICED_MS = 10_000
# The tier on the page, and where an answer says which of its replicas gave it.
REPLICAS = {"frontend": ("#frontends", "x-served-by"), "api": ("#apis", "x-replica")}


def send_burst(page: Page) -> list[Response]:
    """Press the button twice, as impatient people do; return the answers once all are there."""
    answers: list[Response] = []

    def keep(answer: Response) -> None:
        if answer.url.endswith("/api/whoami"):
            answers.append(answer)

    page.on("response", keep)
    page.locator("#burst").dblclick()
    expect(page.locator("#burst-result")).to_have_text(
        re.compile("^50 answered, 0 failed"), timeout=BURST_MS
    )
    page.remove_listener("response", keep)
    return answers


def shares(page: Page, tier: str) -> dict[str, str]:
    """What the page says each node of a tier answered, by its name."""
    nodes = page.locator(f"{tier} .node").all()
    texts = {node.locator("b").inner_text(): node.locator('[data-part="share"]') for node in nodes}
    return {name: share.inner_text() for name, share in texts.items() if share.is_visible()}


def check_burst(stack: Stack, page: Page, without: tuple[str, ...] = ()) -> None:
    """Every replica but those answers its part, and the page counts as the answers say."""
    answers = send_burst(page)
    assert len(answers) == 50
    assert shares(page, "#gateway") == {"gateway": "50 of 50"}
    for service, (tier, header) in REPLICAS.items():
        counted = Counter(answer.headers[header] for answer in answers)
        assert set(counted) == {each.hostname for each in stack.of(service)} - set(without)
        assert shares(page, tier) == {name: f"{count} of 50" for name, count in counted.items()}
        spread = ", ".join(str(count) for _, count in counted.most_common())
        expect(page.locator("#burst-result")).to_contain_text(f"{service}s {spread}")


def test_every_container_is_drawn_and_well(stack: Stack, page: Page) -> None:
    expected = {
        "#gateway": ["gateway"],
        "#frontends": [each.hostname for each in stack.of("frontend")],
        "#apis": [each.hostname for each in stack.of("api")],
        "#stores": ["database", "cache"],
    }
    for tier, names in expected.items():
        nodes = page.locator(f"{tier} .node")
        expect(nodes.and_(page.locator('[data-status="ok"]'))).to_have_count(len(names))
        assert sorted(nodes.locator("b").all_inner_texts()) == sorted(names)
    networks = page.locator(".network").all_text_contents()
    assert [text.split()[-1] for text in networks] == ["ingress", "edge", "frontend", "backend"]


def test_burst_shows_who_answered_how_much(
    axe: Callable[[Page], None], stack: Stack, page: Page
) -> None:
    check_burst(stack, page)
    axe(page)


def test_live_line_goes_on_by_itself(pages: list[Page]) -> None:
    for _ in range(2):
        before = [page.locator("#live").inner_text() for page in pages]
        for page, text in zip(pages, before, strict=True):
            expect(page.locator("#live"), "a second later").not_to_have_text(text, timeout=2500)


def test_visits_are_counted_by_all_replicas_together(page: Page) -> None:
    visits = page.locator("#visits")
    expect(visits).to_have_text("1")
    replicas: set[str] = set()
    # Who answers is chance: twenty times the same one of two is not to be expected.
    for number in range(2, 22):
        with page.expect_response("**/api/session") as answer:
            page.reload()
        replicas.add(answer.value.headers["x-replica"])
        expect(visits).to_have_text(str(number))
        if number > 3 and len(replicas) > 1:
            break
    assert len(replicas) > 1, f"all answered by {replicas}"


@pytest.mark.disruptive
def test_stopped_replica_leaves_and_comes_back(
    axe: Callable[[Page], None], stack: Stack, pages: list[Page]
) -> None:
    stopped = {service: stack.of(service)[-1] for service in REPLICAS}
    ids = [each.id for each in stopped.values()]

    def expect_status(status: str) -> None:
        for page in pages:
            for service, (tier, _) in REPLICAS.items():
                node = page.locator(f"{tier} .node", has_text=stopped[service].hostname)
                expect(node).to_have_attribute("data-status", status, timeout=NOTICED_MS)

    expect_status("ok")
    stack.machine.run("docker", "stop", *ids)
    expect_status("gone")
    for page in pages:
        expect(page.locator("#news")).to_contain_text(f"Api {stopped['api'].hostname} left.")
        check_burst(stack, page, tuple(each.hostname for each in stopped.values()))
        axe(page)
    stack.machine.run("docker", "start", *ids)
    stack.wait_healthy()
    expect_status("ok")
    for page in pages:
        expect(page.locator("#news")).to_contain_text(f"{stopped['api'].hostname} came.")
        check_burst(stack, page)


def test_picture(
    visit: Callable[[Page], None], stack: Stack, items: Items, open_page: OpenPage
) -> None:
    """As it is in the README, which has this one from build/browser."""
    _show_some_life(visit, stack, items, open_page("desktop"))


def test_all_fits_on_a_projector(
    visit: Callable[[Page], None], stack: Stack, items: Items, open_page: OpenPage
) -> None:
    page = open_page("projector")
    _show_some_life(visit, stack, items, page)
    box = page.locator("#map").bounding_box()
    assert box
    assert box["y"] + box["height"] < 1080, f"the topology ends below the screen: {box}"


def _show_some_life(visit: Callable[[Page], None], stack: Stack, items: Items, page: Page) -> None:
    items.add("multimeter, bench 1", note="Fuse replaced in March")
    items.add("soldering station")
    items.add("oscilloscope, bench 3", note="Second probe is in drawer 4")
    visit(page)
    expect(page.locator(".item").first).to_contain_text("oscilloscope")
    check_burst(stack, page)
