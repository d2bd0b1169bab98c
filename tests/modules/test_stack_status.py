"""stack_status says how a stack fares, by the real engine's word; stack_logs what it logged."""

from __future__ import annotations

import json
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ROOT, Module, docker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

stack_status = Module(ROOT / "library/stack_status.py")
stack_logs = Module(ROOT / "library/stack_logs.py")
PROJECT = "stackyard-status"
REASON = "database away"
# A stack of our own images, each replica as ill as it is told to be.
COMPOSE = r"""
name: stackyard-status
services:
  well:
    image: {image}
    init: true
    command: [sleep, "600"]
    network_mode: none
    deploy: {{replicas: 2, resources: {{limits: {{memory: 64M, cpus: "0.5"}}}}}}
    healthcheck: {{test: [CMD, "true"], interval: 1s}}
  ill:
    image: {image}
    init: true
    command: [sleep, "600"]
    network_mode: none
    healthcheck: {{test: [CMD-SHELL, "echo {reason}; echo more; false"], interval: 1s, retries: 1}}
  ended:
    image: {image}
    command: [sh, -c, "echo begun; printf 'a\\033[2Jb\\n'; exit 3"]
    network_mode: none
"""


def status(directory: Path, **more: Any) -> dict[str, Any]:
    """Return what the module says."""
    result = stack_status(directory=str(directory), project=PROJECT, **more)
    assert not result.changed
    about: dict[str, Any] = result.answer["status"]
    return about


