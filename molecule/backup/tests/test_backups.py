"""Backups that are made, tried, fetched, damaged, encrypted, let go, and returned to."""

from __future__ import annotations

import json
import threading
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.machine import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.acceptance.machine import Result
    from tests.acceptance.stack import Stack
    from tests.controller import Controller, Run

KEY = "correct-horse-battery#staple=1"
PROGRAM = ("/usr/bin/python3", "/opt/stackyard/bin/backup")
# Other each time, for machines that are kept.
FIRST, SECOND = (f"{name} {uuid.uuid4()}" for name in ("the first", "the second"))
STOP = "/run/stackyard-test-stop"
REPOSITORIES = "/opt/stackyard/backups"


def attempt(stack: Stack, *arguments: str) -> Result:
    """Run the program on the machine, as the plays and the timer do."""
    return stack.machine.try_run(*PROGRAM, *arguments, seconds=180)


def program(stack: Stack, *arguments: str) -> str:
    """Run it; it has to succeed."""
    result = attempt(stack, *arguments)
    assert result.code == 0, str(result)
    return result.out


def refused(stack: Stack, *arguments: str) -> str:
    """Return the one line in which the program refuses."""
    result = attempt(stack, *arguments)
    assert result.code == 1, str(result)
    (line,) = result.err.splitlines()
    return line


def played(controller: Controller, verb: str, **settings: object) -> Run:
    """Run the play of a verb; it has to succeed."""
    run = controller.play(f"playbooks/{verb}.yml", "-e", json.dumps(settings))
    assert run.code == 0, run.output
    return run


def newest(stack: Stack) -> dict[str, Any]:
    """What the last backup left to be read."""
    return json.loads(stack.machine.read(f"{REPOSITORIES}/newest.json"))


def tables(stack: Stack) -> list[dict[str, Any]]:
    """Rows and checksums of the serving database."""
    return json.loads(program(stack, "tables"))


def names(stack: Stack) -> set[str]:
    """The names of all items."""
    return {name for (name,) in stack.sql("SELECT name FROM items")}


def lives(stack: Stack) -> dict[str, tuple[str, str, int]]:
    """What changes when something is restarted or replaced."""
    return {each.name: each.life for each in stack.containers()}


@contextmanager
def writing(stack: Stack, prefix: str) -> Iterator[list[str]]:
    """Store items all the while; afterwards the list has those that were acknowledged."""
    acknowledged: list[str] = []
    stack.machine.run("rm", "-f", STOP)
    request = {"url": stack.url("/api/items"), "prefix": prefix, "stop": STOP, "seconds": 120}
    thread = threading.Thread(
        target=lambda: acknowledged.extend(
            stack.machine.program("writes", request, 150)["acknowledged"]
        )
    )
    thread.start()
    try:
        yield acknowledged
    finally:
        stack.machine.run("touch", STOP)
        thread.join()


def test_nothing_is_kept_before_the_first_backup(stack: Stack) -> None:
    """PostgreSQL archives, and the archive is empty: a stack without backups fills no disk."""
    stack.create_item("before the first backup")
    (name,) = stack.sql("SELECT pg_walfile_name(pg_switch_wal())")[0]
    wait_until(
        lambda: stack.sql("SELECT last_archived_wal FROM pg_stat_archiver")[0][0] >= name,
        10,
        "PostgreSQL takes the segment for archived",
    )
    assert stack.machine.run("ls", "-A", REPOSITORIES).lines() == []
    about = stack.machine.run("stat", "-c", "%u:%g %a", REPOSITORIES).out.strip()
    assert about == "999:999 700"
    line = refused(stack, "drill")
    assert "there is no backup" in line
    assert "make backup" in line


def test_backup_is_made_while_items_are_stored(stack: Stack, controller: Controller) -> None:
    with writing(stack, "while it is made") as acknowledged:
        run = played(controller, "backup")
    about = newest(stack)
    assert about["label"] in run.output
    stop = datetime.fromisoformat(about["stopped"])
    assert abs((datetime.now(UTC) - stop).total_seconds()) < 60
    assert 0 < about["stored"] < about["size"]
    assert len(acknowledged) > 10
    assert set(acknowledged) <= names(stack)
    assert stack.problems() == []


