"""Promises 4 and 7 to 9: what is kept, what is seen at once, what is forgotten."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

import pytest

from .machine import wait_until
from .settings import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .stack import Container, Response, Stack

DATA = "/var/lib/postgresql/data"
CONFIG = "/etc/stackyard"
MEBIBYTE = 1024**2


@pytest.fixture
def item(stack: Stack) -> Iterator[str]:
    """The path of an item that exists for the length of a check."""
    path = stack.create_item("acceptance: kept")
    yield path
    stack.wait_healthy()
    # Gone already where a check found that it was lost: that check says so.
    assert stack.send("DELETE", path).status in (204, 404)


# The database's volume


@pytest.mark.promise(7)
def test_data_is_on_the_named_volume(stack: Stack) -> None:
    """The server's data directory is the project's volume, not the container's own layer."""
    database = stack.one("database")
    mount = database.mounts.get(DATA, {})
    found = mount.get("Type"), mount.get("Name"), mount.get("RW")
    assert found == ("volume", f"{stack.project}_database-data", True), database.mounts
    assert stack.sql("SHOW data_directory") == [[DATA]]
    inside = stack.exec(database, "stat", "-c", "%d", DATA, f"{DATA}/base", "/").lines()
    assert inside[0] == inside[1] != inside[2], f"devices of data, base, root: {inside}"


@pytest.mark.promise(7)
def test_data_is_flushed(stack: Stack) -> None:
    """What was committed survives a power cut."""
    names = ["fsync", "full_page_writes", "synchronous_commit"]
    found = {name: stack.sql(f"SHOW {name}")[0][0] for name in names}
    assert found == dict.fromkeys(names, "on")


@pytest.mark.promise(7, 9)
def test_no_container_has_a_nameless_volume(stack: Stack) -> None:
    """Nothing but the database's volume is kept, so nothing piles up or is kept by mistake."""
    volumes = {
        (each.service, mount["Name"])
        for each in stack.containers()
        for mount in each.mounts.values()
        if mount["Type"] == "volume"
    }
    assert volumes == {("database", f"{stack.project}_database-data")}


@pytest.mark.promise(7)
@pytest.mark.disruptive
def test_data_outlives_down_and_up(stack: Stack, item: str) -> None:
    """An item is still there when `docker compose down` and `up` made all containers anew."""
    before = {each.id for each in stack.containers()}
    counts = stack.counts()
    stack.compose("down")
    assert stack.containers() == []
    scale = [f"--scale={service}={counts[service]}" for service in ("frontend", "api")]
    stack.compose("up", "-d", "--wait", "--wait-timeout", "120", *scale, seconds=180)
    assert before.isdisjoint(each.id for each in stack.containers())
    stack.wait_healthy()
    answer = stack.get(item)
    assert answer.status == 200, f"{answer}\n{stack.logs('database')}"
    assert answer.json()["name"] == "acceptance: kept"


@pytest.mark.promise(4)
@pytest.mark.disruptive
@pytest.mark.parametrize("user", ["999:999", "0:0"])
def test_second_server_on_the_volume_refuses(stack: Stack, item: str, user: str) -> None:
    """Started past Compose, from the same image, it ends with a reason; the first is untouched."""
    database = stack.one("database")
    name = f"{stack.project}-acceptance-second"
    hardened = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    try:
        result = stack.machine.try_run(
            *("docker", "run", "--rm", "--init", "--name", name, "--network=none"),
            *("--user", user, *(hardened if user == "999:999" else [])),
            *("--tmpfs=/tmp:mode=1777", "--tmpfs=/var/run/postgresql:mode=1777"),
            *("-v", f"{stack.project}_database-data:{DATA}", database.data["Image"]),
            seconds=20,
        )
    finally:
        stack.machine.try_run("docker", "rm", "-f", name)
    assert result.code not in (0, 124, 125, 137), f"did it start?\n{result}"
    assert re.search(r"\bin use\b|lock file|already running", result.text), str(result)
    assert stack.refreshed(database).life == database.life
    assert stack.sql("SELECT 1") == [["1"]]
    answer = stack.get(item)
    assert answer.status == 200, f"{answer}\n{stack.logs('database')}"
    # The files still are what the first server thinks: it can write through them.
    stack.sql("CHECKPOINT")


