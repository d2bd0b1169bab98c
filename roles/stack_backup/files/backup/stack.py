"""The stack on this machine: its database's container and volumes, and those who depend on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from engine import Refusal, attempt, inspect, run, say, wait_for

DATA = "/var/lib/postgresql/data"
REPOSITORIES = "/var/lib/pgbackrest"
HEALTHY_SECONDS = 120
FLUSH_SECONDS = 60


class Stack:
    """The Compose project that this program was installed with."""

    def __init__(self, directory: Path) -> None:
        """Take the project's directory; raise Refusal where nothing was deployed."""
        self.directory = directory
        try:
            text = (directory / ".env").read_text(encoding="utf-8")
        except OSError:
            raise Refusal(f"{directory} has no deployed stack: make up") from None
        self.project = re.findall(r"^COMPOSE_PROJECT_NAME=(.+)$", text, re.M)[0]
        self.database = f"{self.project}-database"
        self.data_volume = f"{self.project}_database-data"
        self.previous_volume = f"{self.data_volume}-previous"
        self.backups = directory / "backups"

    def container(self) -> dict[str, Any]:
        """What the engine knows of the database's container, running or not."""
        about = inspect("container", self.database)
        if about is None:
            raise Refusal(f"there is no container {self.database}: make up")
        if not any(mount["Destination"] == REPOSITORIES for mount in about["Mounts"]):
            raise Refusal(
                f"{self.database} has no backups mounted, as with an image of somebody else's or a"
                " stack from before backups: deploy our own image, make up"
            )
        return about

    def running(self) -> bool:
        """Whether the database answers."""
        ready = ["docker", "exec", self.database, "pg_isready", "-q", "-h", "127.0.0.1"]
        return attempt(ready).returncode == 0

    def require_running(self) -> None:
        """Raise Refusal unless the database answers."""
        self.container()
        if not self.running():
            raise Refusal(f"{self.database} does not answer: make up, then run this again")

    def sql(self, statement: str, database: str = "stackyard") -> str:
        """Ask the serving database over its own socket; return rows, columns separated by |."""
        return query(self.database, statement, database)

    def schema(self) -> str:
        """The schema's version, empty where the database does not say."""
        try:
            return self.sql("SELECT max(version_num) FROM schema_version")
        except Refusal:
            return ""

    def flush(self) -> None:
        """Have all that was written archived, up to a mark that a restore to now can find.

        A database that does not answer, or whose log is not archived, has nothing more to give.
        """
        if not self.running():
            say("the database does not answer: what it did not archive yet is in no backup")
            return
        known = self.sql("SELECT system_identifier FROM pg_control_system()")
        if known not in {path.read_text().strip() for path in self.backups.glob("*/archive-of")}:
            return
        self.sql("SELECT pg_create_restore_point('stackyard')")
        name = self.sql("SELECT pg_walfile_name(pg_switch_wal())")
        archived = f"SELECT coalesce(last_archived_wal >= '{name}', false) FROM pg_stat_archiver"
        if not wait_for(lambda: self.sql(archived) == "t", FLUSH_SECONDS, "archiving the log"):
            say(
                f"the log is not archived after {FLUSH_SECONDS} s: what was written last is missing"
            )

    def data(self, volume: str) -> Path:
        """Where the engine keeps a volume's files; raise Refusal where there is none."""
        about = inspect("volume", volume)
        if about is None:
            raise Refusal(f"there is no volume {volume}")
        return Path(about["Mountpoint"])

    def one_off(self, name: str, volume: str, config: Path) -> list[str]:
        """How to run something in the database's image, beside the stack and cut off from it.

        The repositories can only be read there.
        """
        about = self.container()
        mounts = [f"{volume}:{DATA}"] if volume else []
        mounts.append(f"{self.backups}:{REPOSITORIES}:ro")
        mounts.append(f"{config}:/etc/pgbackrest:ro")
        # The passwords of today, which a restored database is given.
        mounts += [
            f"{mount['Source']}:{mount['Destination']}:ro"
            for mount in about["Mounts"]
            if mount["Destination"].startswith("/run/secrets")
        ]
        user = about["Config"]["User"]
        owner = ",".join(f"{key}={user.split(':')[0]}" for key in ("uid", "gid"))
        command = ["docker", "run", f"--name={name}", f"--user={user}", "--network=none"]
        command += ["--init", "--read-only", "--cap-drop=ALL"]
        command += ["--security-opt=no-new-privileges:true"]
        command += [f"--label=stackyard.one-off={self.project}", "--shm-size=64m"]
        command += [f"--tmpfs=/tmp:size=16m,mode=0700,{owner}"]
        command += [f"--tmpfs=/var/run/postgresql:size=1m,mode=0700,{owner}"]
        limits = about["HostConfig"]
        command += [f"--memory={limits['Memory']}"] if limits["Memory"] else []
        command += [f"--cpus={limits['NanoCpus'] / 1e9}"] if limits["NanoCpus"] else []
        return command + [f"--volume={mount}" for mount in mounts]

    def of(self, service: str) -> list[str]:
        """The ids of a service's containers."""
        labels = [f"project={self.project}", f"service={service}", "oneoff=False"]
        filters = [f"--filter=label=com.docker.compose.{label}" for label in labels]
        return run("docker", "ps", "--all", "--quiet", *filters).split()

    def stop(self) -> None:
        """Stop the database, and the cache with it: it holds what was read there, in memory."""
        run("docker", "stop", "--time=60", self.database, *self.of("cache"))

    def start(self) -> None:
        """Start both."""
        run("docker", "start", self.database, *self.of("cache"))

    def healthy(self, services: tuple[str, ...]) -> bool:
        """Whether the services' own health checks pass now: the engine's word is seconds old."""
        for service in services:
            names = self.of(service)
            for name in names:
                kind, *check = (inspect("container", name) or {})["Config"]["Healthcheck"]["Test"]
                command = ["sh", "-c", *check] if kind == "CMD-SHELL" else check
                if attempt(["docker", "exec", name, *command]).returncode != 0:
                    return False
            if not names:
                return False
        return True

    def wait_healthy(self, *services: str) -> bool:
        """Wait for the services' health; tell whether it came."""
        doing = f"waiting for the health of {' and '.join(services)}"
        return wait_for(lambda: self.healthy(services), HEALTHY_SECONDS, doing)


def query(container: str, script: str, database: str) -> str:
    """Run SQL in a container over the server's socket, from standard input."""
    psql = ["docker", "exec", "--interactive", container, "psql", "-XAtq", "-vON_ERROR_STOP=1"]
    return run(
        *(*psql, "--username=postgres", f"--dbname={database}"),
        stdin=script, what=f"the database in {container}",
    ).strip()  # fmt: skip
