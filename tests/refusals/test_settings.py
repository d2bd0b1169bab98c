"""Settings that cannot work are refused before anything is changed, each in one line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from .conftest import PROJECT, Case, Run, play, variables

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

CORES = os.cpu_count() or 1
SERVICES = ("gateway", "frontend", "api", "database", "cache")
PORTS = (
    "stack_compose_http_port",
    "stack_compose_https_port",
    "stack_compose_database_debug_port",
    "stack_compose_cache_debug_port",
)


def one(name: str, says: list[str], *, env: str = "prod", **values: object) -> Case:
    """Return a case that ends with one line."""
    return Case(name, [*variables(env=env), *variables(**values)], [says])


def several(what: str, settings: tuple[str, ...], bad: tuple[object, ...], *mend: str) -> Case:
    """Return a case in which each setting has a bad value; each is to have its own line."""
    given = dict(zip(settings, bad, strict=True))
    says = [
        [f"{setting} is '{'' if value is None else value}': ", f"-e {setting}=", *mend]
        for setting, value in given.items()
    ]
    env = "dev" if "debug_port" in "".join(settings) else "prod"
    return Case(f"{what} {bad}", [*variables(env=env), *variables(**given)], says)


def replicas(*bad: object) -> Case:
    """Return a case with a bad replica count of the frontend, and one of the api."""
    settings = ("stack_compose_frontend_replicas", "stack_compose_api_replicas")
    return several("replicas", settings, bad, "a whole number from 1 to 20")


def memory(*bad: object) -> Case:
    """Return a case with a bad memory limit for each service."""
    settings = tuple(f"stack_compose_{service}_memory" for service in SERVICES)
    return several("memory", settings, bad, "a whole number with K, M or G")


def cpus(*bad: object) -> Case:
    """Return a case with a bad CPU limit for each service."""
    settings = tuple(f"stack_compose_{service}_cpus" for service in SERVICES)
    return several("cpus", settings, bad, f"from 0.01 to {CORES}, the cores of this machine")


def ports(*bad: object) -> Case:
    """Return a case with a bad number for each of four ports."""
    return several("ports", PORTS, bad, "from 1 to 65535")


def directory(name: str, value: object) -> Case:
    """Return a case with a stack_dir that cannot be."""
    says = [f"stack_dir is '{value}': ", "absolute path", "-e stack_dir=/opt/stackyard"]
    return Case(
        f"directory {name}", [*variables(env="prod"), "-e", f'{{"stack_dir": "{value}"}}'], [says]
    )


def project(value: str) -> Case:
    """Return a case with a project's name that cannot be."""
    says = [f"stack_project is '{value}': ", "lower-case", "-e stack_project=stackyard"]
    return Case(
        f"project {value}",
        [*variables(env="prod"), "-e", f'{{"stack_project": "{value}"}}'],
        [says],
    )


HIDDEN = "hidden-4711-hidden"
LARGE = "10000000000000000"

