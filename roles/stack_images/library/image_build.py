#!/usr/bin/python
"""Ansible module: build images in a scratch directory, one run at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_build
short_description: Build images in a scratch directory, one run at a time
description:
  - Runs the commands in a new directory that holds the files, and removes the directory.
  - Does nothing where the engine has all of the images.
  - Whoever comes while another run builds on this machine waits for it, and finds its images.
    What a killed run left is removed by the next build.
options:
  directory:
    description: The scratch directory. The one that it is in is locked while this builds.
    type: path
    required: true
  files:
    description: Text files that the commands read.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Path below the directory., type: str, required: true}
      content: {description: The whole text., type: str, required: true}
      mode: {description: Octal mode as a string., type: str, default: "0644"}
  images:
    description: References of the images that the commands build.
    type: list
    elements: str
    required: true
  commands:
    description: Lists of arguments. The first command that fails is the last.
    type: list
    elements: list
    required: true
attributes:
  check_mode: {support: none}
"""

RETURN = r"""
cmd:
  description: The command that failed, with its C(rc), C(stdout) and C(stderr).
  returned: failure
  type: list
  elements: str
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.root_cause import root_cause


def hold(directory: Path) -> int:
    """Wait until nobody else holds the directory; return the descriptor that holds it now."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


@contextmanager
def scratch(directory: Path, files: list[dict[str, Any]]) -> Iterator[None]:
    """Make the directory anew with the files in it; remove it on the way out."""
    if directory.exists():
        shutil.rmtree(directory)
    try:
        # Bootstrapping Debian drops privileges in there.
        directory.mkdir(mode=0o755)
        for file in files:
            path = directory / file["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file["content"], encoding="utf-8", newline="")
            path.chmod(int(file["mode"], 8))
        yield
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(module: AnsibleModule, command: list[str], directory: Path, lock: int) -> None:
    """Run the command in the directory; fail with the cause where it does."""
    code, out, err = module.run_command(
        command,
        cwd=str(directory),
        environ_update={"TMPDIR": str(directory)},
        expand_user_and_vars=False,
        # If this is killed, the lock lives as long as what it started.
        pass_fds=[lock],
    )
    if code != 0:
        cause = root_cause(err.strip() or out, f"exit status {code}")
        module.fail_json(msg=cause, cmd=command, rc=code, stdout=out, stderr=err)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "str", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                },
            },
            "images": {"type": "list", "elements": "str", "required": True},
            "commands": {"type": "list", "elements": "list", "required": True},
        }
    )
    directory = Path(module.params["directory"])
    try:
        lock = hold(directory.parent)
        found = module.run_command(["docker", "image", "inspect", *module.params["images"]])[0]
        if found == 0:
            module.exit_json(changed=False)
        with scratch(directory, module.params["files"]):
            for command in module.params["commands"]:
                run(module, command, directory, lock)
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
