"""The current code takes a stack over that an earlier commit deployed and people worked with."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests import earlier
from tests.acceptance.load import Load, missing_writes, steady_load
from tests.acceptance.machine import wait_until
from tests.controller import ROOT, kill_tree

from .conftest import (
    Snapshot,
    announced,
    assert_rejected_in_one_line,
    edit,
    interrupted,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.stack import Stack
    from tests.controller import Controller, Run

# A setting that the earlier commit deployed last, and another that replaces every replica.
EARLIER = ("-e", "stack_compose_frontend_replicas=1")
ALL_REPLICAS = ("-e", "stack_compose_api_memory=500M", "-e", "stack_compose_frontend_memory=250M")
STOP = "/run/stackyard-test-stop"
IDEMPOTENCY = {"Idempotency-Key": "takeover-0123456789", "Content-Type": "application/json"}
ANSWERS = (
    *("/api/health", "/api/live", "/api/status", "/api/config", "/api/whoami", "/api/session"),
    *("/api/items?limit=2", "/api/items/999999999"),
)
# What is asked again while neither database nor cache answers.
WITHOUT_STORES = ("/api/health", "/api/status", "/api/session")
# Keys that only new apis give and the new page mentions, with what it does without them.
OPTIONAL_KEYS: dict[str, str] = {}


@dataclass
class Answers:
    """What apis of one release say, as far as pages and other apis depend on it."""

    keys: set[str] = field(default_factory=set)
    headers: set[str] = field(default_factory=set)
    states: set[str] = field(default_factory=set)

    def add(self, value: object, path: str = "") -> None:
        """Take in a JSON value: its keys, however deep, and its states."""
        if isinstance(value, dict):
            for name, child in value.items():
                self.keys.add(f"{path}.{name}")
                if name == "status" and isinstance(child, str):
                    self.states.add(child)
                self.add(child, f"{path}.{name}")
        elif isinstance(value, list):
            for child in value:
                self.add(child, f"{path}[]")


def answers(stack: Stack, item: str) -> Answers:
    """Return what the stack's apis say, healthy and with database and cache frozen."""
    found = Answers()
    invalid = {"url": stack.url("/api/items"), "method": "POST", "body": "{}"}
    invalid["headers"] = {"Content-Type": "application/json"}

    def ask(*requests: dict[str, Any]) -> None:
        for request, response in zip(requests, stack.ask(requests), strict=True):
            assert response.status, f"no answer: {response}"
            assert "json" in response.headers["content-type"], str(response)
            path = request["url"].partition("/api/")[2].partition("?")[0]
            path = "items/ID" if path.startswith("items/") else path
            # A busy machine may have any of them answer with one.
            problem = "problem" in response.headers["content-type"]
            found.add(response.json(), "problem" if problem else path)
            found.headers.update(response.headers)

    healthy = [{"url": stack.url(path)} for path in (*ANSWERS, item)]
    wait_until(
        lambda: all(response.status < 500 for response in stack.ask(healthy)), 30, "all answer"
    )
    ask(*healthy, invalid)
    stores = [each.id for each in stack.containers() if each.service in ("database", "cache")]
    stack.hold()
    stack.machine.run("docker", "pause", *stores)
    try:
        ask(*({"url": stack.url(path)} for path in WITHOUT_STORES))
    finally:
        stack.machine.run("docker", "unpause", *stores)
        stack.wait_healthy()
        stack.release()
    return found


def understood(checkout: Path) -> str:
    """Return the source of a checkout's page: script and style, which name the states."""
    return "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted((checkout / "files/frontend/page").glob("*"))
        if path.suffix in (".js", ".css", ".html")
    )


