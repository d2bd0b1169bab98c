#!/usr/bin/python
"""Ansible module: hold a machine's stack for one run at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_lock
short_description: Hold a machine's stack for one run at a time
description:
  - A file that says who changes the stack, since when and for what. It is below C(/run), so that no
    reboot leaves one.
  - The action plugin of the same name fills in O(holder), and tells whether the run that holds the
    lock is still there. Use that; this module alone only answers who holds it.
options:
  lock: {description: The lock's file., type: path, required: true}
  state:
    description: C(held) takes it, C(free) gives back one's own, C(shown) changes nothing.
    type: str
    choices: [held, free, shown]
    default: held
  holder:
    description: Who takes it. C(run) tells one run from all others.
    type: dict
    default: {}
  instead_of:
    description: The C(run) whose lock may be taken over.
    type: str
    default: ""
attributes:
  check_mode: {support: full}
"""

RETURN = r"""
holder:
  description: Who holds the lock, if it is somebody else.
  type: dict
  returned: always
seconds: {description: For how long., type: int, returned: always}
"""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def read(path: Path) -> dict[str, Any]:
    """Who holds the lock; nothing where nobody does, or where the file names no run."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    run = holder.get("run") if isinstance(holder, dict) else None
    return holder if run and isinstance(run, str) else {}


def write(path: Path, holder: dict[str, Any]) -> None:
    """Write the lock, whole or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(holder) + "\n", encoding="utf-8")
    temporary.replace(path)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "lock": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["held", "free", "shown"], "default": "held"},
            "holder": {"type": "dict", "default": {}},
            "instead_of": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    path, mine = Path(module.params["lock"]), module.params["holder"]
    state = "shown" if module.check_mode else module.params["state"]
    # Two runs may look at the same moment.
    guard = os.open(path.with_name(f"{path.name}.guard"), os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(guard, fcntl.LOCK_EX)
    found = read(path)
    others = bool(found) and found.get("run") != mine.get("run")
    seconds = int(time.time() - path.stat().st_mtime) if found else 0
    if state == "held" and (not others or found.get("run") == module.params["instead_of"]):
        write(path, mine)
        others = False
    elif state == "free" and found and not others:
        path.unlink()
    # Of no interest to who reads what a run changed: it is gone when the run is.
    module.exit_json(changed=False, holder=found if others else {}, seconds=seconds)


if __name__ == "__main__":
    main()
