"""A connection to the database, with the password that it takes just now."""

import contextlib
from typing import Any

import asyncpg

from stackyard_api.settings import Settings, read_passwords


async def connect(settings: Settings, **options: Any) -> asyncpg.Connection:
    """Connect; asyncpg's errors and OSError where that fails.

    The file is read each time, so that a rotated password is used from then on. While it is
    rotated it holds the password to come as well, and the server takes one of the two.
    """
    passwords = read_passwords(settings.database_password_file)
    options |= {
        "host": settings.database_host,
        "port": settings.database_port,
        "database": settings.database_name,
        "user": settings.database_user,
        # The network holds api and database only; TLS would be asked for in vain.
        "ssl": False,
    }
    for password in passwords[:-1]:
        with contextlib.suppress(asyncpg.InvalidPasswordError):
            return await asyncpg.connect(password=password, **options)
    return await asyncpg.connect(password=passwords[-1], **options)
