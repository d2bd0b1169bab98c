"""compose_services says what runs, where it differs from the files, and what is to be done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sources import load

from .engine import Engine, Module

ROOT = Path(__file__).parents[2]
compose_services: Any = load(ROOT / "roles/stack_deploy/library/compose_services.py")
LIMITS = {"memory": "67108864", "cpus": 0.5, "pids": 100}
LOADED = {"gateway": {"command": ["loaded"], "file": "haproxy.cfg"}}


@pytest.fixture
def engine() -> Engine:
    """A stack that is as its files have it."""
    found = Engine({
        "gateway": {"hash": "now", "image": "gateway:1"},
        "api": {
            "hash": "now", "image": "api:1", "restart": "on-failure:3",
            "deploy": {"replicas": 2, "resources": {"limits": LIMITS}},
        },
    })  # fmt: skip
    found.images = {"gateway:1": "sha256:gateway", "api:1": "sha256:api"}
    for service in ("gateway", "api", "api"):
        found.add(service)
    return found


def describe(engine: Engine, folder: Path, *, check: bool = False, **more: Any) -> dict[str, Any]:
    """Return what the module answers."""
    params = {
        **{"project": "lab", "directory": str(folder), "files": ["docker-compose.yml"]},
        **{"rendered": {}, "release": "", "loaded": {}, "mend": False, **more},
    }
    project = compose_services.Project(Module(engine, params, check), str(folder))
    wanted = project.wanted()
    if params["mend"] and not check:
        compose_services.reconcile(project, wanted)
    answer: dict[str, Any] = compose_services.describe(project, wanted)
    return answer


def test_stack_that_is_as_its_files_have_it_is_settled(engine: Engine, tmp_path: Path) -> None:
    found = describe(engine, tmp_path)
    assert found["settled"]
    assert not any(found[name] for name in ("outdated", "changes", "drift", "edited", "stale"))
    assert [each["name"] for each in found["containers"]] == [
        "lab-api-1", "lab-api-2", "lab-gateway-1",
    ]  # fmt: skip


def test_containers_are_in_the_order_of_their_numbers(engine: Engine, tmp_path: Path) -> None:
    engine.services["api"]["deploy"]["replicas"] = 11
    for _ in range(9):
        engine.add("api")
    names = [each["name"] for each in describe(engine, tmp_path)["containers"]]
    assert names[:3] == ["lab-api-1", "lab-api-2", "lab-api-3"]
    assert names[9:11] == ["lab-api-10", "lab-api-11"]


@pytest.mark.parametrize("about", [
    {"status": "exited"}, {"status": "paused"}, {"health": "unhealthy"}, {"health": "starting"},
])  # fmt: skip
def test_stack_with_a_replica_that_does_not_serve_is_not_settled(
    engine: Engine, tmp_path: Path, about: dict[str, str]
) -> None:
    for name, value in about.items():
        setattr(engine.of("api")[1], name, value)
    found = describe(engine, tmp_path)
    assert not found["settled"]
    # One that starts is no drift.
    said = "" if about == {"health": "starting"} else f"lab-api-2 is {next(iter(about.values()))}"
    assert found["drift"] == [said] * bool(said)


def test_replica_without_a_health_check_is_as_good_as_a_healthy_one(
    engine: Engine, tmp_path: Path
) -> None:
    engine.of("api")[0].health = "none"
    assert describe(engine, tmp_path)["settled"]


@pytest.mark.parametrize("count", [1, 3])
def test_number_of_replicas_is_compared(engine: Engine, tmp_path: Path, count: int) -> None:
    engine.services["api"]["deploy"]["replicas"] = count
    found = describe(engine, tmp_path)
    assert not found["settled"]
    assert found["drift"] == [f"api has 2 of {count} containers"]
    assert found["outdated"] == {}


def test_project_that_was_never_started_has_not_drifted(engine: Engine, tmp_path: Path) -> None:
    engine.containers.clear()
    found = describe(engine, tmp_path)
    assert found["drift"] == []
    assert not found["settled"]


def test_container_of_other_files_is_outdated(engine: Engine, tmp_path: Path) -> None:
    engine.of("api")[0].hash = "before"
    found = describe(engine, tmp_path)
    assert found["outdated"] == {"api": ["lab-api-1"]}
    assert not found["settled"]


def test_container_of_another_build_of_its_image_is_outdated(
    engine: Engine, tmp_path: Path
) -> None:
    engine.images["api:1"] = "sha256:rebuilt"
    assert describe(engine, tmp_path)["outdated"] == {"api": ["lab-api-1", "lab-api-2"]}


def test_image_that_is_not_here_makes_no_container_outdated(engine: Engine, tmp_path: Path) -> None:
    """Compose pulls it when it needs it."""
    del engine.images["api:1"]
    assert describe(engine, tmp_path)["settled"]


def test_container_of_no_service_is_named(engine: Engine, tmp_path: Path) -> None:
    engine.add("worker")
    found = describe(engine, tmp_path)
    assert found["drift"] == ["lab-worker-1 belongs to no service of the files"]
    assert not found["settled"]


def test_containers_of_other_projects_are_nobodys_business(engine: Engine, tmp_path: Path) -> None:
    engine.add("worker", project="other", health="unhealthy")
    assert describe(engine, tmp_path)["settled"]


@pytest.mark.parametrize(("option", "value", "line"), [
    ("memory", "1", "memory is 1, not 67108864"),
    ("memory-swap", "-1", "memory-swap is -1, not 134217728"),
    ("cpus", "2", "cpus is 2, not 0.5"),
    ("pids-limit", None, "pids-limit is 0, not 100"),
    ("pids-limit", "-1", "pids-limit is 0, not 100"),
    ("restart", "on-failure:5", "restart is on-failure:5, not on-failure:3"),
    ("restart", "always", "restart is always, not on-failure:3"),
])  # fmt: skip
def test_limit_that_was_changed_by_hand_is_seen_and_put_back(
    engine: Engine, tmp_path: Path, option: str, value: Any, line: str
) -> None:
    engine.of("api")[1].limits[option] = value
    before = [dict(each.limits) for each in engine.containers]
    found = describe(engine, tmp_path)
    assert found["drift"] == [f"lab-api-2: {line}"]
    assert not found["settled"]
    assert found["outdated"] == {}
    describe(engine, tmp_path, mend=True, check=True)
    assert [each.limits for each in engine.containers] == before
    describe(engine, tmp_path, mend=True)
    assert describe(engine, tmp_path)["settled"]


def test_limits_of_a_container_that_is_replaced_anyway_are_left(
    engine: Engine, tmp_path: Path
) -> None:
    container = engine.of("api")[1]
    container.hash, container.limits["memory"] = "before", "1"
    assert describe(engine, tmp_path, mend=True)["drift"] == []
    assert container.limits["memory"] == "1"


# Beside the release that was deployed last.


def release(folder: Path, **about: Any) -> str:
    """Keep a release; return its directory."""
    kept = folder / "kept"
    kept.mkdir()
    (kept / "a.yml").write_text("a\n")
    (folder / "a.yml").write_text("a\n")
    record = {"id": "1", "files": ["a.yml"], "services": {}} | about
    (kept / "release.json").write_text(json.dumps(record))
    return str(kept)


def test_drift_is_from_the_release_and_not_from_files_that_are_to_come(
    engine: Engine, tmp_path: Path
) -> None:
    was = {name: about | {"replicas": 2} for name, about in engine.services.items()}
    was["gateway"]["replicas"] = 1
    kept = release(tmp_path, services=was)
    engine.services["api"]["deploy"]["replicas"] = 5
    assert describe(engine, tmp_path, release=kept)["drift"] == []
    engine.containers.remove(engine.of("api")[0])
    assert describe(engine, tmp_path, release=kept)["drift"] == ["api has 1 of 2 containers"]


def test_what_changes_is_said_of_services_that_were_there(engine: Engine, tmp_path: Path) -> None:
    limits = {"memory": 2**20 * 48, "cpus": 0.5, "pids": 100}
    before = {"api": {"image": "api:0", "deploy": {"resources": {"limits": limits}}, "replicas": 1}}
    found = describe(engine, tmp_path, release=release(tmp_path, services=before))
    assert found["changes"] == {
        "api": [
            "deploy.resources.limits.memory: 48M -> 64M",
            "image: api:0 -> api:1",
            "replicas: 1 -> 2",
            "restart: none -> on-failure:3",
        ]
    }
    assert found["release"] == "1"


def test_file_that_was_edited_or_removed_is_named(engine: Engine, tmp_path: Path) -> None:
    kept = release(tmp_path)
    assert describe(engine, tmp_path, release=kept)["edited"] == []
    (tmp_path / "a.yml").write_text("b\n")
    assert describe(engine, tmp_path, release=kept)["edited"] == [
        "a.yml is not as release 1 has it"
    ]
    (tmp_path / "a.yml").unlink()
    assert describe(engine, tmp_path, release=kept)["edited"] == ["a.yml is missing"]


# A configuration that a service reads while it runs.


@pytest.mark.parametrize(("loaded", "stale"), [
    ("name-1\n", []), ("name-0\n", ["gateway"]), ("", ["gateway"]),
])  # fmt: skip
def test_service_that_has_loaded_another_configuration_is_stale(
    engine: Engine, tmp_path: Path, loaded: str, stale: list[str]
) -> None:
    (tmp_path / "haproxy.cfg").write_text("# name-1\n")
    engine.said["gateway"] = loaded
    found = describe(engine, tmp_path, loaded=LOADED)
    assert found["stale"] == stale
    assert found["settled"] is not bool(stale)


def test_in_check_mode_it_is_compared_with_what_would_be_written(
    engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "haproxy.cfg").write_text("# name-1\n")
    engine.said["gateway"] = "name-1\n"
    given: Any = {"loaded": LOADED, "rendered": {"haproxy.cfg": "# name-2\n"}}
    assert describe(engine, tmp_path, **given)["stale"] == ["gateway"]


def test_service_that_does_not_serve_or_has_no_file_is_not_stale(
    engine: Engine, tmp_path: Path
) -> None:
    engine.said["gateway"] = "name-0\n"
    assert describe(engine, tmp_path, loaded=LOADED)["stale"] == []
    (tmp_path / "haproxy.cfg").write_text("# name-1\n")
    engine.of("gateway")[0].health = "unhealthy"
    assert describe(engine, tmp_path, loaded=LOADED)["stale"] == []


# What differs, in words.


@pytest.mark.parametrize(("before", "now", "lines"), [
    ({"a": {"b": 1}}, {"a": {"b": 2}}, ["a.b: 1 -> 2"]),
    ({"a": 1, "b": 1}, {"b": 1}, ["a: 1 -> none"]),
    ({"b": 1}, {"a": [1, {"b": 2}], "b": 1}, ['a: none -> [1, {"b": 2}]']),
    ({"a": {}}, {"a": {"b": True}}, ["a: {} -> none", "a.b: none -> true"]),
    ({"a": "1"}, {"a": 1}, []),
    ({"hash": "1"}, {"hash": "2"}, []),
    ({"deploy": {"replicas": 1}}, {"deploy": {"replicas": 2}}, []),
    ({"memory": "half"}, {"memory": str(3 * 2**19)}, ["memory: half -> 1.5M"]),
])  # fmt: skip
def test_differences_are_paths_with_both_values(
    before: dict[str, Any], now: dict[str, Any], lines: list[str]
) -> None:
    assert compose_services.differences(before, now) == lines
