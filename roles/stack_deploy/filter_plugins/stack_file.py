"""Filters: what `docker stack deploy` takes, from what `docker compose config` made of the files.

That command ignores what it does not know, most of it without a word. So what is not known here is
refused: a promise that holds on one machine would quietly not hold on a swarm.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ansible.errors import AnsibleFilterError

# What it heeds of a service.
HEEDED = {
    *("cap_add", "cap_drop", "command", "deploy", "dns", "dns_search", "entrypoint", "environment"),
    *("extra_hosts", "healthcheck", "hostname", "image", "init", "labels", "logging", "networks"),
    *("ports", "read_only", "secrets", "stdin_open", "stop_grace_period", "stop_signal", "sysctls"),
    *("tty", "ulimits", "user", "volumes", "working_dir"),
}
HEEDED_OF_ALL = {"name", "services", "networks", "volumes", "secrets"}
# Where Swarm has no such thing, docs/swarm.md says what takes its place.
WITHOUT = {"container_name", "depends_on", "restart", "security_opt", "shm_size", "tmpfs"}
# An on-failure would leave a container down that its machine's shutdown ended well.
RESTART = {"condition": "any", "delay": "1s"}
# Of its secrets and configs, whose names end with a version.
NAME = re.compile("[A-Za-z0-9._-]+")
LONGEST_NAME = 64
VERSION_DIGITS = len("20260102030405") + len("678")


class File(NamedTuple):
    """A file of the project that becomes a secret or config."""

    path: PurePosixPath
    mode: int
    # Neither can be changed, so each change makes another one.
    version: str

    @property
    def key(self) -> str:
        """Its name within the stack file."""
        return "_".join(self.path.parts[-2:])


def read_files(directory: str, listing: list[str]) -> list[File]:
    """Return the files of a listing: path, octal mode and time of the last change."""
    files = []
    for line in listing:
        name, mode, changed = line.rsplit(" ", 2)
        seconds, _, fraction = changed.partition(".")
        version = f"{seconds}{fraction[:3]}"
        files.append(File(PurePosixPath(directory, name), int(mode, 8), version))
    return files


def private_tmpfs(entry: str) -> dict[str, Any]:
    """Return a tmpfs mount of Swarm's, which knows a size and no owner."""
    target, _, options = entry.partition(":")
    size = dict(option.partition("=")[::2] for option in options.split(",")).get("size", "")
    return {"type": "tmpfs", "target": target, "tmpfs": {"size": in_bytes(size)}}


def in_bytes(size: str) -> int:
    """Return a size with k, m or g in bytes."""
    units = {"k": 1024, "m": 1024**2, "g": 1024**3}
    return int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size)


