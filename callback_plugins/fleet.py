"""What became of the machines of a run: its batches, and last of all who failed and why.

Machines that are not done are named, each with its reason in a line, with what to type to take
just these, and stand in a file for --limit.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader

DOCUMENTATION = r"""
name: fleet
type: aggregate
short_description: Batches, and who failed and why
description:
  - Says which machines a batch has. Ends a run with the machines that are not done, the reasons,
    and the command that takes just these.
  - Enabled in ansible.cfg.
"""

ROOT = Path(__file__).resolve().parents[1]
# Where make is what people typed: its goals.
TYPED = "STACKYARD_TYPED"
LONGEST_REASON = 400
NAMES_SHOWN = 8
# A word of make's own variables in the environment, in which blanks are escaped.
WORD = re.compile(r"(?:\\.|[^\\\s])+")
SECRET = re.compile(r"(?i)\w*(secret|pass|token|key)\w*[\"']?\s*[:=]")


def names(machines: list[str]) -> str:
    """Return the names, the first ones of many."""
    more = len(machines) - NAMES_SHOWN
    return ", ".join(machines[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def reason_of(result: Any) -> str:
    """Return in a line why a task failed, from what Ansible tells a callback of it."""
    reason = filter_loader.get("reason").j2_function
    return str(reason(result.result, result.task.get_name()))


def without_limit(words: list[str]) -> list[str]:
    """Return a command's words without the machines that it was for."""
    pairs = zip(["", *words], words, strict=False)
    return [
        word
        for before, word in pairs
        if not word.startswith("--limit=") and {before, word}.isdisjoint({"-l", "--limit"})
    ]


def without_secrets(words: list[str]) -> list[str]:
    """Return settings with dots in the place of those that may be secret."""
    return ["..." if SECRET.search(word) else word for word in words]


def made() -> dict[str, str]:
    """Return the variables that make was given: it hands them on in MAKEFLAGS."""
    given = os.environ.get("MAKEFLAGS", "").partition("-- ")[2].replace("$$", "$")
    words = (re.sub(r"\\(.)", r"\1", word) for word in WORD.findall(given))
    return dict(word.split("=", 1) for word in words if "=" in word)


def again(limit: str) -> str:
    """Return what to type for the same run, with the machines of a --limit if there is one."""
    change = without_limit if limit else list
    more = ["--limit", limit] if limit else []
    goals = os.environ.get(TYPED)
    if not goals:
        program, *words = change(sys.argv)
        return shlex.join([os.path.relpath(program), *without_secrets(words), *more])
    given = made()
    arguments = [*change(shlex.split(given.pop("ARGS", ""))), *more]
    given["SET"] = " ".join(without_secrets(given.get("SET", "").split()))
    given["ARGS"] = shlex.join(without_secrets(arguments))
    variables = [f"{name}={shlex.quote(value)}" for name, value in given.items() if value]
    return " ".join(["make", goals, *variables])


def kept_in() -> Path:
    """Return where machines are kept that are not done: by inventory, as there may be several."""
    path = Path(str((context.CLIARGS["inventory"] or ["hosts"])[0])).absolute()
    name = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
    name = re.sub(r"^inventory/|\.\w+$", "", name)
    return ROOT / "build/failed" / re.sub(r"[^\w.-]+", "-", name).strip("-")


def keep(machines: list[str], run: list[str]) -> str:
    """Keep the names of those of a run that are not done, and return what --limit takes."""
    path = kept_in()
    try:
        if machines:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{each}\n" for each in machines), encoding="utf-8")
        elif path.is_file() and set(path.read_text(encoding="utf-8").split()) <= set(run):
            path.unlink()
    except OSError:
        # A checkout that may not be written to.
        return ",".join(machines)
    return f"@{os.path.relpath(path)}"


def for_machines(play: Any) -> bool:
    """Tell whether a play is for more than the controller."""
    return play.hosts not in ("localhost", ["localhost"])


