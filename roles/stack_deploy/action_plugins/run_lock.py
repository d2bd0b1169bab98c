"""Action of run_lock: says who runs this, and whether who holds the lock is still there."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# A run on another controller cannot be looked at. This long without an end, it has had one.
LONGEST_SECONDS = 2 * 3600


def here() -> str:
    """Tell where process numbers mean the same: one boot of a machine, one container on it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot}-{Path('/proc/self/ns/pid').stat().st_ino}"


def began(process: int) -> str:
    """When a process began, in the kernel's ticks; empty where there is none of that number."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def this_run(purpose: str) -> dict[str, str]:
    """Describe the run of ansible-playbook that this is part of."""
    # Tasks run in children of its process.
    process = os.getppid()
    return {
        "run": f"{here()}/{process}/{began(process)}",
        "by": os.environ.get("SUDO_USER") or getpass.getuser(),
        "on": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "for": purpose,
    }


def is_over(holder: dict[str, Any], seconds: int) -> bool:
    """Tell whether the run that holds the lock has ended without giving it back."""
    where, process, start = [*str(holder.get("run", "")).split("/"), "", "", ""][:3]
    if where == here():
        return not (process.isdecimal() and start) or began(int(process)) != start
    return seconds > LONGEST_SECONDS


def described(holder: dict[str, Any]) -> str:
    """Return who holds the lock, since when and for what, as a clause."""
    names = ("by", "on", "since", "for")
    return "{by} on {on} holds the stack since {since} for {for}".format_map(
        {name: holder.get(name, "?") for name in names}
    )


class ActionModule(ActionBase):
    """The action."""

    _VALID_ARGS = frozenset(("lock", "state", "purpose", "force"))

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Take the lock, give it back, or only look: state is held, free or shown."""
        result = super().run(tmp, task_vars)
        if self._task.check_mode:
            # Who only looks disturbs nobody.
            return result
        given = self._task.args
        state = given.get("state", "held")
        arguments = {
            "lock": given["lock"],
            "state": state,
            "holder": this_run(given.get("purpose", "")),
        }

        def ask(**more: str) -> dict[str, Any]:
            return self._execute_module("run_lock", arguments | more, task_vars=task_vars)

        answer = ask()
        holder = answer.get("holder")
        if not holder or state == "free":
            return result | answer
        if is_over(holder, answer["seconds"]) or given.get("force"):
            self._display.display(
                f"Taking over a lock: {described(holder)}, and that run has ended."
            )
            if state == "held":
                answer = ask(instead_of=holder.get("run", ""))
                holder = answer.get("holder")
            else:
                holder = {}
        if holder:
            raise AnsibleActionFail(
                f"{described(holder)}. Wait until that run has ended. If you know that it has,"
                " type: make up ARGS='-e stack_deploy_take_lock=true'"
            )
        return result | answer
