"""dev over a prod stack, and prod over that again: data kept, nothing left behind."""

from __future__ import annotations

import subprocess

from ..playbook import docker
from .conftest import PROJECT, STACK_DIR, deploy, play, request, secret_values

DEBUG_NETWORKS = {f"{PROJECT}_debug-{service}" for service in ("api", "database", "cache")}


def networks() -> set[str]:
    """Return the names of the stack's networks."""
    return set(docker("network", "ls", "--format", "{{.Name}}", "-f", f"name={PROJECT}").split())


def test_dev_over_prod_keeps_the_data() -> None:
    deploy("prod")
    item = request("/items", {"name": "kept from prod to dev"})
    assert not DEBUG_NETWORKS & networks()
    deploy("dev")
    assert request(f"/items/{item['id']}")["name"] == "kept from prod to dev"
    assert networks() >= DEBUG_NETWORKS
    assert "docker-compose.dev.yml" in (STACK_DIR / ".env").read_text()


def test_a_second_dev_run_changes_nothing() -> None:
    run = deploy("dev")
    assert run.changed == 0, run.output


def test_a_database_initialised_in_dev_logs_statements_and_no_password() -> None:
    assert play("playbooks/destroy.yml", "-e", f"confirm={PROJECT}").code == 0
    deploy("dev")
    request("/items", {"name": "logged"})
    for container in docker("ps", "-aq", "-f", f"name={PROJECT}").split():
        # Servers write to both outputs.
        written = subprocess.run(
            ["docker", "logs", container],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        shown = sum(value in written.stdout for value in secret_values())
        assert shown == 0, f"{shown} secret values stand in the log of {container}"
        name = docker("inspect", "--format", "{{.Name}}", container)
        if name.endswith("-database"):
            logged = "INSERT INTO items" in written.stdout
            assert logged, "the database's log has no statement: nothing was looked at"
