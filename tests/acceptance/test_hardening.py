"""Beside the numbered promises: what every container is held to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from .promises import HARDENING
from .settings import SERVICES

if TYPE_CHECKING:
    from typing import Any

    from .stack import Container, Stack

pytestmark = pytest.mark.promise(HARDENING)

READ_ONLY = [
    "/",
    "/etc",
    "/usr/bin",
    "/usr/local/bin",
    "/srv",
    "/opt",
    "/var/lib",
    "/root",
    "/home",
]
GRACE_SECONDS = 20


def _of(containers: list[Container], service: str) -> list[Container]:
    found = [each for each in containers if each.service == service]
    assert found, f"{service} has no container"
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_container_is_held_to_the_least(
    stack: Stack, containers: list[Container], service: str
) -> None:
    """As the engine was told: no capability, no new privilege, read-only, its own user, an init."""
    uid = stack.settings.uids[service]
    for each in _of(containers, service):
        held = each.host_config
        assert held["CapDrop"] == ["ALL"], each.name
        assert not held["CapAdd"], each.name
        assert held["Privileged"] is False, each.name
        assert held["ReadonlyRootfs"] is True, each.name
        assert held["Init"] is True, each.name
        assert stack.no_new_privileges(each), each.name
        assert each.data["Config"]["User"] == f"{uid}:{uid}", each.name
        assert not held["Devices"], each.name
        assert not held["GroupAdd"], each.name
        shared = [held[mode] for mode in ("NetworkMode", "PidMode", "UTSMode", "IpcMode")]
        assert not any(mode == "host" or "container:" in mode for mode in shared), shared
        assert held["IpcMode"] == "private", each.name


@pytest.mark.parametrize("service", SERVICES)
def test_kernel_agrees_for_every_process(
    stack: Stack, containers: list[Container], kernel: dict[str, dict[str, Any]], service: str
) -> None:
    """No capability in any set, no new privileges, the service's own uid, a seccomp filter."""
    uid = stack.settings.uids[service]
    for each in _of(containers, service):
        processes = kernel[each.name]["processes"]
        assert len(processes) > 1, f"{each.name}: only {processes}"
        for process in processes:
            assert process["Uid"].split() == [str(uid)] * 4, f"{each.name}: {process}"
            assert process["Gid"].split() == [str(uid)] * 4, f"{each.name}: {process}"
            sets = {name: int(process[name], 16) for name in process if name.startswith("Cap")}
            assert len(sets) == 5, process
            assert not any(sets.values()), f"{each.name}: {process}"
            assert process["NoNewPrivs"] == "1", f"{each.name}: {process}"
            assert process["Seccomp"] == "2", f"{each.name}: {process}"


def _dead(processes: list[dict[str, Any]]) -> set[tuple[int, str]]:
    found = [each for each in processes if each["State"].startswith("Z")]
    return {(each["pid"], each["comm"]) for each in found}


@pytest.mark.parametrize("service", SERVICES)
def test_init_reaps(
    stack: Stack, containers: list[Container], kernel: dict[str, dict[str, Any]], service: str
) -> None:
    """Process 1 is Docker's init, and no dead child is left standing about."""
    for each in _of(containers, service):
        processes = kernel[each.name]["processes"]
        assert processes[0]["comm"] == "docker-init", f"{each.name}: {processes[0]}"
        dead = _dead(processes)
        # Who has just ended waits for a moment, to be seen by chance.
        left = dead & _dead(stack.kernel([each])[each.name]["processes"]) if dead else dead
        assert not left, f"{each.name}: {left}"


@pytest.mark.parametrize("service", SERVICES)
def test_only_tmpfs_can_be_written(stack: Stack, containers: list[Container], service: str) -> None:
    """The root file system refuses a file anywhere; the tmpfs it needs take one."""
    script = (
        'for d; do { : >"$d/.acceptance"; } 2>/dev/null && { rm -f "$d/.acceptance"; echo "$d"; };'
        " done; true"
    )
    for each in _of(containers, service):
        places = each.tmpfs
        assert places, f"{each.name} has no tmpfs"
        can = stack.exec(each, "bash", "-c", script, "sh", *places, *READ_ONLY).lines()
        assert can == places, f"{each.name}: writable is {can}, tmpfs are {places}"
        # As root it would be refused too: it is the file system, not the file's owner.
        root = stack.machine.try_run(
            "docker", "exec", "--user=0:0", each.id, "bash", "-c", ": >/.acceptance"
        )
        assert "Read-only file system" in root.err, str(root)


@pytest.mark.parametrize("service", SERVICES)
def test_machine_is_out_of_reach(stack: Stack, containers: list[Container], service: str) -> None:
    """Nothing of the machine is mounted but what is drawn: no engine socket, no device, no root."""
    allowed = stack.drawn_binds(service)
    backups = {f"{stack.directory}/backups"} if service == "database" else set()
    # Only our own image can make backups, and it alone has a place for them.
    if any(backups & {m["Source"] for m in each.mounts.values()} for each in containers):
        allowed |= {*backups, f"{stack.directory}/config/backup"}
    for each in _of(containers, service):
        binds = {m["Source"] for m in each.mounts.values() if m["Type"] == "bind"}
        assert binds == allowed, f"{each.name}: {binds ^ allowed}"
        writable = [m["Source"] for m in each.mounts.values() if m["Type"] == "bind" and m["RW"]]
        assert not set(writable) - backups, f"{each.name}: {writable}"


