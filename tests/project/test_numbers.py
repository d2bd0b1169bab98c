"""A number that has to stand in two places is the same in both."""

from __future__ import annotations

import re

import pytest

from .conftest import ROOT, read_yaml

SERVICES = ("gateway", "frontend", "api", "database", "cache")
TEMPLATE = (ROOT / "roles/stack_compose/templates/docker-compose.yml.j2").read_text("utf-8")


def text(path: str) -> str:
    """Return a file's text."""
    return (ROOT / path).read_text(encoding="utf-8")


def service(name: str) -> str:
    """Return the service's part of the compose template."""
    found = re.search(rf"^  {name}:\n(.*?)(?=^  \w+:\n|^\w)", TEMPLATE, re.M | re.S)
    assert found, name
    return found[1]


HAPROXY = "roles/stack_compose/templates/config/gateway/haproxy.cfg.j2"


@pytest.mark.parametrize("name", SERVICES)
def test_uid_of_an_image_is_the_one_that_the_stack_starts_it_as(name: str) -> None:
    dockerfile = text(f"files/{name}/Dockerfile")
    uid = read_yaml(ROOT / "playbooks/group_vars/all/stack.yml")["stack__uids"][name]
    assert re.findall(r"--uid (\d+)", dockerfile) == [str(uid)]
    assert re.findall(r"--gid (\d+)", dockerfile)[0] == str(uid)
    started_as = re.findall(r"^USER (\S+)", dockerfile, re.M)
    # The images of PostgreSQL and Redis step down by themselves.
    assert started_as == ([] if uid == 999 else [f"{uid}:{uid}"])


@pytest.mark.parametrize(("name", "path", "pattern"), [
    ("gateway", HAPROXY, r"^    bind :(\d+)"),
    ("frontend", "files/frontend/nginx.conf", r"^\s+listen (\d+)"),
    ("api", "files/api/stackyard_api/settings.py", r'number\("PORT", (\d+)'),
])  # fmt: skip
def test_ports_of_a_server_are_those_that_its_image_and_health_check_name(
    name: str, path: str, pattern: str
) -> None:
    ports = re.findall(pattern, text(path), re.M)
    (exposed,) = re.findall(r"^EXPOSE (.+)", text(f"files/{name}/Dockerfile"), re.M)
    assert exposed.split() == ports
    assert re.findall(r"http://127\.0\.0\.1:(\d+)/health", service(name)) == ports[:1]


def test_gateway_publishes_the_ports_that_it_listens_on() -> None:
    ports = re.findall(r"^    bind :(\d+)", text(HAPROXY), re.M)
    assert re.findall(r'_port \}\}:(\d+)"', service("gateway")) == ports


def test_each_server_asks_the_next_one_at_its_port() -> None:
    (frontend,) = re.findall(r"^EXPOSE (\d+)", text("files/frontend/Dockerfile"), re.M)
    (api,) = re.findall(r"^EXPOSE (\d+)", text("files/api/Dockerfile"), re.M)
    asked = re.findall(r"frontend:(\d+)$", text(HAPROXY), re.M)
    assert set(asked) == {frontend}
    assert set(re.findall(r":(\d+) (?:max_fails|down)", text("files/frontend/serve"))) == {api}


@pytest.mark.parametrize(("name", "setting"), [("database", "DATABASE"), ("cache", "CACHE")])
def test_api_asks_the_servers_at_the_ports_of_their_images(name: str, setting: str) -> None:
    (exposed,) = re.findall(r"^EXPOSE (\d+)", text(f"files/{name}/Dockerfile"), re.M)
    settings = text("files/api/stackyard_api/settings.py")
    assert re.findall(rf'number\("{setting}_PORT", (\d+)', settings) == [exposed]


@pytest.mark.parametrize("name", ["api", "database", "cache"])
def test_debug_port_leads_to_the_servers_port(name: str) -> None:
    override = text("roles/stack_compose/templates/docker-compose.dev.yml.j2")
    (exposed,) = re.findall(r"^EXPOSE (\d+)", text(f"files/{name}/Dockerfile"), re.M)
    (part,) = re.findall(rf"^  {name}:\n(.*?)(?=^  \w+:\n|^\w)", override, re.M | re.S)
    assert re.findall(r'\}\}:(\d+)"', part) == [exposed]


def test_api_reads_the_settings_that_the_stack_gives() -> None:
    given = set(re.findall(r"^      ([A-Z_]+):", service("api"), re.M))
    known = set(
        re.findall(
            r'(?:text|number|choice)\(\s*"([A-Z_]+)"', text("files/api/stackyard_api/settings.py")
        )
    )
    assert given <= known


def test_secrets_of_the_compose_file_are_the_files_that_are_made() -> None:
    definitions = read_yaml(ROOT / "playbooks/group_vars/all/stack_secrets.yml")[
        "stack_secrets_definitions"
    ]
    made = {file["name"] for secret in definitions for file in secret["files"]}
    (listed,) = re.findall(r"for name in \[(.*?)\]", TEMPLATE, re.S)
    assert set(re.findall(r"'(\w+)'", listed)) == made


def test_owner_of_a_secret_file_is_the_service_that_mounts_it() -> None:
    definitions = read_yaml(ROOT / "playbooks/group_vars/all/stack_secrets.yml")[
        "stack_secrets_definitions"
    ]
    for secret in definitions:
        for file in secret["files"]:
            (owner,) = re.findall(r"stack__uids\.(\w+)", file["owner"])
            mounting = [
                name
                for name in SERVICES
                if re.search(rf"secrets: \[.*\b{file['name']}\b", service(name))
            ]
            assert mounting == [owner], file["name"]
