"""The configuration that people edit while the api runs."""

import logging
import os
import re
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from stackyard_api import metrics

log = logging.getLogger("stackyard.config")

LARGEST = 64 * 1024
# Nanoseconds. File times advance in ticks: of two changes within one tick the second
# may leave no trace. A file this young is read again at the next request.
TICK = 100_000_000


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content; what it leaves out has the value given here."""

    banner: Annotated[str, msgspec.Meta(max_length=200)] = "Stackyard"
    colour: Annotated[str, msgspec.Meta(pattern=r"^#[0-9a-fA-F]{6}$")] = "#2f6f9f"
    page_size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    features: dict[str, bool] = {}


class ConfigError(msgspec.Struct, frozen=True):
    """Why the file as it stands is not in use; the line is counted from 1, if known."""

    detail: str
    line: int | None


class LiveConfig:
    """The configuration file, re-read whenever it has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._young = False
        self.config = Config()
        self.error: ConfigError | None = None
        self.loaded_at: datetime | None = None

    def refresh(self) -> Config:
        """Look at the file and return what holds now: its content, or the last good one.

        Costs one stat call unless the file changed, so it is done at each request.
        """
        try:
            stat = os.stat(self._path)
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen or self._young:
                self._young = abs(time.time_ns() - stat.st_mtime_ns) < TICK
                self._seen = seen
                self._read()
        except OSError as error:
            self._seen = None
            self._fail(f"cannot read {self._path}: {error.strerror}", None)
        return self.config

    def _read(self) -> None:
        with self._path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            return self._fail(f"the file is larger than {LARGEST} bytes", None)
        try:
            text = raw.decode()
            config = msgspec.convert(tomllib.loads(text), Config)
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            return self._fail("not UTF-8 text", line)
        except tomllib.TOMLDecodeError as error:
            return self._fail(*_toml_error(str(error), text))
        except RecursionError:
            return self._fail("nested too deeply", None)
        except msgspec.ValidationError as error:
            return self._fail(str(error), _line_of(str(error), text))
        except ValueError as error:
            # Python's own bound on the digits of a number.
            return self._fail(str(error).partition(";")[0], None)
        if config != self.config or self.error or self.loaded_at is None:
            log.info("config loaded")
            self.loaded_at = datetime.now(UTC)
        self.config, self.error = config, None
        metrics.CONFIG.set(1)
        return None

    def _fail(self, detail: str, line: int | None) -> None:
        error = ConfigError(detail, line)
        if error != self.error:
            log.warning("config not usable, keeping the last good one: %s", detail)
        self.error = error
        metrics.CONFIG.set(0)


def _toml_error(message: str, text: str) -> tuple[str, int]:
    """tomllib puts the place into its message only."""
    match = re.search(r"\(at line (\d+), column \d+\)", message)
    return message, int(match[1]) if match else text.count("\n") + 1


def _line_of(message: str, text: str) -> int | None:
    """The line of the key that a validation message names, or None."""
    match = re.search(r"\$\.(\w+)", message) or re.search(r"unknown field `([^`]+)`", message)
    if not match:
        return None
    key = re.escape(match[1])
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(rf"""\s*(\[\s*)?["']?{key}["']?\s*[=\].]""", line):
            return number
    return None
