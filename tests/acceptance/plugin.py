"""Options, the stack that is checked, and the summary by promise: for all checks on lab machines.

Left out by default are checks that change the running stack, even briefly: --disruptive runs
them too. Each leaves the stack as it found it.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ..controller import Controller
from .machine import Machine
from .promises import HARDENING, TITLES, Tally, summary
from .report import Check, Command, NotWrittenError, Section, write
from .settings import SERVICES, Settings
from .stack import Container, Stack
from .swarm_stack import SwarmStack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testinfra.host import Host

TALLIES = pytest.StashKey[dict[str, dict[int | str, Tally]]]()
ITEMS = pytest.StashKey[dict[str, tuple[str, tuple[int | str, ...]]]]()
SECTIONS = pytest.StashKey[dict[str, Section]]()
CHECK = pytest.StashKey[Check]()
# What became of the page.
WRITTEN = pytest.StashKey[str]()
# The promise whose checks see secrets.
SECRETS = 15


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what these checks can be told."""
    group = parser.getgroup("stackyard")
    group.addoption(
        "--disruptive",
        action="store_true",
        help="also run the checks that change the running stack (it is left as found)",
    )
    group.addoption(
        "--long",
        action="store_true",
        help="also run the checks that take long, and those that count with more",
    )
    group.addoption(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="stack_settings",
        help="a setting that was given with -e at deploy time; may be repeated",
    )
    group.addoption(
        "--report",
        metavar="PATH",
        type=Path,
        help="also write an HTML page with the evidence for each promise",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, and have testinfra find Ansible beside this Python."""
    here = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    config.addinivalue_line("markers", "promise(number, ...): the promises that the check is for")
    config.addinivalue_line("markers", "disruptive: changes the running stack, if only briefly")
    config.addinivalue_line(
        "markers", "compose(reason): not on a stack that Docker Swarm runs, as docs/swarm.md says"
    )
    config.addinivalue_line("markers", "watched: the watchdog does its work meanwhile")
    config.addinivalue_line("markers", "slow: runs a program for seconds; not in make test-unit")
    config.addinivalue_line("markers", "long: run by make test-long alone")
    config.stash[TALLIES] = defaultdict(lambda: defaultdict(Tally))
    config.stash[ITEMS] = {}
    config.stash[SECTIONS] = {}


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


def _host_of(item: pytest.Item) -> Host | None:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("_testinfra_host") if callspec else None


def _machine_of(item: pytest.Item) -> str:
    host = _host_of(item)
    return host.backend.get_pytest_id() if host else "no machine"


def _settings(host: Host, config: pytest.Config) -> Settings:
    # Only an inventory has variables; --hosts=ssh://... has none.
    inventory = host.backend.NAME == "ansible"
    return Settings(host.ansible.get_variables() if inventory else {}, _given(config))


def _not_on_a_swarm(item: pytest.Item, config: pytest.Config) -> str:
    """Why the check is not for the stack at hand; nothing where it is."""
    mark, host = item.get_closest_marker("compose"), _host_of(item)
    return mark.args[0] if mark and host and _settings(host, config).swarm else ""


def _note(item: pytest.Item, promises: tuple[int | str, ...], left_out: str) -> None:
    """Keep a place for the check in the report, among those of its machine."""
    host = _host_of(item)
    if host is None or not item.config.getoption("report"):
        return
    machine = _machine_of(item)
    sections = item.config.stash[SECTIONS]
    if machine not in sections:
        name = getattr(host.backend, "host", machine)
        settings = _settings(host, item.config)
        tallies = item.config.stash[TALLIES][machine]
        sections[machine] = Section(name, Machine(host), settings, tallies=tallies)
    given = [str(value) for name, value in item.callspec.params.items() if not name.startswith("_")]
    name = item.originalname.removeprefix("test_").replace("_", " ")
    text = inspect.cleandoc(item.function.__doc__ or "").partition("\n\n")[0]
    check = Check(
        f"{name}: {', '.join(given)}" if given else name,
        " ".join(text.split()),
        promises,
        SECRETS in promises,
        "left out" if left_out else "not run",
        reason=left_out,
    )
    sections[machine].checks.append(check)
    item.stash[CHECK] = check


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Look first and touch later; leave out what was not asked for."""
    _given(config)
    if not config.getoption("long"):
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    ours = [item for item in items if item.path.is_relative_to(config_folder())]
    left_out = []
    for item in ours:
        machine, promises = _machine_of(item), _promises(item)
        config.stash[ITEMS][item.nodeid] = machine, promises
        not_here = _not_on_a_swarm(item, config)
        asked_for = config.getoption("disruptive") or not item.get_closest_marker("disruptive")
        why = (
            f"not on a swarm: {not_here}"
            if not_here
            else ""
            if asked_for
            else "not without --disruptive"
        )
        _note(item, promises, why)
        if not why:
            continue
        left_out.append(item)
        for number in promises:
            tally = config.stash[TALLIES][machine][number]
            names = tally.not_on_a_swarm.setdefault(not_here, []) if not_here else tally.left_out
            names.append(item.name)
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
    check = item.stash.get(CHECK, None)
    if check:
        _keep(check, report, call)
    Machine.heard.clear()
    return report


def _keep(check: Check, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
    """Keep what a phase of the check came to, and what it ran."""
    check.seconds += report.duration
    check.commands += [Command.of(result, secret=check.secret) for result in Machine.heard]
    if report.failed or report.skipped:
        check.outcome = "failed"
        if call.excinfo and not check.secret:
            check.reason = call.excinfo.exconly(tryshort=True)[:2000]
    elif report.when == "call":
        check.outcome = "passed"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Write the page, where all checks ran that were to run."""
    path, sections = session.config.getoption("report"), session.config.stash[SECTIONS]
    if not path or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    try:
        write(path, list(sections.values()))
        session.config.stash[WRITTEN] = f"The evidence, as a page to keep: {path}"
    except (NotWrittenError, AssertionError, RuntimeError) as error:
        session.config.stash[WRITTEN] = f"{path} was not written: {error}"
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what holds and what does not, by machine and promise."""
    for machine, tallies in sorted(config.stash[TALLIES].items()):
        terminalreporter.section(f"promises on {machine}")
        for line, failed in summary(tallies):
            terminalreporter.write_line(line, red=failed, bold=failed)
    if WRITTEN in config.stash:
        terminalreporter.write_line(f"\n{config.stash[WRITTEN]}")


@pytest.fixture(scope="module")
def stack(host: Host, pytestconfig: pytest.Config) -> Stack:
    """The stack on the machine at hand."""
    settings = _settings(host, pytestconfig)
    return SwarmStack(host, settings) if settings.swarm else Stack(host, settings)


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
    assert not missing, f"no container of {sorted(missing)}:\n{stack.overview()}"
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