# The api's configuration


def _write(stack: Stack, path: str, text: str) -> None:
    stack.machine.run("sh", "-c", 'printf %s "$1" >"$2"', "sh", text, path)


def _configs(stack: Stack, containers: list[Container]) -> dict[str, Response]:
    """Each replica's next answer, asked from a frontend by address."""
    network = f"{stack.project}_frontend"
    frontend = stack.one("frontend")
    script = 'for a; do echo "$a $(busybox wget -qO- -T 3 "http://$a:8000/config" 2>&1)"; done'
    addresses = {each.addresses[network]: each.name for each in containers}
    answers = stack.exec(frontend, "bash", "-c", script, "sh", *addresses).lines()
    assert len(answers) == len(addresses), answers
    return {addresses[line.partition(" ")[0]]: line.partition(" ")[2] for line in answers}


@pytest.mark.promise(8)
def test_config_directory_is_mounted_read_only(stack: Stack) -> None:
    """The whole directory, so that a renamed file comes through; no api can write to it."""
    for api in stack.of("api"):
        mount = api.mounts.get(CONFIG, {})
        found = mount.get("Type"), mount.get("Source"), mount.get("RW")
        assert found == ("bind", f"{stack.directory}/config/api", False), f"{api.name} {api.mounts}"
        below = [place for place in api.mounts if place.startswith(f"{CONFIG}/")]
        assert not below, f"{api.name} has files mounted over the directory: {below}"
        # As the file's owner, so that it is the mount that refuses and not the file's mode.
        written = stack.machine.try_run(
            *("docker", "exec", "--user=0:0", api.id, "bash", "-c", f": >>{CONFIG}/app.toml")
        )
        assert written.code != 0, f"{api.name} can write its configuration"
        assert "Read-only" in written.err, str(written)
    assert stack.machine.run("stat", "-c", "%F", f"{stack.directory}/config/api").out.strip() == (
        "directory"
    )


@pytest.mark.promise(8)
def test_every_api_has_the_hosts_config(stack: Stack) -> None:
    """What the file on the machine says is what each replica goes by."""
    text = stack.machine.read(f"{stack.directory}/config/api/app.toml")
    wanted = tomllib.loads(text)
    for name, answer in _configs(stack, stack.of("api")).items():
        for key, value in wanted.items():
            assert f'"{key}":' in answer, f"{name}: {answer}"
            if isinstance(value, str):
                assert value in answer, f"{name} lacks {key} = {value!r}: {answer}"
        assert '"error":null' in answer, f"{name}: {answer}"


@pytest.mark.promise(8)
@pytest.mark.disruptive
@pytest.mark.parametrize("way", ["in place", "by rename"])
def test_edit_is_seen_at_the_next_request(stack: Stack, way: str) -> None:
    """The very next answer of every replica has it, and nothing is restarted."""
    path = f"{stack.directory}/config/api/app.toml"
    kept = f"{stack.directory}/config/api/.acceptance-kept"
    text = stack.machine.read(path)
    banner = f"acceptance: edited {way}"
    edited, changed = re.subn(r"(?m)^banner *=.*$", f'banner = "{banner}"', text)
    if not changed:
        edited = f'banner = "{banner}"\n{text}'
    before = [each.life for each in stack.of("api")]
    stack.machine.run("cp", "-a", path, kept)
    try:
        if way == "in place":
            _write(stack, path, edited)
        else:
            _write(stack, f"{path}.new", edited)
            stack.machine.run("chmod", "0644", f"{path}.new")
            stack.machine.run("mv", f"{path}.new", path)
        answers = _configs(stack, stack.of("api"))
        late = {name: answer for name, answer in answers.items() if banner not in answer}
        assert not late, f"not seen by {late}\n{stack.logs('api')}"
        through = stack.ask([{"url": stack.url("/api/config")}] * 12)
        late = [answer for answer in through if answer.json()["config"]["banner"] != banner]
        assert not late, str(late[0])
    finally:
        # In place, so that it is seen whatever the mount is; then the file itself, as it was.
        _write(stack, path, text)
        stack.machine.run("mv", kept, path)
    assert [each.life for each in stack.of("api")] == before
    assert stack.machine.read(path) == text
    assert all(banner not in answer for answer in _configs(stack, stack.of("api")).values())


