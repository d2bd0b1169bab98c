"""Promise 1: every service is healthy, and the page and the api answer."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

import pytest

from .settings import SERVICES

if TYPE_CHECKING:
    from .stack import Stack

pytestmark = pytest.mark.promise(1)


@pytest.fixture(scope="module")
def listed(stack: Stack) -> dict[str, dict[str, tuple[str, str]]]:
    """What `docker compose ps -a` lists, by service."""
    return stack.listed()


@pytest.mark.parametrize("service", SERVICES)
def test_service_is_healthy(
    stack: Stack, listed: dict[str, dict[str, tuple[str, str]]], service: str
) -> None:
    """`docker compose ps` shows each container of the service running and healthy."""
    states = listed.get(service, {})
    assert states, f"there is no {service}: {sorted(listed)}"
    assert set(states.values()) == {("running", "healthy")}, f"{states}\n{stack.logs(service)}"


def test_there_is_no_other_service(listed: dict[str, dict[str, tuple[str, str]]]) -> None:
    """The project is the five services and nothing besides."""
    assert sorted(listed) == sorted(SERVICES)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_page_answers(stack: Stack, scheme: str) -> None:
    """The page comes through the gateway's published port."""
    answer = stack.get("/", scheme)
    assert answer.status == 200, f"{answer}\n{stack.logs('gateway')}"
    assert answer.headers.get("content-type", "").startswith("text/html"), str(answer)
    assert "<title>" in answer.body, str(answer)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_api_answers_that_all_is_well(stack: Stack, scheme: str) -> None:
    """/api/health says so for itself, the database and the cache."""
    answer = stack.get("/api/health", scheme)
    assert answer.status == 200, f"{answer}\n{stack.logs('api')}"
    about = answer.json()
    said = (about["status"], about["database"]["status"], about["cache"]["status"])
    assert said == ("ok", "ok", "ok"), str(answer)


def test_unknown_path_is_not_found(stack: Stack) -> None:
    """An answer is not just any answer: what does not exist is a 404, of page and api alike."""
    answers = stack.ask([{"url": stack.url(path)} for path in ("/no-such", "/api/no-such")])
    assert [answer.status for answer in answers] == [404, 404], "\n".join(map(str, answers))


def test_https_shows_the_stacks_own_certificate(stack: Stack) -> None:
    """TLS ends at the gateway with the certificate from its secret file."""
    served = stack.get("/health", "https").certificate
    text = stack.machine.run(
        "sed", "-n", "/BEGIN CERTIFICATE/,/END CERTIFICATE/p",
        f"{stack.directory}/secrets/gateway_certificate",
    ).out  # fmt: skip
    block = re.search(r"-----BEGIN CERTIFICATE-----(.*?)-----END", text, re.DOTALL)
    assert block, "secrets/gateway_certificate holds no certificate"
    assert base64.b64decode(served) == base64.b64decode(block[1])


@pytest.mark.disruptive
def test_item_is_stored_read_and_deleted(stack: Stack) -> None:
    """The application works from the page's side down to the database."""
    item = stack.create_item("acceptance: stored, read, deleted")
    try:
        answer = stack.get(item)
        assert answer.status == 200, str(answer)
        assert answer.json()["name"] == "acceptance: stored, read, deleted"
    finally:
        deleted = stack.send("DELETE", item)
    assert deleted.status == 204, str(deleted)
    assert stack.get(item).status == 404
