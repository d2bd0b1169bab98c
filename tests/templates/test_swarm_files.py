"""What a swarm is told, in every combination: what drawing and settings say, and no more."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..drawing import NETWORKS, SERVICES
from .conftest import MIB, Renderer
from .swarm import StackFiles
from .test_compose_files import HEALTH, SECRETS, UIDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Stack

# What the engine's own `docker stack deploy` does something about. It ignores other keys, most of
# them without a word, so what they promise would hold on one machine and not on a swarm.
HEEDED = {
    *("cap_drop", "command", "configs", "deploy", "environment", "healthcheck", "image", "init"),
    *("labels", "networks", "ports", "read_only", "secrets", "stop_grace_period", "user"),
    "volumes",
}
DEPLOYED = {
    *("endpoint_mode", "mode", "placement", "replicas", "resources", "restart_policy"),
    *("rollback_config", "update_config"),
}
# A swarm is told these in the words that Compose was told.
SAME = {
    *("cap_drop", "command", "environment", "image", "init", "labels", "read_only"),
    *("stop_grace_period", "user"),
}
# Of these there are several, so that a new one can come before the old one goes.
ROLLING = {"frontend", "api"}
ASKS_ONCE = re.compile(
    r"get='busybox wget -q -T 2 -O /dev/null (?P<base>http://127\.0\.0\.1:[0-9/]*)'; "
    r"if test -e /tmp/ready; then \$\{get\}(?P<later>\S+); "
    r"else \$\{get\}(?P<first>\S+) && : >/tmp/ready; fi"
)
# Of Swarm's secrets and configs.
LONGEST_NAME = 64
# Of its services and networks.
LONGEST_OTHER_NAME = 63


def services(swarms: list[Stack]) -> Iterator[tuple[Stack, str, dict[str, Any]]]:
    """Yield each service of each stack, as the swarm is told."""
    for stack in swarms:
        for name, service in stack.told["services"].items():
            yield stack, name, service


def mounts(service: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """Return a service's mounts of a kind."""
    return [mount for mount in service.get("volumes", []) if mount["type"] == kind]


def unescaped(value: Any) -> Any:
    """Return what Compose prints without its marks for what is no variable."""
    if isinstance(value, dict):
        return {name: unescaped(each) for name, each in value.items()}
    if isinstance(value, list):
        return [unescaped(each) for each in value]
    return value.replace("$$", "$") if isinstance(value, str) else value


def changed(name: str) -> str:
    """Return when a version's file was changed, by its name: to the millisecond, in UTC."""
    return name.rpartition("-")[2]


def test_docker_takes_every_stack_file_without_a_warning(rendered_swarms: list[Stack]) -> None:
    refused = {str(s.combination): s.refusal for s in rendered_swarms if s.refusal or not s.told}
    assert refused == {}


def test_there_are_exactly_the_five_services(swarms: list[Stack]) -> None:
    for stack in swarms:
        assert set(stack.told["services"]) == set(SERVICES), stack.combination


def test_swarm_is_told_nothing_that_it_would_ignore(swarms: list[Stack]) -> None:
    for stack in swarms:
        for name, service in stack.text["services"].items():
            assert set(service) <= HEEDED, name
            assert set(service["deploy"]) <= DEPLOYED, name
        assert set(stack.text) == {"services", "networks", "volumes", "secrets", "configs"}


def test_swarm_is_told_what_a_machine_is_told(swarms: list[Stack]) -> None:
    for stack, name, service in services(swarms):
        alone = stack.services[name]
        for key in SAME:
            assert service.get(key) == (unescaped(alone.get(key)) or None), (name, key)


def test_env_file_names_the_three_files(swarms: list[Stack]) -> None:
    for stack in swarms:
        assert stack.files[".env"][0].splitlines()[-1] == (
            "COMPOSE_FILE=docker-compose.yml:docker-compose.prod.yml:docker-compose.swarm.yml"
        )


def test_swarms_own_file_is_managed_hidden_and_rendered(swarms: list[Stack]) -> None:
    for stack in swarms:
        content, mode = stack.files["docker-compose.swarm.yml"]
        assert content.startswith("# Ansible managed\n")
        assert not re.search(r"\{\{|\{%|\bNone\b|\bTrue\b|\bFalse\b", content)
        assert mode == "0640"


def test_networks_span_the_machines_and_only_ingress_leads_anywhere(swarms: list[Stack]) -> None:
    for stack in swarms:
        networks = stack.told["networks"]
        assert set(networks) == set().union(*NETWORKS.values())
        for name, network in networks.items():
            assert network["driver"] == "overlay", name
            assert network.get("internal", False) == (name != "ingress"), name
            assert not network.get("attachable"), name
            assert network["name"] == f"{stack.model['name']}_{name}"


