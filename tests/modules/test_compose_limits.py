"""compose_services takes back what docker update changed, by the real engine's word."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ROOT, Module, Result, docker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

module = Module(ROOT / "roles/stack_deploy/library/compose_services.py")
PROJECT = "stackyard-limits"
COMPOSE = """
name: stackyard-limits
services:
  held:
    image: {image}
    init: true
    command: [sleep, "600"]
    network_mode: none
    restart: on-failure
    stop_grace_period: 0s
    deploy: {{resources: {{limits: {{memory: 64M, cpus: "0.5", pids: 50}}}}}}
  free:
    image: {image}
    init: true
    command: [sleep, "600"]
    network_mode: none
    stop_grace_period: 0s
  exact:
    image: {image}
    init: true
    command: [sleep, "600"]
    network_mode: none
    mem_limit: 64M
    memswap_limit: 96M
    stop_grace_period: 0s
"""
MEBIBYTE = 2**20


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """Start a project of containers with limits, without, and with a limit on swap of its own."""
    images = docker("image", "ls", "--quiet", "--filter", "reference=stackyard/base")
    assert images, "no image to start: make up INVENTORY=tests/inventory.yml first"
    file = tmp_path / "docker-compose.yml"
    file.write_text(COMPOSE.format(image=images.split()[0]))
    compose = ("compose", "--project-directory", str(tmp_path))
    try:
        docker(*compose, "up", "--detach", "--quiet-pull")
        yield tmp_path
    finally:
        docker(*compose, "down", "--volumes", "--timeout", "0")


def look(project: Path, **more: Any) -> Result:
    """Run the module on the project."""
    files = ["docker-compose.yml"]
    return module(directory=str(project), project=PROJECT, files=files, **more)


def host_config(service: str) -> dict[str, Any]:
    """Return how the engine holds a service's container."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", f"{PROJECT}-{service}-1"))
    return found[0]["HostConfig"] | {"started": found[0]["State"]["StartedAt"]}


def update(service: str, *options: str) -> None:
    """Change a container's limits by hand."""
    docker("update", *options, f"{PROJECT}-{service}-1")


def drift(result: Result) -> dict[str, Any]:
    """Return what drifted, by service."""
    return {each["service"]: each["drift"] for each in result.answer["containers"] if each["drift"]}


def test_new_containers_have_not_drifted(project: Path) -> None:
    result = look(project)
    assert (drift(result), result.answer["settled"]) == ({}, True)


@pytest.mark.parametrize(("options", "found"), [
    (["--memory=48m", "--memory-swap=48m"], {"memory": 48, "memory-swap": 48}),
    (["--memory=512m", "--memory-swap=1g"], {"memory": 512, "memory-swap": 1024}),
    (["--memory-swap=-1"], {"memory-swap": -1}),
    (["--memory=100m", "--memory-swap=-1"], {"memory": 100, "memory-swap": -1}),
])  # fmt: skip
def test_memory_and_swap_are_reconciled_to_those_of_a_new_container(
    project: Path, options: list[str], found: dict[str, int]
) -> None:
    before = host_config("held")
    update("held", *options)
    wanted = {"memory": 64 * MEBIBYTE, "memory-swap": 128 * MEBIBYTE}
    shown = {name: number if number < 0 else number * MEBIBYTE for name, number in found.items()}
    assert drift(look(project)) == {
        "held": {name: [str(number), str(wanted[name])] for name, number in shown.items()}
    }
    result = look(project, mend=True, wait=5)
    assert result.changed
    assert (drift(result), result.answer["settled"]) == ({}, True)
    assert host_config("held") == before
    assert not look(project, mend=True, wait=5).changed


def test_limit_on_swap_of_the_files_is_kept(project: Path) -> None:
    update("exact", "--memory=64m", "--memory-swap=128m")
    assert drift(look(project)) == {"exact": {"memory-swap": ["134217728", "100663296"]}}
    look(project, mend=True, wait=5)
    assert host_config("exact")["MemorySwap"] == 96 * MEBIBYTE


def test_cpus_processes_and_restart_policy_are_reconciled(project: Path) -> None:
    before = host_config("held"), host_config("free")
    update("held", "--cpus=0.25", "--pids-limit=9", "--restart=always")
    update("free", "--pids-limit=9", "--restart=always")
    assert set(drift(look(project))["free"]) == {"pids-limit", "restart"}
    assert look(project, mend=True, wait=5).answer["settled"]
    held, free = host_config("held"), host_config("free")
    # To the engine, no limit and a limit that was taken back are two ways to say the same.
    assert [held, free | {"PidsLimit": None}] == [before[0], before[1] | {"PidsLimit": None}]
    assert not free["PidsLimit"]


def test_limit_that_no_update_takes_back_makes_a_container_outdated(project: Path) -> None:
    """0 leaves what there is, so that it takes a new one, which is announced like any other."""
    options = {"memory": "64m", "cpus": "0.5", "cpu-shares": "512", "memory-reservation": "32m"}
    options |= {"cpuset-cpus": "0", "cpuset-mems": "0"}
    update("free", *(f"--{name}={value}" for name, value in options.items()), "--memory-swap=64m")
    found = look(project, mend=True)
    assert set(drift(found)["free"]) == {*options, "memory-swap"}
    assert found.answer["outdated"] == {"free": [f"{PROJECT}-free-1"]}
    assert not found.answer["settled"]
    failed = look(project, mend=True, wait=1).message
    assert failed.startswith("after 1 s, not all is as the files say: stackyard-limits-free-1: ")
    assert f"{PROJECT}-free-1 is outdated" in failed


def test_engine_that_refuses_a_limit_is_quoted_first(project: Path) -> None:
    """With more in memory than the limit: what the kernel says, and how to go on."""
    update("held", "--memory=512m", "--memory-swap=1g")
    fill = "(head -c 100000000 /dev/zero; sleep 20) | tail >/dev/null"
    docker("exec", "--detach", f"{PROJECT}-held-1", "sh", "-c", fill)
    subprocess.run(["sleep", "2"], check=True)
    message = look(project, mend=True, wait=30).message
    assert message.startswith(
        f"The limits of {PROJECT}-held-1 cannot be reconciled: docker update: Error response from"
        " daemon: Cannot update container "
    )
    assert "memory" in message.partition("Cannot update container")[2]
    assert message.endswith(
        f" To replace it, type: cd {project} && docker compose up -d --force-recreate held"
    )


def test_stopped_and_missing_containers_would_start(project: Path) -> None:
    docker("stop", "--time=0", f"{PROJECT}-free-1")
    docker("rm", "--force", f"{PROJECT}-held-1")
    assert look(project).answer["starts"] == {"free": 1, "held": 1}
    file = project / "docker-compose.yml"
    file.write_text(file.read_text().replace("  exact:", "  other:"))
    assert look(project).answer["removes"] == [f"{PROJECT}-exact-1"]
