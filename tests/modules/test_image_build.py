"""image_build builds once, one at a time, and leaves nothing but images."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sources import command

from .conftest import ROOT, Module, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

image_build = Module(ROOT / "roles" / "stack_images" / "library" / "image_build.py")
IMAGE = "stackyard-modules/image-build:test"
# An image without a file in it.
BUILD = [
    ["tar", "--create", "--file", "root.tar", "--files-from", "/dev/null"],
    ["docker", "import", "root.tar", IMAGE],
]


@pytest.fixture(autouse=True)
def _without_image() -> Iterator[None]:
    subprocess.run(["docker", "image", "rm", IMAGE], check=False, capture_output=True)
    yield
    subprocess.run(["docker", "image", "rm", IMAGE], check=False, capture_output=True)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Return a scratch directory that is not there yet, in one that is not there either."""
    return tmp_path / "cache" / "build"


def test_image_is_built_and_the_directory_removed(scratch: Path) -> None:
    assert image_build(directory=str(scratch), images=[IMAGE], commands=BUILD).changed
    assert docker("image", "inspect", "--format", "{{.Id}}", IMAGE)
    assert list(scratch.parent.iterdir()) == []


def test_image_that_is_there_is_not_built_again(scratch: Path) -> None:
    image_build(directory=str(scratch), images=[IMAGE], commands=BUILD)
    before = docker("image", "inspect", "--format", "{{.Id}}", IMAGE)
    assert not image_build(directory=str(scratch), images=[IMAGE], commands=BUILD).changed
    assert docker("image", "inspect", "--format", "{{.Id}}", IMAGE) == before


def test_commands_find_the_files_and_nothing_that_a_killed_run_left(
    scratch: Path, tmp_path: Path
) -> None:
    scratch.mkdir(parents=True)
    (scratch / "left").write_text("by a killed run")
    copy = tmp_path / "copy"
    result = image_build(
        directory=str(scratch),
        files=[{"path": "api/serve", "content": "#!/bin/sh $HOME\n", "mode": "0755"}],
        images=[IMAGE],
        # As they are given: no shell, and nobody else, puts anything in the place of $HOME.
        commands=[["cp", "--archive", ".", str(copy)], ["test", "$HOME", "!=", str(Path.home())]],
    )
    assert result.changed
    assert [str(path.relative_to(copy)) for path in copy.rglob("*")] == ["api", "api/serve"]
    assert (copy / "api/serve").read_text() == "#!/bin/sh $HOME\n"
    assert (copy / "api/serve").stat().st_mode & 0o777 == 0o755


def test_failed_command_is_the_last_and_its_last_words_are_told(scratch: Path) -> None:
    failing = ["sh", "-c", "echo much; echo 'E: no mirror' >&2; exit 3"]
    result = image_build(directory=str(scratch), images=[IMAGE], commands=[failing, *BUILD])
    assert (result.message, result.answer["rc"]) == ("E: no mirror", 3)
    assert result.answer["stdout"] == "much\n"
    assert list(scratch.parent.iterdir()) == []
    assert docker("image", "ls", "--quiet", IMAGE) == ""


def test_of_two_runs_at_once_one_builds_and_the_other_finds_its_image(scratch: Path) -> None:
    def build(_number: int) -> bool:
        slow = [["sleep", "1"], *BUILD]
        return image_build(directory=str(scratch), images=[IMAGE], commands=slow).changed

    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(build, range(2))) == [False, True]


def test_what_a_killed_run_started_is_waited_for(scratch: Path, tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    script = f"touch begun; sleep 2; touch {ended}"
    arguments = {
        "directory": str(scratch),
        "images": [IMAGE],
        "commands": [["sh", "-c", script]],
    }
    killed = subprocess.Popen(
        command(image_build.path),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert killed.stdin
    killed.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode())
    killed.stdin.close()
    deadline = time.monotonic() + 20
    while not (scratch / "begun").exists():
        assert time.monotonic() < deadline, "the run never began"
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    look = [["test", "-e", str(ended)]]
    assert image_build(directory=str(scratch), images=[IMAGE], commands=look).changed
