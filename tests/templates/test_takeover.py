"""What a deploy of this checkout would recreate of a stack that an earlier commit deployed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from .. import earlier
from .conftest import ROOT
from .swarm import environment

# What has one container each, so that recreating it interrupts the stack.
SINGLE = ("database", "cache", "gateway")
# Which of these is recreated since that commit, and why: the run says INTERRUPTION.
ANNOUNCED: dict[str, str] = {}
RENDER = Path(__file__).with_name("render_checkout.py")


@dataclass(frozen=True)
class Project:
    """A rendered project: its paths, and Compose's hash and reading of each service."""

    paths: set[str]
    hashes: dict[str, str]
    model: dict[str, Any]


def project(checkout: Path, env: str, directory: Path) -> Project:
    """Return what a checkout renders for an environment; the directory is made for it."""
    done = subprocess.run(
        # Of the modules that it names, the checkout's own, not those beside it.
        [sys.executable, "-P", RENDER, env],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": str(checkout),
            "ANSIBLE_CONFIG": str(checkout / "ansible.cfg"),
        },
    )
    assert done.returncode == 0, done.stderr
    rendered = json.loads(done.stdout.splitlines()[-1])
    # The directory is part of the hash.
    shutil.rmtree(directory, ignore_errors=True)
    for name, text in rendered["files"].items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    listed = compose(directory, env, "--hash", "*")
    return Project(
        {*rendered["files"], *rendered["directories"]},
        dict(line.split() for line in listed.splitlines()),
        json.loads(compose(directory, env, "--format", "json")),
    )


def compose(directory: Path, env: str, *words: str) -> str:
    """Return what `docker compose config` prints of a project."""
    files = ("-f", "docker-compose.yml", "-f", f"docker-compose.{env}.yml")
    done = subprocess.run(
        ["docker", "compose", *files, "config", *words],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env=environment(directory),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=["prod", "dev"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, Project]:
    """Return the project of the earlier commit and that of this checkout."""
    try:
        before = earlier.checkout()
    except earlier.MissingCommitError as error:
        pytest.fail(str(error), pytrace=False)
    directory = tmp_path_factory.mktemp("takeover") / "stack"
    return project(before, request.param, directory), project(ROOT, request.param, directory)


def test_database_cache_and_gateway_keep_their_hash_unless_announced(
    both: tuple[Project, Project],
) -> None:
    """Compose recreates a container exactly where its service's hash differs."""
    before, now = both
    assert set(SINGLE) <= set(before.hashes)
    recreated = {each for each in SINGLE if now.hashes.get(each) != before.hashes[each]}
    differences = {
        service: [
            f"{key}: {was.get(key)!r} -> {new.get(key)!r}"
            for was, new in [(before.model["services"][service], now.model["services"][service])]
            for key in sorted({*was, *new})
            if was.get(key) != new.get(key)
        ]
        for service in recreated
        if service in now.model["services"]
    }
    assert recreated == set(ANNOUNCED), differences


@pytest.mark.parametrize("kind", ["networks", "volumes", "secrets"])
def test_networks_volumes_and_secrets_are_the_same(
    both: tuple[Project, Project], kind: str
) -> None:
    """Another volume has no rows, and a network that changes takes all containers off it."""
    before, now = both
    assert before.model["name"] == now.model["name"]
    assert before.model[kind]
    missing = {
        name: about
        for name, about in before.model[kind].items()
        if now.model[kind].get(name) != about
    }
    assert missing == {}, f"of these {kind}, the current ones are {now.model[kind]}"


def test_containers_have_the_names_and_labels_that_they_had(both: tuple[Project, Project]) -> None:
    """People, backups and the watchdog find containers by these."""
    before, now = both
    for service, was in before.model["services"].items():
        new = now.model["services"][service]
        assert new.get("container_name") == was.get("container_name"), service
        assert (was.get("labels") or {}).items() <= (new.get("labels") or {}).items(), service


def test_files_keep_their_places(both: tuple[Project, Project]) -> None:
    """What is below stack_dir has the path that it had."""
    before, now = both
    assert before.paths
    assert before.paths - now.paths == set()
