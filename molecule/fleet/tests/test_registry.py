"""Images by a registry: equal everywhere, by loopback alone, and only the layers that are missing.

The controller is the build host, but where another machine is; `Site` has the runs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import testinfra

from tests.acceptance.machine import Machine, wait_until
from tests.controller import ROOT, Controller, Run, kill_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCH = Path(__file__).with_name("watch_ports.py").read_text(encoding="utf-8")
SERVICES = ("gateway", "frontend", "api", "database", "cache")
MIB = 2**20
# All layers of all images, compressed, are 93 MB.
EVERYTHING = 80 * MIB
# An api with another line in a module: its sources, and the same compiled.
CHANGED_API = 1 * MIB
IMAGES = "docker image ls --format '{{.Repository}}:{{.Tag}}' | grep ^stackyard/ || true"
NAMES = "docker image ls --digests --format '{{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}'"


class Lab:
    """A lab machine of the set."""

    def __init__(self, name: str, inventory: Path) -> None:
        """Take its name in the inventory."""
        self.name = name
        self.machine = Machine(
            testinfra.get_host(f"ansible://{name}?ansible_inventory={inventory}")
        )

    def shell(self, script: str) -> list[str]:
        """Lines that a script prints there."""
        return self.machine.run("sh", "-c", script, seconds=120).lines()

    def images(self) -> dict[str, str]:
        """Ids of the stack's images by their names."""
        return dict(line.split() for line in self.shell(IMAGES_AND_IDS))

    def names(self) -> str:
        """Every name that an image has there, digests included."""
        return "\n".join(self.shell(NAMES))

    def loopback(self) -> int:
        """Bytes that loopback has carried: images that come by it, and next to nothing else."""
        return int(self.machine.read("/sys/class/net/lo/statistics/rx_bytes"))

    def ports(self) -> set[str]:
        """Where somebody listens."""
        return {line.split()[3] for line in self.shell("ss -Hltn")}

    def forget_images(self) -> None:
        """Leave no image of the stack there, and no layer of any."""
        self.shell(f"docker ps -aq | xargs -r docker rm -f; {IMAGES} | xargs -r docker image rm -f")
        self.shell("docker image ls -aq | xargs -r docker image rm -f")
        assert self.shell("ls /var/lib/docker/image/overlay2/layerdb/sha256") == []

    @contextmanager
    def watched(self) -> Iterator[dict[str, Any]]:
        """Watch its ports; at the end, the dictionary has what was seen."""
        unit, record = "registry-watch", "/run/registry-watch.json"
        self.machine.try_run("systemctl", "stop", unit)
        start = ["systemd-run", "--quiet", "--collect", f"--unit={unit}"]
        self.machine.run(*start, "python3", "-c", WATCH, record)
        wait_until(lambda: self.machine.try_run("test", "-s", record).code == 0, 10, "it watches")
        seen: dict[str, Any] = {}
        try:
            yield seen
        finally:
            self.machine.run("systemctl", "stop", unit)
            seen.update(json.loads(self.machine.read(record)))
            self.machine.run("rm", record)


IMAGES_AND_IDS = (
    "docker image ls --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' | grep ^stackyard/"
    " || true"
)


class Site:
    """Runs of site.yml that ship images by a registry."""

    def __init__(self, inventory: Path) -> None:
        """Take the inventory."""
        self.inventory = inventory

    def controller(self, *labs: Lab) -> Controller:
        """Runs against these machines."""
        return Controller(self.inventory, ",".join(lab.name for lab in labs))

    def arguments(self, *more: str) -> list[str]:
        """What every run here is given."""
        given = ["-e", "env=prod", "-e", "stack_images_distribution=registry"]
        return [*given, "--tags", "stack_images", *more]

    def ship(self, *labs: Lab, more: tuple[str, ...] = ()) -> Run:
        """Give the machines their images; it has to succeed."""
        run = self.controller(*labs).play("site.yml", *self.arguments(*more))
        if run.code != 0:
            pytest.fail(f"site.yml ended with {run.code}:\n{run.output}", pytrace=False)
        return run


@pytest.fixture(scope="module")
def site(pytestconfig: pytest.Config) -> Site:
    return Site(Path(pytestconfig.getoption("--ansible-inventory")).resolve())