CASES = [
    Case("env missing", [], [["env is ''", "-e env=prod", "-e env=dev"]]),
    Case("env misspelt", variables(env="Prod"), [["env is 'Prod'", "-e env=prod", "-e env=dev"]]),
    replicas("0", "-1"),
    replicas("abc", "21"),
    replicas("1.5", ""),
    replicas(None, [2]),
    one("maximum of replicas", ["stack_compose_maximum_replicas is '0'", "from 1 to 100"],
        stack_compose_maximum_replicas="0"),
    one("more replicas than the maximum", ["stack_compose_api_replicas is '5'", "from 1 to 4"],
        stack_compose_maximum_replicas="4", stack_compose_api_replicas="5"),
    memory("256", "256MB", "1.5G", "abc", "1M"),
    memory("-1G", 512, None, "G", "9999999999G"),
    cpus("abc", "0", "-1", "0.001", str(CORES + 1)),
    cpus("1,5", "nan", None, CORES + 0.5, "1e0"),
    ports("0", "65536", "-80", "http"),
    ports("80.5", None, True, "08080"),
    one("port used twice", ["stack_compose_https_port is '21080'", "no other port setting has"],
        stack_compose_https_port="21080"),
    one("port used twice in dev", ["stack_compose_cache_debug_port is '21080'", "no other"],
        env="dev", stack_compose_cache_debug_port="21080"),
    one("port among the api's", ["stack_compose_http_port is '21809'", "21800 to 21809"],
        env="dev", stack_compose_http_port="21809"),
    one("api's ports beyond the last", ["stack_compose_api_debug_port is '65527'", "1 to 65526"],
        env="dev", stack_compose_api_debug_port="65527"),
    one("address", ["stack_compose_bind_address is 'localhost'", "address=0.0.0.0"],
        stack_compose_bind_address="localhost"),
    several("numbers of the deploy", ("stack_deploy_timeout", "stack_deploy_log_lines"),
            ("abc", "0"), "a whole number from 1 to 99999"),
    directory("relative", "stackyard"),
    directory("of the system", "/etc"),
    directory("of the system with a slash", "/var/lib/"),
    directory("within the system", "/usr/local/stackyard"),
    directory("of the engine", "/var/lib/docker/stackyard"),
    directory("with a way up", "/opt/stackyard/../other"),
    directory("that is the root", "/"),
    directory("with a space", "/opt/stack yard"),
    project("Stackyard"),
    project("stack yard"),
    project("-stack"),
    one("image of an unknown service", ['"databse": "postgres:17"', "gateway, frontend, api", "-e"],
        stack_images_refs={"databse": "postgres:17"}),
    one("images as text", ['stack_images_refs is "postgres:17"', "-e '{\"stack_images_refs\""],
        stack_images_refs="postgres:17"),
    one("image without a reference", ['"database": null', "postgres:17"],
        stack_images_refs={"database": None}),
    one("secret that the stack does not have", ["stack_secrets_values has databse", "database_api"],
        stack_secrets_values={"databse": HIDDEN}),
    one("secrets as text", ["stack_secrets_values is no mapping", "database_api", "-e '{"],
        stack_secrets_values=HIDDEN),
    one("secret that is no text", ["stack_secrets_values has database_api", "give text"],
        stack_secrets_values={"database_api": [HIDDEN]}),
    one("secret that is too short", ["The value given for database_api has 9 char", "12 or more"],
        stack_secrets_values={"database_api": "hidden-47"}),
    one("secret with a space", ["The value given for cache_api holds a space"],
        stack_secrets_values={"cache_api": f"{HIDDEN} {HIDDEN}"}),
    one("too little memory", ["This machine has ", "the stack takes 8.88 PB", "larger machine"],
        stack_compose_minimum_memory_bytes=LARGE),
    one("too little room", ["are free", "building them takes 8.88 PB", "docker system df"],
        stack_images_refs={}, stack_images_edition=PROJECT, stack_images_minimum_free_bytes=LARGE),
    one("mirror that cannot be reached", ["http://127.0.0.1:9/debian cannot", "refused", "sources"],
        stack_images_refs={}, stack_images_edition=PROJECT, stack_images_minimum_free_bytes="1",
        stack_images_mirrors={"main": "http://127.0.0.1:9/debian"}),
]  # fmt: skip


@pytest.mark.usefixtures("nothing_altered")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_setting_is_refused_in_one_line(case: Case, runs: dict[str, Future[Run]]) -> None:
    run = runs[case.name].result()
    run.assert_refused(*case.says)
    assert "hidden-47" not in run.output


@pytest.mark.usefixtures("nothing_altered")
def test_inventory_without_lab_machines_is_refused(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("labs: {hosts: {localhost: {ansible_connection: local}}}\n")
    run = play(*variables(env="prod"), inventory=inventory)
    run.assert_refused([str(inventory), "no machine in the group lab", "-i INVENTORY"])


@pytest.mark.usefixtures("nothing_altered")
def test_misspelt_env_is_refused_for_every_machine_of_a_fleet(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    local = "{ansible_connection: local}"
    inventory.write_text(f"lab: {{hosts: {{one: {local}, two: {local}}}}}\n")
    run = play(*variables(env="production"), inventory=inventory)
    # Ansible writes lines that are alike only once.
    run.assert_refused(["env is 'production'"])
    assert run.output.count("fatal: ") == 2


def test_good_settings_are_not_refused() -> None:
    # Else whatever is wrong with this machine could pass for a refusal.
    run = play(*variables(env="dev", stack_compose_api_replicas="12"))
    assert run.code == 0, run.output