def test_what_goes_between_machines_is_encrypted_as_set(swarms: list[Stack]) -> None:
    seen = set()
    for stack in swarms:
        encrypted = stack.given.get("swarm_encrypted") == "true"
        for name, network in stack.told["networks"].items():
            # On ingress the gateway meets who is outside, through its node's own ports.
            expected = {"encrypted": ""} if encrypted and name != "ingress" else None
            assert network.get("driver_opts") == expected, name
        seen.add(encrypted)
    assert seen == {True, False}


def test_each_service_is_on_its_neighbours_networks_alone(swarms: list[Stack]) -> None:
    for _, name, service in services(swarms):
        assert set(service["networks"]) == NETWORKS[name], name
        # By its own name alone.
        assert not any(service["networks"].values()), name


def test_names_lead_where_they_were_told(swarms: list[Stack]) -> None:
    for stack, name, service in services(swarms):
        expected = stack.given.get("swarm_endpoint_mode", "dnsrr")
        assert service["deploy"]["endpoint_mode"] == expected, name
    assert {stack.given.get("swarm_endpoint_mode", "dnsrr") for stack in swarms} == {"dnsrr", "vip"}


def test_gateway_is_on_every_node_with_its_ports_and_nobody_else_has_any(
    swarms: list[Stack],
) -> None:
    for stack, name, service in services(swarms):
        ports = [(p["mode"], p["published"], p["target"]) for p in service.get("ports", [])]
        if name != "gateway":
            assert ports == [], name
            assert service["deploy"].get("mode", "replicated") == "replicated", name
            continue
        assert service["deploy"]["mode"] == "global"
        # Not the routing mesh's, which hides who asks and takes a kernel with IPVS.
        assert ports == [
            ("host", int(stack.given["stack_compose_http_port"]), 8080),
            ("host", int(stack.given["stack_compose_https_port"]), 8443),
        ]
        assert not any("host_ip" in port for port in stack.text["services"][name]["ports"])


def test_replicas_are_as_set_and_what_is_single_is_single(swarms: list[Stack]) -> None:
    for stack, name, service in services(swarms):
        expected = stack.given.get(f"stack_compose_{name}_replicas", 1)
        if name != "gateway":
            assert service["deploy"]["replicas"] == int(expected), name


def test_database_is_on_the_one_node_that_has_its_volume(swarms: list[Stack]) -> None:
    renderer = Renderer()
    for stack, name, service in services(swarms):
        placement = service["deploy"].get("placement", {})
        if name != "database":
            assert placement == {}, name
            continue
        # The label that a node gets.
        (label,) = renderer.value("swarm_cluster_single_labels", stack.combination)
        assert placement == {
            "constraints": [f"node.labels.{label} == true"],
            "max_replicas_per_node": 1,
        }
        (volume,) = mounts(service, "volume")
        assert (volume["source"], volume["target"]) == ("database-data", "/var/lib/postgresql/data")
        # The volume of Compose's, so that a machine's stack becomes a swarm's with its rows.
        assert stack.told["volumes"] == {
            "database-data": {"name": stack.model["volumes"]["database-data"]["name"]}
        }


def test_nodes_need_no_files_but_the_databases_own(swarms: list[Stack]) -> None:
    for stack, name, service in services(swarms):
        binds = {mount["target"]: mount["source"] for mount in mounts(service, "bind")}
        ours = name == "database" and stack.combination.images == "built"
        places = {"/var/lib/pgbackrest": "backups", "/etc/pgbackrest": "config/backup"}
        assert binds == (
            {target: str(stack.directory / source) for target, source in places.items()}
            if ours
            else {}
        ), name


def test_limits_are_those_of_one_machine(swarms: list[Stack]) -> None:
    for stack, name, service in services(swarms):
        (kind,) = service["deploy"]["resources"]
        assert kind == "limits"
        limits = service["deploy"]["resources"]["limits"]
        alone = stack.services[name]["deploy"]["resources"]["limits"]
        assert set(limits) == set(alone) == {"memory", "cpus", "pids"}, name
        assert int(limits["memory"]) == int(alone["memory"]) == stack.memory(name), name
        assert re.fullmatch(r"[0-9]+([.][0-9]+)?", limits["cpus"]), name
        assert float(limits["cpus"]) == float(alone["cpus"]), name
        assert limits["pids"] == alone["pids"], name


def test_what_is_in_memory_is_bounded_as_on_one_machine(swarms: list[Stack]) -> None:
    for stack, name, service in services(swarms):
        found = {mount["target"]: mount["tmpfs"]["size"] for mount in mounts(service, "tmpfs")}
        assert found == {
            target: int(options["size"].removesuffix("m")) * MIB
            for target, options in stack.tmpfs(name).items()
        }, name


def test_secrets_are_the_swarms_and_their_readers_alone_have_them(swarms: list[Stack]) -> None:
    for _, name, service in services(swarms):
        found = {secret["source"]: secret for secret in service.get("secrets", [])}
        assert set(found) == SECRETS[name], name
        for source, secret in found.items():
            uid = str(UIDS[name])
            assert secret == {
                "source": source,
                "target": f"/run/secrets/{source}",
                "uid": uid,
                "gid": uid,
                "mode": 0o400,
            }


