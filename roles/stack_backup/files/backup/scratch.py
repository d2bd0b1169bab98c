"""A database of its own beside the serving one, without a network: restored, recovered, proven."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import tables
from engine import Refusal, attempt, complaint, inspect, run, say
from repository import STANZA, Backup, Repository, position, start_of
from stack import DATA, Stack, query

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

RECOVERY_SECONDS = 6 * 3600
# What pgBackRest writes for the recovery, and what a database that serves has no use for.
RECOVERY_SETTINGS = (
    "restore_command", "recovery_target", "recovery_target_time", "recovery_target_action",
    "recovery_target_timeline",
)  # fmt: skip
# The passwords of today: those in a backup may be of another day or another machine.
PASSWORDS = r"""
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
\set superuser `cat /run/secrets/database_superuser_password`
\set api `cat /run/secrets/database_api_password`
ALTER ROLE postgres PASSWORD :'superuser';
ALTER ROLE api PASSWORD :'api';
"""


class Scratch:
    """A volume and at most one container that runs on it, both with names of their own."""

    def __init__(self, stack: Stack, volume: str, container: str) -> None:
        """Take the names; what is there under them may be of a killed run."""
        self.stack = stack
        self.volume = volume
        self.container = container

    def remove_container(self) -> None:
        """Remove the container, whatever it is doing."""
        run("docker", "rm", "--force", "--volumes", self.container)

    def clear(self) -> None:
        """Remove both."""
        self.remove_container()
        if inspect("volume", self.volume) is not None:
            run("docker", "volume", "rm", self.volume)

    def create(self) -> None:
        """Begin with an empty volume."""
        self.clear()
        label = f"--label=com.docker.compose.project={self.stack.project}"
        run("docker", "volume", "create", label, self.volume)

    def command(self, config: Path, *arguments: str, detached: bool = False) -> str:
        """Run the database's image on the volume."""
        options = ["--detach"] if detached else ["--rm"]
        image = self.stack.container()["Config"]["Image"]
        return run(
            *(*self.stack.one_off(self.container, self.volume, config), *options, image),
            *arguments, what="in the scratch database",
        )  # fmt: skip

    def restore(self, repository: Repository, backup: Backup, target: list[str]) -> None:
        """Write the backup's files; every one is compared with its checksum."""
        self.create()
        # The image makes the directory for any user; PostgreSQL wants it for one.
        self.command(repository.config, "chmod", "0700", DATA)
        self.command(
            repository.config, "pgbackrest", STANZA, f"--set={backup.label}", *target, "restore"
        )

    def recover(self, config: Path, timeline: str, taken: int) -> None:
        """Start the server, have it replay the log along a timeline and become a primary.

        It begins a timeline of its own, numbered behind those that are `taken`. What it writes of
        that stays marked as not archived: it is archived when, and only if, it serves.
        """
        start = told = time.monotonic()
        # To find a free number, PostgreSQL asks for one history after another, and reads none.
        get = 'pgbackrest --stanza=stackyard archive-get %f "%p"'
        free = f"n=%f; test $n != ${{n%%.history}} && test $((0x${{n%%.history}})) -le {taken}"
        settings = [f"--recovery_target_timeline={timeline}"]
        settings.append(f'--restore_command={get} || {{ {free} && : >"%p"; }}')
        given = self.stack.container()["Config"]["Cmd"] or []
        own = ["--archive_mode=on", "--archive_command=false", "--listen_addresses="]
        self.command(config, *given, *own, *settings, detached=True)
        ask = ["docker", "exec", self.container, "psql", "-XAtq", "-Upostgres", "-dpostgres", "-c"]
        while True:
            about = inspect("container", self.container)
            if about is None or not about["State"]["Running"]:
                raise Refusal(self.reason())
            if attempt([*ask, "SELECT pg_is_in_recovery()"]).stdout.strip() == "f":
                return
            if time.monotonic() - start > RECOVERY_SECONDS:
                raise Refusal(f"the recovery took more than {RECOVERY_SECONDS} s")
            if time.monotonic() - told > 10:
                told = time.monotonic()
                at = attempt([*ask, "SELECT pg_last_xact_replay_timestamp()"]).stdout.strip()
                say(f"  replaying the log, {told - start:.0f} s: at {at or 'its beginning'}")
            time.sleep(0.2)

    def reason(self) -> str:
        """Why the server ended."""
        log = attempt(["docker", "logs", "--tail=60", self.container])
        text = log.stdout + log.stderr
        if "recovery ended before configured recovery target was reached" in text:
            return (
                f"the log in this repository ends before that time, at {self.as_of()}:"
                " leave TIME out for the newest"
            )
        return f"the restored database does not start: {complaint(log)}"

    def sql(self, statement: str, database: str = "stackyard") -> str:
        """Ask it."""
        return query(self.container, statement, database)

    def check_end(self, last: str) -> None:
        """Refuse a recovery that ended early: to PostgreSQL a damaged segment is one not there."""
        timeline = int(self.sql("SELECT timeline_id FROM pg_control_checkpoint()"))
        name = f"{DATA}/pg_wal/{timeline:08X}.history"
        history = run("docker", "exec", self.container, "cat", name)
        at = re.findall(r"^\d+\s+(\S+)", history, re.M)[-1]
        if position(at) < start_of(last):
            raise Refusal(
                f"the log is damaged after {at}, before its end in {last}, and nothing was touched:"
                " TIME= before that, or BACKUP=label"
            )

    def settle_in(self) -> None:
        """Take out what was for the recovery, and give the roles the passwords of today.

        A segment that was left half is archived under a name that another may have left before.
        """
        half = f"rm -f {DATA}/pg_wal/*.partial {DATA}/pg_wal/archive_status/*.partial.*"
        run("docker", "exec", self.container, "sh", "-c", half)
        for name in RECOVERY_SETTINGS:
            self.sql(f"ALTER SYSTEM RESET {name}")
        self.sql(PASSWORDS, "postgres")

    def prove(self) -> list[tables.Table]:
        """Read every row of every table, and compare indexes with them."""
        if not self.sql("SELECT max(version_num) FROM schema_version"):
            raise Refusal("the restored database has no schema of the api's")
        there = self.sql("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'") != "0"
        if not there:
            self.sql("CREATE EXTENSION amcheck")
        check = ["docker", "exec", self.container, "pg_amcheck", "--username=postgres"]
        run(*check, "--heapallindexed", "stackyard", what="pg_amcheck")
        if not there:
            self.sql("DROP EXTENSION amcheck")
        return tables.read(self.sql)

    def as_of(self) -> str:
        """When the last transaction that it replayed was committed, as its server said."""
        log = attempt(["docker", "logs", self.container])
        found = re.findall(
            r"last completed transaction was at log time (.+)", log.stdout + log.stderr
        )
        return found[-1] if found else ""

    def stop(self) -> None:
        """Have the server end well, and remove the container."""
        run("docker", "stop", "--time=60", self.container)
        about = inspect("container", self.container) or {"State": {"ExitCode": 1}}
        if about["State"]["ExitCode"] != 0:
            raise Refusal(f"the restored database did not end well: {self.reason()}")
        self.remove_container()


def target_of(label: str, until: datetime | None) -> list[str]:
    """How pgbackrest is told up to where to replay."""
    if until is not None:
        when = until.strftime("%Y-%m-%d %H:%M:%S.%f+00")
        return ["--type=time", f"--target={when}", "--target-action=promote"]
    if label:
        return ["--type=immediate", "--target-action=promote"]
    return []
