"""Promise 15: a secret is a file that its reader alone can read, and is nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .settings import SERVICES, Settings

if TYPE_CHECKING:
    from .stack import Stack

pytestmark = pytest.mark.promise(15)

FILES = [each.name for each in Settings({}, {}).secret_files()]
INSIDE = "/run/secrets"
# Which of the kinds of places always has something in each of its places.
PLACES = {
    "docker compose config": True,
    "docker inspect": True,
    "docker inspect of networks and volumes": True,
    "docker inspect of images": True,
    "docker history": True,
    "docker top": True,
    "command lines": True,
    "environments": False,
    "logs": False,
    "rendered files": True,
}


@pytest.fixture(scope="module")
def scan(stack: Stack) -> dict[str, Any]:
    """What the look for secrets found; the values stay on the machine."""
    request = {"directory": stack.directory, "label": stack.label, "files": FILES}
    return stack.machine.program("secrets_scan", request)


def test_directory_is_roots_alone(stack: Stack) -> None:
    """Nobody else can even list the secrets; there are those that are known and no others."""
    folder = f"{stack.directory}/secrets"
    about = stack.machine.run("stat", "-c", "%u:%g %a %F", folder).out.strip()
    assert about == "0:0 700 directory"
    assert sorted(stack.machine.run("ls", "-A", folder).lines()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_file_is_its_readers_alone(stack: Stack, name: str) -> None:
    """0400, owned by the uid that reads it, a plain file that is whole."""
    owner = {each.name: each.owner for each in stack.settings.secret_files()}[name]
    path = f"{stack.directory}/secrets/{name}"
    about = stack.machine.run("stat", "-c", "%u:%g %a %F", path).out.strip()
    assert about == f"{owner}:{owner} 400 regular file"
    # Its length and its last byte; never its text.
    assert int(stack.machine.run("stat", "-c", "%s", path).out) > 12, f"{path} is cut short"
    assert stack.machine.run("sh", "-c", 'tail -c 1 "$1" | od -An -c', "sh", path).out.strip() == (
        r"\n"
    )


@pytest.mark.parametrize("service", SERVICES)
def test_service_has_its_secrets_and_no_others(stack: Stack, service: str) -> None:
    """Mounted read-only where they are read, readable there, and not to be written."""
    wanted = {each.name for each in stack.settings.secret_files() if each.service == service}
    for container in stack.of(service):
        given = stack.secrets(container)
        assert given == wanted, f"{container.name}: {sorted(given)}"
        script = (
            f"ls -A {INSIDE} 2>/dev/null; "
            f"for f in {INSIDE}/*; do [[ -e $f ]] || continue; "
            '[[ -r $f ]] || echo "unreadable $f"; '
            '{ : >>"$f"; } 2>/dev/null && echo "writable $f"; done; true'
        )
        seen = stack.exec(container, "bash", "-c", script).lines()
        assert sorted(seen) == sorted(wanted), f"{container.name}: {seen}"


def test_the_look_for_secrets_sees(scan: dict[str, Any]) -> None:
    """It read a value from every file, and finds it where it is."""
    assert scan["unreadable"] == []
    assert scan["blind"] == []
    assert sorted(scan["places"]) == sorted(PLACES)


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_in(scan: dict[str, Any], place: str) -> None:
    """Neither as it is nor in another writing; the failure names the place, not the value."""
    about = scan["places"][place]
    assert about["looked_at"] > 0, f"no {place} to look at"
    assert about["empty"] < about["looked_at"], f"{place} is empty everywhere"
    if PLACES[place]:
        assert about["empty"] == 0, f"{about['empty']} of {about['looked_at']} are empty"
        assert about["lacking_word"] == [], f"not what was to be looked at: {about['lacking_word']}"
    assert about["findings"] == []


def test_passwords_are_stored_as_verifiers(stack: Stack) -> None:
    """The database keeps no password that could be read back, and every role has one."""
    rows = stack.sql(
        "SELECT rolname, coalesce(rolpassword LIKE 'SCRAM-SHA-256$%', false) "
        "FROM pg_authid WHERE rolcanlogin ORDER BY rolname"
    )
    assert rows == [["api", "t"], ["postgres", "t"]]
    # And the next one that somebody sets will be like these.
    assert stack.sql("SHOW password_encryption") == [["scram-sha-256"]]


def test_database_asks_for_the_password(stack: Stack) -> None:
    """Over TCP the right one opens and a wrong one does not, for each role."""
    database = stack.one("database")
    for role, name in (
        ("api", "database_api_password"),
        ("postgres", "database_superuser_password"),
    ):
        # From the file to the client inside the container: in no argument and on no screen.
        login = (
            f"PGPASSWORD=$(cat {INSIDE}/{name})$0 psql -X -At -h 127.0.0.1 -U {role} -d stackyard "
            "-c 'SELECT current_user'"
        )
        right = stack.try_exec(database, "bash", "-c", login, "")
        assert right.out.strip() == role, str(right)
        wrong = stack.try_exec(database, "bash", "-c", login, "wrong")
        assert wrong.code != 0, str(wrong)
        assert "password authentication failed" in wrong.err, str(wrong)
