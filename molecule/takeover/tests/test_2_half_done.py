"""The current code completes what runs of an earlier commit left half done, pull mode included."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.acceptance.machine import Machine, wait_until
from tests.acceptance.settings import Settings
from tests.acceptance.stack import Stack
from tests.controller import ROOT, kill_tree

from .conftest import assert_rejected_in_one_line, remove_stack, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from testinfra.host import Host

    from tests.controller import Controller

pytestmark = pytest.mark.long

REPOSITORY = "/srv/stackyard.git"
INVENTORY = "inventory/takeover.yml"
UNIT = "stackyard-pull"
OLD_SECRETS = "/run/stackyard-old-secrets"
ENGINE_AND_IMAGES = ("--tags", "docker_engine,stack_images")


class Repository:
    """The repository that the machine fetches its configuration from: its own, by a path."""

    def __init__(self, host: Host, folder: Path) -> None:
        """Begin one in an empty folder here."""
        self.host = host
        self.folder = folder
        folder.mkdir()
        self._git("init", "-q", "--initial-branch=main")

    def _git(self, *words: str) -> str:
        who = ("-c", "user.name=Lab", "-c", "user.email=lab@example.org")
        command = ["git", "-C", str(self.folder), *who, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def publish(self, checkout: Path, **settings: str) -> str:
        """Make a checkout's files the newest commit, with settings; return its name."""
        for path in self.folder.iterdir():
            if path.name != ".git":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        # What git tracks there, or would track.
        listed = f"git -C {checkout} ls-files -z --cached --others --exclude-standard"
        copy = f"{listed} | tar -C {checkout} --null --ignore-failed-read -T - -c | tar -x"
        subprocess.run(["bash", "-c", copy], cwd=self.folder, check=True)
        inventory = {"lab": {"hosts": {self.host.backend.host: settings}}}
        (self.folder / INVENTORY).write_text(yaml.safe_dump(inventory), encoding="utf-8")
        self._git("add", "--all")
        self._git("commit", "-q", "-m", f"What {self.host.backend.host} is to be")
        archive = self.folder / ".git/bare.tar.gz"
        bare = self.folder.with_suffix(".git")
        shutil.rmtree(bare, ignore_errors=True)
        self._git("clone", "-q", "--bare", "--no-hardlinks", str(self.folder), str(bare))
        subprocess.run(["tar", "-czf", archive, "-C", str(bare), "."], check=True)
        self._send(archive)
        return self._git("rev-parse", "HEAD")

    def _send(self, archive: Path) -> None:
        machine = Machine(self.host)
        machine.run("rm", "-rf", REPOSITORY)
        machine.run("mkdir", REPOSITORY)
        where = f"src={archive} dest={REPOSITORY} owner=root group=root"
        sent = self.host.ansible("ansible.builtin.unarchive", where, become=True, check=False)
        assert sent.get("changed"), sent


