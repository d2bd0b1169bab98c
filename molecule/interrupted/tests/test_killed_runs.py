"""Runs killed at a random task, one after another; the next whole run repairs what they left."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.stack import Stack
    from tests.controller import Controller

KILLED_RUNS = 4
KILLED_RUNS_LONG = 10
# Each gives a run something to do in another role: an engine to restart, a role's files to render,
# secrets to mend, containers to replace, to add, to remove, to bring back.
CHANGES = [
    [
        "-e",
        "env=prod",
        "-e",
        json.dumps({"docker_engine_daemon_config": {"max-concurrent-uploads": 4}}),
    ],
    ["-e", "env=prod", "-e", "stack_compose_api_memory=640M"],
    [
        "-e",
        "env=prod",
        "-e",
        "stack_compose_frontend_replicas=5",
        "-e",
        "stack_compose_api_replicas=3",
    ],
    [
        "-e",
        "env=prod",
        "-e",
        "stack_compose_frontend_replicas=1",
        "-e",
        "stack_compose_api_replicas=1",
    ],
    ["-e", "env=prod", "-e", "stack_compose_database_memory=900M"],
    ["-e", "env=dev"],
]
MISHAPS = [
    "true",
    "chmod 0644 secrets/*",
    "rm docker-compose.yml",
    "docker compose down",
    "docker compose stop database",
]


def test_what_killed_runs_leave_is_repaired_by_the_next(
    stack: Stack, controller: Controller, pytestconfig: pytest.Config
) -> None:
    """Healthy, unchanged by a further run, with every row that was acknowledged before."""
    # To have the same runs again: STACKYARD_SEED=... make molecule SCENARIO=interrupted
    seed = int(os.environ.get("STACKYARD_SEED") or random.randrange(2**32))
    chance = random.Random(seed)
    item = stack.create_item("kept through killed runs")
    whole = controller.deploy("prod", "-e", "stack_compose_api_memory=600M")
    tasks = whole.output.count("\nTASK [")
    story = [f"STACKYARD_SEED={seed}, {tasks} tasks"]
    for _ in range(KILLED_RUNS_LONG if pytestconfig.getoption("long") else KILLED_RUNS):
        mishap, change = chance.choice(MISHAPS), chance.choice(CHANGES)
        stack.machine.try_run("sh", "-c", mishap, folder=stack.directory)
        # The first half is preflight, which has nothing to leave half done.
        task = controller.deploy_killed_at(chance.randint(tasks // 2, tasks), *change)
        story.append(f"{mishap}; {' '.join(change)}: killed after {task or 'its end'}")
    told = "\n".join(story)
    mended = controller.play("site.yml", "-e", "env=prod")
    if mended.code != 0:
        pytest.fail(f"{told}\nnot mended:\n{mended.output}", pytrace=False)
    assert stack.problems() == [], told
    answer = stack.get(item)
    assert answer.status == 200, f"{told}\nthe item is lost: {answer}"
    again = controller.deploy("prod")
    assert again.changed == 0, f"{told}\nstill changing:\n{again.output}"
    stack.send("DELETE", item)
    print(told)
