"""What the environment decides, read once at start."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingsError(ValueError):
    """An environment variable holds a value that cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. Times are in seconds; passwords are only ever paths to files."""

    replica: str
    port: int
    api_host: str
    frontend_host: str
    frontend_port: int
    database_host: str
    database_port: int
    database_name: str
    database_user: str
    database_password_file: Path
    database_pool_size: int
    cache_host: str
    cache_port: int
    cache_user: str
    cache_password_file: Path
    cache_ttl: int
    session_ttl: int
    config_file: Path
    log_level: str
    log_format: str
    docs: bool

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the settings; raise SettingsError with the variable and its value."""

        def text(name: str, default: str) -> str:
            return environment.get(name, "").strip() or default

        def number(name: str, default: int, lowest: int, highest: int) -> int:
            given = text(name, str(default))
            if not given.isdecimal() or not lowest <= int(given) <= highest:
                raise SettingsError(f"{name}={given!r}: must be {lowest} to {highest}")
            return int(given)

        def choice(name: str, default: str, *allowed: str) -> str:
            given = text(name, default).lower()
            if given not in allowed:
                raise SettingsError(f"{name}={given!r}: must be one of {', '.join(allowed)}")
            return given

        return cls(
            replica=socket.gethostname(),
            port=number("PORT", 8000, 1, 65535),
            api_host=text("API_HOST", "api"),
            frontend_host=text("FRONTEND_HOST", "frontend"),
            frontend_port=number("FRONTEND_PORT", 8080, 1, 65535),
            database_host=text("DATABASE_HOST", "database"),
            database_port=number("DATABASE_PORT", 5432, 1, 65535),
            database_name=text("DATABASE_NAME", "stackyard"),
            database_user=text("DATABASE_USER", "api"),
            database_password_file=Path(
                text("DATABASE_PASSWORD_FILE", "/run/secrets/api_database_password")
            ),
            database_pool_size=number("DATABASE_POOL_SIZE", 8, 1, 100),
            cache_host=text("CACHE_HOST", "cache"),
            cache_port=number("CACHE_PORT", 6379, 1, 65535),
            cache_user=text("CACHE_USER", "api"),
            cache_password_file=Path(
                text("CACHE_PASSWORD_FILE", "/run/secrets/api_cache_password")
            ),
            cache_ttl=number("CACHE_TTL", 60, 1, 86400),
            session_ttl=number("SESSION_TTL", 1800, 1, 2592000),
            config_file=Path(text("CONFIG_FILE", "/etc/stackyard/app.toml")),
            log_level=choice("LOG_LEVEL", "info", "info", "debug"),
            log_format=choice("LOG_FORMAT", "json", "json", "text"),
            docs=choice("DOCS", "off", "off", "on") == "on",
        )


def read_passwords(path: Path) -> list[str]:
    """A secret file's lines: the password, and while it is rotated, also the one to come.

    OSError when the file cannot be read. Never empty.
    """
    return path.read_text(encoding="utf-8").rstrip("\r\n").splitlines() or [""]
