"""The filters that turn Compose's model into a stack file, on a small model of their own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from tests.sources import load

from .conftest import ROOT

stack_file = load(ROOT / "roles/stack_deploy/filter_plugins/stack_file.py")
filters = stack_file.FilterModule().filters()
DIRECTORY = "/srv/lab"
LISTING = [
    "config/api/app.toml 644 20260102030405.6789012340",
    "config/web/app.toml 600 20260102030405.6789012340",
    "secrets/api_password 400 20260102030405.0000000000",
    "secrets/web_key 400 20261231235959.9999999990",
]
MODEL: dict[str, Any] = {
    "name": "lab",
    "services": {
        "api": {
            "image": "api:1",
            "user": "992:993",
            "restart": "always",
            "depends_on": {"web": {"condition": "service_healthy", "required": True}},
            "networks": {"between": None},
            "secrets": [{"source": "api_password", "target": "/run/secrets/api_password"}],
            "tmpfs": ["/tmp:size=16m,mode=0700,uid=992,gid=993", "/run:size=1g"],
            "volumes": [
                {"type": "bind", "source": f"{DIRECTORY}/config/api", "target": "/etc/api"}
            ],
            "deploy": {"replicas": 2, "resources": {"limits": {"cpus": 0.25, "memory": "64"}}},
        },
        "web": {
            "image": "web:1",
            "user": "991",
            "command": None,
            "networks": {"between": None, "outside": None},
            "ports": [
                {"mode": "ingress", "target": 80, "published": "8080", "host_ip": "0.0.0.0"},
            ],
            "secrets": [{"source": "web_key", "target": "/run/secrets/web_key"}],
            "volumes": [
                {"type": "bind", "source": f"{DIRECTORY}/config/web", "target": "/etc/web"}
            ],
        },
    },
    "networks": {
        "between": {
            "name": "lab_between",
            "internal": True,
            "driver_opts": {"com.docker.network.bridge.inhibit_ipv4": "true", "encrypted": ""},
        },
        "outside": {"name": "lab_outside"},
    },
    "secrets": {
        "api_password": {"name": "lab_api_password", "file": f"{DIRECTORY}/secrets/api_password"},
        "web_key": {"name": "lab_web_key", "file": f"{DIRECTORY}/secrets/web_key"},
    },
    "x-anchors": {"init": True},
}


def stack(model: dict[str, Any] = MODEL, listing: list[str] = LISTING) -> dict[str, Any]:
    """Return the stack file."""
    return filters["stack_file"](model, DIRECTORY, listing)


def altered(way: str, value: Any) -> dict[str, Any]:
    """Return the model with another value at a place."""
    model = copy.deepcopy(MODEL)
    *steps, last = way.split("/")
    node = model
    for step in steps:
        node = node[step] if isinstance(node, dict) else node[int(step)]
    node[last] = value
    return model


def differences(before: Any, after: Any, way: str = "") -> set[str]:
    """Return the places at which two stack files differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = before.keys() | after.keys()
        return set().union(
            *(differences(before.get(key), after.get(key), f"{way}/{key}") for key in keys)
        )
    return set() if before == after else {way}


def test_model_itself_is_left_as_it_was() -> None:
    model = copy.deepcopy(MODEL)
    stack(model)
    assert model == MODEL


def test_file_of_a_mounted_directory_is_a_config_at_its_place() -> None:
    text = stack()
    assert text["services"]["web"]["configs"] == [
        {"source": "web_app.toml", "target": "/etc/web/app.toml", "mode": 0o600}
    ]
    assert text["configs"]["web_app.toml"]["file"] == f"{DIRECTORY}/config/web/app.toml"
    assert text["services"]["web"]["volumes"] == []


def test_files_of_one_name_and_time_are_told_apart() -> None:
    names = {each["name"] for each in stack()["configs"].values()}
    assert names == {"lab_api_app.toml-20260102030405678", "lab_web_app.toml-20260102030405678"}


def test_secret_is_its_services_users() -> None:
    (secret,) = stack()["services"]["api"]["secrets"]
    assert (secret["uid"], secret["gid"], secret["mode"]) == ("992", "993", 0o400)


def test_tmpfs_keeps_its_size() -> None:
    assert stack()["services"]["api"]["volumes"] == [
        {"type": "tmpfs", "target": "/tmp", "tmpfs": {"size": 16 * 1024**2}},
        {"type": "tmpfs", "target": "/run", "tmpfs": {"size": 1024**3}},
    ]


def test_port_is_its_nodes_own() -> None:
    assert stack()["services"]["web"]["ports"] == [
        {"mode": "host", "target": 80, "published": 8080}
    ]


def test_two_services_meet_on_the_network_that_they_share() -> None:
    text = stack()
    assert set(text["services"]["api"]["networks"]) == {"between"}
    assert set(text["services"]["web"]["networks"]) == {"between", "outside"}
    # One network for both, with what concerns a swarm and without what is a bridge's own.
    assert text["networks"]["between"] == {
        "name": "lab_between",
        "internal": True,
        "driver": "overlay",
        "driver_opts": {"encrypted": ""},
    }
    assert "internal" not in text["networks"]["outside"]


