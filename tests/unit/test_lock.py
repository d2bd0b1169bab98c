"""run_lock: whether the run that holds the lock is over, and what another one is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ansible.errors import AnsibleActionFail

from tests.sources import load

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLE = Path(__file__).parents[2] / "roles/stack_deploy"
MODULE = ROLE / "library/run_lock.py"
run_lock = load(ROLE / "action_plugins/run_lock.py")
HERE = run_lock.here()
ME = os.getpid()
HOURS = 3600


def began(process: int = ME) -> str:
    """Return when a process began; it is there."""
    found: str = run_lock.began(process)
    assert found.isdecimal()
    return found


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until it is ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def ended(process: subprocess.Popen[bytes]) -> None:
    """Have a process end, without asking for its status: it stays as a zombie."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


# Processes.


def test_process_began_when_the_kernel_says() -> None:
    """Whatever its name, which stands in the same line."""
    ticks = os.sysconf("SC_CLK_TCK")
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 <= int(began()) / ticks <= uptime
    program = "import os, time; open('/proc/self/comm', 'w').write(') R 1 (x'); print(); input()"
    command = [sys.executable, "-c", f"{program}"]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as process:
        assert process.stdout
        process.stdout.readline()
        name = Path(f"/proc/{process.pid}/comm").read_text()
        assert name == ") R 1 (x\n"
        assert abs(int(began(process.pid)) / ticks - uptime) < 60
        process.kill()


def test_process_that_ended_did_not_begin(other: subprocess.Popen[bytes]) -> None:
    assert began(other.pid)
    ended(other)
    assert run_lock.began(other.pid) == ""
    assert Path(f"/proc/{other.pid}/stat").read_text().split()[2] == "Z"
    other.wait()
    assert run_lock.began(other.pid) == ""


# Whether a run is over.


def test_place_is_a_boot_and_a_namespace_of_processes() -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = re.findall(r"^pid:\[(\d+)\]$", os.readlink("/proc/self/ns/pid"))
    assert f"{boot}-{namespace[0]}" == HERE


def is_over(run: Any, seconds: int = 0) -> bool:
    """Tell whether the run of that name is over, of a lock of that age."""
    return bool(run_lock.why_over({"run": run}, seconds))


def test_run_that_goes_on_is_not_over_however_old_it_is() -> None:
    run = f"{HERE}/{ME}/{began()}"
    assert not is_over(run)
    assert not is_over(run, 1000 * HOURS)


def test_run_whose_process_is_gone_is_over(other: subprocess.Popen[bytes]) -> None:
    run = f"{HERE}/{other.pid}/{began(other.pid)}"
    assert not is_over(run)
    ended(other)
    assert is_over(run), "a zombie runs nothing"
    other.wait()
    assert is_over(run)


def test_run_whose_number_another_process_has_now_is_over() -> None:
    assert is_over(f"{HERE}/{ME}/{int(began()) - 1}")


@pytest.mark.parametrize("rest", [
    "", "/", f"/{ME}", f"/{ME}/", "/none/1", "/-1/1", f"/{2**40}/1", f"/{2**40}", f"/{2**40}/",
])  # fmt: skip
def test_lock_of_this_place_that_names_no_process_is_of_no_run(rest: str) -> None:
    assert is_over(f"{HERE}{rest}")


FOREIGN = [
    f"another-boot-{HERE.rpartition('-')[2]}",
    f"{HERE.rpartition('-')[0]}-1",
    "",
]


@pytest.mark.parametrize("where", FOREIGN)
@pytest.mark.parametrize(("seconds", "over"), [
    (0, False), (2 * HOURS, False), (2 * HOURS + 1, True),
    # A clock that was set back since: nobody knows for how long.
    (-5 * HOURS, False),
])  # fmt: skip
def test_run_of_another_place_is_over_after_two_hours(where: str, seconds: int, over: bool) -> None:
    """Its process cannot be looked at, though one of that number may be here."""
    assert is_over(f"{where}/{ME}/{began()}", seconds) is over
    assert is_over(f"{where}/{2**40}/1", seconds) is over


@pytest.mark.parametrize("holder", [{}, {"run": None}, {"run": 5}, {"run": ["a"]}, {"by": "x"}])
def test_holder_that_says_nothing_has_two_hours(holder: dict[str, Any]) -> None:
    assert not run_lock.why_over(holder, 2 * HOURS)
    assert run_lock.why_over(holder, 2 * HOURS + 1)


def test_run_is_of_the_process_that_started_this_one() -> None:
    about = run_lock.this_run("a check")
    parent = os.getppid()
    assert about["run"] == f"{HERE}/{parent}/{began(parent)}"
    assert about["for"] == "a check"
    assert not run_lock.why_over(about, 1000 * HOURS)


def test_person_is_who_typed_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    assert run_lock.this_run("")["by"] == "ada"
    monkeypatch.delenv("SUDO_USER")
    assert run_lock.this_run("")["by"] not in ("", "ada")


# The action, with the module itself in a process of its own.


@dataclass
class Screen:
    """What the run shows."""

    text: str = ""

    def display(self, text: str) -> None:
        """Show a line."""
        self.text += text


