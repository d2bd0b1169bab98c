"""From nothing to a prod stack: idempotent, silent about secrets, mended after a kill.

The tests build on each other, in the order of the file; the last one leaves a prod stack up.
"""

from __future__ import annotations

import re
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from ..playbook import ROOT, docker
from .conftest import (
    PROJECT,
    STACK_DIR,
    deploy,
    deploy_killed_at,
    leftovers,
    play,
    request,
    secret_values,
)

if TYPE_CHECKING:
    from pathlib import Path

VAULT_PASSWORD = "only for this test"  # noqa: S105 - encrypts a value that lives for a second


def test_old_remains_are_destroyed_first() -> None:
    run = play("playbooks/destroy.yml", "-e", f"confirm={PROJECT}")
    assert run.code == 0, run.output
    assert not STACK_DIR.exists()
    assert not any(leftovers().values())


def test_values_from_a_vault_are_used_and_never_shown(tmp_path: Path) -> None:
    given = "given-by-the-vault-0123456789"
    password_file = tmp_path / "password"
    password_file.write_text(VAULT_PASSWORD)
    vault = tmp_path / "vault.yml"
    vault.write_text(f"stack_secrets_values: {{database_api: {given}}}\n")
    subprocess.run(
        [
            ROOT / ".venv/bin/ansible-vault",
            "encrypt",
            "--vault-password-file",
            password_file,
            vault,
        ],
        check=True,
        capture_output=True,
    )
    assert given not in vault.read_text()
    from_vault = ["--vault-password-file", str(password_file), "-e", f"@{vault}"]

    first = deploy("prod", "--tags", "stack_secrets", "-vvv", "--diff", *from_vault)
    for name in ("database_api_password", "api_database_password"):
        assert (STACK_DIR / "secrets" / name).read_text() == given + "\n"
    other = play(
        *("site.yml", "-e", "env=prod", "--tags", "stack_secrets", "-vvv"),
        *("-e", '{"stack_secrets_values": {"database_api": "another-value-0123456789"}}'),
    )
    assert other.code != 0
    assert "differs from the value given for database_api" in other.output
    assert given not in first.output + other.output
    assert play("playbooks/destroy.yml", "-e", f"confirm={PROJECT}").code == 0


def test_check_mode_works_before_there_is_anything() -> None:
    run = deploy("prod", "--check", "--diff")
    assert run.changed > 0
    assert not STACK_DIR.exists()
    assert not any(leftovers().values())


def test_a_first_run_ends_healthy_and_says_where() -> None:
    run = deploy("prod", "-vvv", "--diff")
    assert "http://localhost:20080" in run.output
    assert re.search(r"frontend\s+3\s+healthy", run.output), run.output
    assert re.search(r"api\s+2\s+healthy", run.output), run.output
    shown = [index for index, value in enumerate(secret_values()) if value in run.output]
    assert not shown, f"{len(shown)} secret values stand in the output of -vvv --diff"


def test_a_second_run_changes_nothing() -> None:
    started = docker("inspect", "--format", "{{.State.StartedAt}}", f"{PROJECT}-database")
    run = deploy("prod")
    assert run.changed == 0, run.output
    assert docker("inspect", "--format", "{{.State.StartedAt}}", f"{PROJECT}-database") == started


def test_check_mode_agrees_that_nothing_changes() -> None:
    run = deploy("prod", "--check", "--diff")
    assert run.changed == 0, run.output


def test_check_mode_shows_a_change_and_does_not_make_it() -> None:
    rendered = (STACK_DIR / "docker-compose.prod.yml").read_text()
    run = deploy("prod", "--check", "--diff", "-e", "stack_compose_api_memory=640M")
    assert "+          memory: 640M" in run.output
    assert (STACK_DIR / "docker-compose.prod.yml").read_text() == rendered


def test_a_tag_runs_its_role_alone() -> None:
    run = deploy("prod", "--tags", "stack_compose", "-e", "stack_compose_api_replicas=3")
    assert run.changed == 1, run.output
    assert len(docker("ps", "-q", "-f", f"name={PROJECT}-api").split()) == 2
    deploy("prod", "--tags", "stack_compose")


def test_what_people_edited_stays() -> None:
    config = STACK_DIR / "config/api/app.toml"
    shipped = config.read_text()
    edited = shipped.replace("Stackyard lab", "Edited by hand")
    config.write_text(edited)
    try:
        run = deploy("prod")
        assert config.read_text() == edited
        assert run.changed == 0, run.output
    finally:
        config.write_text(shipped)


def test_owners_and_modes_of_secrets_are_repaired() -> None:
    secret = STACK_DIR / "secrets/api_cache_password"
    before = (secret.stat().st_uid, stat.S_IMODE(secret.stat().st_mode))
    secret.chmod(0o644)
    secret.parent.chmod(0o755)
    subprocess.run(["chown", "0:0", secret], check=True)
    run = deploy("prod", "--tags", "stack_secrets")
    assert run.changed == 1, run.output
    assert (secret.stat().st_uid, stat.S_IMODE(secret.stat().st_mode)) == before == (992, 0o400)
    assert stat.S_IMODE(secret.parent.stat().st_mode) == 0o700


def test_replica_counts_change_without_a_restart() -> None:
    started = docker("inspect", "--format", "{{.State.StartedAt}}", f"{PROJECT}-gateway-1")
    more = ("-e", "stack_compose_frontend_replicas=4", "-e", "stack_compose_api_replicas=1")
    deploy("prod", *more)
    assert len(docker("ps", "-q", "-f", f"name={PROJECT}-frontend").split()) == 4
    assert len(docker("ps", "-q", "-f", f"name={PROJECT}-api").split()) == 1
    deploy("prod")
    assert len(docker("ps", "-q", "-f", f"name={PROJECT}-frontend").split()) == 3
    assert docker("inspect", "--format", "{{.State.StartedAt}}", f"{PROJECT}-gateway-1") == started


def test_a_failed_deploy_shows_health_output_and_log_lines() -> None:
    docker("pause", f"{PROJECT}-cache-1")
    try:
        # The frozen cache makes the apis unhealthy, and the change makes Compose wait for them.
        run = play(
            *("site.yml", "-e", "env=prod", "-e", "stack_deploy_timeout=30"),
            *("-e", "stack_compose_api_memory=640M"),
        )
    finally:
        docker("unpause", f"{PROJECT}-cache-1")
    assert run.code != 0
    report = run.output.partition("is not healthy")[2]
    assert f"/{PROJECT}-cache-1 paused" in report, run.output
    assert "health check: exit" in report, run.output
    assert "Ready to accept connections" in report, run.output
    deploy("prod")
    assert deploy("prod").changed == 0


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ("Create what is missing", []),
        ("Render the project", []),
        ("Start what changed", []),
        ("Bootstrap", ["-e", "stack_images_edition=killed"]),
        ("Build the images", ["-e", "stack_images_edition=killed"]),
    ],
)
@pytest.mark.usefixtures("without_new_images")
def test_a_run_killed_there_is_mended_by_running_it_again(task: str, arguments: list[str]) -> None:
    assert play("playbooks/destroy.yml", "-e", f"confirm={PROJECT}").code == 0
    deploy_killed_at(task, *arguments)
    deploy("prod", *arguments)
    assert request("/health")["status"] == "ok"
    assert deploy("prod", *arguments).changed == 0


def test_prod_is_up_at_the_end() -> None:
    deploy("prod")
    assert deploy("prod").changed == 0
