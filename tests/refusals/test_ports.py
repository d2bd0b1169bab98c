"""A port that somebody else holds is refused, and its holder named.

That the stack's own ports are no obstacle is seen where good settings are not refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import Case, variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..acceptance.stack import Stack
    from .conftest import Attempt

HELD = "21081"
HELD_TOO = "21083"
PUBLISHED = "21082"
NEIGHBOUR = "refusals-neighbour"


def listening(port: str) -> str:
    """Return a script that has another program listen on a port, and waits until it does."""
    return f"""
      python3 -c 'import signal, socket
server = socket.create_server(("127.0.0.1", {port}))
signal.pause()' &
      while ! ss --listening --tcp --no-header 'sport = {port}' | grep --quiet .; do
        sleep 0.05
      done
    """


CASES = [
    Case("another program", variables(env="prod", stack_compose_http_port=HELD),
         [[f"Port {HELD} is held by python3 (process ", ": -e stack_compose_http_port=..."]],
         worse=listening(HELD)),
    Case("another project's container and another program",
         variables(env="dev", stack_compose_https_port=HELD_TOO,
                   stack_compose_cache_debug_port=PUBLISHED),
         [[f"Port {PUBLISHED} is held by container {NEIGHBOUR}.",
           f"Port {HELD_TOO} is held by python3 (process ",
           "-e stack_compose_https_port=... -e stack_compose_cache_debug_port=..."]],
         worse=listening(HELD_TOO)),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _neighbour(stack: Stack) -> Iterator[None]:
    """Have a container of another project on the machine, made from an image that is there."""
    machine = stack.machine
    image = stack.one("cache").data["Image"]
    machine.run("docker", "rm", "--force", NEIGHBOUR)
    try:
        machine.run(
            *("docker", "run", "--detach", "--init", "--name", NEIGHBOUR),
            *("--label", "com.docker.compose.project=somebody-else"),
            *("--publish", f"127.0.0.1:{PUBLISHED}:80"),
            *("--entrypoint", "sleep", image, "infinity"),
        )
        yield
    finally:
        machine.run("docker", "rm", "--force", "--volumes", NEIGHBOUR)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_port_that_is_held_is_refused_with_its_holder(case: Case, attempt: Attempt) -> None:
    attempt(case).assert_refused()