def test_drill_has_what_the_serving_database_has(stack: Stack, controller: Controller) -> None:
    """Of what was written since the backup too; and it leaves nothing behind."""
    stack.create_item("after the backup")
    before, volumes = lives(stack), stack.machine.run("docker", "volume", "ls", "-q").lines()
    live = tables(stack)
    assert sum(table["rows"] for table in live) > 10
    run = played(controller, "restore_drill")
    words = run.output.split()
    for table in live:
        at = words.index(table["name"])
        assert words[at + 1 : at + 4] == [str(table["rows"]), "rows", table["checksum"] + "'"], (
            run.output
        )
    assert lives(stack) == before
    assert stack.machine.run("docker", "volume", "ls", "-q").lines() == volumes
    assert stack.machine.run("docker", "ps", "-aq", "--filter=name=drill").out == ""


def test_restore_to_a_time_has_exactly_what_was_there(stack: Stack, controller: Controller) -> None:
    """The first write and not the second, in the cache neither; and the way back."""
    first = stack.create_item(FIRST)
    time.sleep(1)
    between = stack.sql("SELECT clock_timestamp()")[0][0]
    time.sleep(1)
    second = stack.create_item(SECOND)
    assert stack.get(second).status == 200
    then = names(stack) - {SECOND}
    with writing(stack, "after that time"):
        run = played(controller, "restore", stack_backup_time=between)
    assert "without the database for" in run.output
    stack.wait_healthy()
    assert names(stack) >= then
    assert {name for name in names(stack) - then if "after that time" not in name} == set()
    assert (stack.get(first).status, stack.get(second).status) == (200, 404)
    played(controller, "restore", stack_backup_undo=True)
    stack.wait_healthy()
    assert (stack.get(first).status, stack.get(second).status) == (200, 200)


def test_restore_of_the_newest_has_all_that_was_written(stack: Stack) -> None:
    """Through the timelines that the restores before began."""
    live = tables(stack)
    program(stack, "restore")
    stack.wait_healthy()
    assert tables(stack) == live
    label = newest(stack)["label"]
    program(stack, "restore", f"--label={label}")
    stack.wait_healthy()
    assert FIRST not in names(stack)
    assert any("while it is made" in name for name in names(stack))
    program(stack, "restore", "--undo")
    stack.wait_healthy()
    assert tables(stack) == live


def test_killed_restores_lose_nothing_and_the_next_ends_well(stack: Stack) -> None:
    """Killed at four points in a row, each run going on from what the one before left."""
    arguments = ["restore", f"--label={newest(stack)['label']}"]
    request = {"directory": stack.directory, "arguments": arguments}
    kept = f"kept {uuid.uuid4()}"
    stack.create_item(kept)
    with writing(stack, f"meanwhile {uuid.uuid4()}") as acknowledged:
        for point in ("restoring", "recovering", "switching", "exchanged"):
            done = stack.machine.program("killed", request | {"point": point}, 120)
            assert done["killed"], f"{point}: {done['output']}"
            if point in ("restoring", "recovering"):
                assert stack.problems() == []
    finished = program(stack, *arguments)
    assert "that was this restore" in finished, finished
    stack.wait_healthy()
    assert kept not in names(stack)
    # Nothing was acknowledged after the exchange: the database was away.
    program(stack, "restore", "--undo")
    stack.wait_healthy()
    assert acknowledged
    assert {*acknowledged, kept} <= names(stack)
    assert stack.machine.run("docker", "ps", "-aq", "--filter=name=restore").out == ""


def test_a_database_that_lost_its_files_comes_back_whole(stack: Stack) -> None:
    live = tables(stack)
    stack.machine.run("docker", "stop", "stackyard-database")
    data = "/var/lib/docker/volumes/stackyard_database-data/_data"
    stack.machine.run("rm", "-r", f"{data}/global")
    stack.machine.run("docker", "start", "stackyard-database")
    said = program(stack, "restore")
    assert "does not answer" in said
    stack.wait_healthy()
    assert tables(stack) == live


