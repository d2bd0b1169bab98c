"""Log lines: one for each event, that a machine can read."""

from __future__ import annotations

import json
import subprocess
import sys

import hypothesis
import pytest
from hypothesis import strategies as st
from stackyard_api.problems import FieldError, problem_response

from .conftest import API

# Says each text of its standard input, the last with a traceback.
SPEAKER = """
import json, logging, sys
from stackyard_api import logs
level, form, texts = json.load(sys.stdin)
logs.configure(level, form, "api-1")
log = logging.getLogger("stackyard.checks")
logs.request_id.set("an-id")
for text in texts:
    log.info("%s", text, extra={"fields": {"given": text}})
log.debug("detail")
logging.getLogger("asyncpg").debug("a password")
try:
    raise ValueError("two\\nlines")
except ValueError:
    log.exception("defect")
"""


def spoken(level: str, form: str, texts: list[str]) -> list[str]:
    """Return the lines that a process of the api writes."""
    done = subprocess.run(
        [sys.executable, "-c", SPEAKER],
        input=json.dumps([level, form, texts]),
        env={"PYTHONPATH": str(API), "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=20,
        check=True,
    )
    assert done.stderr == ""
    # Not splitlines: what Unicode counts as a line's end is none to who reads a log.
    return done.stdout.removesuffix("\n").split("\n")


@hypothesis.settings(max_examples=3)
@hypothesis.given(st.lists(st.text(), min_size=20, max_size=60))
def test_any_text_is_one_line_of_json(texts: list[str]) -> None:
    lines = [json.loads(line) for line in spoken("info", "json", texts)]
    assert [line["message"] for line in lines] == [*texts, "defect"]
    assert [line["given"] for line in lines[:-1]] == texts
    assert {line["request_id"] for line in lines} == {"an-id"}
    assert {line["replica"] for line in lines} == {"api-1"}
    assert "two\nlines" in lines[-1]["traceback"]


@pytest.mark.parametrize(("level", "said"), [("info", False), ("debug", True)])
def test_debug_is_ours_alone(level: str, said: bool) -> None:
    lines = "\n".join(spoken(level, "json", ["text"]))
    assert ("detail" in lines) == said
    assert "a password" not in lines


def test_text_is_for_people() -> None:
    lines = spoken("info", "text", ["hello"])
    assert "hello request_id=an-id given=hello" in lines[0]
    assert any("ValueError: two" in line for line in lines)


@pytest.mark.parametrize("status", [400, 404, 405, 412, 413, 415, 422, 500, 503])
def test_problem_is_what_the_standard_says(status: int) -> None:
    errors = [FieldError("#/name", "why")] if status == 422 else ()
    response = problem_response(status, "why", {"X-More": "1"}, errors)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-more"] == "1"
    assert ("retry-after" in response.headers) == (status == 503)
    body = json.loads(bytes(response.body))
    assert (body["status"], body["detail"], body["type"]) == (status, "why", "about:blank")
    assert body["title"]
    expected = [{"pointer": "#/name", "detail": "why"}] if errors else None
    assert body.get("errors") == expected
