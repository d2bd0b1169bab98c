"""secret_rotation takes a password to its next value; at each moment a client's file serves."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources import load

from .conftest import ROOT, Module, Result

if TYPE_CHECKING:
    from pathlib import Path

PATH = ROOT / "roles/stack_secrets/library/secret_rotation.py"
module = Module(PATH)
STEPS = ["prepared", "announced", "accepted", "settled", "done"]
OLD = "the-old-one-0123456789"
VALUES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=60)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Secrets as they are before: a client's file, and the server's."""
    (tmp_path / "client").write_text(f"{OLD}\n")
    (tmp_path / "server").write_text(f"user api on >{OLD} +get\n")
    return tmp_path


def rotate(directory: Path, step: str, value: str = "", answer: str = "^OK$") -> Result:
    """Take a step; the server is a program that keeps what it is told."""
    program = f"open({str(directory / 'told')!r}, 'a').write(sys.stdin.read()); print('OK')"
    secret = {
        "name": "cache_api",
        "files": [
            {"name": "client", "owner": 992},
            {"name": "server", "owner": 999, "template": "user api on >{value} +get"},
        ],
        "both": {"client": "{old}\n{new}", "server": "{old} >{new}"},
        "takes": {
            "command": [sys.executable, "-c", f"import sys; {program}"],
            "input": "{old} {new}\n",
            "escape": {"'": "''"},
            "answer": answer,
        },
        **({"value": value} if value else {}),
    }
    return module(directory=str(directory), step=step, secrets=[secret])


def read(directory: Path, name: str) -> str:
    """Return a file's text."""
    return (directory / name).read_text()


def test_steps_take_it_from_the_old_value_to_the_new_one(directory: Path) -> None:
    inodes = {name: (directory / name).stat().st_ino for name in ("client", "server")}
    results = [rotate(directory, "prepared")]
    old, new = read(directory, "cache_api.next").splitlines()
    assert (old, len(new)) == (OLD, 43)
    assert (directory / "cache_api.next").stat().st_mode & 0o777 == 0o400
    results.append(rotate(directory, "announced"))
    assert read(directory, "client") == f"{OLD}\n{new}\n"
    assert read(directory, "server") == f"user api on >{OLD} +get\n"
    results.append(rotate(directory, "accepted"))
    assert read(directory, "server") == f"user api on >{OLD} >{new} +get\n"
    results.append(rotate(directory, "settled"))
    assert read(directory, "client") == f"{new}\n"
    assert read(directory, "server") == f"user api on >{new} +get\n"
    results.append(rotate(directory, "done"))
    assert not (directory / "cache_api.next").exists()
    assert all(result.changed for result in results)
    assert not any(new in result.output or OLD in result.output for result in results)
    # A container has this very file mounted.
    assert {name: (directory / name).stat().st_ino for name in inodes} == inodes
    assert read(directory, "told") == f"{OLD} {new}\n" * 2


@pytest.mark.parametrize("last", STEPS[:-1])
def test_all_steps_again_finish_what_was_cut_short(directory: Path, last: str) -> None:
    for step in STEPS[: STEPS.index(last) + 1]:
        rotate(directory, step)
    new = read(directory, "cache_api.next").splitlines()[1]
    for step in STEPS:
        assert not rotate(directory, step).failed
    assert read(directory, "client") == f"{new}\n"
    assert read(directory, "server") == f"user api on >{new} +get\n"


def test_a_value_that_cannot_serve_is_refused_and_nothing_begun(directory: Path) -> None:
    for value, words in ((OLD, "is the one in use"), ("short", "has 5 characters")):
        assert words in rotate(directory, "prepared", value).message
    assert not (directory / "cache_api.next").exists()


def test_a_server_that_does_not_take_it_is_named_and_no_value_is(directory: Path) -> None:
    rotate(directory, "prepared")
    result = rotate(directory, "accepted", answer="^never$")
    assert result.message == "The server does not take the new cache_api: OK"


@settings(deadline=None)
@given(old=VALUES, new=VALUES)
def test_the_new_value_is_whole_in_the_file_at_each_write(
    tmp_path_factory: pytest.TempPathFactory, old: str, new: str
) -> None:
    """Even were a write cut short at any byte: what it overlaps is not all that there is."""
    path = tmp_path_factory.mktemp("secret") / "client"
    path.write_text(f"{old}\n{new}\n")
    rotation = load(PATH)
    real = os.pwrite
    torn = []

    def byte_by_byte(handle: int, data: bytes, start: int) -> int:
        for number in range(len(data)):
            real(handle, data[number : number + 1], start + number)
            lines = path.read_text().splitlines()
            if new not in lines and old not in lines:
                torn.append(lines)
        return len(data)

    rotation.os.pwrite = byte_by_byte
    try:
        rotation.overwrite(path, f"{new}\n")
    finally:
        rotation.os.pwrite = real
    assert torn == []
    assert path.read_text() == f"{new}\n"