@contextmanager
def watched(stack: Stack, item: str) -> Iterator[dict[str, Any]]:
    """Ask for the status, and write and read an item, all the while; see on_machine/mixed.py."""
    report: dict[str, Any] = {}
    request = {"url": stack.url(""), "until": STOP, "item": item, "seconds": 300}
    stack.machine.run("rm", "-f", STOP)
    thread = threading.Thread(
        target=lambda: report.update(stack.machine.program("mixed", request, 330))
    )
    thread.start()
    try:
        yield report
    finally:
        stack.machine.run("touch", STOP)
        thread.join()
        stack.machine.run("rm", "-f", STOP)


def replicas(stack: Stack) -> dict[str, set[str]]:
    """Return the names by which frontends and apis call themselves."""
    return {kind: {each.hostname for each in stack.of(kind)} for kind in ("frontend", "api")}


def knew(report: dict[str, Any], observers: set[str], observed: set[str]) -> bool:
    """Tell whether some of the observers said `ok` of some of the others."""
    return any(
        "ok" in report["seen"].get(observer, {}).get(name, [])
        for observer in observers
        for name in observed
    )


@dataclass
class Used:
    """What was done with the earlier commit's stack, and what that left."""

    before: Snapshot
    items: dict[str, str]
    replayed: dict[str, Any]
    cookie: str
    visits: int
    releases: list[str]
    answers: Answers
    replicas: dict[str, set[str]]


def visit(stack: Stack, cookie: str = "") -> tuple[str, int]:
    """Return a browser's cookie and how often it was there."""
    headers = {"Cookie": cookie} if cookie else {}
    response = stack.ask([{"url": stack.url("/api/session"), "headers": headers}])[0]
    assert response.status == 200, str(response)
    given = response.headers.get("set-cookie", cookie).partition(";")[0]
    return given or cookie, response.json()["visits"]


def add_once(stack: Stack) -> dict[str, Any]:
    """Add an item with a key: the same item, however often."""
    body = json.dumps({"name": "added once"})
    request = {
        "url": stack.url("/api/items"),
        "method": "POST",
        "headers": IDEMPOTENCY,
        "body": body,
    }
    response = stack.ask([request])[0]
    assert response.status == 201, str(response)
    return dict(response.json())


def releases(stack: Stack) -> list[str]:
    """Return the ids of the releases, the newest first, and after them the current one."""
    script = "ls -r releases | grep '^[0-9]'; readlink releases/current"
    return stack.machine.run("sh", "-c", script, folder=stack.directory).lines()


@pytest.fixture(scope="module")
def used(stack: Stack, old: Controller) -> Used:
    """Have rows, edited files, a backup, two releases and the lock of a run that was killed."""
    items = {stack.create_item(name): name for name in ("before the backup", "another")}
    replayed = add_once(stack)
    edit(stack)
    cookie, visits = visit(stack)
    backup = old.play("playbooks/backup.yml")
    assert backup.code == 0, backup.output
    old.deploy("prod", *EARLIER)
    items[stack.create_item("after the backup")] = "after the backup"
    said = answers(stack, next(iter(items)))
    lock = ("test", "-e", f"/run/{stack.project}.lock")
    run = old.start("site.yml", "-e", "env=prod", *EARLIER)
    wait_until(lambda: stack.machine.try_run(*lock).code == 0, 90, "the run has the lock")
    kill_tree(run.pid)
    run.communicate()
    return Used(
        snapshot(stack), items, replayed, cookie, visits, releases(stack), said, replicas(stack)
    )


@dataclass
class TakenOver:
    """The current code's deploy, and what was seen of the stack meanwhile and after."""

    run: Run
    load: Load
    mixed: dict[str, Any]
    after: Snapshot
    replicas: dict[str, set[str]]


def disown_lock(stack: Stack, *, hours: int) -> None:
    """Make the lock that is there one of another controller, so many hours old."""
    path = f"/run/{stack.project}.lock"
    holder = json.loads(stack.machine.read(path))
    holder["run"] = "-".join(["elsewhere", *holder["run"].split("-")[1:]])
    stack.machine.run("sh", "-c", 'echo "$1" >"$2"', "sh", json.dumps(holder), path)
    stack.machine.run("touch", "-d", f"-{hours} hours", path)


