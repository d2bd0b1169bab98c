"""Check mode went through on a bare machine, and the machine is as bare as before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testinfra.host import Host


@pytest.mark.parametrize("name", ["docker.io", "docker-compose", "mmdebstrap"])
def test_nothing_was_installed(host: Host, name: str) -> None:
    assert host.package("openssh-server").is_installed
    assert not host.package(name).is_installed


@pytest.mark.parametrize("path", ["/opt/stackyard", "/etc/docker", "/var/cache/stackyard"])
def test_nothing_was_written(host: Host, path: str) -> None:
    with host.sudo():
        assert host.file("/etc/sudoers").exists
        assert not host.file(path).exists