DAMAGES = {
    "a flipped byte": (
        "p=$(find \"$1\" -path '*bundle/1'); "
        'python3 -c \'import sys; f = open(sys.argv[1], "r+b"); f.seek(99999); b = f.read(1); '
        'f.seek(99999); f.write(bytes([b[0] ^ 1]))\' "$p"'
    ),
    "a file cut short": 'truncate -s 5000 "$(find "$1" -path \'*bundle/1\')"',
    "a file removed": 'rm "$(find "$1" -path \'*bundle/1\')"',
    "no manifest": 'rm "$1"/backup.manifest*',
    "a manifest cut short": 'truncate -s 500 "$1"/backup.manifest*',
    "no list of backups": 'truncate -s 90 "$1"/../backup.info*',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_backup_is_refused_and_nothing_touched(stack: Stack, damage: str) -> None:
    about = newest(stack)
    place = f"{REPOSITORIES}/{about['repository']}"
    stack.machine.run("cp", "-a", place, f"{place}.kept")
    try:
        stack.machine.run(
            "sh", "-c", DAMAGES[damage], "sh", f"{place}/backup/stackyard/{about['label']}"
        )
        before, live = lives(stack), tables(stack)
        line = refused(stack, "restore")
        assert any(word in line for word in ("is damaged", "cannot be read")), line
        assert lives(stack) == before
        assert tables(stack) == live
    finally:
        stack.machine.run("rm", "-r", place)
        stack.machine.run("mv", f"{place}.kept", place)


def test_damaged_log_is_refused_and_nothing_touched(stack: Stack) -> None:
    """Neither a hole nor a bad segment is taken for the end."""
    program(stack, "backup")
    for each in range(2):
        stack.create_item(f"in the log {each}")
        stack.sql("SELECT pg_switch_wal()")
        time.sleep(2)
    live, before = tables(stack), lives(stack)
    place = f"{REPOSITORIES}/{newest(stack)['repository']}"
    script = 'find "$1/archive" -name "0*-*" -printf "%f %p\\n" | sort | tail -2 | head -1'
    segment = stack.machine.run("sh", "-c", script, "sh", place).out.split()[1]
    stack.machine.run("cp", "-a", segment, "/root/segment")
    try:
        stack.machine.run("truncate", "-s", "3000", segment)
        assert "damaged" in refused(stack, "restore")
        stack.machine.run("rm", segment)
        assert "the archive lacks" in refused(stack, "restore")
    finally:
        stack.machine.run("mv", "/root/segment", segment)
    assert (tables(stack), lives(stack)) == (live, before)


def test_retention_lets_the_oldest_go(stack: Stack, controller: Controller) -> None:
    played(controller, "backup", stack_backup_keep=2)
    program(stack, "backup")
    place = f"{REPOSITORIES}/plain/backup/stackyard"
    kept = sorted(name for name in stack.machine.run("ls", place).lines() if name.endswith("F"))
    assert len(kept) == 2
    assert kept[-1] == newest(stack)["label"]
    program(stack, "prepare", f"--label={kept[0]}")
    assert "there is no backup" in refused(stack, "prepare", "--label=20200101-000000F")


def test_bad_input_has_one_line(stack: Stack, controller: Controller) -> None:
    for text in ("yesterday", "2026-11-23 09:00:00"):
        assert f"TIME is '{text}'" in refused(stack, "restore", f"--time={text}")
    assert "still to come" in refused(stack, "restore", "--time=2199-01-01 00:00:00+00")
    assert "no backup is from before" in refused(stack, "restore", "--time=2020-01-01 00:00:00+00")
    run = controller.play("playbooks/restore.yml", "-e", "stack_backup_from=/nowhere.tar")
    assert run.code != 0
    assert any("there is no such file" in error for error in run.errors), run.output


def test_fetched_copy_restores(stack: Stack, controller: Controller, tmp_path: Path) -> None:
    item = stack.create_item("in the copy")
    played(controller, "backup", stack_backup_fetch=str(tmp_path / "copies"))
    (copy,) = (tmp_path / "copies").glob("*.tar")
    stack.send("DELETE", item)
    played(controller, "restore", stack_backup_from=str(copy))
    stack.wait_healthy()
    assert stack.get(item).status == 200
    assert stack.machine.try_run("test", "-e", f"{REPOSITORIES}/from").code == 1
    # Its log goes on in the machine's own repository, on a timeline that is new there.
    later = stack.create_item("after the copy")
    program(stack, "restore")
    stack.wait_healthy()
    assert (stack.get(item).status, stack.get(later).status) == (200, 200)
    with copy.open("r+b") as stream:
        stream.seek(50000)
        stream.write(b"damage")
    run = controller.play("playbooks/restore.yml", "-e", f"stack_backup_from={copy}")
    assert run.code != 0
    assert any("has not the checksum" in error for error in run.errors), run.output


def test_encrypted_backups_are_read_with_their_key_alone(
    stack: Stack, controller: Controller
) -> None:
    mark = f"a secret thing {uuid.uuid4()}"
    item = stack.create_item(mark)
    run = played(controller, "backup", stack_backup_key=KEY)
    assert KEY not in run.output
    place = f"{REPOSITORIES}/{newest(stack)['repository']}"
    assert place.rpartition("/")[2].startswith("key-")
    label = newest(stack)["label"]
    # Compressed text is not text either: what tells is how the files begin.
    files = 'find "$1/backup" "$1/archive" -type f -size +0'
    script = f"{files} -exec head -qc 8 {{}} \\; | grep -ao Salted__ | wc -l"
    count = f"{files} | wc -l"
    for name, encrypted in ((place, True), (f"{REPOSITORIES}/plain", False)):
        there, salted = (
            int(stack.machine.run("sh", "-c", each, "sh", name).out) for each in (count, script)
        )
        assert there > 5
        assert salted == (there if encrypted else 0), name
    assert stack.machine.try_run("grep", "-rqF", mark, place).code == 1
    found = stack.machine.try_run("grep", "-rlF", KEY, stack.directory).lines()
    assert found == [f"{stack.directory}/config/backup/conf.d/key.conf"]
    about = stack.machine.run("stat", "-c", "%u:%g %a", found[0]).out.strip()
    assert about == "999:999 400"
    inspected = stack.machine.run("docker", "inspect", "stackyard-database").out
    assert "archive_mode" in inspected
    assert KEY not in inspected
    # Another key, and none: the old backups are there, and what was made with this one is not read.
    # Another key: it is told whose the backups are. None: those without a key are there as before.
    wrong = json.dumps({"stack_backup_key": "another-long-key"})
    run = controller.play("playbooks/restore.yml", "-e", wrong)
    assert run.code != 0
    (error,) = run.errors
    assert "was made with this key" in error, error
    assert place.rpartition("/")[2] in error, error
    run = controller.play("playbooks/restore.yml", "-e", f"stack_backup_label={label}")
    assert run.code != 0
    assert f"there is no backup {label}; there are 2" in " ".join(run.errors), run.output
    stack.send("DELETE", item)
    played(controller, "restore", stack_backup_key=KEY, stack_backup_label=label)
    stack.wait_healthy()
    assert mark in names(stack)


def test_timer_makes_backups_and_goes(stack: Stack, controller: Controller) -> None:
    tagged = ("site.yml", "-e", "env=prod", "--tags=stack_backup")
    before = newest(stack)["label"]
    try:
        run = controller.play(*tagged, "-e", json.dumps({"stack_backup_timer": "*:*:0/20"}))
        assert run.code == 0, run.output
        wait_until(
            lambda: newest(stack)["label"] != before,
            30,
            "the timer made a backup",
            lambda: stack.machine.try_run("journalctl", "-u", "stackyard-backup").text,
        )
        again = controller.play(*tagged, "-e", json.dumps({"stack_backup_timer": "*:*:0/20"}))
        assert again.changed == 0, again.output
    finally:
        run = controller.play(*tagged)
    assert run.code == 0, run.output
    units = stack.machine.run("systemctl", "list-units", "--all", "stackyard-backup*").out
    assert "stackyard-backup.timer" not in units
    script = "ls /etc/systemd/system | grep -c stackyard-backup"
    assert stack.machine.try_run("sh", "-c", script).out.strip() == "0"
