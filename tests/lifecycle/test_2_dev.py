"""dev over a prod stack, and prod over that again: data kept, nothing left behind."""

from __future__ import annotations

from ..playbook import docker
from .conftest import PROJECT, STACK_DIR, deploy, request

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


def test_dev_logs_show_no_password() -> None:
    for container in docker("ps", "-aq", "-f", f"name={PROJECT}").split():
        log = docker("logs", container)
        for name in ("database_api_password", "database_superuser_password", "api_cache_password"):
            assert (STACK_DIR / "secrets" / name).read_text().strip() not in log
