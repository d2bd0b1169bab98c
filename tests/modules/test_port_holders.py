"""port_holders names who holds a port, as it is on this machine now."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from .conftest import ROOT, Module

port_holders = Module(ROOT / "roles" / "stack_compose" / "library" / "port_holders.py")
PROJECT = "stackyard-modules"
# What `docker ps` prints, in the columns that the module asks for.
PUBLISHED = {
    "single": ("0.0.0.0:{port}->8080/tcp, [::]:{port}->8080/tcp", True),
    "range": ("127.0.0.1:{before}-{port}->8000-8001/tcp", True),
    "unpublished": ("{port}/tcp", False),
    "udp": ("0.0.0.0:{port}->53/udp", False),
}


def listening(stack: ExitStack, family: socket.AddressFamily, address: str) -> int:
    """Listen on a free port for as long as the stack lives, and return the port."""
    server = stack.enter_context(socket.socket(family))
    server.bind((address, 0))
    server.listen()
    return int(server.getsockname()[1])


def free_port() -> int:
    """Return a port that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """Return the directory of a docker that prints what the test writes to its file `ps`."""
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\ncat "{tmp_path}/ps"\n')
    program.chmod(0o755)
    return tmp_path


def test_free_port_is_not_held() -> None:
    result = port_holders(ports=[free_port()], project=PROJECT)
    assert (result.changed, result.answer["holders"]) == (False, {})


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_program_that_listens_is_named_with_its_process(address: str) -> None:
    name = Path("/proc/self/comm").read_text(encoding="utf-8").strip()
    with ExitStack() as stack:
        port = listening(stack, socket.AF_INET, address)
        free = free_port()
        result = port_holders(ports=[free, port], project=PROJECT)
    assert result.answer["holders"] == {str(port): f"{name} (process {os.getpid()})"}


def test_program_that_listens_on_all_addresses_of_both_kinds_is_named() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        result = port_holders(ports=[port], project=PROJECT)
    assert f"(process {os.getpid()})" in result.answer["holders"][str(port)]


def test_port_of_a_closed_connection_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            pass
    assert port_holders(ports=[port], project=PROJECT).answer["holders"] == {}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_port_that_a_container_publishes_is_held_by_it(docker: Path, kind: str) -> None:
    port = free_port()
    text, held = PUBLISHED[kind]
    line = f"neighbour\tother\t\t{text.format(port=port, before=port - 1)}\n"
    (docker / "ps").write_text(line)
    path = f"{docker}:{os.environ['PATH']}"
    result = port_holders(ports=[port], project=PROJECT, path=path)
    assert result.answer["holders"] == ({str(port): "container neighbour"} if held else {})


def test_port_that_the_project_itself_publishes_is_not_held(docker: Path) -> None:
    with ExitStack() as stack:
        # With a userland proxy, the project's own port has a listener too.
        port = listening(stack, socket.AF_INET, "127.0.0.1")
        (docker / "ps").write_text(f"own\t{PROJECT}\t\t127.0.0.1:{port}->80/tcp\n")
        path = f"{docker}:{os.environ['PATH']}"
        result = port_holders(ports=[port], project=PROJECT, path=path)
    assert result.answer["holders"] == {}


@pytest.mark.parametrize(("stack", "held"), [(PROJECT, False), ("other", True), ("", True)])
def test_port_that_a_stack_publishes_is_its_own(docker: Path, stack: str, held: bool) -> None:
    port = free_port()
    (docker / "ps").write_text(f"{PROJECT}_gateway.1\t\t{PROJECT}\t0.0.0.0:{port}->80/tcp\n")
    path = f"{docker}:{os.environ['PATH']}"
    result = port_holders(ports=[port], project=PROJECT, stack=stack, path=path)
    assert result.answer["holders"] == (
        {str(port): f"container {PROJECT}_gateway.1"} if held else {}
    )
    # Whoever asks: a stack of Compose's cannot be beside it.
    assert result.answer["on_a_swarm"]


def test_stack_of_another_name_is_none_of_the_projects(docker: Path) -> None:
    (docker / "ps").write_text("other_gateway.1\t\tother\t\n")
    result = port_holders(ports=[], project=PROJECT, path=f"{docker}:{os.environ['PATH']}")
    assert not result.answer["on_a_swarm"]


def test_machine_without_docker_is_answered_too(tmp_path: Path) -> None:
    result = port_holders(ports=[free_port()], project=PROJECT, path=str(tmp_path))
    assert result.answer["holders"] == {}


def test_port_that_is_no_number_is_an_error_in_one_line() -> None:
    assert "ports" in port_holders(ports=["http"], project=PROJECT).message
