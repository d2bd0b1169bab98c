"""A secret that is not what the database was set up with is refused, and never replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import Case, variables

if TYPE_CHECKING:
    from ..acceptance.stack import Stack
    from .conftest import Attempt, Lab

SECRETS = "/opt/stackyard/secrets"
# Each comes as far as the lock.
SIDE_BY_SIDE = 1
PROD = variables(env="prod")


def damaged(name: str, damage: str, *says: str) -> Case:
    """Return a case in which a shell script, run among the secrets, has damaged one."""
    return Case(name, PROD, [says], worse=f"own {SECRETS}; cd {SECRETS}; {damage}")


CASES = [
    damaged("empty", ": >database_superuser_password",
            f"{SECRETS}/database_superuser_password is empty. Restore it from a copy"),
    damaged("truncated", "truncate --size=20 api_cache_password",
            f"{SECRETS}/api_cache_password is cut short", "Restore it from a copy"),
    damaged("truncated certificate",
            "truncate --size=100 gateway_certificate; echo >>gateway_certificate",
            f"{SECRETS}/gateway_certificate lacks a certificate or its key"),
    damaged("two files that differ", "echo another-value-of-a-day >database_api_password",
            f"{SECRETS}/database_api_password and {SECRETS}/api_database_password differ",
            "restore the right value"),
    damaged("missing while the database has data", "rm database_superuser_password",
            f"{SECRETS}/database_superuser_password is missing, and ", "/PG_VERSION was",
            "Restore it"),
    Case("another value than the file's",
         variables(env="prod", stack_secrets_values={"cache_api": "hidden-4711-hidden"}),
         [[f"{SECRETS}/api_cache_password differs from the value given for cache_api",
           "Give that value or none, or change it: make rotate-secrets"]]),
]  # fmt: skip


@pytest.fixture(scope="module")
def values(stack: Stack) -> list[str]:
    """Return the passwords on the machine."""
    found = stack.machine.run("sh", "-c", f"cat {SECRETS}/*_password").lines()
    assert len(found) == 4
    return [*found, "hidden-4711"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_wrong_secret_is_refused_and_not_shown(
    case: Case, attempt: Attempt, values: list[str]
) -> None:
    outcome = attempt(case)
    outcome.assert_refused()
    assert not [number for number, value in enumerate(values) if value in outcome.run.output]


def test_missing_copy_for_another_reader_is_mended_from_the_first(
    lab: Lab, attempt: Attempt
) -> None:
    # The other side of the refusals: what can be known is put right.
    path = f"{SECRETS}/api_database_password"
    outcome = attempt(
        Case("missing copy", [*PROD, "--tags=stack_secrets"], [], worse=f"own {SECRETS}; rm {path}")
    )
    assert outcome.run.code == 0, outcome.run.output
    content = [line for line in lab.look() if line.endswith(f"  {path}")]
    assert content
    assert not set(content) & set(outcome.before)
    assert set(content) <= set(outcome.after)
