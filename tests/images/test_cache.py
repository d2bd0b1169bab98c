"""The cache image keeps the official redis image's contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from conftest import Container, Image, Yard

LOCKED_DOWN = (
    "--user=999:999",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)


def ready(container: Container, *options: str) -> None:
    """Wait until the server answers, if only to ask for a password."""
    container.wait_while_running(
        lambda: container.execute("redis-cli", *options, "ping").code == 0, "the server"
    )


def setting(container: Container, name: str, *options: str) -> str:
    """Value of one setting of the running server."""
    answer = container.output_of("redis-cli", *options, "config", "get", name)
    return answer.partition("\n")[2]


def from_elsewhere(yard: Yard, image: Image, container: Container) -> str:
    """Return what another container gets for a PING."""
    there = [f"--network={yard.network_of(container)}"]
    result = yard.run(image.reference, "redis-cli", "-h", container.name, "ping", options=there)
    return (result.out + result.err).strip()


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """Empty configuration file that the container's user can read."""
    tmp_path.chmod(0o755)
    path = tmp_path / "redis.conf"
    path.touch(mode=0o644)
    return path


def mounted(conf: Path) -> str:
    """Option that mounts the configuration's directory."""
    return f"--volume={conf.parent}:/conf:ro"


@pytest.fixture(scope="session")
def plain(shared_yard: Yard, cache_image: Image) -> Container:
    """Start as root with nothing said."""
    container = shared_yard.start(cache_image.reference)
    ready(container)
    return container


# --- how it is started ---


def test_started_as_root_it_prepares_data_and_steps_down(
    yard: Yard, cache_image: Image, tmp_path: Path
) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    (directory / "old").touch()
    container = yard.start(cache_image.reference, options=[f"--volume={directory}:/data"])
    ready(container)
    assert container.output_of("stat", "-c", "%u:%g", "/proc/1") == "999:999"
    assert "CapEff:\t0000000000000000" in container.output_of("cat", "/proc/1/status")
    assert {directory.stat().st_uid, (directory / "old").stat().st_uid} == {999}
    container.output_of("redis-cli", "save")
    assert oct((directory / "dump.rdb").stat().st_mode) == "0o100600"


@pytest.mark.parametrize("data", [[], ["--tmpfs=/data"]], ids=["volume", "tmpfs"])
def test_started_as_999_without_rights_it_runs(
    yard: Yard, cache_image: Image, data: Sequence[str]
) -> None:
    container = yard.start(cache_image.reference, options=[*LOCKED_DOWN, *data])
    ready(container)
    assert container.output_of("redis-cli", "save") == "OK"
    assert container.execute("touch", "/etc/x").code != 0


def test_an_acl_file_is_read_and_obeyed_without_rights(
    yard: Yard, cache_image: Image, tmp_path: Path
) -> None:
    users = tmp_path / "cache_users"
    users.write_text("user default off\nuser api on >secret ~* +@all\n")
    users.chmod(0o444)
    container = yard.start(
        cache_image.reference,
        "--save", "", "--aclfile", "/run/secrets/cache_users",
        options=[*LOCKED_DOWN, "--tmpfs=/data", f"--volume={users}:/run/secrets/cache_users:ro"],
    )  # fmt: skip
    ready(container)
    assert "NOAUTH" in container.execute("redis-cli", "ping").out
    with_password = container.execute("redis-cli", "--user", "api", "--pass", "secret", "ping")
    assert with_password.out == "PONG\n"
    assert "NOAUTH" in from_elsewhere(yard, cache_image, container)


@pytest.mark.parametrize(
    "command",
    [["--maxmemory", "5mb"], ["redis-server", "--maxmemory", "5mb"], ["/conf/redis.conf"]],
    ids=["flag", "command", "file"],
)
def test_a_leading_flag_or_file_means_the_server(
    yard: Yard, cache_image: Image, conf: Path, command: Sequence[str]
) -> None:
    conf.write_text("maxmemory 5mb\n")
    container = yard.start(cache_image.reference, *command, options=[mounted(conf)])
    ready(container)
    assert setting(container, "maxmemory") == str(5 * 1024 * 1024)
    assert from_elsewhere(yard, cache_image, container) == "PONG"


def test_flags_override_the_file(yard: Yard, cache_image: Image, conf: Path) -> None:
    conf.write_text("maxmemory 5mb\nport 7000\n")
    container = yard.start(
        cache_image.reference,
        "/conf/redis.conf", "--maxmemory", "6mb", "--save", "",
        options=[mounted(conf)],
    )  # fmt: skip
    ready(container, "-p", "7000")
    assert setting(container, "maxmemory", "-p", "7000") == str(6 * 1024 * 1024)
    assert setting(container, "save", "-p", "7000") == ""


@pytest.mark.parametrize(
    "command",
    [["-"], ["redis-server", "-"], ["redis-server", "--maxmemory", "5mb", "-"]],
    ids=["dash", "command and dash", "flag and dash"],
)
@pytest.mark.parametrize("protected", ["", "yes"])
def test_configuration_on_standard_input(
    yard: Yard, cache_image: Image, command: Sequence[str], protected: str
) -> None:
    # A shell inside gives the input: the container stays when it ends.
    text = "port 7000" + (f"\\nprotected-mode {protected}" if protected else "")
    container = yard.start(
        cache_image.reference,
        "sh", "-c", f"printf '{text}' | docker-entrypoint.sh \"$@\"", "sh", *command,
    )  # fmt: skip
    ready(container, "-p", "7000")
    assert setting(container, "protected-mode", "-p", "7000") == (protected or "no")


