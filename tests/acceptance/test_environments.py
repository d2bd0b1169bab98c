"""Promise 14: base, dev and prod files, and what each environment opens and shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .settings import DEBUGGED, PORTS, SERVICES

if TYPE_CHECKING:
    from .stack import Stack

pytestmark = pytest.mark.promise(14)

FILES = ["docker-compose.yml", "docker-compose.dev.yml", "docker-compose.prod.yml", ".env"]
LOCAL = "127.0.0.1"


@pytest.fixture(scope="module")
def configs(stack: Stack) -> dict[str, dict[str, Any]]:
    """What Compose makes of base and each override."""
    return {env: stack.compose_config(env) for env in ("dev", "prod")}


def _published(config: dict[str, Any]) -> set[tuple[str, str, str, int]]:
    return {
        (service, port.get("host_ip", ""), port["published"], port["target"])
        for service, about in config["services"].items()
        for port in about.get("ports", [])
    }


def _gateways(stack: Stack) -> set[tuple[str, int, int]]:
    settings = stack.settings
    address = settings.value("stack_compose_bind_address")
    return {
        (address, settings.number("stack_compose_http_port"), 8080),
        (address, settings.number("stack_compose_https_port"), 8443),
    }


def _debug_ports(stack: Stack, service: str) -> set[int]:
    first = stack.settings.number(f"stack_compose_{service}_debug_port")
    # Each api takes the next free one of ten.
    return set(range(first, first + 10)) if service == "api" else {first}


@pytest.mark.parametrize("name", FILES)
def test_file_is_there_and_roots(stack: Stack, name: str) -> None:
    """Rendered, not empty, root's, and for nobody to write or the world to read."""
    about = stack.machine.run("stat", "-c", "%U:%G %a %s", f"{stack.directory}/{name}").out.split()
    assert about[0] == "root:root"
    assert int(about[1], 8) & 0o027 == 0, about
    assert int(about[2]) > 0


@pytest.mark.parametrize("env", ["dev", "prod"])
def test_files_are_accepted_by_hand(stack: Stack, env: str) -> None:
    """Without Ansible and without .env, from any directory."""
    files = [f"{stack.directory}/{name}" for name in FILES[:1] + [f"docker-compose.{env}.yml"]]
    result = stack.machine.try_run(
        *("docker", "compose", "--env-file", "/dev/null", "-f", files[0], "-f", files[1]),
        *("config", "-q"),
        folder="/",
    )
    assert result.code == 0, str(result)
    assert result.text == "", f"accepted with a complaint:\n{result}"
    names = stack.machine.run(
        *("docker", "compose", "-f", files[0], "-f", files[1], "config", "--services"), folder="/"
    ).lines()
    assert sorted(names) == sorted(SERVICES)


def test_plain_compose_means_the_active_environment(
    stack: Stack, configs: dict[str, dict[str, Any]]
) -> None:
    """.env names the project and the active files, so nobody has to."""
    plain, named = stack.compose_config(), stack.compose_config("", *stack.files)
    assert plain["name"] == stack.project
    # Names only: what Compose makes of the files is not for a screen.
    assert [key for key in plain if plain[key] != named.get(key)] == []
    assert (configs["dev"] == configs["prod"]) is False


def test_running_stack_is_what_the_files_say(stack: Stack) -> None:
    """Each container was made from the service as it is rendered now."""
    stale = stack.stale()
    assert not stale, f"not what the files say: {stale}"


def test_prod_files_publish_the_gateway_alone(
    stack: Stack, configs: dict[str, dict[str, Any]]
) -> None:
    """Two ports of the gateway, as set."""
    found = {(service, *rest) for service, *rest in _published(configs["prod"])}
    wanted = {("gateway", address, str(port), target) for address, port, target in _gateways(stack)}
    assert found == wanted


def test_dev_files_publish_debug_ports_on_this_machine_alone(
    stack: Stack, configs: dict[str, dict[str, Any]]
) -> None:
    """Api, database and cache on 127.0.0.1, at the ports that are set."""
    found = {each for each in _published(configs["dev"]) if each[0] != "gateway"}
    assert {(service, address, target) for service, address, _, target in found} == {
        (service, LOCAL, PORTS[service]) for service in DEBUGGED
    }
    for service, _, ports, _ in found:
        first, _, last = ports.partition("-")
        named = set(range(int(first), int(last or first) + 1))
        assert named == _debug_ports(stack, service), f"{service}: {ports}"


