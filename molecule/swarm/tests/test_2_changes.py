"""Changes of a stack on a swarm while people use it: updates, bad ones, passwords, nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.swarm import DIRECTORY, PROJECT, failures, load

if TYPE_CHECKING:
    from tests.swarm import Swarm

MIB = 2**20
CHANGED = ("-e", "stack_compose_api_memory=500M", "-e", "stack_compose_frontend_memory=250M")
BROKEN = "lab/broken:1"


def memory(swarm: Swarm, service: str) -> set[int]:
    """The memory limits of a service's containers, in MiB."""
    return {task.about["HostConfig"]["Memory"] // MIB for task in swarm.tasks(service)}


def test_rolling_update_loses_no_request_through_any_node(swarm: Swarm) -> None:
    with load(swarm) as reports:
        swarm.deploy(*CHANGED)
    assert memory(swarm, "api") == {500}
    assert memory(swarm, "frontend") == {250}
    assert min(each["requests"] for each in reports.values()) > 300
    assert not failures(reports), failures(reports)


def test_update_that_fails_is_rolled_back_and_loses_no_request(swarm: Swarm) -> None:
    """An api that ends at once: Swarm itself goes back, the run says so, and files go back too."""
    image = swarm.tasks("api")[0].about["Config"]["Image"]
    for machine in swarm.nodes.values():
        made = machine.run("docker", "create", image).out.strip()
        machine.run("docker", "commit", "--change", 'CMD ["python3", "-c", "raise SystemExit(7)"]',
                    "--change", "ENTRYPOINT []", made, BROKEN)  # fmt: skip
        machine.run("docker", "rm", made)
    before = swarm.nodes["lab1"].read(f"{DIRECTORY}/docker-compose.yml")
    with load(swarm) as reports:
        run = swarm.play("site.yml", "-e", "env=prod", *CHANGED,
                         "-e", f'{{"stack_images_refs": {{"api": "{BROKEN}"}}}}')  # fmt: skip
    assert run.code != 0
    assert "Swarm has rolled back api" in run.output, run.output
    assert "non-zero exit (7)" in run.output, run.output
    assert not failures(reports), failures(reports)
    assert swarm.nodes["lab1"].read(f"{DIRECTORY}/docker-compose.yml") == before
    assert {task.about["Config"]["Image"] for task in swarm.tasks("api")} == {image}
    swarm.wait_settled()


def test_rollback_goes_to_the_release_before(swarm: Swarm) -> None:
    run = swarm.play("playbooks/rollback.yml")
    assert run.code == 0, run.output
    assert memory(swarm, "api") == {512}
    assert memory(swarm, "frontend") == {256}


def test_passwords_are_rotated_while_in_use(swarm: Swarm) -> None:
    files = ("api_database_password", "api_cache_password", "database_superuser_password")
    paths = [f"{DIRECTORY}/secrets/{each}" for each in files]
    before = [swarm.nodes["lab1"].read(path) for path in paths]
    names = set(swarm.manage("secret", "ls", "--format", "{{.Name}}").split())
    item = swarm.ask("lab2", "/api/items", "POST", {"name": "before the rotation"})
    with load(swarm, rate=10) as reports:
        run = swarm.play("playbooks/rotate_secrets.yml")
    assert run.code == 0, run.output
    after = [swarm.nodes["lab1"].read(path) for path in paths]
    assert not set(before) & set(after)
    assert not [value for value in before + after if value.strip() in run.output]
    # A secret of Swarm's cannot change in a container: database and cache restart once for theirs.
    assert {reason for each in reports.values() for reason in each["failures"]} <= {"503"}
    # Versions of before are gone, and each secret has one.
    now = set(swarm.manage("secret", "ls", "--format", "{{.Name}}").split())
    assert len(now) == len(names)
    assert len(now - names) == 5, sorted(now - names)
    assert swarm.ask("lab3", f"/api/items/{item['id']}")["name"] == "before the rotation"
    task = swarm.one("database")
    for old, role in ((before[0], "api"), (before[2], "postgres")):
        login = swarm.nodes[task.node].try_run(
            "docker", "exec", "--env", f"PGPASSWORD={old.strip()}", task.id,
            "psql", "-X", "-h", "127.0.0.1", "-U", role, "-d", "stackyard", "-c", "SELECT 1",
        )  # fmt: skip
        assert login.code != 0, f"the old password of {role} is taken"
        assert "password authentication failed" in login.err, login


def test_node_is_drained_and_comes_back(swarm: Swarm) -> None:
    with load(swarm, rate=10) as reports:
        run = swarm.play("playbooks/node.yml", "-e", "node=lab3", "-e", "state=drain")
        assert run.code == 0, run.output
        swarm.wait_settled()
        assert not [each for each in ("gateway", "frontend", "api", "cache")
                    if "lab3" in swarm.where(each)]  # fmt: skip
    reports.pop("lab3")
    assert not failures(reports), failures(reports)
    run = swarm.play("playbooks/node.yml", "-e", "node=lab3", "-e", "state=active")
    assert run.code == 0, run.output
    swarm.wait_settled()
    assert "lab3" in swarm.where("gateway")


@pytest.mark.parametrize("state", ["drain", "leave"])
def test_node_of_the_database_is_not_given_away(swarm: Swarm, state: str) -> None:
    run = swarm.play("playbooks/node.yml", "-e", "node=lab1", "-e", f"state={state}")
    assert run.code != 0
    assert run.errors[0].startswith("lab1 has the database, which would be away"), run.output
    assert run.changed == 0


def test_there_is_never_a_second_database(swarm: Swarm) -> None:
    """More than one cannot be had, by Swarm or beside it."""
    service = f"{PROJECT}_database"
    swarm.manage("service", "scale", "--detach", f"{service}=2")
    try:
        assert swarm.where("database") == ["lab1"]
        shown = swarm.manage("service", "ps", service, "--no-trunc", "--format", "{{.Error}}")
        assert "max replicas per node" in shown
    finally:
        swarm.manage("service", "scale", "--detach", f"{service}=1")
    swarm.wait_settled()