@pytest.fixture(scope="module")
def taken_over(used: Used, stack: Stack, controller: Controller) -> TakenOver:
    """Deploy with the current code, under load, so that each replica is replaced."""
    assert used.items
    disown_lock(stack, hours=3)
    mine = stack.create_item("changed all the while")
    with steady_load(stack, rate=40, slow=0) as load, watched(stack, mine) as mixed:
        run = controller.deploy("prod", *EARLIER, *ALL_REPLICAS)
    return TakenOver(run, load, mixed, snapshot(stack), replicas(stack))


def test_status_releases_and_plan_read_the_earlier_stack_and_change_nothing(
    used: Used, stack: Stack, controller: Controller
) -> None:
    status = controller.play("playbooks/status.yml")
    assert status.code == 0, status.output
    assert used.releases[-1] in status.output, status.output
    listed = controller.play("playbooks/releases.yml").output
    for each in used.releases:
        assert each in listed, listed
    assert "frontend replicas: 3 -> 1" in listed, listed
    plan = controller.deploy("prod", "--check", "--diff", *EARLIER, *ALL_REPLICAS)
    assert "500M" in plan.output, plan.output
    assert snapshot(stack) == used.before
    assert releases(stack) == used.releases


def test_lock_of_a_run_elsewhere_is_respected(
    used: Used, stack: Stack, controller: Controller
) -> None:
    """Whether it is over cannot be seen from here, before its hours are."""
    disown_lock(stack, hours=0)
    rejected = controller.play("site.yml", "-e", "env=prod", *EARLIER)
    assert_rejected_in_one_line(rejected)
    assert "deploy" in rejected.errors[0], rejected.output
    assert snapshot(stack) == used.before


def test_deploy_loses_no_row(used: Used, taken_over: TakenOver, stack: Stack) -> None:
    assert used.before.rows - taken_over.after.rows == set()
    assert used.before.volume == taken_over.after.volume
    for path, name in used.items.items():
        response = stack.get(path)
        assert (response.status, response.json()["name"]) == (200, name), str(response)
    assert add_once(stack)["id"] == used.replayed["id"]
    assert missing_writes(stack, taken_over.load) == []


def test_deploy_keeps_secrets_and_edited_files(used: Used, taken_over: TakenOver) -> None:
    assert taken_over.after.secrets == used.before.secrets
    assert taken_over.after.edited == used.before.edited


def test_database_cache_and_gateway_are_recreated_only_where_announced(
    used: Used, taken_over: TakenOver, stack: Stack
) -> None:
    """A visit counter lives in the cache alone."""
    recreated = interrupted(used.before, taken_over.after)
    assert recreated - announced(taken_over.run) == set()
    if "cache" not in recreated:
        assert visit(stack, used.cookie)[1] == used.visits + 1


def test_no_request_fails_but_where_announced(taken_over: TakenOver) -> None:
    assert taken_over.load.requests > 300
    if not announced(taken_over.run):
        assert not taken_over.load.failures(), taken_over.load.failures()


def test_apis_of_both_releases_know_each_others_replicas(used: Used, taken_over: TakenOver) -> None:
    """Old and new serve side by side; what one writes, the other does not read stale."""
    mixed, was, now = taken_over.mixed, used.replicas, taken_over.replicas
    assert not was["api"] & now["api"]
    assert not was["frontend"] & now["frontend"]
    assert knew(mixed, was["api"], now["api"]), mixed["seen"]
    assert knew(mixed, now["api"], was["api"]), mixed["seen"]
    assert knew(mixed, now["api"], was["frontend"]), mixed["seen"]
    assert mixed["stale"] == []


