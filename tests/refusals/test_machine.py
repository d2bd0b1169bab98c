"""A machine that cannot be provisioned is refused, and told what it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import Case, variables

if TYPE_CHECKING:
    from .conftest import Attempt

PROD = variables(env="prod")
# Something to build on the machine, which is what room and mirrors are needed for.
BUILDING = variables(env="prod", stack_images_edition="refusals", stack_images_distribution="local")
WITHOUT_ENGINE = "mount --bind /dev/null /usr/bin/docker; mount --bind /dev/null /usr/sbin/dockerd"


def daemon_json(name: str, content: str, reason: str) -> Case:
    """Return a case with an unreadable daemon.json; the content is one for printf."""
    return Case(
        f"daemon.json {name}",
        PROD,
        [["/etc/docker/daemon.json", reason, "Mend that file"]],
        worse=f"own /etc/docker; printf '{content}' >/etc/docker/daemon.json",
    )


CASES = [
    daemon_json("with a comma too many", '{"live-restore": true,}', "line 1"),
    daemon_json("with a list", '["live-restore"]', "holds a list, not an object"),
    daemon_json("in no encoding", r"\377", "utf-8"),
    Case("another system without an engine", PROD,
         [["Ubuntu 20.04 has Docker Engine none, Compose none, Buildx none",
           "or use Debian 12 or 13"]],
         worse=f"""
           {WITHOUT_ENGINE}
           # Debian's own mark is among what Ansible goes by.
           own /etc; rm /etc/os-release
           printf '%s\\n' NAME=Ubuntu ID=ubuntu ID_LIKE=debian VERSION_ID=20.04 >/etc/os-release
         """),
    Case("an old engine that is not Debian's",
         variables(env="prod", docker_engine_minimum_version="99.0"),
         [["This machine's Docker Engine ", "is not Debian's package, and Engine 99.0", "Upgrade"]],
         worse="own /var/lib/dpkg/info; rm /var/lib/dpkg/info/docker.io.list"),
    Case("no root and no sudo", PROD,
         [["this user is neither root nor allowed sudo", "ansible-playbook -K"]],
         worse="own /etc/sudoers.d; rm /etc/sudoers.d/*"),
    Case("no Python", PROD,
         [["has no /usr/bin/python3 that runs (", "apt-get install python3"]],
         worse='mount --bind /dev/null "$(readlink -f /usr/bin/python3)"'),
    Case("a Python that is not there",
         variables(env="prod", ansible_python_interpreter="/usr/bin/python-none"),
         [["has no /usr/bin/python-none that runs (", "apt-get install python3"]]),
    Case("too little memory",
         variables(env="prod", stack_compose_minimum_memory_bytes="10000000000000000"),
         [["This machine has ", "the stack takes 8.88 PB", "larger machine"]]),
    Case("too little room", BUILDING,
         [["100.00 MB are free", "building them takes 2.79 GB", "docker system df"]],
         worse="mount -t tmpfs -o size=100m tmpfs /var/lib/docker"),
    Case("apt's mirror out of reach", BUILDING,
         [["The mirror http://127.0.0.1:9/", " cannot be reached from ", "its apt sources"]],
         worse="""
           own /etc/apt
           find /etc/apt -name '*.list' -o -name '*.sources' |
             xargs sed -i -E 's#https?://[^ /]+#http://127.0.0.1:9#'
         """),
    Case("apt without a mirror", BUILDING,
         [["apt on ", " (Debian 1", "names no Debian mirror", "stack_images_mirrors"]],
         worse="own /etc/apt; rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*"),
    Case("a given mirror out of reach",
         [*BUILDING, *variables(stack_images_mirrors={"main": "http://127.0.0.1:9/debian"})],
         [["The mirror http://127.0.0.1:9/debian cannot be reached from ", "refused"]]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_machine_that_cannot_carry_the_stack_is_refused(case: Case, attempt: Attempt) -> None:
    attempt(case).assert_refused()