@pytest.fixture(scope="module")
def repository(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Return the repository, still empty."""
    return Repository(host, tmp_path_factory.mktemp("repository") / "work")


@pytest.fixture(scope="module")
def stack(
    host: Host, repository: Repository, old: Controller, controller: Controller
) -> Iterator[Stack]:
    """Return a new stack that the earlier commit's pull mode deployed, with rows and a backup."""
    if not remove_stack(host, controller):
        # Where nothing was deployed yet: the machine itself has nothing to build images with.
        for each in (old, controller):
            each.deploy("prod", *ENGINE_AND_IMAGES)
    first = repository.publish(old.root)
    settings = {
        "stack_pull_url": f"file://{REPOSITORY}",
        "stack_pull_inventory": INVENTORY,
        "stack_pull_every": "12h",
        "stack_pull_splay": "1s",
    }
    run = old.play("playbooks/pull.yml", "-e", "env=prod", "-e", json.dumps(settings))
    assert run.code == 0, run.output
    wait_until(
        lambda: applied(host) == first, 300, "the stack is deployed", lambda: journal(host), pause=1
    )
    found = Stack(host, Settings(host.ansible.get_variables(), {}))
    found.create_item("before the backup")
    backup = old.play("playbooks/backup.yml")
    assert backup.code == 0, backup.output
    found.create_item("after the backup")
    yield found
    remove_stack(host, controller)


def data_directory(stack: Stack) -> str:
    """Return what tells the serving database's directory from another in its place."""
    shown = ("docker", "volume", "inspect", "--format", "{{.Mountpoint}}")
    place = stack.machine.run(*shown, f"{stack.project}_database-data").out.strip()
    return stack.machine.run("stat", "--format=%i", place).out.strip()


def assert_environment_can_be_made(checkout: Path) -> None:
    """The installed program asks make for this; where the file is there, no rule is missed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--dry-run", ".venv/ready"]
    done = subprocess.run(
        command, cwd=checkout, env=own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def applied(host: Host) -> str:
    """Return the commit that the machine has become."""
    return Machine(host).try_run("cat", f"/var/lib/{UNIT}/applied").out.strip()


def journal(host: Host) -> str:
    """Return the last lines of pull mode's runs."""
    return Machine(host).run("journalctl", "--unit", UNIT, "--lines=80", "--output=cat").out


def test_rotation_that_was_killed_is_completed(
    stack: Stack, old: Controller, controller: Controller
) -> None:
    """Killed while both passwords hold; the lock that it leaves is one of this controller."""
    before = snapshot(stack)
    stack.machine.run("rm", "-rf", OLD_SECRETS)
    stack.machine.run("cp", "-a", f"{stack.directory}/secrets", OLD_SECRETS)
    names = stack.machine.run("ls", "-A", OLD_SECRETS).lines()
    both = "test $(wc -l <secrets/api_database_password) = 2"
    run = old.start("playbooks/rotate_secrets.yml")
    wait_until(
        lambda: stack.machine.try_run("sh", "-c", both, folder=stack.directory).code == 0,
        60,
        "both passwords hold",
        pause=0.1,
    )
    kill_tree(run.pid)
    run.communicate()
    left = set(stack.machine.run("ls", "-A", f"{stack.directory}/secrets").lines()) - set(names)
    assert left, "the rotation was over before it was killed"
    assert stack.machine.try_run("test", "-e", f"/run/{stack.project}.lock").code == 0

    deploy = controller.play("site.yml", "-e", "env=prod")
    if deploy.code != 0:
        assert_rejected_in_one_line(deploy)
        assert "make rotate-secrets" in deploy.errors[0]
    assert snapshot(stack).lives == before.lives
    rotation = controller.play("playbooks/rotate_secrets.yml")
    assert rotation.code == 0, rotation.output
    request = {
        "api": stack.one("api").id,
        "directories": {"old": OLD_SECRETS, "new": f"{stack.directory}/secrets"},
    }
    assert stack.machine.program("logins", request) == {
        "old": {"database": False, "cache": False},
        "new": {"database": True, "cache": True},
    }
    assert stack.machine.run("ls", "-A", f"{stack.directory}/secrets").lines() == names
    after = snapshot(stack)
    assert after.rows == before.rows
    assert after.lives == before.lives
    assert stack.problems() == []


def test_pull_mode_of_the_earlier_commit_goes_on_with_the_current_one(
    host: Host, repository: Repository, stack: Stack
) -> None:
    """By the units and the program that were installed; a restore was killed half-way besides."""
    before = snapshot(stack)
    request = {"directory": stack.directory, "arguments": ["restore"], "point": "exchanged"}
    killed = stack.machine.program("killed", request, 120)
    assert killed["killed"], killed["output"]
    assert "database" in " ".join(stack.problems())
    program = stack.machine.run("sha256sum", f"/usr/local/lib/{UNIT}").out
    # The second run is the first that finds the current checkout there.
    for number in ("one", "two"):
        commit = repository.publish(ROOT, takeover_run=number)
        run = stack.machine.try_run("systemctl", "start", f"{UNIT}.service", seconds=300)
        assert run.code == 0, journal(host)
        assert applied(host) == commit
    assert_environment_can_be_made(repository.folder)
    assert stack.machine.run("sha256sum", f"/usr/local/lib/{UNIT}").out == program
    stack.wait_healthy()
    after = snapshot(stack)
    assert after.rows == before.rows
    assert after.secrets == before.secrets
    assert before.units - after.units == set()
    releases = stack.machine.run(
        "sh", "-c", "cat releases/current/release.json", folder=stack.directory
    )
    assert json.loads(releases.out)["commit"]


def test_restore_that_was_killed_is_completed(stack: Stack, controller: Controller) -> None:
    """What arrived serves, and is not restored anew; the way back to what was before is open."""
    before, arrived = snapshot(stack), data_directory(stack)
    run = controller.play("playbooks/restore.yml")
    assert run.code == 0, run.output
    assert data_directory(stack) == arrived
    assert stack.problems() == []
    assert snapshot(stack).rows == before.rows
    later = stack.create_item("after the restore")
    undo = controller.play("playbooks/restore.yml", "-e", "stack_backup_undo=true")
    assert undo.code == 0, undo.output
    stack.wait_healthy()
    assert snapshot(stack).rows == before.rows
    assert stack.get(later).status == 404


def test_current_code_ends_pull_mode_of_the_earlier_commit(
    host: Host, stack: Stack, controller: Controller
) -> None:
    run = controller.play("playbooks/pull.yml", "-e", "env=prod")
    assert run.code == 0, run.output
    for ending in ("timer", "service"):
        assert stack.machine.try_run("systemctl", "cat", f"{UNIT}.{ending}").code != 0
    assert applied(host) == ""
    assert stack.problems() == []
