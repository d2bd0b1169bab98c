"""make chaos: each fault once, under load; no acknowledged write is lost, and all is well after."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from chaos.faults import FAULTS
from tests.controller import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.stack import Stack
    from tests.controller import Controller

# A repeatable order and choice of victims.
SEED = 4711
LONGEST_SECONDS = 900

pytestmark = [pytest.mark.disruptive, pytest.mark.watched]


def chaos(controller: Controller, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it as make does."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "chaos", f"--inventory={controller.inventory}"),
            *(f"--limit={controller.machine}", *arguments),
        ],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("confirm", ["", "yes"])
def test_nothing_is_broken_unless_told_so_by_name(
    stack: Stack, controller: Controller, confirm: str
) -> None:
    lives = {each.name: each.life for each in stack.containers()}
    run = chaos(controller, f"--confirm={confirm}", "--duration=10")
    assert run.returncode == 2, run.stdout + run.stderr
    assert f"make chaos CONFIRM={stack.project}" in run.stdout
    assert {each.name: each.life for each in stack.containers()} == lives


def test_every_fault_is_recovered_from_and_no_row_lost(
    stack: Stack, controller: Controller, tmp_path: Path
) -> None:
    before = stack.sql("SELECT count(*) FROM items")
    result = tmp_path / "chaos.json"
    run = chaos(
        controller,
        *(f"--confirm={stack.project}", "--once", f"--seed={SEED}", f"--json={result}"),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(result.read_text(encoding="utf-8"))[controller.machine]
    lines = {line["fault"]: line for line in found["faults"]}
    assert set(FAULTS) < set(lines), run.stdout
    for name in FAULTS:
        assert lines[name]["requests"] > 100, run.stdout
    # A kill of nobody and a disk that is not full would fail no request: so some have to fail.
    assert lines["all"]["failed"] > 0, run.stdout
    assert (found["lost"], lines["all"]["lost"]) == ([], 0)
    assert found["items"] > 50, found
    # Left as it was found.
    assert stack.sql("SELECT count(*) FROM items") == before
    volume = f"{stack.project}_database-data"
    place = stack.machine.run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", volume)
    assert stack.machine.run("ls", "-A", f"{place.out.strip()}/..").lines() == ["_data"]
