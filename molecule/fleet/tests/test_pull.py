"""A machine that fetches its configuration by itself: from git, over SSH, by a timer."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.acceptance.machine import wait_until
from tests.controller import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Fleet

REPOSITORY = "/srv/stackyard.git"
UNIT = "stackyard-pull"


class Repository:
    """The checkout as a repository, with an inventory, on lab1, which serves it over SSH."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        """Make it there and push the first commit: what git tracks here or would track."""
        self.fleet = fleet
        self.folder = folder
        self.known = fleet.variables["lab1"]
        self.user = str(self.known["ansible_user"])
        self.url = f"ssh://{self.user}@{fleet.address('lab1')}{REPOSITORY}"
        machine = fleet.stacks["lab1"].machine
        machine.run("sh", "-c", "apt-get update -qq && apt-get install -qqy git", seconds=120)
        machine.run("rm", "-rf", REPOSITORY)
        machine.run("git", "init", "-q", "--bare", "--initial-branch=main", REPOSITORY)
        machine.run("chown", "-R", self.user, REPOSITORY)
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
        copy = f"tar -C {ROOT} --null --ignore-failed-read -T - -c | tar -x"
        subprocess.run(["bash", "-c", copy], cwd=folder, input=files, check=True)
        self.git("init", "-q", "--initial-branch=main")
        self.commit({})

    def git(self, *words: str) -> str:
        """Run git with the key of the scenario's machines; return what it printed."""
        key, options = (
            self.known[f"ansible_ssh_{each}"] for each in ("private_key_file", "common_args")
        )
        ssh = f"ssh -i {key} {options}"
        who = [
            "-c",
            "user.name=Lab",
            "-c",
            "user.email=lab@example.org",
            "-c",
            f"core.sshCommand={ssh}",
        ]
        done = subprocess.run(
            ["git", *who, *words], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, settings: dict[str, Any]) -> str:
        """Push a commit in whose inventory lab3 has these settings too; return its name."""
        own = {
            name: value
            for name, value in self.fleet.variables["lab3"].items()
            if name.startswith("stack_")
        }
        given = {**own, "stack_images_distribution": "archive", **settings}
        hosts = {"lab3": given, "lab9": {"ansible_host": "lab9.example.org"}}
        path = self.folder / "inventory/fleet.yml"
        path.write_text(yaml.safe_dump({"lab": {"hosts": hosts}}), encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "-q", "-m", "What lab3 is to be")
        self.git("push", "-q", self.url, "main")
        return self.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def repository(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """Return it; at the end nothing fetches any more."""
    folder = tmp_path_factory.mktemp("repository")
    yield Repository(fleet, folder)
    fleet.make("pull REPO= ARGS='--limit lab3'")


def test_machine_fetches_and_becomes_what_a_new_commit_says(
    fleet: Fleet, repository: Repository, tmp_path: Path
) -> None:
    """It is let in by its own key; from then on, nobody has to do with it but the repository."""
    stack, machine = fleet.stacks["lab3"], fleet.stacks["lab3"].machine
    key = fleet.stacks["lab1"].machine.read("/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
    settings = tmp_path / "pull.json"
    settings.write_text(
        json.dumps(
            {
                "stack_pull_inventory": "inventory/fleet.yml",
                "stack_pull_known_hosts": f"{fleet.address('lab1')} {' '.join(key)}",
                "stack_pull_every": "10s",
                "stack_pull_splay": "2s",
            }
        )
    )
    verb = f"pull REPO={repository.url} ARGS='--limit lab3 -e @{settings}'"
    refused = fleet.make(verb)
    assert refused.code != 0
    assert "lab3 gets no branch main from " in refused.summary, refused.out
    assert "Let this key read it, then run this again: ssh-ed25519 " in refused.summary
    own = machine.read(f"/var/lib/{UNIT}/key.pub").strip()
    assert own in refused.summary
    allowed = f"/home/{repository.user}/.ssh/authorized_keys"
    fleet.stacks["lab1"].machine.run("sh", "-c", 'echo "restrict $1" >>"$2"', "sh", own, allowed)
    done = fleet.make(verb)
    assert done.code == 0, done.out

    first = repository.git("rev-parse", "HEAD")
    wait_until(
        lambda: applied(fleet) == first, 240, "lab3 has its first commit", lambda: journal(fleet)
    )
    assert stack.counts()["frontend"] == 1
    second = repository.commit(
        {"stack_compose_frontend_replicas": 2, "stack_compose_api_memory": "400M"}
    )
    wait_until(lambda: applied(fleet) == second, 120, "lab3 has the second", lambda: journal(fleet))
    assert stack.counts()["frontend"] == 2
    assert "memory: 400M" in machine.read(f"{stack.directory}/docker-compose.prod.yml")
    releases = fleet.make("releases ARGS='--limit lab3'").out
    assert second[:12] in releases, releases


def test_look_without_anything_new_says_so_and_runs_no_play(
    fleet: Fleet, repository: Repository
) -> None:
    machine = fleet.stacks["lab3"].machine
    begun = machine.run("date", "+%s").out.strip()
    machine.run("systemctl", "start", f"{UNIT}.service")
    shown = machine.run("journalctl", "--output=cat", f"--unit={UNIT}", f"--since=@{begun}").out
    assert f"Nothing new: {repository.git('rev-parse', 'HEAD')}" in shown
    assert "PLAY" not in shown


def test_what_was_put_down_is_not_brought_back(fleet: Fleet, repository: Repository) -> None:
    """The unit alone is asked; here nothing is stopped for it."""
    machine = fleet.stacks["lab3"].machine
    before = applied(fleet)
    machine.run("systemctl", "disable", "stackyard.service")
    try:
        commit = repository.commit({"stack_compose_frontend_replicas": 1})
        machine.run("systemctl", "start", f"{UNIT}.service")
        assert "The stack was put down: left so until make up." in journal(fleet)
        assert applied(fleet) == before
    finally:
        machine.run("systemctl", "enable", "stackyard.service")
    wait_until(lambda: applied(fleet) == commit, 120, "lab3 goes on", lambda: journal(fleet))


@pytest.mark.usefixtures("repository")
def test_no_secret_is_in_what_it_keeps_and_says(fleet: Fleet) -> None:
    """No secret of the stack is in journal or directory; the machine's key is root's alone."""
    machine = fleet.stacks["lab3"].machine
    secret = machine.read("/opt/stackyard/secrets/api_database_password").strip()
    assert len(secret) > 20
    assert secret not in machine.run("journalctl", "--unit", UNIT, "--output=cat").out
    found = machine.try_run("grep", "-rlF", secret, f"/var/lib/{UNIT}", "--exclude-dir=.venv")
    assert found.code == 1, found
    assert machine.run("stat", "--format=%a %U", f"/var/lib/{UNIT}/key").out.split() == [
        "600",
        "root",
    ]


@pytest.mark.usefixtures("repository")
def test_ending_it_leaves_the_stack_and_nothing_else(fleet: Fleet) -> None:
    machine = fleet.stacks["lab3"].machine
    said = fleet.make("pull REPO= ARGS='--limit lab3'")
    assert said.code == 0, said.out
    assert machine.try_run("systemctl", "cat", f"{UNIT}.timer").code != 0
    assert machine.try_run("ls", f"/var/lib/{UNIT}").code != 0
    assert fleet.stacks["lab3"].get("/health").status == 200
    assert fleet.make("pull REPO= ARGS='--limit lab3'").recap["lab3"].split()[1] == "changed=0"


def applied(fleet: Fleet) -> str:
    """Return the commit that the machine has become."""
    return fleet.stacks["lab3"].machine.try_run("cat", f"/var/lib/{UNIT}/applied").out.strip()


def journal(fleet: Fleet) -> str:
    """Return the last lines that it wrote."""
    machine = fleet.stacks["lab3"].machine
    return machine.run("journalctl", "--unit", UNIT, "--lines=60", "--output=cat").out
