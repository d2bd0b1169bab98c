"""A release that is not healthy goes no further than its first replica; earlier ones come back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.load import steady_load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.stack import Stack
    from tests.controller import Controller

BROKEN = "lab/broken:1"
VARIANT = "lab/api"
OTHERS = "others/image:1"


def make_image(stack: Stack, name: str, change: str) -> None:
    """Make an image of the api that differs in one setting."""
    image = stack.one("api").data["Config"]["Image"]
    made = stack.machine.run("docker", "create", image).out.strip()
    try:
        stack.machine.run("docker", "commit", "--change", change, made, name)
    finally:
        stack.machine.run("docker", "rm", made)


def images(stack: Stack) -> set[str]:
    """Names of all images on the machine."""
    listed = stack.machine.run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    return set(listed.lines())


def releases(stack: Stack) -> list[dict[str, Any]]:
    """What is kept, the newest first."""
    script = "cat $(ls -dr releases/[0-9]*/release.json)"
    output = stack.machine.run("sh", "-c", script, folder=stack.directory).out
    decoder, found = json.JSONDecoder(), []
    while output := output.strip():
        one, end = decoder.raw_decode(output)
        found.append(one)
        output = output[end:]
    return found


def current(stack: Stack) -> str:
    """The id of the release that runs."""
    return stack.machine.run("readlink", f"{stack.directory}/releases/current").out.strip()


def made_from(stack: Stack) -> list[tuple[str, str]]:
    """Return service and config hash of each container."""
    label = "com.docker.compose.config-hash"
    found = [(each.service, each.data["Config"]["Labels"][label]) for each in stack.containers()]
    return sorted(found)


def use(image: str) -> tuple[str, str]:
    """The arguments that have the api run from this image."""
    return "-e", json.dumps({"stack_images_refs": {"api": image}})


@pytest.fixture(autouse=True)
def _as_before(stack: Stack, controller: Controller) -> Iterator[None]:
    """Leave what the scenario converged to the next check."""
    before = made_from(stack)
    yield
    if made_from(stack) != before:
        controller.deploy("prod")
    stack.machine.try_run("docker", "image", "rm", BROKEN, f"{VARIANT}:1", f"{VARIANT}:2", OTHERS)


@pytest.mark.disruptive
def test_a_release_that_is_not_healthy_is_stopped_at_its_first_replica(
    stack: Stack, controller: Controller
) -> None:
    make_image(stack, BROKEN, 'CMD ["sh", "-c", "echo no such thing as a luck bean >&2; exit 3"]')
    before = {each.name: each.life for each in stack.containers()}
    files = stack.machine.read(f"{stack.directory}/docker-compose.yml")
    release = current(stack)
    with steady_load(stack, rate=60) as load:
        run = controller.play("site.yml", "-e", "env=prod", *use(BROKEN))
    assert run.code != 0, run.output
    report = run.output.partition("is not healthy:")[2]
    assert re.search(r"stackyard-api-\d+ (ends by itself|is unhealthy)", report), run.output
    assert "no such thing as a luck bean" in report, run.output
    assert f"Release {release} runs as before" in report, run.output
    assert not load.failures(), load.failures()
    assert {each.name: each.life for each in stack.containers()} == before
    assert stack.machine.read(f"{stack.directory}/docker-compose.yml") == files
    assert current(stack) == release
    newest = releases(stack)[0]
    assert (newest["status"], newest["images"]["api"]) == ("failed", BROKEN)
    again = controller.deploy("prod")
    assert again.changed == 0, again.output


@pytest.mark.disruptive
def test_rollback_brings_back_images_and_files(stack: Stack, controller: Controller) -> None:
    """To the release before, and to one by its id; nothing fails meanwhile."""
    first = current(stack)
    ours = stack.one("api").data["Config"]["Image"]
    make_image(stack, f"{VARIANT}:1", "LABEL variant=1")
    controller.deploy("prod", *use(f"{VARIANT}:1"), "-e", "stack_compose_frontend_replicas=2")
    second = current(stack)
    assert second > first
    assert len(stack.of("frontend")) == 2
    with steady_load(stack, rate=60) as load:
        run = controller.play("playbooks/rollback.yml")
    assert run.code == 0, run.output
    assert not load.failures(), load.failures()
    assert {each.data["Config"]["Image"] for each in stack.of("api")} == {ours}
    assert len(stack.of("frontend")) == 3
    assert current(stack) == first
    run = controller.play("playbooks/rollback.yml", "-e", f"release={second}")
    assert run.code == 0, run.output
    assert current(stack) == second
    assert {each.data["Config"]["Image"] for each in stack.of("api")} == {f"{VARIANT}:1"}
    wrong = controller.play("playbooks/rollback.yml", "-e", "release=yesterday")
    assert wrong.code != 0
    assert "release is 'yesterday': give one of those that ran, " in wrong.errors[0], wrong.output
    listed = controller.play("playbooks/releases.yml").output
    assert f"* {second}" in listed, listed
    assert f"api image: {ours} -> {VARIANT}:1" in listed, listed
    assert "frontend replicas: 3 -> 2" in listed, listed


@pytest.mark.disruptive
def test_old_releases_are_forgotten_by_count_with_their_images_and_no_others(
    stack: Stack, controller: Controller
) -> None:
    for number in (1, 2):
        make_image(stack, f"{VARIANT}:{number}", f"LABEL variant={number}")
    stack.machine.run("docker", "tag", f"{VARIANT}:2", OTHERS)
    keep = ("-e", "stack_deploy_keep_releases=2")
    controller.deploy("prod", *use(f"{VARIANT}:1"), *keep)
    controller.deploy("prod", *use(f"{VARIANT}:2"), *keep)
    # It can be gone back to.
    assert f"{VARIANT}:1" in images(stack)
    controller.deploy("prod", *keep)
    assert len(releases(stack)) == 2
    there = images(stack)
    assert f"{VARIANT}:1" not in there
    assert {f"{VARIANT}:2", OTHERS} <= there
    assert stack.problems() == []


@pytest.mark.disruptive
def test_plan_names_what_drifted_and_touches_nothing(stack: Stack, controller: Controller) -> None:
    """A file that was edited, a limit that was changed, a container that is gone; up mends them."""
    api, frontend = stack.of("api"), stack.of("frontend")
    path = f"{stack.directory}/docker-compose.prod.yml"
    stack.machine.run("sed", "-i", "s/256M/257M/", path)
    cache = stack.one("cache")
    stack.machine.run("docker", "update", "--memory=300M", "--memory-swap=-1", api[0].id)
    # A kernel that counts swap takes memory and swap together in one step alone.
    stack.machine.run("docker", "update", "--memory=100M", "--memory-swap=100M", cache.id)
    before = cache.host_config
    stack.machine.run("docker", "rm", "-f", frontend[1].id)
    edited = stack.machine.read(path)
    lives = {each.name: each.life for each in stack.containers()}
    plan = controller.deploy("prod", "--check", "--diff")
    for line in (
        "docker-compose.prod.yml is not as release",
        f"{api[0].name}: memory is {300 * 2**20}, not {512 * 2**20}",
        f"{api[0].name}: memory-swap is -1, not {1024 * 2**20}",
        f"{cache.name}: memory is {100 * 2**20}, not {128 * 2**20}",
        f"{cache.name}: memory-swap is {100 * 2**20}, not {256 * 2**20}",
        "frontend has 2 of 3 containers",
        "frontend  would start: 1 of 3.",
    ):
        assert line in plan.output, plan.output
    assert {each.name: each.life for each in stack.containers()} == lives
    assert stack.machine.read(path) == edited
    controller.deploy("prod")
    held = stack.refreshed(api[0]).host_config
    assert (held["Memory"], held["MemorySwap"]) == (512 * 2**20, 1024 * 2**20)
    assert stack.refreshed(cache).host_config == before
    assert stack.refreshed(cache).life == cache.life
    assert len(stack.of("frontend")) == 3
    clean = controller.deploy("prod", "--check", "--diff")
    assert clean.changed == 0, clean.output
    assert "Nothing to do: all is as release" in clean.output, clean.output
    wider = controller.deploy("prod", "--check", "-e", "stack_compose_api_memory=640M")
    assert "api       deploy.resources.limits.memory: 512M -> 640M" in wider.output, wider.output
    assert "api       would be replaced one at a time (2)" in wider.output, wider.output