@pytest.fixture(scope="module")
def labs(site: Site) -> Iterator[list[Lab]]:
    """The three machines; at the end, each has its stack again."""
    found = [Lab(name, site.inventory) for name in ("lab1", "lab2", "lab3")]
    yield found
    Controller(site.inventory, "lab").deploy("prod")


def here(script: str) -> list[str]:
    """Lines that a script prints on the controller."""
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def built() -> dict[str, str]:
    """Ids of the images on the controller by name."""
    return dict(line.split() for line in here(IMAGES_AND_IDS))


def registries() -> list[str]:
    """Registries that run on the controller, and ways to one."""
    return here("ps -eo args | grep -E '^docker-registry serve|^ssh .*-[RL] .*/registry' || true")


def no_way_is_left(*labs: Lab, before: dict[str, set[str]]) -> None:
    """Fail unless all that listens and serves is what did before."""

    def left() -> str:
        ports = {lab.name: lab.ports() - before[lab.name] for lab in labs}
        return "\n".join(
            [*registries(), *(f"{name} {each}" for name, each in ports.items() if each)]
        )

    wait_until(lambda: not left(), 10, "nobody listens any more", left)


def ports(*labs: Lab) -> dict[str, set[str]]:
    """Where somebody listens on each."""
    return {lab.name: lab.ports() for lab in labs}


def equal(*labs: Lab) -> None:
    """Fail unless the machines have what the controller has, and no name of a registry."""
    known = built()
    for lab in labs:
        images = lab.images()
        assert {name.partition("/")[2].partition(":")[0] for name in images} == set(SERVICES)
        assert images == {name: known[name] for name in images}
        assert "127.0.0.1" not in lab.names()


def test_plan_names_what_would_be_shipped_and_ships_nothing(site: Site, labs: list[Lab]) -> None:
    lab = labs[2]
    lab.forget_images()
    before = lab.loopback()
    run = site.ship(lab, more=("--check",))
    assert "Would ship from localhost, of these the layers that are not here yet:" in run.output
    for service in SERVICES:
        assert f"stackyard/{service}:" in run.output
    assert (lab.images(), registries()) == ({}, [])
    assert lab.loopback() - before < MIB


def test_all_images_come_by_loopback_alone_and_are_equal(site: Site, labs: list[Lab]) -> None:
    """Two machines at once; on each, what the way shows to others there and outside is tried."""
    two = labs[1:]
    for lab in two:
        lab.forget_images()
    before, start = ports(*labs), {lab.name: lab.loopback() for lab in two}
    with two[0].watched() as first, two[1].watched() as second:
        run = site.ship(*two)
    equal(*two)
    no_way_is_left(*labs, before=before)
    for lab, seen in zip(two, (first, second), strict=True):
        assert lab.loopback() - start[lab.name] > EVERYTHING, run.output
        assert {address for each in seen.values() for address in each["at"]} == {"127.0.0.1"}, seen
        answering = [each for each in seen.values() if each["reads"].endswith(" 200")]
        assert len(answering) == 1, seen
        assert answering[0]["writes"].endswith(" 405"), seen
        assert not any(each["from outside"] for each in seen.values()), seen
    again = site.ship(*two)
    assert again.changed == 0, again.output


def changed_api(folder: Path) -> tuple[str, ...]:
    """Arguments of a run whose api differs in one line of one module."""
    contexts = folder / "files"
    shutil.copytree(ROOT / "files", contexts, ignore=shutil.ignore_patterns("__pycache__"))
    with (contexts / "api/stackyard_api/__init__.py").open("a", encoding="utf-8") as module:
        module.write(f"\n# {time.time()}\n")
    return "-e", f"stack_images_contexts={contexts}"


def test_of_a_changed_api_its_own_layers_travel(
    site: Site, labs: list[Lab], tmp_path: Path
) -> None:
    lab = labs[1]
    known, start = built(), lab.loopback()
    before = ports(*labs)
    try:
        run = site.ship(lab, more=changed_api(tmp_path))
        travelled = lab.loopback() - start
        new = built().keys() - known.keys()
        assert len(new) == 1
        assert new <= lab.images().keys()
        equal(lab)
        assert 0 < travelled < CHANGED_API, run.output
        no_way_is_left(*labs, before=before)
        print(f"{travelled} bytes for a changed api")
    finally:
        new = built().keys() - known.keys()
        for name in new:
            here(f"docker image rm {name}")
            lab.machine.try_run("docker", "image", "rm", name)