@pytest.mark.promise(6)
def test_dev_files_debug_networks_lead_nowhere(configs: dict[str, dict[str, Any]]) -> None:
    """They can publish a port, so they are not internal: each is one service's, without a way out.

    In dev itself this is also tried: see test_isolation.
    """
    dev = configs["dev"]
    debug = {name: about for name, about in dev["networks"].items() if name.startswith("debug")}
    users = {
        name: [each for each, about in dev["services"].items() if name in about["networks"]]
        for name in debug
    }
    assert users == {f"debug-{service}": [service] for service in DEBUGGED}
    for name, about in debug.items():
        options = about.get("driver_opts", {})
        for option in ("enable_ip_masquerade", "enable_icc"):
            assert options.get(f"com.docker.network.bridge.{option}") == "false", f"{name}: {about}"
    assert not [name for name in configs["prod"]["networks"] if name.startswith("debug")]


@pytest.mark.parametrize("service", SERVICES)
def test_limits_are_prods_alone(configs: dict[str, dict[str, Any]], service: str) -> None:
    """Prod's file limits memory and CPU of every service, dev's limits nothing."""

    def limits(env: str) -> dict[str, Any]:
        deploy = configs[env]["services"][service].get("deploy", {})
        return deploy.get("resources", {}).get("limits", {})

    assert {"memory", "cpus"} <= set(limits("prod")), limits("prod")
    assert limits("dev") == {}


@pytest.mark.parametrize("service", SERVICES)
def test_published_ports_are_the_environments(stack: Stack, service: str) -> None:
    """What the engine has bound: the gateway's ports, in dev the debug ports, and no others."""
    containers = stack.of(service)
    for each in containers:
        if service == "gateway":
            assert each.published == _gateways(stack)
        elif stack.env == "dev" and service in DEBUGGED:
            assert len(each.published) == 1, f"{each.name}: {each.published}"
            address, port, target = next(iter(each.published))
            assert (address, target) == (LOCAL, PORTS[service]), each.name
            assert port in _debug_ports(stack, service), f"{each.name}: {port}"
        else:
            assert each.published == set(), f"{each.name} has a debug port: {each.published}"


@pytest.mark.parametrize("service", sorted(DEBUGGED))
def test_debug_port_answers_in_dev_and_only_there(stack: Stack, service: str) -> None:
    """It speaks the server's language on 127.0.0.1, not on the machine's address."""
    main = stack.machine.program("addresses", {})["main"]
    containers = stack.of(service)
    ports = sorted({port for each in containers for _, port, _ in each.published})
    names = {each.hostname for each in containers} if service == "api" else {service}
    tried = ports or sorted(_debug_ports(stack, service))
    answers = stack.machine.program("talk", [[service, LOCAL, port] for port in tried])
    if stack.env == "dev":
        assert len(ports) == len(containers), ports
        assert set(answers) == names, f"{tried}: {answers}"
        elsewhere = stack.machine.program("talk", [[service, main, port] for port in tried])
        assert set(elsewhere) == {""}, f"{service} answers at {main}: {tried} {elsewhere}"
    else:
        assert ports == []
        # Another program may use dev's numbers. A replica's name is told by nobody else.
        assert service != "api" or names.isdisjoint(answers), f"{tried}: {answers}"


def test_logs_are_verbose_in_dev_alone(stack: Stack) -> None:
    """Statements and connections, debug and verbose in dev; none of that in prod."""
    dev = stack.env == "dev"
    api = stack.one("api").environment
    assert (api["LOG_LEVEL"], api["LOG_FORMAT"]) == (("debug", "text") if dev else ("info", "json"))
    names = ("log_statement", "log_connections", "log_disconnections")
    found = [stack.sql(f"SHOW {name}")[0][0] for name in names]
    assert found == (["all", "on", "on"] if dev else ["none", "off", "off"])
    command = stack.one("cache").command
    assert command[command.index("--loglevel") + 1] == ("verbose" if dev else "notice")
