"""What a client sends: stored as it came, or refused in one line."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import hypothesis
import pytest
from hypothesis import strategies as st
from stackyard_api.items import LONGEST_NAME, LONGEST_NOTE, Draft, parse_draft
from stackyard_api.problems import Problem

from .conftest import Replica

TEXTS = st.one_of(
    st.text(max_size=20),
    # What is written otherwise than it is read, or means something to somebody on the way.
    st.text(alphabet="\0\t\n\r\x1c\x85\u00a0\u2028\u3000 a'\"\\%{}é😀\uffff", max_size=8),
    st.integers(LONGEST_NAME - 1, LONGEST_NAME + 1).map(lambda length: "é" * length),
    st.integers(LONGEST_NOTE - 1, LONGEST_NOTE + 1).map(lambda length: "😀" * length),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
BODIES = st.one_of(
    st.fixed_dictionaries({"name": TEXTS}, optional={"note": TEXTS | st.none()}),
    st.fixed_dictionaries(
        {}, optional={"name": VALUES, "note": VALUES, "id": VALUES, "": VALUES, "nam\ne": VALUES}
    ),
    VALUES,
).map(lambda value: json.dumps(value).encode())


def draft_of(body: bytes) -> Draft | Problem:
    """Return the draft, or the problem that the body is refused with."""
    try:
        return parse_draft(body)
    except Problem as problem:
        return problem


def is_well_said(problem: Problem) -> bool:
    """Tell whether a refusal is in one line, and names a place in the body where there is one."""
    said = [problem.detail, *(error.detail for error in problem.errors)]
    return (
        problem.status in (400, 422)
        and all(len(text.splitlines()) == 1 and text.strip() == text for text in said)
        and all(error.pointer.startswith("#") for error in problem.errors)
    )


@hypothesis.given(BODIES)
@hypothesis.example(b'{"name": "\\u0000"}')
@hypothesis.example(b'{"name": "a\\u0000b"}')
@hypothesis.example(b'{"name": "a", "note": "\\u0000"}')
@pytest.mark.anyio
async def test_json_is_refused_or_stored_unchanged(
    replicas: tuple[Replica, Replica], admin: asyncpg.Connection, body: bytes
) -> None:
    draft = draft_of(body)
    if isinstance(draft, Problem):
        assert is_well_said(draft), draft.detail
        return
    given: dict[str, Any] = json.loads(body)
    assert (draft.name, draft.note) == (given["name"].strip(), given.get("note"))
    item = await replicas[0].items.create(draft, None)
    assert (item.name, item.note) == (draft.name, draft.note)
    row = await admin.fetchrow("SELECT name, note FROM items WHERE id = $1", item.id)
    assert tuple(row) == (draft.name, draft.note)
    shown = json.loads((await replicas[1].items.read(item.id)).body)
    assert (shown["name"], shown["note"]) == (draft.name, draft.note)


@hypothesis.given(
    st.binary(max_size=40)
    | BODIES.flatmap(lambda body: st.integers(0, len(body)).map(lambda end: body[:end]))
)
@hypothesis.example(b'{"name": "\\ud800"}')
@hypothesis.example(b'{"name": "\xed\xa0\x80"}')
@hypothesis.example(b"\xef\xbb\xbf{}")
@hypothesis.example(b"[" * 60_000)
@hypothesis.example(b'{"name": ' + b"[" * 60_000)
@hypothesis.example(b'{"note": ' + b"1" * 60_000 + b"}")
def test_any_bytes_are_a_draft_or_refused_in_one_line(body: bytes) -> None:
    draft = draft_of(body)
    if isinstance(draft, Problem):
        assert is_well_said(draft), draft.detail
    else:
        draft.name.encode()
        (draft.note or "").encode()


@pytest.mark.parametrize(("body", "status", "pointer"), [
    (b"", 400, None),
    (b"{", 400, None),
    (b"[]", 422, "#"),
    (b"{}", 422, "#/name"),
    (b'{"name": " "}', 422, "#/name"),
    (b'{"name": 1}', 422, "#/name"),
    (b'{"name": "a", "note": 1}', 422, "#/note"),
    (b'{"name": "a", "id": 1}', 422, "#/id"),
])  # fmt: skip
def test_problem_names_the_field(body: bytes, status: int, pointer: str | None) -> None:
    with pytest.raises(Problem) as caught:
        parse_draft(body)
    assert caught.value.status == status
    assert [error.pointer for error in caught.value.errors] == ([pointer] if pointer else [])
