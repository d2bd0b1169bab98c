"""A build host that cannot build is refused, and where nothing is to be built, it is not asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import Case, variables

if TYPE_CHECKING:
    from .conftest import Attempt

# The lab machine is the build host too, under another name: so that what makes it worse makes both.
BUILD_HOST = "lab2"


def build_host(
    name: str,
    says: list[list[str]],
    *,
    worse: str = "",
    port: int | None = None,
    host: str = BUILD_HOST,
    **values: object,
) -> Case:
    """Return a case in which images that nobody has are to be shipped to lab1."""
    given = {
        "stack_images_distribution": "archive",
        "stack_images_build_host": host,
        "stack_images_edition": "refusals",
    }
    limit = ["--limit=lab1,localhost", "--tags=always"]
    fleet = ({}, {"ansible_port": port} if port else {})
    arguments = [*variables(env="prod", **(given | values)), *limit]
    return Case(name, arguments, says, fleet=fleet, worse=worse)


NOBODYS_PORT = 9
WITHOUT_ENGINE = "mount --bind /dev/null /run/docker.sock"
OTHER_KIND = r"""
  own /usr/sbin
  mount -o remount,bind,exec /usr/sbin
  mv /usr/sbin/sshd /usr/sbin/sshd-itself
  printf '#!/bin/sh\nexec setarch linux32 /usr/sbin/sshd-itself "$@"\n' >/usr/sbin/sshd
  chmod 0755 /usr/sbin/sshd
"""
NO_FORWARDS = "own /etc/ssh; sed -i '1i AllowTcpForwarding no' /etc/ssh/sshd_config"
OPEN_FORWARDS = "own /etc/ssh; sed -i '1i GatewayPorts yes' /etc/ssh/sshd_config"
# A machine that never asked its mirrors, and without the program, should it have that.
WITHOUT_REGISTRY = """
  mount -t tmpfs tmpfs /var/lib/apt/lists
  if [ -e /usr/bin/docker-registry ]; then mount --bind /dev/null /usr/bin/docker-registry; fi
  if [ -e /var/lib/dpkg/info/docker-registry.list ]; then
    own /var/lib/dpkg
    sed -i '/^Package: docker-registry$/,/^$/d' /var/lib/dpkg/status
  fi
"""

CASES = [
    build_host("build host without an engine",
               [[f"built on {BUILD_HOST}, where no Docker Engine answers (", "the Docker daemon",
                 "make up ARGS='--tags docker_engine'", "-e stack_images_build_host="]],
               worse=WITHOUT_ENGINE),
    build_host("build host without the tool that bootstraps",
               [[f"built on {BUILD_HOST}, which lacks", "apt-get install docker-buildx mmdebst"]],
               worse="mount --bind /dev/null /usr/bin/mmdebstrap"),
    # To programs that come this way the machine is a 32-bit one. Its engine knows better.
    build_host("build host of another kind",
               [[f"{BUILD_HOST} builds images for ", ", and lab1 is ", "distribution=local"]],
               worse=OTHER_KIND),
    build_host("registry and an sshd that forwards nothing",
               [["sshd forwards no port", "AllowTcpForwarding to yes in", "tion=archive"]],
               worse=NO_FORWARDS, stack_images_distribution="registry"),
    build_host("registry and an sshd that forwards for everybody",
               [["to the network", "GatewayPorts is yes", "no in /etc/ssh", "tion=archive"]],
               worse=OPEN_FORWARDS, stack_images_distribution="registry"),
    build_host("build host that can have no registry",
               [[f"{BUILD_HOST} is to send images by Debian's docker-registry, and cannot",
                 "(E: Unable to locate package", "apt-get update", "tion=archive"]],
               worse=WITHOUT_REGISTRY, stack_images_distribution="registry"),
]  # fmt: skip

NOT_ASKED = [
    build_host("images from elsewhere", [], port=NOBODYS_PORT,
               stack_images_refs={name: f"{name}:1" for name in
                                  ("gateway", "frontend", "api", "database", "cache")}),
    build_host("build host that builds for itself", [], host="lab1"),
]  # fmt: skip

GOOD = [
    build_host("good build host", []),
    build_host("good build host for a registry", [], stack_images_distribution="registry"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_build_host_that_cannot_build_is_refused(case: Case, attempt: Attempt) -> None:
    attempt(case).assert_refused()


@pytest.mark.parametrize("case", NOT_ASKED, ids=str)
def test_build_host_is_not_asked_where_it_has_nothing_to_do(case: Case, attempt: Attempt) -> None:
    outcome = attempt(case)
    assert outcome.run.code == 0, outcome.run.output
    outcome.assert_nothing_altered()
    assert "Build host |" not in outcome.run.output


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_good_build_host_is_not_refused(case: Case, attempt: Attempt) -> None:
    # Else whatever is wrong with this machine could pass for a refusal.
    outcome = attempt(case)
    assert outcome.run.code == 0, outcome.run.output
    outcome.assert_nothing_altered()
    assert f"[lab1 -> {BUILD_HOST}" in outcome.run.output