class CallbackModule(CallbackBase):
    """The callback."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "fleet"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        # An answer stands alone.
        self.disabled = constants.DEFAULT_STDOUT_CALLBACK == "plain"
        self._machines: list[str] = []
        # By machine, the first task that failed, and in which words.
        self._failures: dict[str, tuple[str, list[str]]] = {}
        # Stopped in the middle, since another machine's failure counts for all.
        self._stopped: set[str] = set()
        self._last_play = ""
        # Of the play at hand: its machines, the batch, and all whose batch has begun.
        self._play = ""
        self._all: list[str] = []
        self._batch: list[str] = []
        self._begun: list[str] = []
        self._number = 0

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Note where a run ends that comes to its end."""
        plays = [play._uuid for play in playbook.get_plays() if for_machines(play)]
        self._last_play = plays[-1] if plays else ""

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Say which machines the batch has, where that is not all of them."""
        if not for_machines(play):
            return
        inventory = play.get_variable_manager()._inventory
        if play._uuid != self._play:
            self._play, self._begun, self._number = play._uuid, [], 0
            found = inventory.get_hosts(play.hosts, ignore_restrictions=True)
            self._all = [each.name for each in found]
            self._machines += [each for each in self._all if each not in self._machines]
        self._batch = [each.name for each in inventory.get_hosts(play.hosts)]
        self._begun += self._batch
        self._number += 1
        if len(self._batch) < len(self._all):
            failed = len(set(self._all) & set(self._failures))
            so_far = f", {failed} failed so far" if failed else ""
            count = f"{len(self._begun)} of {len(self._all)} machines{so_far}"
            self._display.display(f"Batch {self._number}, to {count}: {names(self._batch)}")

    def _note(self, result: Any) -> None:
        """Note why a machine's first task failed: what fails in rescue or always comes of that."""
        task, said = self._failures.setdefault(result.host.name, (result.task._uuid, []))
        if task == result.task._uuid:
            said.append(reason_of(result))

    def v2_runner_item_on_failed(self, result: Any) -> None:
        """Note what a loop's item says; the loop itself says nothing more."""
        self._note(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Note why, unless the playbook goes on."""
        if ignore_errors:
            if self._failures.get(result.host.name, ("", []))[0] == result.task._uuid:
                del self._failures[result.host.name]
        elif "results" not in result.result:
            self._note(result)
        if (result.task.any_errors_fatal or result.task.run_once) and not ignore_errors:
            self._stopped.update(self._batch)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Likewise."""
        if not result.task.ignore_unreachable:
            self._note(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Say who is not done, and what to type: the last that people see."""
        failed = [
            each for each in self._machines if stats.failures.get(each) or stats.dark.get(each)
        ]
        reached = set(self._begun) - self._stopped if self._play == self._last_play else set()
        left = [each for each in self._machines if each not in failed and each not in reached]
        missing = len(failed) + len(left)
        limit = keep([*failed, *left], self._machines) if self._machines else ""
        if not missing:
            return
        rows: dict[tuple[str, str], list[str]] = {}
        for each in failed:
            state = "unreachable" if stats.dark.get(each) else "failed"
            rows.setdefault((state, self._reason(each)), []).append(each)
        if left:
            rows["not done", "the run ended before"] = left
        if len(self._machines) > 1:
            done = f"{len(self._machines) - missing} of {len(self._machines)} machines are done."
            self._display.display(f"{done}\n")
        width = min(max(len(names(machines)) for machines in rows.values()), 30)
        for (state, why), machines in rows.items():
            row = f"  {names(machines):{width}}  {state:11}  {why}"
            self._display.display(row, color="red")
        # Where nobody is done, the run is for the same machines again.
        limit = limit if missing < len(self._machines) else ""
        self._display.display(f"\nMend that, then type:\n\n  {again(limit)}\n")

    def _reason(self, machine: str) -> str:
        _, said = self._failures.get(machine, ("", ["for no known reason"]))
        line = " ".join(dict.fromkeys(said))
        return line if len(line) <= LONGEST_REASON else f"{line[: LONGEST_REASON - 1]}…"
