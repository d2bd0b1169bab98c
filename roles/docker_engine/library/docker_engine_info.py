#!/usr/bin/python
"""Ansible module: what Docker Engine this machine has, and what the machine can carry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine_info
short_description: What Docker Engine this machine has, and what the machine can carry
description:
  - Answers in one execution what a run has to know of a machine before it changes anything.
  - Changes nothing itself.
options:
  daemon_config:
    description: The engine's configuration file.
    type: path
    default: /etc/docker/daemon.json
attributes:
  check_mode: {support: full}
"""

RETURN = r"""
engine:
  description:
    - C(version), empty where no engine is installed.
    - C(answers), whether it answers on its socket.
    - C(enabled), whether a service manager starts it at boot; true where there is none.
    - C(root), its data directory; C(swarm), whether it is part of a swarm.
    - C(from_debian), whether it is Debian's own package.
    - C(outdated), whether the running engine is older than its configuration file.
  returned: always
  type: dict
plugins:
  description: Versions of the C(compose) and C(buildx) plugins, empty where missing.
  returned: always
  type: dict
daemon_config:
  description: The parsed configuration file, empty where there is none.
  returned: always
  type: dict
daemon_config_error:
  description: Why the configuration file cannot be read, empty where it can.
  returned: always
  type: str
machine:
  description:
    - C(cores) that this machine has, its memory (C(memory_bytes)), the room where the engine keeps
      its data (C(free_bytes)), and whether dpkg was killed in the middle of its work
      (C(dpkg_interrupted)).
  returned: always
  type: dict
"""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def version_in(text: str) -> str:
    """Return the first dotted version number in a program's output, or an empty string."""
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found.group(0) if found else ""


def output_of(module: AnsibleModule, *command: str) -> str:
    """Return what the command prints, or an empty string where it does not exist."""
    return module.run_command(list(command))[1] if shutil.which(command[0]) else ""


def free_bytes(path: Path) -> int:
    """Return the free bytes of the file system that holds, or will hold, the path."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def is_enabled(module: AnsibleModule) -> bool:
    """Tell whether the service manager starts the engine at boot; true where there is none."""
    if not Path("/run/systemd/system").is_dir():
        return True
    return output_of(module, "systemctl", "is-enabled", "docker.service").strip() == "enabled"


def is_outdated(config: Path) -> bool:
    """Tell whether the file was written after the running engine wrote its process number."""
    started = Path("/run/docker.pid")
    if not (config.exists() and started.exists()):
        return False
    return config.stat().st_mtime > started.stat().st_mtime


def engine_info(module: AnsibleModule, about: dict[str, Any], config: Path) -> dict[str, Any]:
    """Describe the engine: the running one where it answers, else the installed one."""
    running = about.get("ServerVersion", "")
    return {
        "version": version_in(running or output_of(module, "dockerd", "--version")),
        "answers": bool(running),
        "enabled": is_enabled(module),
        "root": about.get("DockerRootDir") or "/var/lib/docker",
        "swarm": about.get("Swarm", {}).get("LocalNodeState", "") not in ("", "inactive"),
        "from_debian": Path("/var/lib/dpkg/info/docker.io.list").exists(),
        "outdated": bool(running) and is_outdated(config),
    }


def read_daemon_config(path: Path) -> tuple[dict[str, Any], str]:
    """Return the parsed file and an empty string, or an empty mapping and what is wrong."""
    try:
        config = json.loads(path.read_text(encoding="utf-8").strip() or "{}")
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"{path}: {error.strerror}"
    except ValueError as error:
        return {}, f"{path}: {error}"
    if not isinstance(config, dict):
        return {}, f"{path} holds a {type(config).__name__}, not an object"
    return config, ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"daemon_config": {"type": "path", "default": "/etc/docker/daemon.json"}},
        supports_check_mode=True,
    )
    # Without an engine that answers, this still prints what the client has.
    about = json.loads(output_of(module, "docker", "info", "--format", "{{json .}}") or "{}")
    config_file = Path(module.params["daemon_config"])
    engine = engine_info(module, about, config_file)
    client = about.get("ClientInfo") or {}
    installed = {plugin["Name"]: plugin for plugin in client.get("Plugins") or []}
    config, error = read_daemon_config(config_file)
    page_size = os.sysconf("SC_PAGE_SIZE")
    module.exit_json(
        changed=False,
        engine=engine,
        plugins={
            name: version_in(installed.get(name, {}).get("Version", ""))
            for name in ("compose", "buildx")
        },
        daemon_config=config,
        daemon_config_error=error,
        machine={
            "cores": about.get("NCPU") or os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * page_size,
            "free_bytes": free_bytes(Path(engine["root"])),
            "dpkg_interrupted": any(Path("/var/lib/dpkg/updates").glob("[0-9]*")),
        },
    )


if __name__ == "__main__":
    main()
