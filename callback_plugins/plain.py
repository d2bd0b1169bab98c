"""Output for verbs that answer a question: the answer alone, on the standard output.

What a debug task says goes there as it is. Tasks that look at machines are named on the standard
error, as are failures, each in a line.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader

DOCUMENTATION = r"""
name: plain
type: stdout
short_description: The answer alone
description:
  - What C(debug) says goes to the standard output as it is, failures to the standard error.
  - C(ANSIBLE_STDOUT_CALLBACK=plain) is what make status and make logs use.
"""

# What needs no machine takes no time, and is not worth a line.
ON_THE_CONTROLLER = ("assert", "debug", "fail", "set_fact")


class CallbackModule(CallbackBase):
    """The callback."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "plain"

    def _say(self, text: str, color: str | None = None) -> None:
        self._display.display(text, color=color, stderr=True)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002
        """Name what takes seconds."""
        if task.action.rpartition(".")[2] not in ON_THE_CONTROLLER and not task.delegate_to:
            self._say(f"{task.get_name()} ...")

    def v2_runner_on_ok(self, result: Any) -> None:
        """Print an answer."""
        if result.task.action.rpartition(".")[2] == "debug" and result.result.get("msg"):
            self._display.display(str(result.result["msg"]))

    def _say_why(self, result: Any, machine: str = "") -> None:
        reason = filter_loader.get("reason").j2_function
        self._say(f"{machine}{reason(result.result, result.task.get_name())}", "red")

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Say what a loop's item failed with; the loop itself says nothing more."""
        if not result.task.ignore_errors:
            self._say_why(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Say what failed, unless the playbook has its own words for it."""
        if not ignore_errors and "results" not in result.result:
            self._say_why(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Likewise for a machine that cannot be reached."""
        if not result.task.ignore_unreachable:
            self._say_why(result, f"{result.host}: ")

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Say why there is no answer."""
        self._say("No machine of the inventory is meant: see INVENTORY and --limit.", "red")
