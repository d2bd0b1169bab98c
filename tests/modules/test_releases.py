"""releases keeps what was deployed, and forgets by count."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ROOT, Module, Result, docker

if TYPE_CHECKING:
    from pathlib import Path

module = Module(ROOT / "roles/stack_deploy/library/releases.py")
FILES = ["docker-compose.yml", "config/gateway/haproxy.cfg"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's directory with the files that a release keeps."""
    (tmp_path / "config/gateway").mkdir(parents=True)
    for name in FILES:
        (tmp_path / name).write_text("first\n")
    return tmp_path


@pytest.fixture(scope="module")
def image() -> str:
    """An image that is on this machine."""
    found = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", "stackyard/cache")
    assert found, "no local image stackyard/cache: make up builds it"
    return found.partition("\n")[0]


def record(project: Path, text: str = "", image: str = "none:1", **more: Any) -> Result:
    """Deploy: change the files, and keep them."""
    if text:
        for name in FILES:
            (project / name).write_text(f"{text}\n")
    about = {"by": "someone", "commit": "0123", "env": "prod"}
    services = {"api": {"image": image}}
    return module(
        **{"directory": str(project), "state": "recorded", "files": FILES, "about": about},
        **{"services": services, **more},
    )


def ids(result: Result) -> list[str]:
    """Ids of what is kept, the newest first."""
    return [each["id"] for each in result.answer["releases"]]


def test_files_of_a_release_are_kept_once(project: Path) -> None:
    first = record(project)
    assert first.changed
    assert not record(project).changed
    second = record(project, "second", changes={"api": ["image: a -> b"]})
    assert ids(second) == [second.answer["current"], first.answer["current"]]
    assert second.answer["previous"] == first.answer["current"]
    kept = project / "releases" / "current"
    assert (kept / FILES[1]).read_text() == "second\n"
    about = json.loads((kept / "release.json").read_text())
    assert (about["by"], about["commit"], about["env"]) == ("someone", "0123", "prod")
    assert about["changes"] == {"api": ["image: a -> b"]}


def test_an_earlier_release_is_written_back_and_becomes_the_current_one(
    project: Path, image: str
) -> None:
    first = record(project, "first", image).answer["current"]
    second = record(project, "second", image).answer["current"]
    third = record(project, "third", image).answer["current"]
    arguments = {"directory": str(project), "release": second}
    assert module(state="restored", **arguments).changed
    assert (project / FILES[0]).read_text() == "second\n"
    assert not module(state="restored", **arguments).changed
    about = {"by": "x", "commit": "y", "env": "prod"}
    result = module(state="recorded", about=about, **arguments)
    assert (result.answer["current"], result.answer["previous"]) == (second, first)
    assert ids(result) == [third, second, first]


def test_what_cannot_come_back_is_refused(project: Path) -> None:
    first = record(project).answer["current"]
    failed = record(project, "broken", failed=True)
    assert failed.answer["current"] == first
    broken = ids(failed)[0]
    for wanted in ("yesterday", broken):
        arguments = {"directory": str(project), "state": "restored", "release": wanted}
        assert module(**arguments).message == (
            f"release is '{wanted}': give one of those that ran, {first}."
        )
    gone = module(directory=str(project), state="restored", release=first)
    assert gone.message.startswith(f"release {first} needs none:1, which is not on this machine")
    assert (project / FILES[0]).read_text() == "broken\n"


def test_the_oldest_are_forgotten_with_the_images_that_nobody_names(
    project: Path, image: str
) -> None:
    mine = "stackyard-modules-releases"
    for tag in ("old", "kept", "foreign"):
        docker("tag", image, f"{mine}:{tag}")
    try:
        record(project, "1", f"{mine}:old")
        record(project, "2", f"{mine}:kept")
        record(project, "3", f"{mine}:kept")
        result = record(project, "4", f"{mine}:kept", keep=2)
        assert len(ids(result)) == 2
        assert result.answer["removed_images"] == [f"{mine}:old"]
        left = docker("image", "ls", "--format={{.Tag}}", mine).split()
        assert sorted(left) == ["foreign", "kept"]
        assert sorted(os.listdir(project / "releases")) == sorted([*ids(result), "current"])
    finally:
        left = docker("image", "ls", "--format={{.Repository}}:{{.Tag}}", mine).split()
        docker("image", "rm", *left)


def test_the_one_before_the_current_is_kept_whatever_failed_since(project: Path) -> None:
    first = record(project, "1").answer["current"]
    second = record(project, "2").answer["current"]
    for text in ("3", "4", "5"):
        result = record(project, text, failed=True, keep=2)
    assert {first, second} <= set(ids(result))
    assert result.answer["previous"] == first


def test_half_a_release_is_none(project: Path) -> None:
    """Of a run that was killed while it wrote one, or while it removed one."""
    first = record(project).answer["current"]
    (project / "releases/.20990101-000000/config").mkdir(parents=True)
    (project / "releases/20000101-000000").mkdir()
    result = record(project, "second")
    assert ids(result) == [result.answer["current"], first]
    assert not (project / "releases/.20990101-000000").exists()


def test_check_mode_keeps_nothing(project: Path) -> None:
    assert not record(project, check=True).changed
    assert not (project / "releases").exists()
