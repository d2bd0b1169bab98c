"""A port that somebody else holds is refused, and its holder named."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..playbook import docker
from .conftest import PROJECT, play, variables

if TYPE_CHECKING:
    from collections.abc import Iterator

HELD = 21081
PUBLISHED = 21082
NEIGHBOUR = f"{PROJECT}-neighbour"


@pytest.fixture
def listener() -> Iterator[str]:
    """Listen as another program would; return what it is to be called."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", HELD))
        server.listen()
        name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
        yield f"{name} (process {os.getpid()})"


@pytest.fixture
def neighbour() -> Iterator[str]:
    """Run a container of another project, on an empty image with this machine's own programs."""
    image = f"{PROJECT}:empty"
    subprocess.run(
        f"tar --create --files-from /dev/null | docker import - {image}",
        shell=True,
        check=True,
        capture_output=True,
    )
    try:
        docker(
            *("run", "--detach", "--init", "--name", NEIGHBOUR),
            *("--label", "com.docker.compose.project=somebody-else"),
            *("--publish", f"127.0.0.1:{PUBLISHED}:80"),
            *(word for path in ("/bin", "/lib", "/lib64", "/usr") if Path(path).exists()
              for word in ("--volume", f"{path}:{path}:ro")),
            *(image, "/bin/sleep", "300"),
        )  # fmt: skip
        yield NEIGHBOUR
    finally:
        subprocess.run(["docker", "rm", "--force", NEIGHBOUR], check=False, capture_output=True)
        docker("image", "rm", image)


@pytest.mark.usefixtures("nothing_altered")
def test_port_held_by_another_program_is_refused_with_its_name(listener: str) -> None:
    setting = "stack_compose_http_port"
    run = play(*variables(env="prod", **{setting: str(HELD)}))
    run.assert_refused([f"Port {HELD} is held by {listener}. ", f": -e {setting}=..."])


@pytest.mark.usefixtures("nothing_altered")
def test_port_published_by_another_project_is_refused_with_the_containers_name(
    neighbour: str, listener: str
) -> None:
    run = play(
        *variables(
            env="dev",
            stack_compose_https_port=str(HELD),
            stack_compose_cache_debug_port=str(PUBLISHED),
        )
    )
    run.assert_refused(
        [
            f"Port {PUBLISHED} is held by container {neighbour}.",
            f"Port {HELD} is held by {listener}.",
            "-e stack_compose_https_port=... -e stack_compose_cache_debug_port=...",
        ]
    )


def test_port_published_by_the_project_itself_is_not_refused(neighbour: str) -> None:
    assert neighbour
    run = play(
        *variables(
            env="prod", stack_compose_http_port=str(PUBLISHED), stack_project="somebody-else"
        )
    )
    assert run.code == 0, run.output