def test_secrets_and_configs_are_versions_of_their_files(swarms: list[Stack]) -> None:
    for stack in swarms:
        files = {
            str(path.relative_to(stack.directory))
            for folder in ("secrets", "config/api", "config/database", "config/gateway")
            for path in (stack.directory / folder).iterdir()
        }
        versions = [*stack.told["secrets"].values(), *stack.told["configs"].values()]
        assert {str(each["file"]).removeprefix(f"{stack.directory}/") for each in versions} == files
        for each in versions:
            name = each["name"]
            path = stack.directory / str(each["file"])
            # A config is of one directory of several, in each of which there may be the same names.
            kind = "" if path.parent.name == "secrets" else f"{path.parent.name}_"
            assert name.startswith(f"{stack.model['name']}_{kind}{path.name}-")
            second, part = divmod(path.stat().st_mtime_ns, 1_000_000_000)
            at = datetime.fromtimestamp(second, UTC).strftime("%Y%m%d%H%M%S")
            assert changed(name) == f"{at}{part // 1_000_000:03}", name
            assert len(name) <= LONGEST_NAME
        assert len({each["name"] for each in versions}) == len(versions)


def test_every_name_fits_where_the_preflight_lets_the_projects_be_longest(
    swarms: list[Stack],
) -> None:
    renderer, stack_files = Renderer(), StackFiles()
    for stack in swarms:
        secrets = renderer.value("stack_deploy_secrets", stack.combination)
        assert set(secrets) == set(stack.told["secrets"])
        longest = stack_files.variables["stack_deploy__longest_project"]
        most = int(stack_files.template(longest, stack_deploy_secrets=secrets))
        room = most - len(stack.model["name"])
        versions = [*stack.told["secrets"].values(), *stack.told["configs"].values()]
        assert max(len(each["name"]) + room for each in versions) == LONGEST_NAME
        others = [*stack.told["networks"].values(), *stack.told["volumes"].values()]
        assert max(len(each["name"]) + room for each in others) <= LONGEST_OTHER_NAME
        assert max(len(f"{'p' * most}_{name}") for name in SERVICES) <= LONGEST_OTHER_NAME


def test_configuration_is_where_a_machine_has_it_mounted(swarms: list[Stack]) -> None:
    for stack, name, service in services(swarms):
        expected = {}
        for mount in mounts(stack.services[name], "bind"):
            if "/config/" not in mount["source"] or mount["source"].endswith("/backup"):
                continue
            folder = str(mount["source"]).removeprefix(f"{stack.directory}/")
            for path, (_, mode) in stack.files.items():
                if path.rpartition("/")[0] == folder:
                    expected[f"{mount['target']}/{path.rpartition('/')[2]}"] = (path, int(mode, 8))
        found = {
            config["target"]: (
                stack.told["configs"][config["source"]]["file"].removeprefix(f"{stack.directory}/"),
                config["mode"],
            )
            for config in service.get("configs", [])
        }
        assert found == expected, name
        assert bool(found) == (name in ("gateway", "api", "database")), name


def test_every_service_has_a_health_check_that_asks_it_and_can_fail(swarms: list[Stack]) -> None:
    for stack, name, service in services(swarms):
        check, alone = service["healthcheck"], stack.services[name]["healthcheck"]
        assert set(check) == set(alone), name
        for key in set(check) - {"test"}:
            assert check[key] == alone[key], (name, key)
        if name not in ("gateway", "api"):
            assert check["test"] == unescaped(alone["test"]), name
            continue
        # Those whose needs may be away: asked for them until they were ready, then for themselves.
        kind, line = check["test"]
        assert kind == "CMD-SHELL"
        asks = ASKS_ONCE.fullmatch(line)
        assert asks, line
        assert asks["base"] + asks["first"] == HEALTH[name]
        assert asks["base"] + asks["later"] != HEALTH[name]


def test_updates_take_one_at_a_time_and_are_taken_back_when_they_fail(swarms: list[Stack]) -> None:
    for _, name, service in services(swarms):
        update = service["deploy"]["update_config"]
        rolling = name in ROLLING
        # What is single, and what has the node's ports, cannot be there twice.
        assert update["order"] == ("start-first" if rolling else "stop-first"), name
        assert update["failure_action"] == "rollback", name
        assert update.get("parallelism", 1) == 1, name
        assert not update.get("max_failure_ratio"), name
        back = service["deploy"].get("rollback_config", {})
        assert back.get("order") == ("start-first" if rolling else None), name
        assert back.get("parallelism", 1) == 1, name


def test_what_ends_comes_back(swarms: list[Stack]) -> None:
    for _, name, service in services(swarms):
        policy = service["deploy"]["restart_policy"]
        assert policy["condition"] == "any", name
        assert "max_attempts" not in policy, name