class StackFile:
    """A stack file in the making, from Compose's model and the files that it mounts."""

    def __init__(self, model: dict[str, Any], files: list[File]) -> None:
        """Take the model and the files."""
        self.project = model["name"]
        self.files = files
        self.configs: dict[str, dict[str, str]] = {}
        # A line each for what it cannot say.
        self.refusals = [
            f"The Compose files have {key}, which no swarm can be told: take that out."
            for key in model
            if model[key] and key not in HEEDED_OF_ALL and not key.startswith("x-")
        ]
        self.text = {
            "services": {
                name: self.service(name, {key: each for key, each in service.items() if each})
                for name, service in model["services"].items()
            },
            "networks": {
                name: {**network, "driver": "overlay", "driver_opts": driver_options(network)}
                for name, network in model.get("networks", {}).items()
            },
            "volumes": model.get("volumes", {}),
            "secrets": {
                name: self.secret(name, each) for name, each in model.get("secrets", {}).items()
            },
            "configs": self.configs,
        }

    def secret(self, name: str, about: dict[str, Any]) -> dict[str, str]:
        """Return a secret, which is a file's content."""
        path = about.get("file", "")
        for file in self.files:
            if str(file.path) == path:
                return self.versioned(file, file.path.name)
        self.refusals.append(f"The secret {name} has no file {path}: make up writes all there are.")
        return {}

    def versioned(self, file: File, name: str) -> dict[str, str]:
        """Return a file as a secret or config, by a name that no other file has."""
        if not NAME.fullmatch(file.path.name):
            self.refusals.append(
                f"{file.path} has a name of which a swarm takes letters, digits, dots, dashes and "
                "underscores alone: rename or remove that file."
            )
        elif len(versioned_name(self.project, name, file.version)) > LONGEST_NAME:
            most = LONGEST_NAME - len(versioned_name(self.project, "", file.version))
            self.refusals.append(
                f"{file.path} makes the name {name}, and with stack_project={self.project} a "
                f"swarm takes {most} characters: rename or remove that file."
            )
        return {
            "file": str(file.path),
            "name": versioned_name(self.project, name, file.version),
        }

    def check(self, name: str, service: dict[str, Any]) -> None:
        """Note what of a service no swarm can be told."""
        self.refusals += [
            f"{name} has {key} in the Compose files, which no swarm can be told: take that out."
            for key in service
            if key not in HEEDED | WITHOUT
        ]
        self.refusals += [
            f"{name} publishes port {port['published']} on {port['host_ip']}, and a swarm does on "
            "every address of a node: publish it on 0.0.0.0."
            for port in service.get("ports", [])
            if port.get("host_ip", "0.0.0.0") != "0.0.0.0"
        ]
        if "user" not in service:
            self.refusals.append(f"{name} has no user in the Compose files, who reads its secrets.")

    def service(self, name: str, service: dict[str, Any]) -> dict[str, Any]:
        """Return a service."""
        self.check(name, service)
        mounts = service.get("volumes", [])
        configs = {id(mount): self.inside(mount) for mount in mounts}
        pinned = service.get("deploy", {}).get("placement", {}).get("constraints")
        self.refusals += [
            f"{name} mounts {mount['source']}, and may run on a node that has no such directory: "
            "have a constraint say which has."
            for mount in mounts
            if mount["type"] == "bind" and not configs[id(mount)] and not pinned
        ]
        uid, _, gid = service.get("user", "").partition(":")
        return {
            **{name: value for name, value in service.items() if name not in WITHOUT},
            "deploy": deploy(service.get("deploy", {})),
            "ports": [
                {**without(port, "host_ip"), "published": int(port["published"]), "mode": "host"}
                for port in service.get("ports", [])
            ],
            # A secret's reader is its service's user.
            "secrets": [
                {**secret, "uid": uid, "gid": gid, "mode": 0o400}
                for secret in service.get("secrets", [])
            ],
            "configs": [
                {
                    "source": file.key,
                    "target": f"{mount['target']}/{file.path.name}",
                    "mode": file.mode,
                }
                for mount in mounts
                for file in configs[id(mount)]
            ],
            "volumes": [
                *(without(mount, "bind") for mount in mounts if not configs[id(mount)]),
                *(private_tmpfs(entry) for entry in service.get("tmpfs", [])),
            ],
        }

    def inside(self, mount: dict[str, Any]) -> list[File]:
        """Return the files of a mounted directory that become configs, and note them."""
        source = PurePosixPath(mount.get("source", ""))
        files = [
            file for file in self.files if mount["type"] == "bind" and file.path.parent == source
        ]
        self.configs |= {file.key: self.versioned(file, file.key) for file in files}
        return files


def versioned_name(project: str, name: str, version: str) -> str:
    """Return what a swarm calls a version of a secret or config."""
    return f"{project}_{name}-{version}"


def without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a mapping without one of its keys."""
    return {name: value for name, value in mapping.items() if name != key}


def driver_options(network: dict[str, Any]) -> dict[str, str]:
    """Return a network's options but the bridge's own."""
    options = network.get("driver_opts") or {}
    return {name: value for name, value in options.items() if ".bridge." not in name}


def deploy(deploy: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a service that is Swarm's own."""
    resources = {
        kind: {name: str(each) if name == "cpus" else each for name, each in amounts.items()}
        for kind, amounts in deploy.get("resources", {}).items()
    }
    return {"restart_policy": RESTART, **deploy, "resources": resources}


def stack_file(model: dict[str, Any], directory: str, listing: list[str]) -> dict[str, Any]:
    """Return the stack file for a Compose model.

    `listing` has a line for each config and secret of the project: its path below the directory,
    its octal mode, and when it was last changed, as digits and a fraction of a second.
    """
    if refusals := stack_refusals(model, directory, listing):
        raise AnsibleFilterError(" ".join(refusals))
    return StackFile(model, read_files(directory, listing)).text


def stack_refusals(model: dict[str, Any], directory: str, listing: list[str]) -> list[str]:
    """Return a line each for what of a Compose model no swarm can be told."""
    # One that two services share is refused once.
    return list(dict.fromkeys(StackFile(model, read_files(directory, listing)).refusals))


def longest_project(secrets: list[str]) -> int:
    """Return how long a project's name may be where files of these names become secrets."""
    longest = max(secrets, key=len, default="")
    return LONGEST_NAME - len(versioned_name("", longest, "0" * VERSION_DIGITS))


def with_replicas(services: dict[str, Any]) -> dict[str, Any]:
    """Return services with their numbers of replicas, as a release keeps them."""
    return {
        name: {**service, "replicas": service.get("deploy", {}).get("replicas", 1)}
        for name, service in services.items()
    }


class FilterModule:
    """The filters, for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "stack_file": stack_file,
            "stack_refusals": stack_refusals,
            "longest_project": longest_project,
            "with_replicas": with_replicas,
        }