class Action(run_lock.ActionModule):  # type: ignore[misc, name-defined]
    """The action, on a machine that is this one."""

    def __init__(self, lock: Path, *, check: bool = False, **given: Any) -> None:
        """Take a task's arguments."""
        self._task = SimpleNamespace(args={"lock": str(lock), **given}, check_mode=check)
        self._display = Screen()
        self.ran = 0

    def _execute_module(self, name: str, arguments: dict[str, Any], **_: Any) -> dict[str, Any]:
        assert name == "run_lock"
        self.ran += 1
        done = subprocess.run(
            [sys.executable, str(MODULE)],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock's file; the action's parent, Ansible's own, has nothing to add here."""
    monkeypatch.setattr(run_lock.ActionBase, "run", lambda *_: {})
    return tmp_path / "lab.lock"


def held(lock: Path, run: str, *, age: int = 0, **about: str) -> dict[str, str]:
    """Have a run hold the lock for so many seconds."""
    holder = {"run": run, "by": "ada", "on": "desk", "since": "noon", "for": "make up", **about}
    lock.write_text(json.dumps(holder))
    then = lock.stat().st_mtime - age
    os.utime(lock, (then, then))
    return holder


def holder(lock: Path) -> str:
    """Return the run that holds the lock."""
    return str(json.loads(lock.read_text())["run"])


def refusal(action: Action) -> str:
    """Return what a run is told that does not get the lock."""
    with pytest.raises(AnsibleActionFail) as caught:
        action.run()
    return str(caught.value.message)


def test_lock_is_acquired_and_released(lock: Path) -> None:
    assert Action(lock, purpose="a check").run()["holder"] == {}
    assert json.loads(lock.read_text())["for"] == "a check"
    Action(lock, purpose="a check").run()
    Action(lock, state="free").run()
    assert not lock.exists()
    # What is not held can be released again.
    Action(lock, state="free").run()


def test_run_that_goes_on_keeps_its_lock(lock: Path, other: subprocess.Popen[bytes]) -> None:
    run = f"{HERE}/{other.pid}/{began(other.pid)}"
    held(lock, run, age=100 * HOURS)
    said = refusal(Action(lock))
    assert said.startswith("ada on desk holds the stack since noon for make up. Wait until")
    assert "-e stack_deploy_take_lock=true" in said
    assert holder(lock) == run
    assert "ada on desk" in refusal(Action(lock, state="shown"))


def test_lock_of_a_run_that_ended_is_taken_over_and_it_is_said(
    lock: Path, other: subprocess.Popen[bytes]
) -> None:
    held(lock, f"{HERE}/{other.pid}/{began(other.pid)}")
    ended(other)
    action = Action(lock)
    assert action.run()["holder"] == {}
    assert holder(lock) == run_lock.this_run("")["run"]
    assert action._display.text == (
        "Taking over a lock: ada on desk holds the stack since noon for make up, and that run has"
        " ended without releasing it."
    )


@pytest.mark.parametrize(
    ("age", "taken"),
    [(0, False), (2 * HOURS - 60, False), (2 * HOURS + 60, True), (-9 * HOURS, False)],
)
def test_lock_of_another_controller_is_taken_over_by_age(lock: Path, age: int, taken: bool) -> None:
    held(lock, "elsewhere/1/1", age=age)
    if taken:
        Action(lock).run()
    else:
        refusal(Action(lock))
    assert (holder(lock) != "elsewhere/1/1") is taken


def test_lock_is_taken_from_a_run_that_goes_on_by_force_alone(lock: Path) -> None:
    held(lock, "elsewhere/1/1")
    Action(lock, force=True).run()
    assert holder(lock) == run_lock.this_run("")["run"]


def test_lock_that_a_third_run_took_meanwhile_is_its_own(lock: Path) -> None:
    """Between the question who holds it and the answer to that."""
    held(lock, f"{HERE}/{2**40}/1")

    class Raced(Action):
        def _execute_module(self, name: str, arguments: dict[str, Any], **_: Any) -> dict[str, Any]:
            if arguments.get("instead_of"):
                held(lock, "elsewhere/2/2", by="eve")
            return super()._execute_module(name, arguments)

    assert refusal(Raced(lock)).startswith("eve on desk holds the stack")
    assert holder(lock) == "elsewhere/2/2"


def test_lock_of_another_run_is_not_released(lock: Path) -> None:
    held(lock, "elsewhere/1/1")
    Action(lock, state="free").run()
    assert holder(lock) == "elsewhere/1/1"


def test_looking_at_a_lock_of_a_run_that_ended_leaves_it(lock: Path) -> None:
    held(lock, f"{HERE}/{2**40}/1")
    Action(lock, state="shown").run()
    assert holder(lock) == f"{HERE}/{2**40}/1"


@pytest.mark.parametrize("content", [
    b"", b"{", b"[1]", b"null", b"5", b'"x"', b"\xff\xfe", b"\0\0\0", b"{}",
    b'{"by": "ada"}', b'{"run": ""}', b'{"run": null}', b'{"run": [1]}',
])  # fmt: skip
def test_lock_that_cannot_be_read_is_nobodys(lock: Path, content: bytes) -> None:
    lock.write_bytes(content)
    Action(lock).run()
    assert holder(lock) == run_lock.this_run("")["run"]


def test_holder_that_did_not_say_all_is_told_as_far_as_it_did(lock: Path) -> None:
    lock.write_text(json.dumps({"run": "elsewhere/1/1", "by": "ada"}))
    assert refusal(Action(lock)).startswith("ada on ? holds the stack since ? for ?.")


def test_check_mode_asks_nobody(lock: Path) -> None:
    held(lock, "elsewhere/1/1")
    action = Action(lock, check=True)
    assert action.run() == {}
    assert action.ran == 0
