"""Promises 4 and 7 to 9: what is kept, what is seen at once, what is forgotten."""

from __future__ import annotations

import json
import re
import tomllib
from contextlib import contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING

import pytest

from .machine import wait_until
from .settings import SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .stack import Container, Response, Stack

DATA = "/var/lib/postgresql/data"
CONFIG = "/etc/stackyard"
MEBIBYTE = 1024**2
# Once it is drained, two new segments of the log, 16 MB each, and a few items have to fit.
SMALL_DISKS_ROOM = 48 * MEBIBYTE
# What is refused is refused at once; a write that waits for the database may take 3.5 s.
WRITE_SECONDS = 4


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
    """An item is still there when all containers were removed and made anew."""
    before = {each.id for each in stack.containers()}
    stack.renew()
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


def _volume_place(stack: Stack) -> str:
    volume = f"{stack.project}_database-data"
    found = stack.machine.run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", volume)
    return found.out.strip()


@contextmanager
def _small_disk(stack: Stack) -> Iterator[Callable[[str], None]]:
    """The database on a disk with little room; gives the way to `fill` and `drain` it."""
    place = _volume_place(stack)

    def act(action: str) -> None:
        request = {"action": action, "place": place, "room": SMALL_DISKS_ROOM}
        stack.machine.program("small_disk", request)

    stack.stop("database")
    try:
        act("lay")
        stack.start("database")
        stack.wait_healthy()
        yield act
    finally:
        stack.stop("database")
        act("lift")
        stack.start("database")
    stack.wait_healthy()


def _store(stack: Stack, count: int) -> list[Response]:
    """Send items of some 2 kB that do not compress, so that they soon need another page."""
    bodies = [json.dumps({"name": "acceptance", "note": token_hex(1000)}) for _ in range(count)]
    headers = {"Content-Type": "application/json"}
    request = {"url": stack.url("/api/items"), "method": "POST", "timeout": WRITE_SECONDS}
    return stack.ask([{**request, "headers": headers, "body": body} for body in bodies])


def _present(stack: Stack, ids: list[int]) -> set[int]:
    rows = stack.sql(f"SELECT id FROM items WHERE id IN ({','.join(map(str, ids))})")
    return {int(row[0]) for row in rows}


@pytest.mark.promise(7)
@pytest.mark.disruptive
def test_full_disk_refuses_writes_and_loses_nothing(stack: Stack) -> None:
    """Writes get a clear 503, reads go on; the database comes back by itself once there is room."""
    stored: list[int] = []

    def store(count: int) -> list[Response]:
        answers = _store(stack, count)
        stored.extend(answer.json()["id"] for answer in answers if answer.status == 201)
        odd = [answer for answer in answers if answer.status not in (201, 503)]
        assert not odd, f"{odd[0]}\n{stack.logs('api')}\n{stack.logs('database')}"
        return [answer for answer in answers if answer.status == 503]

    with _small_disk(stack) as act:
        assert not store(4)
        since = stack.machine.run("date", "+%s").out.strip()
        act("fill")
        refused = store(20)
        assert refused, f"a full disk took 20 items\n{stack.logs('database')}"
        for answer in refused:
            assert answer.headers["content-type"] == "application/problem+json", str(answer)
            assert "its disk is full" in answer.json()["detail"], str(answer)
        urls = [stack.url("/"), *(stack.url(f"/api/items/{number}") for number in stored)]
        reads = stack.ask([{"url": url} for url in [*urls, stack.url("/api/items?limit=5")]])
        assert {read.status for read in reads} == {200}, "\n".join(map(str, reads))
        healths = stack.ask([{"url": stack.url("/api/health")}] * 8)
        assert {health.status for health in healths} == {200}, str(healths[0])
        assert any("refused: its disk is full" in each.body for each in healths), str(healths[0])

        # Until the log that is written ahead needs a new segment, and the server gives up.
        database = stack.one("database")
        spend = ["SELECT pg_switch_wal()", "SELECT pg_logical_emit_message(true, 'check', 'x')"]
        psql = ["psql", "-X", "-q", "-U", "postgres", "-d", "stackyard"]
        asked = [word for statement in spend for word in ("-c", statement)]
        tries = (stack.try_exec(database, *psql, *asked).code for _ in range(12))
        assert any(tries), "twelve new segments found room on a full disk"
        assert len(store(2)) == 2
        health = stack.get("/api/health")
        assert (health.status, health.json()["database"]["status"]) == (503, "away"), str(health)
        assert health.json()["database"]["reason"], str(health)
        log = stack.log_since(database, since)
        for word in ("ERROR", "PANIC"):
            assert re.search(f"{word}: .*No space left on device", log), f"{word}\n{log[-3000:]}"

        act("drain")
        stack.wait_healthy()
        assert stack.one("database").place == database.place
        assert _present(stack, stored) == set(stored)
        assert not store(4), stack.logs("database")
    assert _present(stack, stored) == set(stored)
    assert stack.machine.run("ls", "-A", f"{_volume_place(stack)}/..").lines() == ["_data"]
    paths = [f"/api/items/{number}" for number in stored]
    gone = stack.ask([{"url": stack.url(path), "method": "DELETE"} for path in paths])
    assert {answer.status for answer in gone} == {204}, str(gone[0])


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