def test_files_are_roots_to_write(stack: Stack) -> None:
    """Nobody else gets into the stack's directory, or could write what is mounted from it."""
    about = stack.machine.run("stat", "-c", "%u:%g %a", stack.directory).out.strip()
    assert about == "0:0 750", f"{stack.directory}: {about}"
    found = stack.machine.run(
        *("find", stack.directory, "-not", "-type", "l", "-printf", "%m %p\\n"),
        *("-path", "*/secrets", "-prune"),
    ).lines()
    modes = {path: int(mode, 8) for mode, path in (line.split(" ", 1) for line in found)}
    assert f"{stack.directory}/config/database/10-api-role.sh" in modes, sorted(modes)
    writable = {path: oct(mode) for path, mode in modes.items() if mode & 0o022}
    assert not writable, f"others may write {writable}"


def test_logs_go_where_the_engines_own_do(stack: Stack, containers: list[Container]) -> None:
    """The engine's configuration decides where, and how much is kept; no service evades it."""
    driver = stack.machine.run("docker", "info", "--format", "{{.LoggingDriver}}").out.strip()
    assert driver not in ("", "none"), f"the engine's log driver is {driver!r}"
    others = {each.name: each.host_config["LogConfig"]["Type"] for each in containers}
    assert set(others.values()) == {driver}, f"the engine has {driver}: {others}"
    for env in ("dev", "prod"):
        services = stack.compose_config(env)["services"]
        evading = [name for name in services if services[name].get("logging")]
        assert not evading, f"{evading} in {env}"


def test_database_has_time_to_end_well(stack: Stack) -> None:
    """A checkpoint may take longer than the engine's ten seconds, and a kill means recovery."""
    given = stack.stop_seconds("database")
    assert given >= 60, f"{given} seconds"


def test_apis_role_owns_its_schema_and_nothing_else(stack: Stack) -> None:
    """No superuser, makes no databases or roles, gets into no other database."""
    rows = stack.sql(
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolcanlogin "
        "FROM pg_roles WHERE rolname = 'api'"
    )
    assert rows == [["f", "f", "f", "f", "f", "t"]]
    members = stack.sql("SELECT roleid::regrole FROM pg_auth_members WHERE member = 'api'::regrole")
    assert members == []
    # pg_isready and the like connect as nobody in particular: only what api is granted counts.
    everyone = stack.sql(
        "SELECT has_database_privilege('api', 'stackyard', 'CONNECT'), "
        "has_database_privilege('api', 'stackyard', 'CREATE'), "
        "has_schema_privilege('api', 'public', 'CREATE')"
    )
    assert everyone == [["t", "f", "t"]]


def test_stranger_to_the_cache_may_ask_whether_it_lives(stack: Stack) -> None:
    """Without a password PING works and nothing else does."""
    commands = ["GET item:1", "SET acceptance x EX 1", "KEYS *", "SCAN 0", "INFO", "DBSIZE"]
    commands += ["CONFIG GET maxmemory", "ACL WHOAMI", "CLIENT LIST", "EVAL return(1) 0", "ECHO x"]
    commands += ["SUBSCRIBE x", "MONITOR", "SAVE", "REPLICAOF NO ONE", "COMMAND COUNT", "SELECT 1"]
    script = (
        'for line in PING "$@"; do set -f; set -- $line; '
        'echo "$line -> $(timeout 3 redis-cli "$@" 2>&1 | head -n 1)"; done'
    )
    answers = stack.exec(stack.one("cache"), "bash", "-c", script, "sh", *commands).lines()
    assert answers[0] == "PING -> PONG"
    assert len(answers) == len(commands) + 1
    allowed = [line for line in answers[1:] if "NOPERM" not in line.partition(" -> ")[2]]
    assert not allowed, f"an unknown client may {allowed}"


def test_pages_come_with_the_headers_that_protect_them(stack: Stack) -> None:
    """The browser is told to run nothing foreign; no server tells its version."""
    headers = stack.get("/").headers
    assert "default-src 'none'" in headers.get("content-security-policy", ""), headers
    assert headers.get("x-content-type-options") == "nosniff", headers
    assert "server" not in headers, headers


@pytest.mark.disruptive
@pytest.mark.parametrize("service", SERVICES)
def test_stop_is_graceful(stack: Stack, service: str) -> None:
    """One replica ends by itself, well within the time it is given, with exit code 0."""
    container = stack.one(service)
    start = time.monotonic()
    stack.machine.run("docker", "stop", "-t", str(GRACE_SECONDS), container.id)
    took = time.monotonic() - start
    try:
        stopped = stack.refreshed(container)
        log = stack.logs(container.name)
        assert stopped.state["Status"] == "exited", f"{stopped.state}\n{log}"
        assert stopped.state["ExitCode"] == 0, f"{stopped.state}\n{log}"
        assert took < GRACE_SECONDS / 2, f"took {took:.1f} s\n{log}"
    finally:
        stack.start_again(container)
    stack.wait_healthy(60)
