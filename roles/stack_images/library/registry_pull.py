#!/usr/bin/python
"""Ansible module: pull images from a registry that is forwarded to this machine's loopback."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_pull
short_description: Pull images from a registry that is forwarded to this machine's loopback
description:
  - Pulls each image by its digest, so that whoever may listen on that port can give no other, and
    gives it the name that it has where it was built. No name of the registry stays.
  - Its action opens the way for as long as this takes, and gives O(port); see there.
options:
  port:
    description: Port of loopback at which the registry answers. 0 asks for a free one.
    type: int
    default: 0
  images:
    description: Digests by the reference that each image is to have.
    type: dict
    default: {}
  prefix:
    description: First part of their names in the registry.
    type: str
    required: true
  builder:
    description: For the action, the machine that has the store.
    type: str
  store:
    description: For the action, the store's directory there.
    type: path
attributes:
  check_mode: {support: none}
"""

RETURN = r"""
port: {description: A port of loopback that nobody listens on., type: int, returned: if asked}
"""

import re
import socket
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.root_cause import root_cause

LISTENING = "0A"
WAY = re.compile(r"127\.0\.0\.1:\d+")
# A killed run's are one after another.
PULLS_JOINED = 4
# As the kernel writes 127.0.0.1 and ::1.
LOOPBACK = ("0100007F", f"{'0' * 24}01000000")


class PullError(Exception):
    """Something that a person has to mend."""


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def listeners(port: int) -> list[str]:
    """Return the addresses at which somebody listens on the port, as the kernel writes them."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = Path(table)
        for line in path.read_text("ascii").splitlines()[1:] if path.exists() else []:
            _, local, _, state = line.split()[:4]
            address, _, number = local.partition(":")
            if state == LISTENING and int(number, 16) == port:
                found.append(address)
    return found


def require_loopback(port: int) -> None:
    """Raise PullError unless the way ends at loopback and nowhere else."""
    found = listeners(port)
    if not found:
        raise PullError(
            f"SSH opened no way to 127.0.0.1:{port}. Should its settings say ClearAllForwardings,"
            " take that out, or send archives, -e stack_images_distribution=archive"
        )
    if not set(found) <= set(LOOPBACK):
        raise PullError(
            "sshd opens forwarded ports to the network, and images are sent through one:"
            " GatewayPorts is yes. Set it to no in /etc/ssh/sshd_config and reload sshd,"
            " or send archives, -e stack_images_distribution=archive"
        )


class Engine:
    """The machine's engine, by its command."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take what runs commands."""
        self._module = module

    def __call__(self, *arguments: str) -> str:
        """Run a docker command; return its output, or raise PullError with the cause."""
        code, out, err = self._module.run_command(["docker", *arguments])
        if code != 0:
            cause = root_cause(err.strip() or out, f"exit status {code}")
            raise PullError(f"docker {' '.join(arguments[:2])}: {cause}")
        return str(out)

    def forget(self, prefix: str) -> None:
        """Remove the names that images were pulled by, those of killed runs too."""
        form = "{{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}"
        names = self("image", "ls", "--digests", "--format", form).split()
        ours = re.compile(rf"127\.0\.0\.1:\d+/{re.escape(prefix)}/")
        for name in sorted(set(names)):
            if ours.match(name) and not name.endswith("<none>"):
                self("image", "rm", name)


def pull_one(engine: Engine, registry: str, name: str) -> None:
    """Pull an image.

    The pull of a run that was killed goes on in the engine for most of a minute, by a way that is
    gone, and one of the same layer joins it and fails with it.
    """
    for _ in range(PULLS_JOINED):
        try:
            engine("pull", "--quiet", name)
        except PullError as error:
            ways = set(WAY.findall(str(error)))
            if not ways or registry in ways:
                raise
        else:
            return
    engine("pull", "--quiet", name)


def pull(engine: Engine, registry: str, images: dict[str, str], prefix: str) -> None:
    """Pull each image and name it.

    All are here before the first has its name, and what they were pulled by goes last: from either,
    the next run sees that this one did not come to its end.
    """
    names = {
        reference: f"{registry}/{prefix}/{reference.rpartition(':')[0]}@{digest}"
        for reference, digest in images.items()
    }
    for name in names.values():
        pull_one(engine, registry, name)
    for reference, name in names.items():
        engine("image", "tag", name, reference)
    engine.forget(prefix)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "port": {"type": "int", "default": 0},
            "images": {"type": "dict", "default": {}},
            "prefix": {"type": "str", "required": True},
        }
    )
    port, images = module.params["port"], module.params["images"]
    if not port:
        module.exit_json(changed=False, port=free_port())
    try:
        require_loopback(port)
        if images:
            pull(Engine(module), f"127.0.0.1:{port}", images, module.params["prefix"])
    except PullError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(images))


if __name__ == "__main__":
    main()
