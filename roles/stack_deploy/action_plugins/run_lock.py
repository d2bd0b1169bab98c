"""Action of run_lock: says who runs this, and whether who holds the lock is still there."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.parsing.convert_bool import boolean
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


def why_over(holder: dict[str, Any], seconds: int) -> str:
    """Return how it is known that the run with the lock has ended; nothing where it may run."""
    where, process, start = [*str(holder.get("run", "")).split("/"), "", "", ""][:3]
    if where == here():
        over = not (process.isdecimal() and start) or began(int(process)) != start
        return "that run has ended without releasing it" if over else ""
    if seconds > LONGEST_SECONDS:
        return f"no run takes {seconds // 3600} hours"
    return ""


def described(holder: dict[str, Any]) -> str:
    """Return who holds the lock, since when and for what, as a clause."""
    names = ("by", "on", "since", "for")
    return "{by} on {on} holds the stack since {since} for {for}".format_map(
        {name: holder.get(name, "?") for name in names}
    )


class ActionModule(ActionBase):
    """The action."""

    _VALID_ARGS = frozenset(("lock", "state", "purpose", "force"))

    def _force(self, given: object) -> bool:
        """Return whether the lock is taken from a run that holds it; -e gives text."""
        try:
            return bool(boolean(given))
        except TypeError:
            raise AnsibleActionFail(
                f"stack_deploy_take_lock is '{given}': give true or false,"
                " such as -e stack_deploy_take_lock=true."
            ) from None

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
        force = self._force(given.get("force", False))
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
        story = described(holder)
        over = why_over(holder, answer["seconds"])
        if over or force:
            if state == "held":
                self._display.display(
                    f"Taking over a lock: {story}, and {over}."
                    if over
                    else f"Taking the lock from a run that may still change the stack: {story}."
                )
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