# The cache's memory


@pytest.mark.promise(9)
def test_cache_data_is_in_memory_and_fits(stack: Stack) -> None:
    """/data is a bounded tmpfs; with maxmemory it leaves room for the server in the limit."""
    cache = stack.one("cache")
    assert "/data" not in cache.mounts, cache.mounts
    size = stack.kernel([cache])[cache.name]["tmpfs"].get("/data")
    assert size, f"/data is no tmpfs with a size: {cache.host_config['Tmpfs']}"
    match = re.search(r"--maxmemory (\d+)mb\b", " ".join(cache.command))
    assert match, f"no maxmemory in {cache.command}"
    limit = stack.settings.memory("cache")
    # Redis itself takes some 8 MB, and buffers of clients come on top of maxmemory.
    room = limit - size - int(match[1]) * MEBIBYTE
    assert room >= 16 * MEBIBYTE, f"{room} bytes left of {limit} beside {size} and {match[0]}"


@pytest.mark.promise(9)
def test_cache_writes_no_snapshot(stack: Stack) -> None:
    """It would be memory twice over, and something to come back with after a restart."""
    cache = stack.one("cache")
    command = cache.command
    settings = dict(zip(command[::2], command[1::2], strict=True))
    assert (settings.get("--save"), settings.get("--appendonly")) == ("", "no"), command
    assert stack.exec(cache, "ls", "-A", "/data").out == ""


@pytest.mark.promise(9)
@pytest.mark.disruptive
def test_cache_forgets_at_a_restart_and_nothing_else_does(stack: Stack, item: str) -> None:
    """An item comes from the cache, after a restart from the database; a session starts over."""

    def visit(cookie: str) -> Response:
        headers = {"Cookie": cookie} if cookie else {}
        return stack.ask([{"url": stack.url("/api/session"), "headers": headers}])[0]

    def source() -> str:
        answer = stack.get(item)
        assert answer.status == 200, f"{answer}\n{stack.logs('cache')}"
        return answer.json()["source"]

    cookie = visit("").headers.get("set-cookie", "").partition(";")[0]
    assert visit(cookie).json()["visits"] == 2
    source()
    assert source() == "cache"
    stack.compose("restart", "cache")
    stack.wait_healthy()
    assert source() == "database"
    wait_until(lambda: source() == "cache", 5, "items are cached again")
    assert visit(cookie).json()["visits"] == 1


@pytest.mark.promise(9)
@pytest.mark.disruptive
def test_items_are_read_without_the_cache(stack: Stack, item: str) -> None:
    """It is a cache: while it is away, the database answers."""
    stack.compose("stop", "cache")
    try:
        answer = stack.get(item)
        assert answer.status == 200, f"{answer}\n{stack.logs('api')}"
        assert answer.json()["source"] == "database", str(answer)
    finally:
        stack.compose("start", "cache")


@pytest.mark.promise(9)
@pytest.mark.parametrize("service", [each for each in SERVICES if each != "cache"])
def test_every_tmpfs_has_a_bound(stack: Stack, service: str) -> None:
    """A tmpfs counts towards its container's memory: each has a size within the limit."""
    containers = stack.of(service)
    facts = stack.kernel(containers)
    for each in containers:
        places = each.host_config["Tmpfs"] or {}
        assert places, f"{each.name} has a read-only root and no tmpfs"
        sizes = {place: facts[each.name]["tmpfs"].get(place.replace("/var/run", "/run"), 0) or
                 facts[each.name]["tmpfs"].get(place, 0) for place in places}  # fmt: skip
        assert all(sizes.values()), f"{each.name}: {sizes}"
        assert sum(sizes.values()) <= stack.settings.memory(service) // 2, f"{each.name}: {sizes}"
