"""Replica counts by settings, through runs of site.yml, while requests keep coming."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack
    from tests.controller import Controller

FINISHED = "/run/stackyard-scaled"
# Waits for the end of the run on the controller, two minutes at most.
UNTIL_FINISHED = f"for _ in $(seq 240); do [ -e {FINISHED} ] && exit; sleep 0.5; done; exit 1"


@pytest.mark.disruptive
def test_counts_follow_the_settings_and_no_request_fails(
    stack: Stack, controller: Controller
) -> None:
    lives = {each.name: each.life for each in stack.containers()}
    request = {
        "urls": [stack.url("/"), stack.url("/api/whoami"), stack.url("/api/items")],
        "clients": 2,
        "folder": "/",
        "phases": [{"command": ["sh", "-c", UNTIL_FINISHED], "settle": 0, "watch": 0}],
    }
    stack.machine.run("rm", "-f", FINISHED)
    with ThreadPoolExecutor(max_workers=1) as pool:
        load = pool.submit(stack.machine.program, "load", request, 150)
        try:
            for frontends, apis in ((5, 4), (1, 1)):
                controller.deploy(
                    *("prod", "-e", f"stack_compose_frontend_replicas={frontends}"),
                    *("-e", f"stack_compose_api_replicas={apis}"),
                )
                counts = stack.counts()
                assert (counts["frontend"], counts["api"]) == (frontends, apis)
                _every_replica_answers(stack)
            controller.deploy("prod")
        finally:
            stack.machine.run("touch", FINISHED)
        report = load.result()
    assert stack.counts() == stack.settings.counts
    failures = report["failures"]
    assert not failures, f"{len(failures)} of {report['requests']} failed:\n" + "\n".join(
        failures[:8]
    )
    assert report["requests"] > 500, f"too few to tell: {report['requests']}"
    # Those that were there all the time are the same ones.
    now = {each.name: each.life for each in stack.containers()}
    kept = [name for name in lives if not name[-1].isdigit() or name.endswith("-1")]
    assert {name: now[name] for name in kept} == {name: lives[name] for name in kept}


def _every_replica_answers(stack: Stack) -> None:
    for service, header, path in (
        ("frontend", "x-served-by", "/"),
        ("api", "x-replica", "/api/whoami"),
    ):
        answers = stack.ask([{"url": stack.url(path)}] * 60)
        wanted = {each.hostname for each in stack.of(service)}
        assert {answer.headers.get(header) for answer in answers} == wanted, stack.logs(service)
