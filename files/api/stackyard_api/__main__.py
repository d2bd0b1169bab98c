"""Runs the api: one worker, since a second replica is the way to more."""

import asyncio
import os
import signal
import socket
import sys
from types import FrameType

import uvicorn

from stackyard_api import logs
from stackyard_api.app import create_app
from stackyard_api.settings import Settings, SettingsError

# Seconds for requests in flight at a stop, more than nginx waits for any; with all else below the
# grace period of a stop.
GRACE = 12


class Server(uvicorn.Server):
    """uvicorn, with a stop that loses no request that has already been accepted."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, let what was accepted arrive, then end as uvicorn does.

        uvicorn alone closes a connection whose request is still on its way; nginx
        could not repeat that request if it is a write.
        """
        for server in self.servers:
            server.close()
        await asyncio.sleep(0.3)
        await super().shutdown(sockets)


def _leave(_number: int, _frame: FrameType | None) -> None:
    # Reached before the server runs, and once more after it has stopped: uvicorn raises
    # the signal again then, and without this the exit code would be 143.
    raise SystemExit(0)


def main() -> None:
    """Serve until told to stop; exit code 1 when the environment cannot be used."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.exit(f"stackyard api: {error}")
    # Docker's DNS answers at once or never; more than a try would only hold a thread for longer.
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:1")
    logs.configure(settings.log_level, settings.log_format, settings.replica)
    Server(
        uvicorn.Config(
            create_app(settings),
            host="0.0.0.0",
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=1024,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=GRACE,
        )
    ).run()


if __name__ == "__main__":
    main()
