"""The page of make verify, without a machine: what it shows of what it is given."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from ..acceptance.machine import Result
from ..acceptance.promises import LINES, Tally
from ..acceptance.report import Check, Command, Section, render
from ..acceptance.settings import Settings
from ..acceptance.test_secrets import pytestmark as of_secrets

if TYPE_CHECKING:
    from ..acceptance.machine import Machine

EVIL = "<script>alert('x')</script> & \"more\""


def section(access: Machine | None = None, **tallies: Any) -> Section:
    """Return a machine's part with a check that saw markup."""
    seen = Command.of(Result("cat page", 1, EVIL, ""), secret=False)
    check = Check(EVIL, EVIL, (1,), secret=False, outcome="failed", reason=EVIL, commands=[seen])
    found = Tally(passed=["a"]), Tally(failed=["b"])
    return Section(
        "lab1",
        access,  # type: ignore[arg-type]
        Settings({}, {}),
        [check],
        {1: found[1], 2: found[0], **tallies},
        {"Environment": "prod"},
    )


def test_what_machines_say_is_text() -> None:
    page = render([section()])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4


def test_every_promise_has_its_sign_and_its_place() -> None:
    page = render([section(), section()])
    rows = re.findall(r'<a href="#(p-\d+-\d+)">', page)
    assert len(rows) == 2 * len(LINES)
    assert all(page.count(f'id="{row}"') == 1 for row in rows)
    first = page.partition("</table>")[0]
    assert [first.count(sign) for sign in ("✓ holds", "✗ does not", "– left out")] == [
        *(1, 1, len(LINES) - 2),
    ]


def test_page_asks_for_nothing_else() -> None:
    page = render([section()])
    assert re.findall(r"(?:src|href)=\"(?!#)|url\(|@import|<link|<script|<img", page) == []
    assert "default-src 'none'" in page


@pytest.mark.parametrize("command", [
    "docker inspect stackyard-api-1",
    "docker logs --tail 5 stackyard-api-1",
    "docker compose -f docker-compose.yml config --format json",
    'on_machine/kernel.py {"stackyard-api-1": 1}',
])  # fmt: skip
def test_outputs_that_may_hold_a_secret_are_not_shown(command: str) -> None:
    assert Command.of(Result(command, 0, "hidden", ""), secret=False).output is None


def test_outputs_of_checks_about_secrets_are_not_shown() -> None:
    assert of_secrets.args == (15,)
    assert Command.of(Result("ls", 0, "hidden", ""), secret=True).output is None
    assert Command.of(Result("ls", 0, "shown", ""), secret=False).output == "shown"


def test_long_outputs_and_commands_are_cut() -> None:
    seen = Command.of(Result("x" * 5000, 0, "y" * 5000, ""), secret=False)
    assert len(seen.line) < 400
    assert len(seen.output or "") < 400