# In the words of docs/swarm.md.
OTHER_APIS = pytest.mark.compose("`app.toml` is a config, and another one replaces the apis")


@pytest.mark.promise(8)
@OTHER_APIS
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
@OTHER_APIS
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


def _answer_of(stack: Stack, text: str) -> Response:
    """What /api/health says with this in app.toml, which is put back."""
    path = f"{stack.directory}/config/api/app.toml"
    kept = stack.machine.read(path)
    script = 'printf %s "$2" >"$1"'
    stack.machine.run("sh", "-c", script, "sh", path, text)
    try:
        return stack.get("/api/health")
    finally:
        stack.machine.run("sh", "-c", script, "sh", path, kept)


@pytest.mark.promise(8)
@OTHER_APIS
@pytest.mark.disruptive
@pytest.mark.parametrize(("text", "line", "says"), [
    ('banner = "fine"\ncolour = "blue"\n', 2, "colour"),
    ('banner = "fine"\npage_size = 10\n[features\n', 3, "line 3"),
    ('banner = "fine"\n\nsize = 3\n', 3, "size"),
])  # fmt: skip
def test_mistake_in_the_config_is_in_health_with_its_line(
    stack: Stack, text: str, line: int, says: str
) -> None:
    """And nobody is ill because of it."""
    answer = _answer_of(stack, text)
    assert answer.status == 200, str(answer)
    error = answer.json()["config"]
    assert error, str(answer)
    assert (error["line"], says in error["detail"]) == (line, True), str(answer)
    assert stack.get("/api/health").json()["config"] is None


# The cache's memory


@pytest.mark.promise(9)
def test_cache_data_is_in_memory_and_fits(stack: Stack) -> None:
    """/data is a bounded tmpfs; with maxmemory it leaves room for the server in the limit."""
    cache = stack.one("cache")
    assert cache.mounts.get("/data", {}).get("Type", "tmpfs") == "tmpfs", cache.mounts
    size = stack.kernel([cache])[cache.name]["tmpfs"].get("/data")
    assert size, f"/data is no tmpfs with a size: {cache.tmpfs}"
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
        return answer.headers["x-source"]

    cookie = visit("").headers.get("set-cookie", "").partition(";")[0]
    assert visit(cookie).json()["visits"] == 2
    source()
    assert source() == "cache"
    stack.restart("cache")
    stack.wait_healthy()
    assert source() == "database"
    wait_until(lambda: source() == "cache", 5, "items are cached again")
    assert visit(cookie).json()["visits"] == 1


@pytest.mark.promise(9)
@pytest.mark.disruptive
def test_items_are_read_without_the_cache(stack: Stack, item: str) -> None:
    """It is a cache: while it is away, the database answers."""
    stack.stop("cache")
    try:
        answer = stack.get(item)
        assert answer.status == 200, f"{answer}\n{stack.logs('api')}"
        assert answer.headers["x-source"] == "database", str(answer)
    finally:
        stack.start("cache")