def until(directory: Path, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask until it holds."""
    deadline = time.monotonic() + 30
    while not holds(about := status(directory)):
        assert time.monotonic() < deadline, about
        time.sleep(0.5)
    return about


def make_certificate(directory: Path, *days: str) -> None:
    """Write a certificate and its key, as the gateway has them."""
    secrets = directory / "secrets"
    secrets.mkdir(exist_ok=True)
    path = str(secrets / "gateway_certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=lab", "-keyout", path, "-out", f"{path}.crt", *days),
        ],
        capture_output=True,
        check=True,
    )
    with open(path, "ab") as stream:
        stream.write((secrets / "gateway_certificate.crt").read_bytes())


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the directory of a stack that runs."""
    directory = tmp_path_factory.mktemp("stack")
    images = docker("image", "ls", "--quiet", "--filter", "reference=stackyard/base")
    assert images, "no image to start: make up INVENTORY=tests/inventory.yml first"
    text = COMPOSE.format(image=images.split()[0], reason=REASON)
    (directory / "docker-compose.yml").write_text(text)
    (directory / "docker-compose.dev.yml").write_text("services: {}\n")
    files = "docker-compose.yml:docker-compose.dev.yml"
    (directory / ".env").write_text(f"COMPOSE_PROJECT_NAME={PROJECT}\nCOMPOSE_FILE={files}\n")
    make_certificate(directory, "-days", "30")
    compose = ["docker", "compose", "--project-directory", str(directory)]
    environment = {**os.environ, "COMPOSE_FILE": str(directory / "docker-compose.yml")}
    down = [*compose, "down", "--timeout", "1", "--remove-orphans"]
    subprocess.run(down, check=False, capture_output=True, env=environment)
    try:
        subprocess.run([*compose, "up", "-d"], check=True, capture_output=True, env=environment)
        yield directory
    finally:
        subprocess.run(down, check=False, capture_output=True, env=environment)


@pytest.fixture
def about(stack: Path) -> dict[str, Any]:
    """Return the stack's status, once the ill one was found to be."""

    def settled(found: dict[str, Any]) -> bool:
        ill = any("ill is unhealthy" in each for each in found["problems"])
        return ill and service(found, "well")["health"] == "healthy"

    return until(stack, settled)


def service(about: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what is said of a service."""
    return next(each for each in about["services"] if each["name"] == name)


def test_healthy_service_is_counted_and_measured_against_its_limits(about: dict[str, Any]) -> None:
    well = service(about, "well")
    assert (well["wanted"], well["there"], well["health"], well["restarts"]) == (2, 2, "healthy", 0)
    assert (well["memory_limit_bytes"], well["cpus_limit"]) == (64 * 1024**2, 0.5)
    assert 0 < well["memory_bytes"] < well["memory_limit_bytes"]
    assert [each["replica"] for each in well["containers"]] == [1, 2]
    assert about["env"] == "dev"
    assert about["engine"] == docker("version", "--format", "{{.Server.Version}}")


def test_service_without_a_limit_has_none(about: dict[str, Any]) -> None:
    ill = service(about, "ill")
    assert (ill["memory_limit_bytes"], ill["cpus_limit"]) == (None, None)
    assert ill["memory_bytes"] > 0


def test_what_is_not_well_is_said_in_words(about: dict[str, Any]) -> None:
    assert about["state"] == "ill"
    text = "\n".join(about["problems"])
    assert f": {REASON}" in text
    assert "more" not in text
    assert "ended ended " in text
    assert "(exit code 3)" in text
    assert "well" not in text
    assert service(about, "ended")["memory_bytes"] is None


def test_time_of_an_illness_grows_with_it(stack: Path) -> None:
    def seconds() -> int:
        problems = status(stack)["problems"]
        text = next(each for each in problems if each.startswith("ill is unhealthy for "))
        return int(text.split()[4])

    first = seconds()
    start = time.monotonic()
    time.sleep(4)
    second = seconds()
    # stats takes some of it.
    assert abs((second - first) - (time.monotonic() - start)) <= 4


def test_missing_and_frozen_containers_are_told_apart(stack: Path) -> None:
    docker("rm", "--force", f"{PROJECT}-well-1")
    docker("pause", f"{PROJECT}-well-2")
    try:
        found = status(stack)
    finally:
        docker("unpause", f"{PROJECT}-well-2")
    assert "well has 1 of 2 containers" in found["problems"]
    assert "well-2 is paused" in found["problems"]
    assert service(found, "well")["health"] == "paused"
    docker("rm", "--force", f"{PROJECT}-well-2")
    assert "well has none of 2 containers" in status(stack)["problems"]


def test_restarting_container_is_said_to(stack: Path) -> None:
    docker("update", "--restart", "always", f"{PROJECT}-ended-1")
    docker("start", f"{PROJECT}-ended-1")
    try:
        found = until(stack, lambda each: "ended is restarting" in str(each["problems"]))
    finally:
        docker("update", "--restart", "no", f"{PROJECT}-ended-1")
        docker("stop", f"{PROJECT}-ended-1")
    assert service(found, "ended")["restarts"] > 0


def test_release_and_backup_are_read_with_their_ages(stack: Path) -> None:
    then = datetime.now(UTC) - timedelta(hours=3)
    release, backup = stack / "releases/current/release.json", stack / "backups/newest.json"
    assert (status(stack)["release"], status(stack)["backup"]) == (None, None)
    for path, date in ((release, "at"), (backup, "stopped")):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"id": "one", date: then.isoformat()}))
    found = status(stack)
    assert found["release"]["id"] == "one"
    for about in (found["release"], found["backup"]):
        assert abs(about["age_seconds"] - 3 * 3600) < 60
    release.write_text("{")
    assert f"{release} cannot be read: " in str(status(stack)["problems"])
    release.unlink()
    backup.unlink()


@pytest.mark.parametrize(("days", "says"), [
    (["-days", "30"], ""),
    (["-days", "5"], "the gateway's certificate ends in 5 days"),
])  # fmt: skip
def test_certificate_that_ends_soon_is_a_problem(stack: Path, days: list[str], says: str) -> None:
    make_certificate(stack, *days)
    found = status(stack)
    wrong = [each for each in found["problems"] if "certificate" in each]
    assert wrong == ([says] if says else [])
    assert abs(found["certificate"]["left_seconds"] - int(days[1]) * 86400) < 60


def test_certificate_that_is_none_is_a_problem(stack: Path) -> None:
    path = stack / "secrets/gateway_certificate"
    path.write_text("nothing")
    assert f"the certificate in {path} cannot be read: " in str(status(stack)["problems"])
    path.unlink()
    assert f"{path} is missing" in status(stack)["problems"]
    make_certificate(stack, "-days", "30")


def test_files_that_compose_refuses_are_a_problem_and_hide_nothing(stack: Path) -> None:
    path = stack / "docker-compose.dev.yml"
    before = path.read_text()
    path.write_text("services: [")
    found = status(stack)
    path.write_text(before)
    assert f"the files in {stack} cannot be read: " in str(found["problems"])
    assert service(found, "ill")["there"] == 1


def test_machine_without_a_stack(tmp_path: Path) -> None:
    result = stack_status(directory=str(tmp_path), project="stackyard-no-such")
    about = result.answer["status"]
    assert (about["state"], about["problems"]) == ("no stack", ["no stack: make up makes one"])


def test_stack_that_is_down(tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text("services: {one: {image: none}}\n")
    make_certificate(tmp_path, "-days", "30")
    result = stack_status(directory=str(tmp_path), project="stackyard-no-such")
    about = result.answer["status"]
    assert about["state"] == "down"
    assert about["problems"] == ["the stack is down: make up brings it back"]


def test_machine_without_an_engine(tmp_path: Path) -> None:
    result = stack_status(directory=str(tmp_path), project=PROJECT, path=str(tmp_path))
    about = result.answer["status"]
    assert about["state"] == "no engine"
    assert about["problems"] == ["no engine: make up installs one"]
    failed = stack_logs(project=PROJECT, lines=5, path=str(tmp_path))
    assert failed.message == "no engine: make up installs one"


def test_engine_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    about = stack_status(directory=str(tmp_path), project=PROJECT).answer["status"]
    assert about["state"] == "no engine"
    assert "the engine does not answer: " in about["problems"][0]


def test_logs_are_harmless_and_of_whom_was_asked_for(stack: Path) -> None:
    assert stack.is_dir()
    result = stack_logs(project=PROJECT, services=["ended"], lines=2)
    (_, name, first), (when, _, second) = result.answer["lines"]
    assert (name, first, second) == ("ended", "begun", "a\\x1b[2Jb")
    assert datetime.fromisoformat(f"{when[:26]}+00:00") < datetime.now(UTC)
    assert stack_logs(project=PROJECT, services=["none"], lines=2).answer["containers"] == 0
    later = stack_logs(project=PROJECT, services=["ended"], lines=2, since="0s")
    assert later.answer["lines"] == []


def test_last_lines_of_all_together_are_shown(stack: Path) -> None:
    assert stack.is_dir()
    everything = stack_logs(project=PROJECT, lines=1000).answer["lines"]
    assert everything == sorted(everything, key=lambda line: line[0])
    assert stack_logs(project=PROJECT, lines=1).answer["lines"] == everything[-1:]
