"""The environment: taken, or refused with the variable's name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from stackyard_api.settings import Settings, SettingsError, read_passwords

from .conftest import API

NAMES = [
    "PORT", "DATABASE_POOL_SIZE", "CACHE_TTL", "SESSION_TTL", "LOG_LEVEL", "LOG_FORMAT", "DOCS",
    "DATABASE_HOST", "CACHE_PORT", "CONFIG_FILE",
]  # fmt: skip


def test_nothing_has_to_be_said() -> None:
    settings = Settings.from_environment({})
    assert (settings.port, settings.database_host, settings.docs) == (8000, "database", False)


@hypothesis.given(
    st.sampled_from(NAMES),
    st.text(max_size=8) | st.integers().map(str) | st.sampled_from([" 5 ", "5.0", "on", "JSON"]),
)
def test_any_value_is_taken_or_refused_by_name(name: str, value: str) -> None:
    refusal = f"{name}=: "
    try:
        Settings.from_environment({name: value})
    except SettingsError as error:
        refusal = str(error)
    assert refusal.startswith(f"{name}=")
    assert len(refusal.splitlines()) == 1


@pytest.mark.parametrize(("name", "value"), [
    ("PORT", "0"), ("PORT", "65536"), ("PORT", "-1"), ("PORT", "8000x"),
    ("DATABASE_POOL_SIZE", "0"), ("LOG_LEVEL", "loud"), ("DOCS", "perhaps"),
])  # fmt: skip
def test_value_that_cannot_be_used_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({name: value})


def test_api_that_cannot_start_says_why_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stackyard_api"],
        env={"PORT": "none", "PYTHONPATH": str(API), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == ["stackyard api: PORT='none': must be 1 to 65535"]


def test_password_is_the_file_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "password"
    for content in (" with blanks ", "ümlaut"):
        for end in ("", "\n", "\r\n"):
            path.write_bytes((content + end).encode())
            assert read_passwords(path) == [content]
    path.write_text("old\nnew\n")
    assert read_passwords(path) == ["old", "new"]
    path.write_text("")
    assert read_passwords(path) == [""]
