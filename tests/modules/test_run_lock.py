"""run_lock lets one run at a time have the stack."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from .conftest import ROOT, Module, Result

if TYPE_CHECKING:
    from pathlib import Path

module = Module(ROOT / "roles/stack_deploy/library/run_lock.py")
RUNS = [{"run": f"here/{number}/1", "by": "someone"} for number in range(4)]


def take(path: Path, run: int, **more: str) -> Result:
    """Have a run take the lock."""
    return module(lock=str(path), holder=RUNS[run], **more)


def test_lock_is_one_runs_until_it_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert take(path, 0).answer["holder"] == {}
    assert take(path, 0).answer["holder"] == {}
    assert take(path, 1).answer["holder"] == RUNS[0]
    take(path, 1, state="free")
    assert path.exists(), "given back by another run"
    assert take(path, 1, state="shown").answer["holder"] == RUNS[0]
    take(path, 0, state="free")
    assert not path.exists()
    assert take(path, 1).answer["holder"] == {}


def test_lock_of_a_run_is_taken_over_by_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    take(path, 0)
    assert take(path, 1, instead_of=RUNS[2]["run"]).answer["holder"] == RUNS[0]
    assert take(path, 1, instead_of=RUNS[0]["run"]).answer["holder"] == {}
    assert take(path, 2, instead_of=RUNS[0]["run"]).answer["holder"] == RUNS[1]


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with ThreadPoolExecutor(max_workers=4) as pool:
        results = list(pool.map(lambda run: take(path, run), range(4)))
    assert sum(not result.answer["holder"] for result in results) == 1


def test_a_lock_that_says_nothing_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("cut sho")
    assert take(path, 0).answer["holder"] == {}
    assert json.loads(path.read_text()) == RUNS[0]


def test_check_mode_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    module(lock=str(path), holder=RUNS[0], check=True)
    assert not path.exists()


def where(*around: str) -> str:
    """Tell what the controller's side takes for the place where it runs."""
    program = "import sys; sys.path.insert(0, sys.argv[1]); import run_lock; print(run_lock.here())"
    plugins = str(ROOT / "roles/stack_deploy/action_plugins")
    command = [*around, sys.executable, "-c", program, plugins]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_process_numbers_of_another_container_are_not_judged() -> None:
    assert where() == where()
    assert where("unshare", "--pid", "--fork") != where()
