"""What daemon.json becomes: the role's defaults, below what it said and what somebody imposes."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from .conftest import ROOT, start_ansible

ROLE = ROOT / "roles" / "docker_engine"
PROMISED = {
    "log-driver": "local",
    "log-opts": {"max-size": "10m", "max-file": "5"},
    "live-restore": True,
    "userland-proxy": False,
    "icc": False,
}


def daemon_json(
    found: dict[str, Any] | None = None, imposed: dict[str, Any] | None = None, swarm: bool = False
) -> dict[str, Any]:
    """Return what the role writes, where the machine has a file and somebody imposes settings."""
    start_ansible()
    loader = DataLoader()
    variables = {
        name: value
        for part in ("defaults", "vars")
        for name, value in loader.load_from_file(
            str(ROLE / part / "main.yml"), trusted_as_template=True
        ).items()
    }
    variables["docker_engine_found"] = {"daemon_config": found or {}, "engine": {"swarm": swarm}}
    variables["docker_engine_daemon_config"] = imposed or {}
    templar = Templar(loader=loader, variables=variables)
    return templar.template(variables["docker_engine__daemon_config"])


def test_defaults_bound_logs_keep_containers_running_and_keep_them_apart() -> None:
    assert daemon_json() == PROMISED


@pytest.mark.parametrize(("name", "value"), [("live-restore", False), ("icc", True)])
def test_what_the_file_says_stays(name: str, value: bool) -> None:
    assert daemon_json({name: value, "debug": True}) == PROMISED | {name: value, "debug": True}


def test_another_log_driver_keeps_its_own_options() -> None:
    own = {"log-driver": "json-file", "log-opts": {"max-size": "1g"}}
    assert daemon_json(own) == PROMISED | own
    without = {name: value for name, value in PROMISED.items() if name != "log-opts"}
    assert daemon_json({"log-driver": "journald"}) == without | {"log-driver": "journald"}


def test_a_swarms_engine_gets_no_live_restore() -> None:
    assert "live-restore" not in daemon_json(swarm=True)


def test_what_is_imposed_wins_and_changes_nothing_else() -> None:
    file = {"log-opts": {"max-file": "9"}, "icc": True}
    imposed = {"log-opts": {"max-size": "1m"}, "icc": False}
    logs = {"max-size": "1m", "max-file": "9"}
    assert daemon_json(file, imposed) == PROMISED | {"log-opts": logs, "icc": False}