def test_a_run_killed_in_the_middle_is_mended_by_the_next(site: Site, labs: list[Lab]) -> None:
    """All of the run at once; then neither side listens, and what came is no loss."""
    lab = labs[2]
    lab.forget_images()
    before, start = ports(*labs), lab.loopback()
    run = site.controller(lab).start("site.yml", *site.arguments())
    try:
        wait_until(
            lambda: lab.loopback() - start > EVERYTHING / 4, 120, "a quarter is here", pause=0.02
        )
    finally:
        kill_tree(run.pid)
        run.wait()
    assert len(lab.images()) < len(SERVICES), "the run came to its end before it was killed"
    no_way_is_left(*labs, before=before)
    site.ship(lab)
    equal(lab)
    no_way_is_left(*labs, before=before)


def test_names_that_a_killed_run_left_are_removed(site: Site, labs: list[Lab]) -> None:
    """From a run that had named all images, and had not come to forget where they came from."""
    lab = labs[2]
    image = next(name for name in lab.images() if name.startswith("stackyard/cache:"))
    repository = "127.0.0.1:9/stackyard-shipped/stackyard/cache"
    lab.machine.run("docker", "image", "tag", image, f"{repository}:left")
    assert repository in lab.names()
    run = site.ship(lab)
    assert run.changed > 0, run.output
    equal(lab)


def test_another_machine_builds_for_others(site: Site, labs: list[Lab]) -> None:
    """By way of the controller, which keeps nothing of it."""
    builder, lab = labs[0], labs[1]
    lab.forget_images()
    before = ports(*labs)
    with lab.watched() as seen:
        run = site.ship(lab, more=("-e", "stack_images_build_host=lab1"))
    assert lab.images() == {name: builder.images()[name] for name in lab.images()}, run.output
    assert len(lab.images()) == len(SERVICES)
    assert "127.0.0.1" not in lab.names() + builder.names()
    assert [each for each in seen.values() if each["reads"].endswith(" 200")], seen
    assert not any(each["from outside"] for each in seen.values()), seen
    no_way_is_left(*labs, before=before)
    assert builder.shell("ps -eo args | grep '^docker-registry' || true") == []
    # Debian's own service would listen on every address.
    assert builder.shell("command -v docker-registry") == ["/usr/bin/docker-registry"]
    assert builder.shell("systemctl is-enabled docker-registry || true") == ["masked"]
    assert builder.shell("systemctl is-active docker-registry || true") == ["inactive"]
    assert builder.shell("ls -d /tmp/stackyard-* 2>/dev/null || true") == []


@contextmanager
def offline(lab: Lab) -> Iterator[None]:
    """Take the machine's way out; its neighbours stay."""
    (route,) = lab.shell("ip route show default")
    reach = "apt-get -qq -o APT::Update::Error-Mode=any -o Acquire::Retries=0 update"
    lab.shell(reach)
    lab.machine.run("ip", "route", "del", "default")
    try:
        assert lab.machine.try_run("sh", "-c", reach).code != 0, "the machine still reaches out"
        yield
    finally:
        lab.machine.run("ip", "route", "replace", *route.split())


def test_a_machine_that_is_offline_gets_all_and_serves(site: Site, labs: list[Lab]) -> None:
    """But for its engine, which it has."""
    lab = labs[2]
    lab.forget_images()
    with offline(lab):
        controller = site.controller(lab)
        controller.deploy("prod", "-e", "stack_images_distribution=registry")
        again = controller.deploy("prod", "-e", "stack_images_distribution=registry")
    assert again.changed == 0, again.output
    equal(lab)
    status = lab.shell("docker ps --format '{{.Status}}'")
    # One of each, as the scenario's inventory has it.
    assert len(status) == len(SERVICES)
    assert all("(healthy)" in each for each in status), status
