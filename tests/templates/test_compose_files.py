"""What the rendered projects say, in every combination of environment and settings."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
import yaml

from ..drawing import NEEDS, NETWORKS, RESTART, SERVICES
from .conftest import MIB, ROOT

if TYPE_CHECKING:
    from .conftest import Stack

# One each: on a common one they would meet.
DEBUG = {"api": "debug-api", "database": "debug-database", "cache": "debug-cache"}
SECRETS = {
    "gateway": {"gateway_certificate"},
    "frontend": set(),
    "api": {"api_database_password", "api_cache_password"},
    "database": {"database_superuser_password", "database_api_password"},
    "cache": {"cache_users"},
}
# What a service may be told at all. Anything else is a door that no check here watches.
KEYS = {
    *("cap_drop", "command", "container_name", "depends_on", "deploy", "entrypoint"),
    *("environment", "healthcheck", "image", "init", "labels", "networks", "ports", "read_only"),
    *("restart", "secrets", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "user"),
    "volumes",
}
POSTGRESQL = {
    *("shared_buffers", "effective_cache_size", "work_mem", "hash_mem_multiplier"),
    *("maintenance_work_mem", "max_connections", "max_parallel_workers_per_gather"),
    *("password_encryption", "log_min_messages"),
}
# Of an image of ours, which alone can archive.
POSTGRESQL_ARCHIVE = {"archive_mode", "archive_command", "archive_timeout"}
POSTGRESQL_IN_DEV = {"log_statement", "log_connections", "log_disconnections"}
HEALTH = {
    "gateway": "http://127.0.0.1:8080/health",
    "frontend": "http://127.0.0.1:8080/health",
    "api": "http://127.0.0.1:8000/health",
    "database": "--host=127.0.0.1",
    "cache": "redis-cli ping | grep -qx PONG",
}
UIDS = {"gateway": 990, "frontend": 991, "api": 992, "database": 999, "cache": 999}


def seconds(text: str) -> int:
    """Return the length of a time as Compose writes it."""
    (words,) = re.findall(r"^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$", text)
    hours, minutes, rest = (int(word or 0) for word in words)
    return hours * 3600 + minutes * 60 + rest


def test_compose_accepts_every_combination_without_a_warning(rendered: list[Stack]) -> None:
    refused = {str(s.combination): s.warnings for s in rendered if s.code != 0 or s.warnings}
    assert refused == {}


def test_there_are_exactly_the_five_services(stacks: list[Stack]) -> None:
    for stack in stacks:
        assert set(stack.services) == set(SERVICES), stack.combination


def test_services_are_told_nothing_that_no_check_knows(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            assert set(service) <= KEYS, name
            # The image's own; a server of the official images takes its settings as arguments.
            assert not service.get("entrypoint"), name
            assert bool(service.get("command")) == (name in ("database", "cache")), name


def test_no_name_stands_for_a_value_that_was_not_rendered(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, (content, _) in stack.files.items():
            assert not re.search(r"\{\{[^.]|\{%|\bNone\b|\bTrue\b|\bFalse\b", content), name


def test_every_file_says_who_manages_it_except_the_one_that_people_edit(
    stacks: list[Stack],
) -> None:
    for stack in stacks:
        for name, (content, _) in stack.files.items():
            managed = "Ansible managed" in "".join(content.splitlines(True)[:2])
            assert managed == (name not in stack.kept), name


def test_only_ingress_and_the_debug_networks_are_not_internal(stacks: list[Stack]) -> None:
    for stack in stacks:
        open_networks = {
            name for name, about in stack.model["networks"].items() if not about.get("internal")
        }
        assert open_networks == ({"ingress"} if stack.prod else {"ingress", *DEBUG.values()})


def test_debug_networks_lead_nowhere(dev: list[Stack]) -> None:
    for stack in dev:
        for name in DEBUG.values():
            options = stack.model["networks"][name]["driver_opts"]
            assert options["com.docker.network.bridge.enable_ip_masquerade"] == "false"
            assert options["com.docker.network.bridge.enable_icc"] == "false"


def test_internal_networks_do_not_hold_the_machine_itself(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name in ("edge", "frontend", "backend"):
            options = stack.model["networks"][name]["driver_opts"]
            assert options == {"com.docker.network.bridge.inhibit_ipv4": "true"}


def test_each_service_is_on_its_neighbours_networks_alone(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            debug = {DEBUG[name]} if name in DEBUG and not stack.prod else set()
            expected = NETWORKS[name] | debug
            assert set(service["networks"]) == expected, name


def test_services_are_known_by_their_own_names_alone(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            assert not any(service["networks"].values()), name
        environment = stack.services["api"]["environment"]
        hosts = {name: value for name, value in environment.items() if name.endswith("_HOST")}
        assert hosts == {
            "API_HOST": f"api.{stack.model['name']}_frontend",
            "DATABASE_HOST": "database",
            "CACHE_HOST": "cache",
        }


def test_gateway_publishes_its_two_ports_where_it_was_told(stacks: list[Stack]) -> None:
    for stack in stacks:
        published = {
            (port["host_ip"], int(port["published"]), port["target"])
            for port in stack.services["gateway"]["ports"]
        }
        address = stack.given["stack_compose_bind_address"]
        assert published == {
            (address, int(stack.given["stack_compose_http_port"]), 8080),
            (address, int(stack.given["stack_compose_https_port"]), 8443),
        }


def test_prod_publishes_nothing_but_the_gateway(prod: list[Stack]) -> None:
    for stack in prod:
        assert {name for name, s in stack.services.items() if s.get("ports")} == {"gateway"}


def test_dev_publishes_debug_ports_on_this_machine_alone(dev: list[Stack]) -> None:
    for stack in dev:
        for name, target in (("database", 5432), ("cache", 6379)):
            (port,) = stack.services[name]["ports"]
            given = int(stack.given[f"stack_compose_{name}_debug_port"])
            assert (port["host_ip"], int(port["published"]), port["target"]) == (
                "127.0.0.1",
                given,
                target,
            )
        assert "ports" not in stack.services["frontend"]


def test_dev_has_a_debug_port_for_each_api_replica(dev: list[Stack]) -> None:
    for stack in dev:
        (port,) = stack.services["api"]["ports"]
        assert (port["host_ip"], port["target"]) == ("127.0.0.1", 8000)
        first, last = map(int, port["published"].split("-"))
        assert first == int(stack.given["stack_compose_api_debug_port"])
        assert last - first + 1 >= int(stack.given["stack_compose_api_replicas"])


def test_replicas_are_as_set_and_follow_no_other_way(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            count = service.get("deploy", {}).get("replicas")
            expected = stack.given.get(f"stack_compose_{name}_replicas")
            assert count == (None if expected is None else int(expected)), name
            assert "scale" not in service


def test_database_has_a_name_of_its_own_and_no_other_service_has(stacks: list[Stack]) -> None:
    for stack in stacks:
        names = {
            name: s["container_name"] for name, s in stack.services.items() if "container_name" in s
        }
        assert names == {"database": f"{stack.model['name']}-database"}


def test_prod_limits_are_as_set(prod: list[Stack]) -> None:
    for stack in prod:
        for name, service in stack.services.items():
            limits = service["deploy"]["resources"]["limits"]
            assert int(limits["memory"]) == stack.memory(name), name
            assert float(limits["cpus"]) == float(stack.given[f"stack_compose_{name}_cpus"]), name
            assert limits["pids"] == 256


def test_dev_has_no_limits(dev: list[Stack]) -> None:
    for stack in dev:
        for service in stack.services.values():
            assert not service.get("deploy", {}).get("resources")


def test_default_limits_are_the_promised_ones(prod: list[Stack]) -> None:
    promised = {
        "frontend": (256, 0.5),
        "api": (512, 1.0),
        "database": (1024, 2.0),
        "cache": (128, 0.25),
    }
    chosen = [stack for stack in prod if stack.combination.limits == "default"]
    assert chosen
    for stack in chosen:
        for name, (mib, cpus) in promised.items():
            limits = stack.services[name]["deploy"]["resources"]["limits"]
            assert (int(limits["memory"]) / MIB, float(limits["cpus"])) == (mib, cpus), name


def test_restart_policies_are_the_promised_ones(stacks: list[Stack]) -> None:
    for stack in stacks:
        assert {name: s["restart"] for name, s in stack.services.items()} == RESTART


def test_each_service_waits_for_the_health_of_those_that_it_needs(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            needs = service.get("depends_on", {})
            assert set(needs) == NEEDS[name]
            for need in needs.values():
                assert need == {"condition": "service_healthy", "required": True}, name


def test_every_service_has_a_health_check_that_asks_it_and_can_fail(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            check = service["healthcheck"]
            assert not check.get("disable"), name
            assert HEALTH[name] in check["test"], name
            # Without a shell, or with a line that is known to the last word.
            assert (check["test"][0] == "CMD") != (name == "cache"), name


def test_health_checks_notice_soon(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            check = service["healthcheck"]
            assert check["retries"] <= 5, name
            assert seconds(check["timeout"]) < seconds(check["interval"]) <= 10, name
            assert seconds(check["start_period"]) <= 120, name


def test_database_has_time_to_end_well(stacks: list[Stack]) -> None:
    for stack in stacks:
        # Less than the engine's ten seconds, which are the others', ends in a recovery.
        assert seconds(stack.services["database"]["stop_grace_period"]) >= 60


def test_every_service_is_hardened(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert service["init"] is True, name
            assert service["user"] == f"{UIDS[name]}:{UIDS[name]}", name
            assert not {"privileged", "cap_add", "pid", "network_mode", "devices"} & set(service)


def test_secrets_are_files_that_only_their_readers_have(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            assert {secret["source"] for secret in service.get("secrets", [])} == SECRETS[name]
        for name, secret in stack.model["secrets"].items():
            assert secret["file"].endswith(f"/secrets/{name}"), name


def test_other_rights_in_the_cache_make_another_container(stacks: list[Stack]) -> None:
    """Redis reads them at its start, and their file is no part of what Compose compares."""
    wiring = yaml.safe_load((ROOT / "playbooks/group_vars/all/stack_secrets.yml").read_text())
    rights = sha256(wiring["stack__cache_users"].encode()).hexdigest()
    for stack in stacks:
        assert stack.services["cache"]["labels"] == {"stackyard.users": rights[:12]}
        assert not any(s.get("labels") for n, s in stack.services.items() if n != "cache")


def test_no_environment_variable_or_argument_holds_a_password(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            for variable, value in (service.get("environment") or {}).items():
                if re.search("PASSW|SECRET|TOKEN|KEY", variable):
                    assert variable.endswith("_FILE"), (name, variable)
                    assert value.startswith("/run/secrets/"), (name, variable)
            words = " ".join(service.get("command") or [])
            assert not re.search("requirepass|masterauth|--password=|://[^/]*:[^/]*@", words)
        assert "PASSW" not in stack.files[".env"][0].upper()


def test_config_is_mounted_as_a_directory_and_read_only(stacks: list[Stack]) -> None:
    for stack in stacks:
        mounts = [v for s in stack.services.values() for v in s.get("volumes", [])]
        binds = {mount["source"]: mount for mount in mounts if mount["type"] == "bind"}
        backups = [source for source in binds if source.endswith("/backups")]
        assert len(backups) == (stack.combination.images == "built")
        for source in backups:
            # The one place that the database writes to besides its volume.
            del binds[source]
        ours = {"backup"} if backups else set()
        assert {source.rsplit("/config/")[1] for source in binds} == {
            "api",
            "database",
            "gateway",
        } | ours
        for mount in binds.values():
            assert mount["read_only"] is True
            # A missing directory is an error to see, not one to make as root.
            assert not mount["bind"].get("create_host_path")
        assert any(mount["target"] == "/etc/stackyard" for mount in binds.values())


def test_database_is_on_a_named_volume(stacks: list[Stack]) -> None:
    for stack in stacks:
        volumes = [v for v in stack.services["database"]["volumes"] if v["type"] == "volume"]
        assert [(v["source"], v["target"]) for v in volumes] == [
            ("database-data", "/var/lib/postgresql/data")
        ]
        name = stack.model["volumes"]["database-data"]["name"]
        assert name == f"{stack.model['name']}_database-data"


def test_what_people_edit_is_left_as_it_is(stacks: list[Stack]) -> None:
    for stack in stacks:
        assert stack.kept == {
            "config/api/app.toml",
            "config/gateway/maintenance",
            "config/gateway/maintenance.html",
        }


def test_cache_keeps_its_data_on_tmpfs(stacks: list[Stack]) -> None:
    for stack in stacks:
        assert "/data" in stack.tmpfs("cache")
        assert "volumes" not in stack.services["cache"]


def test_tmpfs_mounts_are_bounded_and_belong_to_the_service(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name in SERVICES:
            mounts = stack.tmpfs(name)
            assert mounts, name
            for options in mounts.values():
                assert (options["mode"], options["uid"]) == ("0700", str(UIDS[name]))
            sizes = [int(options["size"].removesuffix("m")) * MIB for options in mounts.values()]
            assert min(sizes) > 0, name
            # They count towards the service's memory.
            assert sum(sizes) < stack.memory(name), (name, stack.combination)


def test_shared_memory_is_the_engines_default_at_most(stacks: list[Stack]) -> None:
    for stack in stacks:
        for name, service in stack.services.items():
            assert int(service.get("shm_size", 0)) <= 64 * MIB, name


def test_postgresql_is_told_nothing_that_no_check_knows(stacks: list[Stack]) -> None:
    for stack in stacks:
        # Its defaults write what was committed, and name nobody in its title.
        told = POSTGRESQL if stack.prod else POSTGRESQL | POSTGRESQL_IN_DEV
        ours = stack.combination.images == "built"
        assert set(stack.flags("database")) == (told | POSTGRESQL_ARCHIVE if ours else told)


def test_our_database_archives_and_the_official_one_does_not(stacks: list[Stack]) -> None:
    for stack in stacks:
        flags = stack.flags("database")
        mounts = {v["target"]: v for v in stack.services["database"]["volumes"]}
        places = {"/var/lib/pgbackrest": "/backups", "/etc/pgbackrest": "/config/backup"}
        if stack.combination.images != "built":
            assert not places.keys() & mounts.keys()
            continue
        assert flags["archive_command"] == "pgbackrest-archive %p"
        assert (flags["archive_mode"], flags["archive_timeout"]) == ("on", "60s")
        for target, source in places.items():
            assert mounts[target]["source"].endswith(source)
            assert not mounts[target]["bind"].get("create_host_path")


def test_postgresql_lives_within_its_memory(stacks: list[Stack]) -> None:
    for stack in stacks:
        flags, limit = stack.flags("database"), stack.memory("database")
        sizes = {
            name: int(flags[name].removesuffix("MB")) * MIB
            for name in (
                "shared_buffers",
                "effective_cache_size",
                "maintenance_work_mem",
                "work_mem",
            )
        }
        assert 0 < sizes["shared_buffers"] <= limit * 0.4
        assert sizes["shared_buffers"] < sizes["effective_cache_size"] < limit
        assert 0 < sizes["maintenance_work_mem"] <= limit / 8


def test_postgresql_takes_every_connection_that_the_apis_may_open(stacks: list[Stack]) -> None:
    for stack in stacks:
        pool = int(stack.services["api"]["environment"]["DATABASE_POOL_SIZE"])
        apis = int(stack.given["stack_compose_maximum_replicas"])
        assert int(stack.flags("database")["max_connections"]) > pool * apis


def test_redis_lives_within_its_memory_and_forgets_when_full(stacks: list[Stack]) -> None:
    for stack in stacks:
        flags = stack.flags("cache")
        maximum = int(flags["maxmemory"].removesuffix("mb")) * MIB
        data = int(stack.tmpfs("cache")["/data"]["size"].removesuffix("m")) * MIB
        assert maximum > 0
        assert maximum + data < stack.memory("cache")
        assert flags["maxmemory-policy"].startswith("allkeys-")
        assert (flags["save"], flags["appendonly"]) == ("", "no")
        assert flags["aclfile"] == "/run/secrets/cache_users"


def test_gateway_has_room_for_as_many_frontends_as_may_be(stacks: list[Stack]) -> None:
    for stack in stacks:
        config = stack.files["config/gateway/haproxy.cfg"][0]
        slots = [int(count) for count in re.findall(r"server-template frontend (\d+)", config)]
        # And for the one more of a rolling update.
        assert len(slots) == 2
        assert min(slots) > stack.services["frontend"]["deploy"]["replicas"]


def test_gateways_configuration_is_named_by_its_text(stacks: list[Stack]) -> None:
    names = {}
    for stack in stacks:
        config = stack.files["config/gateway/haproxy.cfg"][0]
        (name,) = re.findall(r'string "(\w+)" if \{ path /loaded \}', config)
        names.setdefault(name, config.replace(name, ""))
        assert names[name] == config.replace(name, "")
    assert len(names) == len(set(names.values()))


@pytest.mark.parametrize(("service", "flag", "quiet", "verbose"), [
    ("database", "log_min_messages", "warning", "info"),
    ("database", "log_statement", None, "all"),
    ("cache", "loglevel", "notice", "verbose"),
])  # fmt: skip
def test_dev_logs_more_than_prod(
    stacks: list[Stack], service: str, flag: str, quiet: str | None, verbose: str
) -> None:
    for stack in stacks:
        assert stack.flags(service).get(flag) == (quiet if stack.prod else verbose)
        level = stack.services["api"]["environment"]["LOG_LEVEL"]
        assert level == ("info" if stack.prod else "debug")


def test_dev_alone_shows_the_apis_documentation(stacks: list[Stack]) -> None:
    for stack in stacks:
        shown = stack.services["api"]["environment"].get("DOCS")
        assert shown == (None if stack.prod else "on")


def test_dev_changes_no_setting_of_prods_but_those_of_logs(dev: list[Stack]) -> None:
    for stack in dev:
        base = yaml.safe_load(stack.files["docker-compose.yml"][0])["services"]
        for name in ("database", "cache"):
            (before,) = {" ".join(map(str, base[name]["command"]))}
            changed = [
                word
                for word in stack.services[name]["command"]
                if word and word not in before and "log" not in word
            ]
            assert changed in ([], ["verbose"]), (name, changed)


def test_images_are_the_ones_that_were_named(stacks: list[Stack]) -> None:
    for stack in stacks:
        images = {name: service["image"] for name, service in stack.services.items()}
        registry = stack.combination.images == "registry"
        assert images["database"] == (
            "postgres:17" if registry else "stackyard/database:0123456789ab"
        )
        assert images["gateway"] == "stackyard/gateway:0123456789ab"
        assert not any("build" in service for service in stack.services.values())


def test_env_file_names_the_project_and_the_active_files(stacks: list[Stack]) -> None:
    for stack in stacks:
        lines = [line for line in stack.files[".env"][0].splitlines() if not line.startswith("#")]
        project = stack.given.get("stack_project", "stackyard")
        assert lines == [
            f"COMPOSE_PROJECT_NAME={project}",
            f"COMPOSE_FILE=docker-compose.yml:docker-compose.{stack.combination.env}.yml",
        ]
        assert stack.model["name"] == project


def test_directories_are_roots_to_write_and_the_stacks_own_is_hidden(stacks: list[Stack]) -> None:
    for stack in stacks:
        assert stack.directories == {
            ".": "0750",
            "config": "0755",
            "config/api": "0755",
            "config/database": "0755",
            "config/gateway": "0755",
        }


def test_rendered_files_are_hidden_from_other_users_and_scripts_can_run(
    stacks: list[Stack],
) -> None:
    for stack in stacks:
        modes = {name: mode for name, (_, mode) in stack.files.items()}
        assert {modes[name] for name in modes if not name.startswith("config/")} == {"0640"}
        assert modes["config/database/10-api-role.sh"] == "0755"
