"""Machines that leave the swarm and join it again, and managers that wait for their key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.machine import wait_until

if TYPE_CHECKING:
    from tests.swarm import Swarm


def nodes(swarm: Swarm) -> list[str]:
    """Names of the swarm's nodes."""
    return sorted(swarm.manage("node", "ls", "--format", "{{.Hostname}}").split())


def test_node_leaves_and_joins_again(swarm: Swarm) -> None:
    run = swarm.play("playbooks/node.yml", "-e", "node=lab3", "-e", "state=leave")
    assert run.code == 0, run.output
    assert nodes(swarm) == ["lab1", "lab2"]
    state = swarm.nodes["lab3"].run("docker", "info", "--format", "{{.Swarm.LocalNodeState}}")
    assert state.out.strip() == "inactive"
    swarm.wait_settled()
    assert len(swarm.where("frontend")) == 3
    assert swarm.answers("lab1")
    swarm.deploy()
    assert nodes(swarm) == ["lab1", "lab2", "lab3"]
    assert "lab3" in swarm.where("gateway")
    assert swarm.answers("lab3")


def test_locked_manager_gets_its_key_from_the_next_run(swarm: Swarm, tmp_path: Path) -> None:
    """The key is kept on the controller, for its user alone; the other nodes serve meanwhile."""
    file = tmp_path / "keys" / "swarm"
    lock = ("-e", "swarm_cluster_autolock=true", "-e", f"swarm_cluster_key_file={file}")
    try:
        run = swarm.deploy(*lock)
        key = file.read_text(encoding="utf-8").strip()
        assert key == swarm.manage("swarm", "unlock-key", "--quiet").strip()
        assert key not in run.output
        assert file.stat().st_mode & 0o777 == 0o600
        assert swarm.deploy(*lock).changed == 0

        manager = swarm.nodes["lab1"]
        manager.run("systemctl", "restart", "docker", seconds=90)
        assert "locked" in manager.try_run("docker", "node", "ls").err
        assert swarm.answers("lab3", "/")

        # Without the key, a line, before anything is changed or waited for anywhere.
        other = tmp_path / "none"
        refused = swarm.play(
            "site.yml", "-e", "env=prod", *lock[:2], "-e", f"swarm_cluster_key_file={other}"
        )
        assert refused.code != 0
        assert len(refused.errors) == 1, refused.output
        assert refused.errors[0].startswith(f"lab1 is a locked manager, and {other} has no key")
        assert refused.changed == 0, refused.output

        run = swarm.deploy(*lock)
        assert key not in run.output
        wait_until(lambda: len(nodes(swarm)) == 3, 60, "it decides again")
        assert swarm.where("gateway") == ["lab1", "lab2", "lab3"]
    finally:
        # Off again, for who comes next.
        run = swarm.play("site.yml", "-e", "env=prod", *lock[2:])
    if run.code != 0:
        pytest.fail(run.output, pytrace=False)
    shown = swarm.manage("info", "--format", "{{.Swarm.Cluster.Spec.EncryptionConfig}}")
    assert "true" not in shown
