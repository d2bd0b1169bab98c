"""What make plan says: what would start, be replaced and removed; never nothing."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from .conftest import ROOT, start_ansible

ROLE = ROOT / "roles" / "stack_deploy"
REPLICAS = {"gateway": 1, "frontend": 3, "api": 2, "database": 1, "cache": 1}
CONVERGED: dict[str, Any] = {
    "wanted": {name: {"replicas": number} for name, number in REPLICAS.items()},
    "containers": [{"name": "x-cache-1", "service": "cache", "health": "healthy"}],
    **{"outdated": {}, "starts": {}, "removes": [], "stale": [], "changes": {}},
    **{"edited": [], "drift": [], "release": "20260101-000000", "settled": True},
}


def said(template: str, **variables: Any) -> str:
    """Return what a template of the role says, in check mode."""
    start_ansible()
    loader = DataLoader()
    internal = loader.load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True)
    given = {"ansible_check_mode": True, "ansible_search_path": [str(ROLE)], **variables}
    text = f"{{{{ lookup('ansible.builtin.template', '{ROLE}/templates/{template}') }}}}"
    templar = Templar(loader=loader, variables=internal | given)
    return str(templar.template(trust_as_template(text)) or "")


def plan(**found: Any) -> str:
    """Return what the plan says where these facts differ from those of a converged stack."""
    return said("plan.txt.j2", stack_deploy__found=CONVERGED | found)


def test_stopped_stack_says_what_would_start_and_how_many() -> None:
    """After make down there is no container, after docker compose stop there are stopped ones."""
    down = plan(containers=[], starts=REPLICAS, settled=False)
    assert "The stack is stopped. Release 20260101-000000 ran last." in down
    stopped = plan(starts=REPLICAS, settled=False, drift=["x-cache-1 is exited"])
    for text in (down, stopped):
        for name, number in REPLICAS.items():
            assert f"{name:9} would start: {number} of {number}." in text, text


def test_missing_replicas_are_named_with_their_number() -> None:
    assert "frontend  would start: 1 of 3." in plan(starts={"frontend": 1}, settled=False)


@pytest.mark.parametrize("found", [
    {}, {"settled": False}, {"drift": ["x-cache-1 is paused"]}, {"removes": ["x-old-1"]},
    {"edited": [".env is missing"]}, {"stale": ["gateway"]}, {"containers": [], "release": ""},
    {"release": ""}, {"starts": {"api": 1}}, {"outdated": {"cache": ["x-cache-1"]}},
    {"containers": [{"name": "x-api-1", "service": "api", "health": "starting"}]},
    {"changes": {"api": ["image: a -> b"]}}, {"containers": []},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("settled", [True, False])
def test_plan_is_never_empty(found: dict[str, Any], settled: bool) -> None:
    assert plan(**({"settled": settled} | found)).strip()


RUNNING = {"services": {name: {"problem": ""} for name in REPLICAS}}


@pytest.mark.parametrize("changes", [{}, {"api": ["image: a -> b"]}, {"api": ["replicas: 2 -> 3"]}])
@pytest.mark.parametrize("release", ["", "20260101-000000"])
@pytest.mark.parametrize("running", [{}, RUNNING])
def test_swarms_plan_is_never_empty_and_names_what_would_start(
    changes: dict[str, Any], release: str, running: dict[str, Any]
) -> None:
    found = CONVERGED | {"changes": changes, "release": release}
    text = said("swarm_plan.txt.j2", stack_deploy__found=found, stack_deploy__running=running)
    assert text.strip()
    assert ("database  would start." in text) is (bool(release) and not running), text