def test_reservations_are_kept_with_the_limits() -> None:
    model = altered("services/api/deploy/resources/reservations", {"cpus": 0.1, "memory": "32"})
    assert stack(model)["services"]["api"]["deploy"]["resources"] == {
        "limits": {"cpus": "0.25", "memory": "64"},
        "reservations": {"cpus": "0.1", "memory": "32"},
    }


@given(
    changed=st.integers(0, len(LISTING) - 1),
    seconds=st.integers(20000101000000, 29991231235959),
    part=st.integers(0, 999),
)
def test_changed_file_is_another_version_and_nothing_else_changes(
    changed: int, seconds: int, part: int
) -> None:
    time = f"{seconds}.{part:03}0000000"
    path, mode, before = LISTING[changed].split()
    listing = [*LISTING]
    listing[changed] = f"{path} {mode} {time}"
    kind, name = path.split("/")[-2:]
    section, key = ("secrets", name) if kind == "secrets" else ("configs", f"{kind}_{name}")
    same = f"{seconds}{part:03}" == before.replace(".", "")[:17]
    place = f"/{section}/{key}/name"
    assert differences(stack(), stack(listing=listing)) == (set() if same else {place})
    assert stack(listing=listing)[section][key]["name"].endswith(f"-{seconds}{part:03}")


@pytest.mark.parametrize(("way", "value", "says"), [
    ("services/api/privileged", True, ["api has privileged in the Compose files", "take that out"]),
    ("services/api/memswap_limit", -1, ["api has memswap_limit"]),
    ("services/api/devices", ["/dev/kmsg"], ["api has devices"]),
    ("services/api/build", {"context": "."}, ["api has build"]),
    ("services/web/configs", [{"source": "one"}], ["web has configs"]),
    ("services/web/network_mode", "host", ["web has network_mode"]),
    ("configs", {"one": {"content": "two"}}, ["The Compose files have configs"]),
    ("services/web/ports/0/host_ip", "127.0.0.1",
     ["web publishes port 8080 on 127.0.0.1", "publish it on 0.0.0.0"]),
    ("services/api/volumes/0/source", "/var/run/docker.sock",
     ["api mounts /var/run/docker.sock", "constraint"]),
    ("services/api/user", None, ["api has no user"]),
    ("secrets/web_key/file", "/srv/lab/secrets/none", ["web_key has no file /srv/lab/secrets/n"]),
    ("secrets/web_key", {"name": "lab_web_key", "environment": "KEY"}, ["web_key has no file"]),
])  # fmt: skip
def test_what_no_swarm_can_be_told_is_refused_in_one_line(
    way: str, value: Any, says: list[str]
) -> None:
    model = altered(way, value)
    (line,) = filters["stack_refusals"](model, DIRECTORY, LISTING)
    assert all(text in line for text in says), line
    assert line.endswith(".")
    assert "\n" not in line
    with pytest.raises(AnsibleFilterError) as refused:
        stack(model)
    assert line in str(refused.value)


def test_each_thing_refused_has_its_line() -> None:
    model = altered("services/api/privileged", True)
    model["services"]["web"]["devices"] = ["/dev/kmsg"]
    assert len(filters["stack_refusals"](model, DIRECTORY, LISTING)) == 2


@pytest.mark.parametrize(("name", "says"), [
    ("app.toml 2", "a name of which a swarm takes letters, digits"),
    ("größe.toml", "a name of which a swarm takes letters, digits"),
    ("a" * 43, "a swarm takes 42 characters"),
])  # fmt: skip
def test_file_whose_name_no_config_can_have_is_refused(name: str, says: str) -> None:
    model = altered("name", "lab")
    # Mounted by both, and refused once.
    model["services"]["web"]["volumes"] = model["services"]["api"]["volumes"]
    listing = [*LISTING, f"config/api/{name} 644 20260102030405.6789012340"]
    (line,) = filters["stack_refusals"](model, DIRECTORY, listing)
    assert f"{DIRECTORY}/config/api/{name} " in line
    assert says in line


def test_name_as_long_as_may_be_is_taken() -> None:
    listing = [*LISTING, f"config/api/{'a' * 38} 644 20260102030405.6789012340"]
    config = stack(listing=listing)["configs"][f"api_{'a' * 38}"]
    assert len(config["name"]) == stack_file.LONGEST_NAME


def test_nothing_is_refused_that_a_pinned_service_mounts() -> None:
    model = altered("services/api/volumes/0/source", "/srv/lab/backups")
    model["services"]["api"]["deploy"]["placement"] = {"constraints": ["node.labels.x == true"]}
    assert filters["stack_refusals"](model, DIRECTORY, LISTING) == []


@given(st.lists(st.text("abc_", min_size=1, max_size=40), min_size=1))
def test_longest_project_is_as_long_as_its_longest_secret_lets_it_be(secrets: list[str]) -> None:
    most = filters["longest_project"](secrets)
    listing = [f"secrets/{name} 400 20260102030405.6789012340" for name in secrets]
    for length, refused in ((most, False), (most + 1, True)):
        model = {
            "name": "p" * length,
            "services": {},
            "secrets": {name: {"file": f"{DIRECTORY}/secrets/{name}"} for name in secrets},
        }
        assert bool(filters["stack_refusals"](model, DIRECTORY, listing)) == refused