def test_it_stays_in_the_foreground_whatever_a_file_says(
    yard: Yard, cache_image: Image, conf: Path
) -> None:
    conf.write_text("daemonize yes\n")
    container = yard.start(cache_image.reference, "/conf/redis.conf", options=[mounted(conf)])
    ready(container)
    assert setting(container, "daemonize") == "no"
    assert "redis-server" in container.output_of("cat", "/proc/1/cmdline")


# --- protected mode ---


def test_protected_mode_is_off_unless_asked_for(
    yard: Yard, cache_image: Image, plain: Container
) -> None:
    assert from_elsewhere(yard, cache_image, plain) == "PONG"
    asked = yard.start(cache_image.reference, "--protected-mode", "yes")
    ready(asked)
    assert "DENIED" in from_elsewhere(yard, cache_image, asked)


@pytest.mark.parametrize(
    ("text", "included", "expected"),
    [
        ("protected-mode yes\n", "", "yes"),
        ('  Protected-Mode "yes"\n', "", "yes"),
        ("include /conf/more/*.conf\n", "protected-mode yes\n", "yes"),
        ("include /conf/more/*.conf\n", "# protected-mode yes\n", "no"),
        ("protected-mode no\n", "", "no"),
    ],
)
def test_a_file_can_ask_for_protected_mode(
    yard: Yard, cache_image: Image, conf: Path, text: str, included: str, expected: str
) -> None:
    conf.write_text(text)
    (conf.parent / "more").mkdir()
    (conf.parent / "more" / "a.conf").write_text(included)
    container = yard.start(cache_image.reference, "/conf/redis.conf", options=[mounted(conf)])
    ready(container)
    assert setting(container, "protected-mode") == expected


# --- stopping ---


@pytest.mark.parametrize("how", [[], ["--init"], [*LOCKED_DOWN], [*LOCKED_DOWN, "--init"]])
def test_stop_saves_and_ends_it_with_exit_0(
    yard: Yard, cache_image: Image, how: Sequence[str]
) -> None:
    container = yard.start(cache_image.reference, options=[*how, f"--volume={yard.volume()}:/data"])
    ready(container)
    container.output_of("redis-cli", "set", "kept", "yes")
    code, seconds = container.stop()
    assert (code, seconds < 8) == (0, True)
    container.start()
    ready(container)
    assert container.output_of("redis-cli", "get", "kept") == "yes"


def test_stop_saves_nothing_where_saving_is_off(yard: Yard, cache_image: Image) -> None:
    container = yard.start(cache_image.reference, "--save", "")
    ready(container)
    container.output_of("redis-cli", "set", "kept", "no")
    assert container.stop()[0] == 0
    container.start()
    ready(container)
    assert container.output_of("redis-cli", "exists", "kept") == "0"


# --- other commands ---


@pytest.mark.parametrize(
    ("command", "code", "out"),
    [
        (["redis-cli", "--version"], 0, "redis-cli 8."),
        (["redis-server", "--version"], 0, "Redis server v=8."),
        (["--version"], 0, "Redis server v=8."),
        (["id", "-u"], 0, "0\n"),
        (["pwd"], 0, "/data\n"),
        (["date", "+%Z"], 0, "UTC\n"),
        (["sh", "-c", "echo 'a  b' \"$1\"; exit 7", "sh", "c  d"], 7, "a  b c  d\n"),
    ],
)
def test_any_other_command_runs_unchanged(
    yard: Yard, cache_image: Image, command: Sequence[str], code: int, out: str
) -> None:
    result = yard.run(cache_image.reference, *command)
    assert (result.code, result.err) == (code, "")
    assert result.out.startswith(out)
    assert result.out.count("\n") == 1


def test_help_is_help(yard: Yard, cache_image: Image) -> None:
    result = yard.run(cache_image.reference, "redis-server", "--help")
    assert "Usage:" in result.out + result.err
    assert "FATAL" not in result.out + result.err


# --- what the image holds ---


def test_ports_volumes_and_directory_are_declared(cache_image: Image) -> None:
    config = cache_image.config()
    assert list(config["ExposedPorts"]) == ["6379/tcp"]
    assert list(config["Volumes"]) == ["/data"]
    assert config["WorkingDir"] == "/data"
    assert config["Cmd"] == ["redis-server"]


def test_nobody_has_a_password_and_999_is_redis(plain: Container) -> None:
    accounts = plain.output_of("cat", "/etc/passwd").splitlines()
    assert {line.split(":")[1] for line in accounts} == {"x"}
    shadow = plain.execute("cat", "/etc/shadow", user="0").out.split()
    assert {line.split(":")[1] for line in shadow} <= {"*", "!", "!*"}
    assert plain.output_of("id", "redis").startswith("uid=999(redis) gid=999(redis)")


def test_nothing_is_left_over_from_the_build(
    cache_image: Image, leftovers: Callable[[Image], list[str]]
) -> None:
    assert leftovers(cache_image) == []


def test_it_is_small(cache_image: Image) -> None:
    assert cache_image.bytes_on_top_of_base() <= 15_000_000