@pytest.mark.promise(9)
@pytest.mark.parametrize("service", [each for each in SERVICES if each != "cache"])
def test_every_tmpfs_has_a_bound(stack: Stack, service: str) -> None:
    """A tmpfs counts towards its container's memory: each has a size within the limit."""
    containers = stack.of(service)
    facts = stack.kernel(containers)
    for each in containers:
        places = each.tmpfs
        assert places, f"{each.name} has a read-only root and no tmpfs"
        sizes = {place: facts[each.name]["tmpfs"].get(place.replace("/var/run", "/run"), 0) or
                 facts[each.name]["tmpfs"].get(place, 0) for place in places}  # fmt: skip
        assert all(sizes.values()), f"{each.name}: {sizes}"
        assert sum(sizes.values()) <= stack.settings.memory(service) // 2, f"{each.name}: {sizes}"
        # The engine gives everybody that much; more was never accounted for.
        assert each.host_config["ShmSize"] <= 64 * MEBIBYTE, f"{each.name}: /dev/shm"


# Each place is written to from inside until it takes no more, and cleaned up.
OVERFILL = """
export LC_ALL=C
while [ $# -gt 0 ]; do
    said=$(dd if=/dev/zero of="$1/.acceptance" bs=64k count="$2" 2>&1)
    printf '%s %s %s\n' "$1" "$(stat -c %s "$1/.acceptance")" "$(echo $said)"
    rm -f "$1/.acceptance"
    shift 2
done
"""


@pytest.mark.promise(9)
@pytest.mark.disruptive
def test_every_tmpfs_is_full_at_its_size(stack: Stack) -> None:
    """Written to beyond its size it says so, and nobody is killed for it."""
    before = {each.name: each.life for each in stack.containers()}
    for each in [stack.one(service) for service in SERVICES]:
        places = [*each.tmpfs, "/dev/shm"]  # noqa: S108
        assert each.service != "cache" or "/data" in places, places
        sizes = stack.kernel([each])[each.name]["tmpfs"]
        sizes = {place: sizes.get(place.replace("/var/run", "/run"), 0) or sizes.get(place, 0)
                 for place in places}  # fmt: skip
        assert all(sizes.values()), f"{each.name}: {sizes}"
        words = [str(word) for place, size in sizes.items() for word in (place, size // 65536 + 8)]
        lines = stack.exec(each, "sh", "-c", OVERFILL, "sh", *words).lines()
        assert len(lines) == len(places), lines
        for line in lines:
            place, written, said = line.split(" ", 2)
            assert "No space left on device" in said, f"{each.name}: {line}"
            # Some of it may be in use.
            assert sizes[place] * 0.8 <= int(written) <= sizes[place], f"{each.name}: {line}"
        assert not stack.refreshed(each).state["OOMKilled"], each.name
    assert {each.name: each.life for each in stack.containers()} == before


# Run in an api, which has the right to write there: more than fits, in 256 kB each.
OVERFLOW = """
import sys
from redis import Redis
from stackyard_api.settings import Settings, read_passwords
settings = Settings.from_environment()
cache = Redis(
    host=settings.cache_host, port=settings.cache_port, username=settings.cache_user,
    password=read_passwords(settings.cache_password_file)[0], socket_timeout=10,
)
keys = [f"item:acceptance-{number}" for number in range(int(sys.argv[1]) >> 18)]
try:
    written = sum(bool(cache.set(key, bytes(1 << 18), ex=120)) for key in keys)
    # Tells whether it is there, without sending it.
    kept = [bool(cache.expire(key, 120)) for key in keys]
    print(written, sum(kept), int(kept[-1]))
finally:
    for key in keys:
        cache.delete(key)
"""


@pytest.mark.promise(9)
@pytest.mark.disruptive
def test_full_cache_drops_the_oldest_and_serves(stack: Stack, item: str) -> None:
    """Given half as much again as its bound, it takes all and keeps what fits."""
    cache = stack.one("cache")
    match = re.search(r"--maxmemory (\d+)mb\b", " ".join(cache.command))
    assert match, f"no maxmemory in {cache.command}"
    bound = int(match[1]) * MEBIBYTE
    result = stack.exec(stack.one("api"), "python3", "-c", OVERFLOW, str(bound * 3 // 2))
    written, kept, newest = map(int, result.out.split())
    assert written == (bound * 3 // 2) >> 18, str(result)
    assert bound // 2 <= kept << 18 <= bound, f"{kept} of {written} kept; {match[0]}"
    assert newest, "the newest was dropped"
    wait_until(lambda: stack.get(item).headers["x-source"] == "cache", 5, "items are cached")
    now = stack.refreshed(cache)
    assert (now.life, now.state["OOMKilled"]) == (cache.life, False), stack.logs("cache")
