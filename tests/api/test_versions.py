"""The checks use the packages that the image has, so that what they say is true of it."""

from __future__ import annotations

import re

import pytest

from tests.images.conftest import docker_ok

from .servers import ROOT, newest_image

# What is only in the image, and what cannot be had in the same version: with the image's, so that
# a new one there is looked at.
IMAGE_ALONE = {"python3"}
OTHERS = {"httptools": "0.1.1"}


def upstream(version: str) -> str:
    """Return Debian's version without its own parts: 1:0.21.1+ds1-1 is 0.21.1."""
    return re.split(r"[+~-]", version.rpartition(":")[2])[0]


@pytest.fixture(scope="module")
def installed() -> dict[str, str]:
    """Return the versions of the image's Python packages, by the name that Python has for them."""
    listed = docker_ok(
        "run", "--rm", "--network=none", "--label=stackyard.test.api", newest_image("api"),
        "dpkg-query", "--show", "--showformat=${Package} ${Version}\n", "python3-*",
    )  # fmt: skip
    pairs = [line.split() for line in listed.splitlines()]
    return {pair[0].removeprefix("python3-"): upstream(pair[1]) for pair in pairs if pair[1:]}


def locked() -> dict[str, str]:
    """Return the versions that the checks are run with."""
    text = (ROOT / "requirements-test.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.M))


def test_packages_are_the_images(installed: dict[str, str]) -> None:
    dockerfile = (ROOT / "files/api/Dockerfile").read_text(encoding="utf-8")
    names = set(re.findall(r"\bpython3-([a-z0-9-]+)", dockerfile)) | {"sqlalchemy"}
    assert {name: locked().get(name) for name in names - OTHERS.keys()} == {
        name: installed.get(name) for name in names - OTHERS.keys()
    }
    assert {name: installed.get(name) for name in OTHERS} == OTHERS
