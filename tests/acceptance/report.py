"""The page that make verify leaves: what was promised, what was checked, and what was seen.

It is one file that needs no other. Before it is written, each machine is asked whether a value of
its secrets stands in it: the values themselves never leave the machine.
"""

from __future__ import annotations

import base64
import html
import json
import os
import re
import subprocess
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from .promises import LINES, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .machine import Machine, Result
    from .settings import Settings

TEMPLATE = "report.html.j2"
ROOT = Path(__file__).parents[2]
LONGEST_COMMAND = 300
LONGEST_OUTPUT = 600
# The kernel takes 128 KB in an argument, of which ssh makes one.
CHUNK = 60_000
# More than any secret is long, so that none can fall between two chunks.
OVERLAP = 8_000
# What would hold a secret's value, were a promise broken; or what the stack's users wrote.
NEVER_SHOWN = re.compile(
    r"\binspect\b(?!, of all)|\blogs\b|\bconfig --format\b|\btop\b|/(kernel|strain)\.py"
)
# A line each: the system, the engine, the active files; the rest is the release's record.
ABOUT = r"""
cd "$1" 2>/dev/null
. /etc/os-release; echo "$PRETTY_NAME"
docker version --format '{{.Server.Version}}' 2>/dev/null || echo -
sed -n 's/^COMPOSE_FILE=[^:]*:docker-compose[.]\([a-z]*\)[.]yml/\1/p' .env 2>/dev/null |
  sed 's/:docker-compose[.]swarm[.]yml/, on a swarm/' | grep . || echo -
cat releases/current/release.json 2>/dev/null || true
"""


class NotWrittenError(Exception):
    """Why there is no page."""


@dataclass(frozen=True)
class Command:
    """A command on the machine, as the page shows it."""

    line: str
    code: int
    seconds: float
    # None where it may not be shown.
    output: str | None

    @classmethod
    def of(cls, result: Result, *, secret: bool) -> Command:
        """Shorten what was run; of what may hold a secret, keep the exit status alone."""
        line = " ".join(result.command.split())
        text = result.text
        shown: str | None = text
        if len(text) > LONGEST_OUTPUT:
            shown = f"{text[: LONGEST_OUTPUT // 2]} … ({len(text)} characters)"
        if secret or NEVER_SHOWN.search(line):
            shown = None
        if len(line) > LONGEST_COMMAND:
            line = f"{line[:LONGEST_COMMAND]} … ({len(line)} characters)"
        return cls(line, result.code, result.seconds, shown)


@dataclass
class Check:
    """A check on one machine, with what came of it."""

    name: str
    text: str
    promises: tuple[int | str, ...]
    # Of its outputs none is shown.
    secret: bool
    outcome: str = "passed"
    seconds: float = 0
    reason: str = ""
    commands: list[Command] = field(default_factory=list)


@dataclass
class Section:
    """One machine: who it is, and its checks."""

    machine: str
    access: Machine
    settings: Settings
    checks: list[Check] = field(default_factory=list)
    tallies: Mapping[int | str, Tally] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    # The secrets that stood in an output; then no output of this machine is shown.
    held: list[str] = field(default_factory=list)

    def look(self) -> None:
        """Ask the machine what it is and what it runs."""
        folder = self.settings.directory
        shown = self.access.try_run("sh", "-c", ABOUT, "sh", folder).out.split("\n", 3)
        system, engine, env, release = [*shown, *[""] * 4][:4]
        try:
            known = json.loads(release)
            parts = [str(known[key]) for key in ("id", "at", "commit") if known.get(key)]
        except ValueError:
            parts = []
        self.about = {
            "Environment": env,
            "Release": ", ".join(parts) or "none recorded",
            "Project": f"{self.settings.project} in {folder}",
            "Engine": f"Docker {engine} on {system}",
        }

    def secrets_in(self, page: str) -> list[str]:
        """Have the machine look for its secrets in a page; return the names of those it finds."""
        text = page + html.unescape(page)
        found: set[str] = set()
        # Half-compressed at worst, so cut by the length of what is sent.
        step = CHUNK * 4
        for start in range(0, len(text), step):
            raw = zlib.compress(text[start : start + step + OVERLAP].encode())
            request = {
                "directory": self.settings.directory,
                "text": base64.b64encode(raw).decode(),
            }
            answer = self.access.program("secrets_scan", request)
            if not answer["known"]:
                raise NotWrittenError(f"no secret of {self.machine} can be read to look for it")
            found.update(answer["held"])
        return sorted(found)

    def withhold(self, held: list[str]) -> None:
        """Leave out all that came from the machine."""
        self.held = held
        for check in self.checks:
            check.reason = ""
            check.commands = [
                Command("left out", each.code, each.seconds, None) for each in check.commands
            ]


def commit() -> str:
    """Return the commit of this checkout, or nothing where it is none."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def render(sections: Sequence[Section]) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    now = datetime.now(UTC)
    return environment.get_template(TEMPLATE).render(
        sections=sections,
        promises=LINES,
        nothing=Tally(),
        date=f"{now:%Y-%m-%d %H:%M} UTC",
        commit=commit(),
    )


def write(path: Path, sections: Sequence[Section]) -> None:
    """Write the page, whole or not at all; raise NotWrittenError where that cannot be."""
    for each in sections:
        each.look()
    page = render(sections)
    for each in sections:
        held = each.secrets_in(page)
        if held:
            each.withhold(held)
    if any(each.held for each in sections):
        page = render(sections)
        if any(each.secrets_in(page) for each in sections):
            raise NotWrittenError("a secret would stand in it, even without any output")
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(page, encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        raise NotWrittenError(f"{error.filename}: {error.strerror}") from error
