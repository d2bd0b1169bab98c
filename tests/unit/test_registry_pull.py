"""registry_pull: in which order images come, what a failure leaves, and by which way."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.sources import load

from .engine import Engine, FailureError, Module, Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLE = Path(__file__).parents[2] / "roles/stack_images"
registry_pull = load(ROLE / "library/registry_pull.py")
action = load(ROLE / "action_plugins/registry_pull.py")
PREFIX = "stackyard"
WAY, OLD_WAY = "127.0.0.1:4711", "127.0.0.1:9"
IMAGES = {"lab/api:1": "sha256:aa", "lab/web:1": "sha256:bb"}


class Sender(Registry):
    """A registry whose first answers are errors."""

    def __init__(self, *errors: str, name: str = "") -> None:
        """Take the errors, and whose name they are for."""
        self.errors = list(errors)
        self.name = name
        self.asked: list[str] = []

    def send(self, name: str) -> str:
        """Return an image's id."""
        self.asked.append(name)
        if self.errors and self.name in name:
            raise FailureError(self.errors.pop(0))
        return super().send(name)


def pull(engine: Engine) -> None:
    """Pull the images."""
    to_engine = registry_pull.Engine(Module(engine, {}))
    registry_pull.pull(to_engine, WAY, IMAGES, PREFIX)


def refusal(engine: Engine) -> str:
    """Return why they could not be pulled."""
    with pytest.raises(registry_pull.PullError) as caught:
        pull(engine)
    return str(caught.value)


def test_images_have_their_names_and_no_other() -> None:
    engine = Engine()
    pull(engine)
    assert engine.images == IMAGES


def test_all_are_here_before_the_first_has_its_name() -> None:
    engine = Engine()
    engine.registry = Sender("manifest unknown", name="lab/web")
    assert refusal(engine) == "docker pull --quiet: manifest unknown"
    assert set(engine.images) == {f"{WAY}/{PREFIX}/lab/api@sha256:aa"}
    # The next run sees by that that this one did not come to its end.
    pull(engine)
    assert engine.images == IMAGES


def test_names_by_which_killed_runs_pulled_are_removed_and_no_others() -> None:
    engine = Engine()
    others = [
        "lab/api:0", f"{PREFIX}/lab/api:0", f"10.0.0.9:9/{PREFIX}/lab/api:0",
        f"{OLD_WAY}/{PREFIX}er/lab/api:0", f"127.0.0.1/{PREFIX}/lab/api:0",
    ]  # fmt: skip
    left = [f"{OLD_WAY}/{PREFIX}/lab/api@sha256:cc", f"{OLD_WAY}/{PREFIX}/lab/api:0"]
    engine.images = dict.fromkeys([*others, *left], "sha256:other")
    pull(engine)
    assert set(engine.images) == {*others, *IMAGES}


@pytest.mark.parametrize("times", [1, 4])
def test_pull_that_joined_one_of_a_killed_run_is_asked_for_again(times: int) -> None:
    engine = Engine()
    error = f'Get "http://{OLD_WAY}/v2/": dial tcp {OLD_WAY}: connect: connection refused'
    engine.registry = Sender(*[error] * times, name="lab/api")
    pull(engine)
    assert engine.images == IMAGES


def test_pull_is_not_asked_for_for_ever() -> None:
    engine = Engine()
    engine.registry = Sender(*[f"dial tcp {OLD_WAY}: refused"] * 9, name="lab/api")
    assert f"dial tcp {OLD_WAY}" in refusal(engine)
    assert len(engine.registry.asked) == 5


@pytest.mark.parametrize("error", [
    f"dial tcp {WAY}: connect: connection refused", "no space left on device",
    f"from {OLD_WAY} and {WAY}", "dial tcp 10.0.0.1:9: refused",
])  # fmt: skip
def test_failure_of_this_runs_own_is_told_at_once(error: str) -> None:
    engine = Engine()
    engine.registry = Sender(error, name="lab/api")
    assert refusal(engine) == f"docker pull --quiet: {error}"
    assert len(engine.registry.asked) == 1


# The way to the machine.


@pytest.fixture
def port() -> Iterator[int]:
    """A port of loopback that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_way_that_ends_at_loopback_is_taken(port: int) -> None:
    assert registry_pull.listeners(port) == [registry_pull.LOOPBACK[0]]
    registry_pull.require_loopback(port)


def test_way_over_loopback_of_the_newer_protocol_is_taken() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert registry_pull.listeners(port) == [registry_pull.LOOPBACK[1]]
        registry_pull.require_loopback(port)


@pytest.mark.parametrize(("address", "family"), [
    ("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6), ("127.0.0.2", socket.AF_INET),
])  # fmt: skip
def test_way_that_others_can_take_is_refused(address: str, family: socket.AddressFamily) -> None:
    with (
        socket.create_server((address, 0), family=family) as server,
        pytest.raises(registry_pull.PullError, match="GatewayPorts is yes"),
    ):
        registry_pull.require_loopback(server.getsockname()[1])


def test_way_that_was_not_opened_is_refused() -> None:
    free = registry_pull.free_port()
    with pytest.raises(registry_pull.PullError, match=f"opened no way to 127.0.0.1:{free}"):
        registry_pull.require_loopback(free)


# The controller's side.


@pytest.mark.parametrize(("network", "address"), [("unix", "/a/b"), ("tcp", WAY)])
def test_registry_on_the_way_can_be_written_by_nobody(network: str, address: str) -> None:
    about = json.loads(action.configuration("/store", network, address))
    assert about["storage"]["maintenance"]["readonly"] == {"enabled": True}
    assert about["storage"]["filesystem"] == {"rootdirectory": "/store"}
    assert about["http"] == {"net": network, "addr": address}


@pytest.mark.parametrize(("answer", "good"), [
    (b"HTTP/1.0 200 OK\r\n\r\n", True), (b"HTTP/1.0 503 Unavailable\r\n\r\n", False), (b"", False),
])  # fmt: skip
def test_registry_answers_or_does_not(tmp_path: Path, answer: bytes, good: bool) -> None:
    path = str(tmp_path / "end")
    program = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();"
        f" c, _ = s.accept(); c.recv(99); c.sendall({answer!r}); c.close(); input()"
    )
    with action.running([sys.executable, "-c", program, path], tmp_path / "errors"):
        while not Path(path).exists() or not listens(path):
            pass
        assert action.answers(path) is good


def listens(path: str) -> bool:
    """Tell whether the kernel has somebody listen at the path of a socket."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return any(line.endswith(path) and line.split()[3] == "00010000" for line in lines)


def test_nobody_answers_where_nobody_listens(tmp_path: Path) -> None:
    assert not action.answers(str(tmp_path / "none"))
    assert not action.answers(("127.0.0.1", registry_pull.free_port()))


def test_command_ends_with_its_standard_input(tmp_path: Path) -> None:
    with action.running(["sh", "-c", "echo words >&2; cat"], tmp_path / "errors") as process:
        assert process.poll() is None
    assert process.returncode == 0
    assert (tmp_path / "errors").read_text() == "words\n"
