"""Secrets in runs of the playbooks: never shown, taken from a vault, mended where changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.controller import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.stack import Stack
    from tests.controller import Controller

VAULT_PASSWORD = "only for this test"  # noqa: S105 - encrypts a value that lives for a second
GIVEN = "given-by-the-vault-0123456789"
# Where the secrets of another stack can be made without touching the one that runs.
OTHER = "/opt/stackyard-secrets"
OTHER_STACK = (
    *("-e", f"stack_dir={OTHER} stack_project=stackyard-secrets"),
    *("-e", "stack_compose_http_port=18080 stack_compose_https_port=18443"),
)


@pytest.fixture
def other_stack(stack: Stack) -> Iterator[str]:
    """Return a directory that is there for the secrets of another stack while a test runs."""
    stack.machine.run("rm", "-rf", OTHER)
    yield OTHER
    stack.machine.run("rm", "-rf", OTHER)


def secret_values(stack: Stack, directory: str) -> list[str]:
    """Return every secret text in a stack's files: passwords, and the lines of a private key."""
    values = []
    for name in stack.machine.run("ls", f"{directory}/secrets").lines():
        text = stack.machine.read(f"{directory}/secrets/{name}")
        if "PRIVATE KEY" in text:
            key = text.partition("PRIVATE KEY-----\n")[2].partition("-----END")[0]
            values += key.split()
        elif name != "cache_users":
            values.append(text.strip())
    assert len(values) >= 5, f"{len(values)} values in {directory}/secrets"
    return values


def assert_shown_nowhere(values: list[str], output: str) -> None:
    """Fail, without naming them, where the output holds any of the values."""
    shown = sum(value in output for value in values)
    assert shown == 0, f"{shown} of {len(values)} secret values stand in the output"


def test_secrets_are_made_without_being_shown(
    stack: Stack, controller: Controller, other_stack: str
) -> None:
    """Not even with -vvv --diff, by the run that makes them and renders what reads them."""
    run = controller.deploy(
        *("prod", "-vvv", "--diff", "--tags", "stack_secrets,stack_compose", *OTHER_STACK)
    )
    assert run.changed > 0
    # The run showed what it wrote, so a secret in there would have been seen.
    assert "docker-compose.prod.yml" in run.output
    assert_shown_nowhere(secret_values(stack, other_stack), run.output)


@pytest.mark.disruptive
def test_secrets_are_used_without_being_shown(stack: Stack, controller: Controller) -> None:
    """Nor by runs that recreate what reads them."""
    output = "".join(
        controller.deploy("prod", "-vvv", "--diff", *changes).output
        for changes in (["-e", "stack_compose_api_memory=640M"], [])
    )
    assert "640M" in output
    assert_shown_nowhere(secret_values(stack, stack.directory), output)


def test_values_from_a_vault_are_used_and_never_shown(
    stack: Stack, controller: Controller, other_stack: str, tmp_path: Path
) -> None:
    password_file = tmp_path / "password"
    password_file.write_text(VAULT_PASSWORD)
    vault = tmp_path / "vault.yml"
    vault.write_text(f"stack_secrets_values: {{database_api: {GIVEN}}}\n")
    program = Path(sys.executable).parent / "ansible-vault"
    subprocess.run(
        [program, "encrypt", "--vault-password-file", password_file, vault],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    assert GIVEN not in vault.read_text()
    only_secrets = ("-vvv", "--diff", "--tags", "stack_secrets", *OTHER_STACK)
    from_vault = ("--vault-password-file", str(password_file), "-e", f"@{vault}")

    run = controller.deploy("prod", *only_secrets, *from_vault)
    for name in ("database_api_password", "api_database_password"):
        same = stack.machine.read(f"{other_stack}/secrets/{name}") == f"{GIVEN}\n"
        assert same, f"{name} is not the vault's value"
    assert_shown_nowhere([GIVEN], run.output)

    different = '{"stack_secrets_values": {"database_api": "another-value-0123456789"}}'
    refused = controller.play("site.yml", "-e", "env=prod", *only_secrets, "-e", different)
    assert refused.code != 0
    assert "differs from the value given for database_api" in refused.output
    assert_shown_nowhere([GIVEN], refused.output)


@pytest.mark.disruptive
def test_owners_and_modes_are_mended(stack: Stack, controller: Controller) -> None:
    """Those of the directory and of every file, and nothing else is changed."""
    folder = f"{stack.directory}/secrets"
    look = ("sh", "-c", f"stat -c '%n %u:%g %a' {folder} {folder}/*; sha256sum {folder}/*")
    before = stack.machine.run(*look).out
    # A directory that everybody may enter, files that everybody may read, of another owner.
    stack.machine.run(
        "sh", "-c", f"chmod 0755 {folder}; chmod 0644 {folder}/*; chown 0:0 {folder}/*"
    )
    assert stack.machine.run(*look).out != before
    run = controller.deploy("prod", "--tags", "stack_secrets")
    assert run.changed == 1, run.output
    assert stack.machine.run(*look).out == before
