"""docker_engine_info says what is there, and why a configuration cannot be read."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, Module

info = Module(ROOT / "roles" / "docker_engine" / "library" / "docker_engine_info.py")


def ask(*command: str) -> str:
    """Return what docker says itself."""
    return subprocess.run(["docker", *command], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("docker") is None, reason="no engine on this machine")
def test_engine_that_answers_is_described_as_it_describes_itself(tmp_path: Path) -> None:
    result = info(daemon_config=str(tmp_path / "none.json"))
    engine = result.answer["engine"]
    assert ask("version", "--format", "{{.Server.Version}}").startswith(engine["version"])
    assert engine["version"].count(".") == 2
    assert (result.changed, engine["answers"], engine["outdated"]) == (False, True, False)
    assert engine["root"] == ask("info", "--format", "{{.DockerRootDir}}").strip()
    assert result.answer["plugins"]["compose"] in ask("compose", "version")
    assert result.answer["plugins"]["buildx"] in ask("buildx", "version")
    assert result.answer["machine"]["cores"] == int(ask("info", "--format", "{{.NCPU}}"))


def test_machine_is_measured() -> None:
    machine = info().answer["machine"]
    total = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1]) * 1024
    assert machine["memory_bytes"] == pytest.approx(total, rel=0.01)
    assert machine["free_bytes"] > 0


def test_machine_without_an_engine_has_none(tmp_path: Path) -> None:
    answer = info(path=str(tmp_path)).answer
    assert (answer["engine"]["version"], answer["engine"]["answers"]) == ("", False)
    assert answer["plugins"] == {"compose": "", "buildx": ""}
    assert answer["machine"]["cores"] == os.cpu_count()


@pytest.mark.parametrize(("text", "config"), [
    (None, {}),
    ("", {}),
    (" \n", {}),
    ('{"log-opts": {"max-file": "5"}}', {"log-opts": {"max-file": "5"}}),
])  # fmt: skip
def test_configuration_is_read(tmp_path: Path, text: str | None, config: dict[str, object]) -> None:
    path = tmp_path / "daemon.json"
    if text is not None:
        path.write_text(text)
    answer = info(daemon_config=str(path)).answer
    assert (answer["daemon_config"], answer["daemon_config_error"]) == (config, "")


@pytest.mark.parametrize(("content", "says"), [
    (b'{"icc": false,}', "line 1 column"),
    (b'{"icc": ', "line 1 column"),
    (b"[]", "holds a list, not an object"),
    (b"\xff\xfe", "utf-8"),
])  # fmt: skip
def test_configuration_that_cannot_be_read_is_an_answer_in_one_line(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "daemon.json"
    path.write_bytes(content)
    answer = info(daemon_config=str(path)).answer
    assert answer["daemon_config"] == {}
    assert answer["daemon_config_error"].startswith(f"{path}")
    assert says in answer["daemon_config_error"]
    assert "\n" not in answer["daemon_config_error"]


@pytest.mark.skipif(shutil.which("docker") is None, reason="no engine on this machine")
def test_configuration_newer_than_the_running_engine_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text("{}")
    assert info(daemon_config=str(path)).answer["engine"]["outdated"] is True
    os.utime(path, (0, 0))
    assert info(daemon_config=str(path)).answer["engine"]["outdated"] is False
