"""Settings that cannot work are refused before anything is changed, each in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import Case, variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .conftest import Attempt, Lab

SERVICES = ("gateway", "frontend", "api", "database", "cache")
REPLICAS = ("stack_compose_frontend_replicas", "stack_compose_api_replicas")
MEMORY = tuple(f"stack_compose_{service}_memory" for service in SERVICES)
CPUS = tuple(f"stack_compose_{service}_cpus" for service in SERVICES)
PORTS = (
    "stack_compose_http_port",
    "stack_compose_https_port",
    "stack_compose_database_debug_port",
    "stack_compose_cache_debug_port",
)


def one(name: str, says: list[str], *, env: str = "prod", **values: object) -> Case:
    """Return a case that ends with one line."""
    return Case(name, variables(env=env, **values), [says])


def several(what: str, settings: Sequence[str], bad: Sequence[object], *mend: str) -> Case:
    """Return a case in which each setting has a bad value; each is to have its own line."""
    given = dict(zip(settings, bad, strict=True))
    says = [
        [f"{setting} is '{'' if value is None else value}': ", f"-e {setting}=", *mend]
        for setting, value in given.items()
    ]
    env = "dev" if settings == PORTS else "prod"
    return Case(f"{what} {bad}", variables(env=env, **given), says)


def replicas(*bad: object) -> Case:
    """Return a case with a bad replica count of the frontend, and one of the api."""
    return several("replicas", REPLICAS, bad, "a whole number from 1 to 20")


def memory(*bad: object) -> Case:
    """Return a case with a bad memory limit for each service."""
    return several("memory", MEMORY, bad, "a whole number with K, M or G, 32M or more")


def cpus(*bad: object) -> Case:
    """Return a case with a bad CPU limit for each service."""
    return several("cpus", CPUS, bad, "from 0.01 to ", "the cores of this machine")


def ports(*bad: object) -> Case:
    """Return a case with a bad number for each of four ports."""
    return several("ports", PORTS, bad, "from 1 to 65535")


def fleet(setting: str, bad: dict[str, Any], *mend: str) -> Case:
    """Return a case in which each machine of a fleet has its own bad value in the inventory.

    `bad` has the values by what the machine's line says of them.
    """
    machines = [{setting: value} for value in bad.values()]
    says = [[f"{setting} {says}", *mend] for says in bad]
    return Case(f"fleet with {setting}", variables(env="prod"), says, machines)


def swarm(
    name: str,
    *says: str,
    machines: int = 1,
    managers: Sequence[str] = ("lab1",),
    workers: Sequence[str] = (),
    **values: object,
) -> Case:
    """Return a case of machines that are to be a swarm."""
    given = {"env": "prod", "orchestrator": "swarm"} | values
    parts = {"swarm_managers": managers, "swarm_workers": workers}
    return Case(name, variables(**given), [says], [{}] * machines, parts=parts)


def quoted(*values: str) -> dict[str, str]:
    """Return the values by how a line shows them."""
    return {f"is '{value}': ": value for value in values}


HIDDEN = "hidden-4711-hidden"
HUGE = "10000000000000000"
# Those of a stack beside the one that is there.
FREE_PORTS = {"stack_compose_http_port": "18080", "stack_compose_https_port": "18443"}

CASES = [
    Case("no lab", variables(env="prod"),
         [["/no-lab.yml has no machine in the group lab. ", "-i INVENTORY"]],
         fleet=[{}], group="labs"),
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
    cpus("abc", "0", "-1", "0.001", "4097"),
    cpus("1,5", "nan", None, 4096.5, "1e0"),
    ports("0", "65536", "-80", "http"),
    ports("80.5", None, True, "08080"),
    one("port used twice", ["stack_compose_https_port is '8080'", "no other port setting has"],
        stack_compose_https_port="8080"),
    Case("ports that meet in dev",
         variables(env="dev", stack_compose_http_port="65530", stack_compose_api_debug_port="65527",
                   stack_compose_database_debug_port="8443", stack_compose_cache_debug_port="8443"),
         [["stack_compose_http_port is '65530'", "the api has 65527 to 65536"],
          ["stack_compose_database_debug_port is '8443'", "no other port setting has"],
          ["stack_compose_cache_debug_port is '8443'", "no other port setting has"],
          ["stack_compose_api_debug_port is '65527'", "from 1 to 65526"]]),
    one("address", ["stack_compose_bind_address is 'localhost'", "address=0.0.0.0"],
        stack_compose_bind_address="localhost"),
    several("numbers of the deploy", ("stack_deploy_timeout", "stack_deploy_log_lines"),
            ("abc", "0"), "a whole number from 1 to 99999"),
    several("numbers of boot and watch", ("stack_boot_timeout", "stack_boot_watch_seconds"),
            ("abc", "-1"), "a whole number from"),
    *(
        one(f"no {name}", [f"{name} is 'maybe': ", f"-e {name}=true"], **{name: "maybe"})
        for name in ("stack_deploy_take_lock", "swarm_encrypted")
    ),
    fleet("stack_backup_keep", quoted("0", "abc", "-1", "1000"),
          "from 1 to 999", "-e stack_backup_keep=7"),
    fleet("stack_backup_queue_max", quoted("512", "1TB", ""), "with MiB or GiB", "=512MiB"),
    fleet("stack_backup_timer", quoted("sometimes", "25:00"), "OnCalendar", "=daily"),
    one("short key of backups",
        ["stack_backup_key is not 12 or more printable characters", "or none"],
        stack_backup_key=HIDDEN[:11]),
    # With a space: in an inventory, since on a command line it would end there.
    fleet("stack_backup_key", {"is not 12 or more": f"{HIDDEN} a"},
          "printable characters without spaces", "or none"),
    fleet("stack_dir",
          quoted("stackyard", "/etc", "/var/lib/", "/usr/local/stackyard",
                 "/var/lib/docker/stackyard", "/opt/stackyard/../other", "/", "/opt/stack yard"),
          "absolute path", "-e stack_dir=/opt/stackyard"),
    fleet("stack_project", quoted("Stackyard", "stack yard", "-stack"),
          "lower-case", "-e stack_project=stackyard"),
    one("unknown distribution", ['stack_images_distribution is "mirror"', "=local", "or registry"],
        stack_images_distribution="mirror"),
    one("unknown build host", ['stack_images_build_host is "lab9"', "of the inventory"],
        stack_images_distribution="archive", stack_images_build_host="lab9"),
    one("too little room on the build host", ["engine of localhost", "building them takes 8.88 PB"],
        stack_images_edition="refused", stack_images_minimum_free_bytes=HUGE),
    one("too little room to load", ["loading them takes 8.88 PB"],
        stack_images_edition="refused", stack_images_minimum_free_bytes_to_load=HUGE),
    one("too little room to offer", ["free in /var/cache on localhost", "there takes 8.88 PB"],
        stack_images_edition="refused", stack_images_distribution="registry",
        stack_images_minimum_free_bytes_to_offer=HUGE),
    one("mirror of the build host", ["http://127.0.0.1:9/debian cannot be reached from localhost"],
        stack_images_edition="refused", stack_images_mirrors={"main": "http://127.0.0.1:9/debian"}),
    fleet("stack_images_refs",
          {'is {"databse": "postgres:17"}: ': {"databse": "postgres:17"},
           'is "postgres:17": ': "postgres:17",
           'is {"database": null}: ': {"database": None}},
          "gateway, frontend, api", """-e '{"stack_images_refs": {"database": "postgres:17"}}'"""),
    fleet("stack_secrets_values",
          {"has databse: ": {"databse": HIDDEN},
           "is no mapping: ": HIDDEN,
           "has database_api: ": {"database_api": [HIDDEN]}},
          "give text for some of", "database_superuser, database_api", "-e '{"),
    one("secret that is too short", ["The value given for database_api has 9 char", "12 or more"],
        stack_secrets_values={"database_api": "hidden-47"}),
    one("secret with a space", ["The value given for cache_api holds a space"],
        stack_secrets_values={"cache_api": f"{HIDDEN} {HIDDEN}"}),
    one("unknown orchestrator",
        ["orchestrator is 'kubernetes'", "-e orchestrator=compose", "-e orchestrator=swarm"],
        orchestrator="kubernetes"),
    swarm("dev on a swarm", "orchestrator is 'swarm' and env is dev", "-e env=prod", env="dev"),
    swarm("swarm without a manager", "no machine in the group swarm_managers", "name one, or three",
          managers=(), workers=("lab1", "lab2"), machines=2),
    swarm("swarm with two managers", "swarm_managers are 2, lab1, lab2: ", "name 1, 3 or 5",
          managers=("lab1", "lab2"), machines=2),
    swarm("machine with two parts", "lab1 is in the groups lab, swarm_managers, swarm_workers",
          "in one of swarm_managers and swarm_workers", workers=("lab1", "lab2"), machines=2),
    swarm("machine without a part", "lab2 is in the groups lab: ",
          "in one of swarm_managers and swarm_workers", machines=2),
    swarm("manager that is no lab machine", "swarm_managers are 'lab9', and none of them is in",
          "in the group lab and in --limit", managers=("lab9",), workers=("lab1",)),
    swarm("address on a swarm", "stack_compose_bind_address is '127.0.0.1'", "every address",
          "-e stack_compose_bind_address=0.0.0.0", stack_compose_bind_address="127.0.0.1"),
    swarm("project's name too long for a swarm", f"stack_project is '{'p' * 19}', 19 characters",
          "room for 18: ", "-e stack_project=stackyard", stack_project="p" * 19, **FREE_PORTS),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_setting_is_refused_in_one_line(case: Case, attempt: Attempt) -> None:
    outcome = attempt(case)
    outcome.assert_refused()
    assert "hidden-47" not in outcome.run.output


def test_cpu_limit_above_the_machines_cores_is_refused(lab: Lab, attempt: Attempt) -> None:
    cores = int(lab.machine.run("nproc").out)
    bad = (1, 1, 1, cores + 0.5, str(cores + 1))
    case = several("cpus", CPUS, bad, f"from 0.01 to {cores}, the cores of this machine")
    attempt(Case("more cpus than cores", case.arguments, case.says[-2:])).assert_refused()


def test_env_that_is_no_env_is_refused_for_every_machine_of_a_fleet(attempt: Attempt) -> None:
    says = [["env is 'production'"]]
    outcome = attempt(Case("fleet", variables(env="production"), says, fleet=[{}, {}]))
    outcome.assert_refused()
    # Ansible writes lines that are alike only once.
    assert outcome.run.output.count("fatal: ") == 2


def test_good_settings_are_not_refused(attempt: Attempt) -> None:
    # Else whatever is wrong with this machine could pass for a refusal.
    outcome = attempt(Case("good settings", variables(env="prod"), []))
    assert outcome.run.code == 0, outcome.run.output
    outcome.assert_nothing_altered()
    # As far as preflight: more would deploy it.
    good = variables(env="dev", stack_compose_api_replicas="12")
    outcome = attempt(Case("good settings in dev", ["--tags=always", *good], []))
    assert outcome.run.code == 0, outcome.run.output
    outcome.assert_nothing_altered()
    case = swarm("good swarm", stack_project="p" * 18, **FREE_PORTS)
    outcome = attempt(replace(case, arguments=["--tags=always", *case.arguments], says=[]))
    assert outcome.run.code == 0, outcome.run.output
    outcome.assert_nothing_altered()
