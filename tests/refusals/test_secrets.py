"""A secret that is not what the database was set up with is refused, and never replaced."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..playbook import docker
from .conftest import PROJECT, STACK_DIR, Run, play, snapshot, variables

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRETS = STACK_DIR / "secrets"
VOLUME = f"{PROJECT}_database-data"


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the secrets of a stack as a first run does, and keep a copy of its directory."""
    copy = tmp_path_factory.mktemp("first") / "stack"
    try:
        run = make_secrets()
        assert run.code == 0, run.output
        assert len(list(SECRETS.iterdir())) == 6
        subprocess.run(["cp", "--archive", str(STACK_DIR), str(copy)], check=True)
    finally:
        shutil.rmtree(STACK_DIR, ignore_errors=True)
    return copy


@pytest.fixture
def secrets(first_run: Path, clean: None) -> Path:  # noqa: ARG001 - for its order alone
    """Return the directory with the secrets of a first run, owners and modes included."""
    subprocess.run(["cp", "--archive", str(first_run), str(STACK_DIR)], check=True)
    return SECRETS


@pytest.fixture
def initialised_volume() -> Iterator[Path]:
    """Make the mark that the database leaves on its volume once it was initialised."""
    docker("volume", "create", VOLUME)
    try:
        mark = Path(
            docker("volume", "inspect", "--format", "{{.Mountpoint}}", VOLUME), "PG_VERSION"
        )
        mark.write_text("17\n", encoding="ascii")
        yield mark
    finally:
        docker("volume", "rm", VOLUME)


def make_secrets(**given: object) -> Run:
    """Run site.yml as far as the secrets."""
    return play(*variables(env="prod", **given), tags="stack_secrets")


def assert_refused_untouched(*says: str, **given: object) -> None:
    """Fail unless the run is refused with one line, writes no value, and alters nothing."""
    values = {path.read_text(encoding="utf-8").strip() for path in SECRETS.iterdir()}
    before = snapshot()
    run = make_secrets(**given)
    run.assert_refused(says)
    assert snapshot() == before
    assert not [value for value in values if value and value in run.output]


def test_empty_secret_file_is_refused(secrets: Path) -> None:
    path = secrets / "database_superuser_password"
    path.write_text("", encoding="utf-8")
    assert_refused_untouched(f"{path} is empty.", "Restore it from a copy")


def test_truncated_secret_file_is_refused(secrets: Path) -> None:
    path = secrets / "api_cache_password"
    path.write_text(path.read_text(encoding="utf-8")[:20], encoding="utf-8")
    assert_refused_untouched(f"{path} is cut short", "Restore it from a copy")


def test_truncated_certificate_is_refused(secrets: Path) -> None:
    path = secrets / "gateway_certificate"
    path.write_text(path.read_text(encoding="utf-8")[:100] + "\n", encoding="utf-8")
    assert_refused_untouched(f"{path} lacks a certificate or its key")


def test_files_of_one_secret_that_differ_are_refused(secrets: Path) -> None:
    path = secrets / "database_api_password"
    path.write_text("another-value-of-a-day\n", encoding="utf-8")
    assert_refused_untouched(
        f"{path} and {secrets / 'api_database_password'} differ", "restore the right value"
    )


def test_another_value_than_the_files_is_refused(secrets: Path) -> None:
    given = "hidden-4711-hidden"
    assert_refused_untouched(
        f"{secrets / 'api_cache_password'} differs from the value given for cache_api",
        "Give that value, or none",
        stack_secrets_values={"cache_api": given},
    )


def test_missing_secret_is_refused_while_the_database_has_data(
    secrets: Path, initialised_volume: Path
) -> None:
    path = secrets / "database_superuser_password"
    path.unlink()
    assert_refused_untouched(f"{path} is missing, and {initialised_volume} was", "Restore it")


def test_missing_copy_for_another_reader_is_mended_from_the_first(
    secrets: Path, initialised_volume: Path
) -> None:
    # The other side of the refusals: what can be known is put right.
    assert initialised_volume.exists()
    path = secrets / "api_database_password"
    value = path.read_text(encoding="utf-8")
    path.unlink()
    run = make_secrets()
    assert run.code == 0, run.output
    assert path.read_text(encoding="utf-8") == value
    assert value.strip() not in run.output
