"""The engine that site.yml gave the machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testinfra.host import Host


@pytest.mark.parametrize("name", ["docker.io", "docker-cli", "docker-compose", "docker-buildx"])
def test_package_is_debians(host: Host, name: str) -> None:
    package = host.package(name)
    assert package.is_installed
    assert "Debian" in host.check_output("dpkg-query -W -f '${Maintainer}' %s", name)


def test_service_runs_now_and_at_every_boot(host: Host) -> None:
    docker = host.service("docker")
    assert docker.is_running
    assert docker.is_enabled


def test_running_engine_has_its_configuration(host: Host) -> None:
    """What the file says is what the engine goes by: it was restarted after the last change."""
    with host.sudo():
        written = json.loads(host.file("/etc/docker/daemon.json").content_string)
        info = json.loads(host.check_output("docker info --format '{{json .}}'"))
    assert written["live-restore"] is True
    assert info["LiveRestoreEnabled"] is True
    assert info["LoggingDriver"] == written["log-driver"]
    # The engine's own bridge, which the stack does not use, carries nothing between containers.
    assert written["icc"] is False
    with host.sudo():
        bridge = json.loads(host.check_output("docker network inspect bridge"))[0]
    assert bridge["Options"]["com.docker.network.bridge.enable_icc"] == "false"


def test_nobody_but_root_reaches_the_engine(host: Host) -> None:
    """Who reaches its socket is root: no user was added to its group."""
    assert host.check_output("id -u") != "0"
    assert host.run("docker ps").rc != 0
    assert host.group("docker").members == []
    socket = host.file("/run/docker.sock")
    assert (socket.user, socket.mode) == ("root", 0o660)
