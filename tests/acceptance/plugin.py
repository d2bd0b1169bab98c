"""Options, the stack that is checked, and the summary by promise: for all checks on lab machines.

Left out by default are checks that change the running stack, even briefly: --disruptive runs
them too. Each leaves the stack as it found it.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ..controller import Controller
from .promises import HARDENING, TITLES, Tally, summary
from .settings import SERVICES, Settings
from .stack import Container, Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

TALLIES = pytest.StashKey[dict[str, dict[int | str, Tally]]]()
ITEMS = pytest.StashKey[dict[str, tuple[str, tuple[int | str, ...]]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what these checks can be told."""
    group = parser.getgroup("stackyard")
    group.addoption(
        "--disruptive",
        action="store_true",
        help="also run the checks that change the running stack (it is left as found)",
    )
    group.addoption(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="stack_settings",
        help="a setting that was given with -e at deploy time; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and have testinfra find Ansible beside this Python."""
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    config.addinivalue_line("markers", "promise(number, ...): the promises that the check is for")
    config.addinivalue_line("markers", "disruptive: changes the running stack, if only briefly")
    config.addinivalue_line("markers", "watched: the watchdog does its work meanwhile")
    config.stash[TALLIES] = defaultdict(lambda: defaultdict(Tally))
    config.stash[ITEMS] = {}


def _given(config: pytest.Config) -> dict[str, Any]:
    given = {}
    for text in config.getoption("stack_settings"):
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise pytest.UsageError(f"--set {text}: write --set NAME=VALUE")
        given[name] = yaml.safe_load(value)
    return given


def _promises(item: pytest.Item) -> tuple[int | str, ...]:
    numbers = [number for mark in item.iter_markers("promise") for number in mark.args]
    unknown = [number for number in numbers if number not in (*TITLES, HARDENING)]
    if unknown or not numbers:
        raise pytest.UsageError(f"{item.nodeid} is marked with promise {unknown or 'of no number'}")
    return tuple(dict.fromkeys(numbers))


def _machine_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    host = callspec.params.get("_testinfra_host") if callspec else None
    return host.backend.get_pytest_id() if host else "no machine"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Look first and touch later; leave out what was not asked for."""
    _given(config)
    ours = [item for item in items if item.path.is_relative_to(config_folder())]
    left_out = []
    for item in ours:
        machine, promises = _machine_of(item), _promises(item)
        config.stash[ITEMS][item.nodeid] = machine, promises
        if item.get_closest_marker("disruptive") and not config.getoption("disruptive"):
            left_out.append(item)
            for number in promises:
                config.stash[TALLIES][machine][number].left_out.append(item.name)
    items[:] = sorted(
        (item for item in items if item not in left_out),
        key=lambda item: item.get_closest_marker("disruptive") is not None,
    )
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def config_folder() -> str:
    """The folder whose checks are counted."""
    return __file__.rpartition("/")[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Count each check for its promises: passed once its call passed and nothing else failed."""
    report = yield
    machine, promises = item.config.stash[ITEMS].get(item.nodeid, ("", ()))
    for number in promises:
        tally = item.config.stash[TALLIES][machine][number]
        # A check that skips itself is counted as one that does not hold: nobody has seen it hold.
        if report.failed or report.skipped:
            if item.name not in tally.failed:
                tally.failed.append(item.name)
            if item.name in tally.passed:
                tally.passed.remove(item.name)
        elif call.when == "call":
            tally.passed.append(item.name)
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what holds and what does not, by machine and promise."""
    for machine, tallies in sorted(config.stash[TALLIES].items()):
        terminalreporter.section(f"promises on {machine}")
        for line, failed in summary(tallies):
            terminalreporter.write_line(line, red=failed, bold=failed)


@pytest.fixture(scope="module")
def stack(host: Host, pytestconfig: pytest.Config) -> Stack:
    """The stack on the machine at hand."""
    # Only an inventory has variables; --hosts=ssh://... has none.
    inventory = host.backend.NAME == "ansible"
    variables = host.ansible.get_variables() if inventory else {}
    return Stack(host, Settings(variables, _given(pytestconfig)))


@pytest.fixture(scope="module")
def controller(host: Host, pytestconfig: pytest.Config) -> Controller:
    """Runs of the playbooks against the machine at hand."""
    inventory = pytestconfig.getoption("--ansible-inventory")
    return Controller(Path(inventory).resolve(), host.backend.host)


@pytest.fixture(scope="module")
def containers(stack: Stack) -> list[Container]:
    """All containers, looked at once a file; some of each service, so that no loop is empty."""
    found = stack.containers()
    missing = set(SERVICES) - {each.service for each in found}
    assert not missing, f"no container of {sorted(missing)}:\n{stack.try_compose('ps', '-a')}"
    return found


@pytest.fixture(scope="module")
def kernel(stack: Stack, containers: list[Container]) -> dict[str, dict[str, Any]]:
    """What the kernel knows about each of them, by name; looked at once a file."""
    return stack.kernel(containers)


@pytest.fixture(autouse=True)
def _as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start a disruptive check on a healthy stack, and leave that behind, whatever happens."""
    if request.node.get_closest_marker("disruptive") is None:
        yield
        return
    stack: Stack = request.getfixturevalue("stack")
    stack.wait_healthy(30)
    counts = stack.counts()
    # What is broken on purpose is nothing for the watchdog, but where it is what is checked.
    held = request.node.get_closest_marker("watched") is None
    if held:
        stack.hold()
    try:
        yield
        stack.restore(counts)
    finally:
        if held:
            stack.release()