def test_pages_and_apis_of_both_releases_understand_each_other(
    used: Used, taken_over: TakenOver, stack: Stack
) -> None:
    """The old page reads what new apis say, and the new page what old ones do."""
    was, now = used.answers, answers(stack, next(iter(used.items)))
    for state in ("ok", "degraded"):
        assert state in was.states, was.states
    said = {
        state
        for seen in taken_over.mixed["seen"].values()
        for each in seen.values()
        for state in each
    }
    assert was.keys - now.keys == set(), "the old page and old apis read these"
    assert was.headers - now.headers == set()
    old_page, page = understood(earlier.checkout()), understood(ROOT)
    for source, states in ((old_page, now.states | said), (page, was.states | said)):
        assert {state for state in states if f'"{state}"' not in source} == set()
    new_keys = {key.rpartition(".")[2] for key in now.keys} - {
        key.rpartition(".")[2] for key in was.keys
    }
    read = {key for key in new_keys if re.search(rf"\b{re.escape(key)}\b", page)}
    assert read == set(OPTIONAL_KEYS)


def test_units_and_files_keep_their_names(used: Used, taken_over: TakenOver) -> None:
    """One of another name would run beside the one that is there."""
    assert len(used.before.units) >= 2
    assert taken_over.after.units == used.before.units
    assert used.before.paths - taken_over.after.paths == set()


def test_a_further_deploy_changes_nothing(
    taken_over: TakenOver, stack: Stack, controller: Controller
) -> None:
    again = controller.deploy("prod", *EARLIER, *ALL_REPLICAS)
    assert again.changed == 0, again.output
    assert snapshot(stack).lives == taken_over.after.lives


@pytest.mark.usefixtures("taken_over")
def test_backup_and_drill_go_on_with_the_earlier_repository(
    stack: Stack, controller: Controller
) -> None:
    """First the drill, of the earlier commit's backup and all that was written since."""
    number = len(stack.sql("SELECT id FROM items"))
    drill = controller.play("playbooks/restore_drill.yml")
    assert drill.code == 0, drill.output
    assert re.search(rf"\bitems\s+{number} rows", drill.output), drill.output
    place = f"{stack.directory}/backups/plain/backup/{stack.project}"
    kept = f"ls {place} | grep F$"
    before = stack.machine.run("sh", "-c", kept).lines()
    backup = controller.play("playbooks/backup.yml")
    assert backup.code == 0, backup.output
    after = stack.machine.run("sh", "-c", kept).lines()
    assert len(before) == 1
    assert len(after) == 2
    assert before[0] in after


def test_rollback_to_the_earlier_release_works_or_is_rejected_in_one_line(
    used: Used, taken_over: TakenOver, stack: Stack, controller: Controller
) -> None:
    """Then the replicas of both releases serve side by side the other way round."""
    now = replicas(stack)
    mine = next(iter(used.items))
    name = used.items[mine]
    with steady_load(stack, rate=40, slow=0) as load, watched(stack, mine) as mixed:
        run = controller.play("playbooks/rollback.yml")
    stack.send("PUT", mine, {"name": name})
    after = snapshot(stack)
    assert stack.problems() == []
    assert used.before.rows - after.rows == set()
    assert after.secrets == used.before.secrets
    assert missing_writes(stack, load) == []
    assert interrupted(taken_over.after, after) - announced(run) == set()
    if not announced(run):
        assert not load.failures(), load.failures()
    if run.code != 0:
        assert_rejected_in_one_line(run)
        assert replicas(stack) == now
        return
    assert releases(stack)[-1] == used.releases[-1]
    assert {each.host_config["Memory"] for each in stack.of("api")} == {512 * 2**20}
    earlier_ones = replicas(stack)
    assert knew(mixed, now["api"], earlier_ones["api"]), mixed["seen"]
    assert knew(mixed, earlier_ones["api"], now["api"]), mixed["seen"]
    assert knew(mixed, earlier_ones["api"], now["frontend"]), mixed["seen"]
    assert mixed["stale"] == []
